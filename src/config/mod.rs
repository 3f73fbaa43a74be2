// SPDX-License-Identifier: GPL-2.0-only
//! What the daemon is to do: by the command line, or by a configuration file whose keys are the same options.

pub mod changes;
pub mod file;
pub mod options;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

use crate::datapath::Hook;
use crate::datapath::interface::XdpMode;
use crate::error::{Error, Result};
use changes::{Texts, texts_of};
use file::Contents;
use options::Options;

/// The one option of `bpfw run` that no file has.
const CONFIG: &str = "config";

/// The settings of a daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hook.
    pub hook: Hook,
    /// The object file, or the embedded object.
    pub object: Option<PathBuf>,
    /// Names of interfaces, patterns, and exceptions of patterns.
    pub interfaces: Vec<String>,
    /// All options.
    pub options: Options,
    /// How to attach XDP.
    pub xdp_modes: XdpModes,
    /// All of a file's, to be compared.
    texts: Texts,
}

/// How to attach XDP to which interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpModes {
    /// To those that have no section of their own.
    usual: XdpMode,
    /// To the others, by name.
    by_name: BTreeMap<String, XdpMode>,
}

/// Arguments of `bpfw run`.
#[derive(Debug, Args)]
pub struct FromFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/bpfw.toml")]
    config: PathBuf,

    #[command(flatten)]
    options: Options,
}

/// Where the settings of `bpfw run` come from.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// The words of the command line behind `run`.
    words: Vec<OsString>,
}

impl Settings {
    /// Checks the words for interfaces.
    pub fn new(
        hook: Hook,
        object: Option<PathBuf>,
        interfaces: Vec<String>,
        options: Options,
    ) -> Result<Self> {
        if interfaces.is_empty() {
            return Err(Error::refused("no interface is named"));
        }
        for (place, name) in interfaces.iter().enumerate() {
            if interfaces[..place].contains(name) {
                return Err(Error::refused(format!("the interface {name} is named twice")));
            }
        }
        let is_pattern = |word: &String| word.contains(['*', '?']) && !word.starts_with('!');
        let exception = interfaces.iter().find(|word| word.starts_with('!'));
        if let Some(word) = exception.filter(|_| !interfaces.iter().any(is_pattern)) {
            let what = format!("there is no pattern that {word} could be an exception of");
            return Err(
                Error::refused(what).with_advice("a pattern is a name with * or ?, as br-*")
            );
        }
        let xdp_modes = XdpModes { usual: options.xdp_mode, by_name: BTreeMap::new() };
        Ok(Self { hook, object, interfaces, options, xdp_modes, texts: Texts::new() })
    }
}

impl XdpModes {
    /// How to attach XDP to the interface of this name.
    pub fn of(&self, interface: &str) -> XdpMode {
        self.by_name.get(interface).copied().unwrap_or(self.usual)
    }
}

impl Source {
    /// What was understood of `bpfw run`, and the words behind it.
    pub fn new(arguments: FromFile, words: Vec<OsString>) -> Self {
        Self { path: arguments.config, words }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. Options of the command line win over the file's.
    pub fn read(&self) -> Result<Settings> {
        let text = file::read(&self.path)?;
        let contents = Contents::parse(&text)
            .map_err(|mistake| Error::refused(format!("{}:{mistake}", self.path.display())))?;
        let in_file = |error: Error| Error::refused(format!("{}: {error}", self.path.display()));
        contents.settings(&self.words).map_err(in_file)
    }
}

impl Contents {
    /// The settings by this file and by these words behind `run`, which win.
    pub fn settings(self, words: &[OsString]) -> Result<Settings> {
        let Self { hook, object, interfaces, options, xdp_modes } = self;
        let hook = hook.ok_or_else(|| Error::refused("the key 'hook' is missing"))?;
        let from_file = options.iter().map(|(key, value)| format!("--{key}={value}").into());
        let command = Command::new("run").no_binary_name(true).args_override_self(true);
        let mut command = FromFile::augment_args(command);
        // Each of the two was understood alone.
        let understood = command
            .try_get_matches_from_mut(from_file.chain(words.iter().cloned()))
            .and_then(|matches| Ok((FromFile::from_arg_matches(&matches)?, matches)));
        let (FromFile { options, .. }, matches) =
            understood.map_err(|error| Error::refused(error.to_string()))?;
        let mut settings = Settings::new(hook, object, interfaces, options)?;
        settings.xdp_modes.by_name = xdp_modes;
        settings.texts = texts_of(&settings).collect();
        settings.texts.extend(command.get_arguments().filter_map(|arg| {
            let key = arg.get_long().filter(|key| *key != CONFIG)?;
            let text = matches.get_raw(arg.get_id().as_str())?.next()?;
            Some((key.to_owned(), text.to_string_lossy().into_owned()))
        }));
        Ok(settings)
    }
}
