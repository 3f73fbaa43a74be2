// SPDX-License-Identifier: GPL-2.0-only
//! The configuration file: TOML, in which each key is a long option. Its values are read by what reads the
//! command line, so both know the same words.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Command};
use nix::libc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::Options;
use crate::datapath::Hook;
use crate::datapath::interface::XdpMode;
use crate::error::{Error, Result};

/// No configuration is as long.
const LONGEST: u64 = 64 << 10;
/// Keys that are no options.
const OTHER_KEYS: [&str; 4] = ["hook", "interface", "interfaces", "object"];
/// What a section of an interface can say.
const XDP_MODE: &str = "xdp-mode";

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The hook.
    pub hook: Option<Hook>,
    /// The object file.
    pub object: Option<PathBuf>,
    /// Names of interfaces, patterns, and exceptions of patterns.
    pub interfaces: Vec<String>,
    /// Long options with their values. Each is one that the command line would take.
    pub options: Vec<(String, String)>,
    /// How to attach XDP to interfaces that have a section of their own.
    pub xdp_modes: BTreeMap<String, XdpMode>,
}

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct Mistake {
    line: usize,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// The text of a file, if it is a regular one: reading anything else may take forever.
pub fn read(path: &Path) -> Result<String> {
    let read = || -> std::io::Result<Option<String>> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let about = file.metadata()?;
        if !about.is_file() || about.len() > LONGEST {
            return Ok(None);
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        Ok(Some(text))
    };
    let text = read().map_err(|cause| {
        let error = Error::system(format!("reading {}", path.display()), cause);
        error.with_advice("it must be readable for the user that bpfw runs as")
    });
    text?.ok_or_else(|| Error::refused(format!("{} is no file of at most 64 KiB", path.display())))
}

/// A key, its value, and the line that it is in.
struct Entry<'a> {
    line: usize,
    key: &'a str,
    value: &'a DeValue<'a>,
}

impl Contents {
    /// Understands the text of a file.
    pub fn parse(text: &str) -> std::result::Result<Self, Mistake> {
        let table = DeTable::parse(text).map_err(|error| {
            let line = line_of(text, error.span().unwrap_or(0..0));
            Mistake { line, what: error.message().replace('\n', ", ") }
        })?;
        let mut contents = Self::default();
        for entry in entries(text, table.get_ref()) {
            contents.take(text, &entry)?;
        }
        Ok(contents)
    }

    fn take(&mut self, text: &str, entry: &Entry<'_>) -> std::result::Result<(), Mistake> {
        match entry.key {
            "hook" => {
                let word = entry.word()?;
                let known = [Hook::Xdp, Hook::Tc].into_iter().find(|hook| hook.name() == word);
                self.hook = Some(known.ok_or_else(|| {
                    entry.mistake(format!("invalid value '{word}' for 'hook': there are xdp, tc"))
                })?);
            }
            "object" => self.object = Some(entry.word()?.into()),
            "interfaces" => self.interfaces = entry.list()?,
            "interface" => {
                for section in entries(text, entry.table()?) {
                    let mode = section.xdp_mode(text)?;
                    self.xdp_modes.insert(section.key.to_owned(), mode);
                }
            }
            _ => self.options.push((entry.key.to_owned(), entry.option()?)),
        }
        Ok(())
    }
}

impl<'a> Entry<'a> {
    fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake { line: self.line, what: what.into() }
    }

    /// A string, or a number in decimal digits.
    fn word(&self) -> std::result::Result<String, Mistake> {
        word(self.value).ok_or_else(|| {
            self.mistake(format!("the value of '{}' must be a string or a number", self.key))
        })
    }

    fn list(&self) -> std::result::Result<Vec<String>, Mistake> {
        let array = self.value.as_array();
        let words = array.and_then(|all| all.iter().map(|one| word(one.get_ref())).collect());
        words.ok_or_else(|| {
            self.mistake(format!("the value of '{}' must be a list of strings", self.key))
        })
    }

    fn table(&self) -> std::result::Result<&'a DeTable<'a>, Mistake> {
        self.value.as_table().ok_or_else(|| {
            self.mistake(format!("'{}' must be a section, as [interface.wan0]", self.key))
        })
    }

    /// The value of a long option, if there is one of this name, and if it takes this value.
    fn option(&self) -> std::result::Result<String, Mistake> {
        let command = Options::augment_args(Command::new("")).no_binary_name(true);
        let keys: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        if !keys.contains(&self.key) {
            let keys = [&keys[..], &OTHER_KEYS].concat();
            return Err(self.mistake(unknown(self.key, &keys)));
        }
        let value = self.word()?;
        let tried = command.clone().try_get_matches_from([format!("--{}={value}", self.key)]);
        tried.map(|_| value.clone()).map_err(|error| {
            self.mistake(format!("invalid value '{value}' for '{}': {}", self.key, why(&error)))
        })
    }

    /// What the section of an interface says.
    fn xdp_mode(&self, text: &str) -> std::result::Result<XdpMode, Mistake> {
        let mut mode = None;
        for entry in entries(text, self.table()?) {
            if entry.key != XDP_MODE {
                return Err(entry.mistake(unknown(entry.key, &[XDP_MODE])));
            }
            mode = <XdpMode as clap::ValueEnum>::from_str(&entry.option()?, false).ok();
        }
        mode.ok_or_else(|| self.mistake(format!("the section of '{}' says nothing", self.key)))
    }
}

/// The keys and values of a table as they stand in the text.
fn entries<'a>(text: &str, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut all: Vec<(&Spanned<_>, &Spanned<_>)> = table.iter().collect();
    all.sort_by_key(|(key, _)| key.span().start);
    let entry =
        |(key, value): (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| Entry {
            line: line_of(text, key.span()),
            key: key.get_ref(),
            value: value.get_ref(),
        };
    all.into_iter().map(entry).collect()
}

fn line_of(text: &str, place: Range<usize>) -> usize {
    text.bytes().take(place.start).filter(|byte| *byte == b'\n').count() + 1
}

fn word(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.ok().map(|number| number.to_string())
        }
        _ => None,
    }
}

/// Why an option does not take its value, in the command line's words.
fn why(error: &clap::Error) -> String {
    if let Some(cause) = std::error::Error::source(error) {
        return cause.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) => format!("there are {}", words.join(", ")),
        _ => error.kind().to_string(),
    }
}

fn unknown(key: &str, keys: &[&str]) -> String {
    let nearest = keys.iter().map(|known| (distance(key, known), known)).min();
    match nearest {
        Some((steps, known)) if steps <= key.len() / 3 => {
            format!("there is no key '{key}' (did you mean '{known}'?)")
        }
        _ => format!("there is no key '{key}' (there are {})", keys.join(", ")),
    }
}

/// How many letters are to be changed, added or left out.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, other) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
