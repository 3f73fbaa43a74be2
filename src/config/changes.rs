// SPDX-License-Identifier: GPL-2.0-only
//! What a changed file means for a daemon that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;

use super::Settings;
use crate::datapath::interface::XdpMode;

/// Settings as text, by the key of the file.
pub(super) type Texts = BTreeMap<String, String>;

/// Keys that can change while the daemon runs. All others need a restart.
const LIVE: [&str; 6] =
    ["interfaces", "interval", "log-level", "offload-mark", "prove-every", "xdp-mode"];
/// What the key of an interface's section begins with.
const SECTION: &str = "interface.";
/// Stands for a key that the file does not have, and that has no default of its own.
const UNSET: &str = "default";
/// Between words of a list.
const COMMA: &str = ", ";

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its key.
    pub key: String,
    from: Option<String>,
    to: Option<String>,
}

impl Settings {
    /// What is different in the new settings.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let keys: BTreeSet<&String> = self.texts.keys().chain(new.texts.keys()).collect();
        let changes = keys.into_iter().map(|key| Change {
            key: key.clone(),
            from: self.texts.get(key).cloned(),
            to: new.texts.get(key).cloned(),
        });
        changes.filter(|change| change.from != change.to).collect()
    }

    /// Changes to the new settings, except where that needs a restart.
    pub fn adopt(&mut self, new: Self, need_restart: &[Change]) {
        let before = std::mem::replace(self, new);
        (self.hook, self.object) = (before.hook, before.object);
        for Change { key, from, .. } in need_restart {
            match from {
                Some(text) => self.texts.insert(key.clone(), text.clone()),
                None => self.texts.remove(key),
            };
            if key == "interval" {
                self.options.interval = before.options.interval;
            }
        }
    }
}

impl Change {
    /// Whether such a setting can change while the daemon runs.
    pub fn is_live(&self) -> bool {
        LIVE.contains(&self.key.as_str()) || self.key.starts_with(SECTION)
    }

    /// Whether it is about the ways to attach XDP.
    pub fn is_xdp_mode(&self) -> bool {
        self.key == "xdp-mode" || self.key.starts_with(SECTION)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [&self.from, &self.to].map(|text| text.as_deref().unwrap_or(UNSET));
        if self.key != "interfaces" {
            return write!(f, "{} ({from} -> {to})", self.key);
        }
        let [before, now]: [Vec<&str>; 2] = [from, to].map(|list| list.split(COMMA).collect());
        let added = now.iter().filter(|word| !before.contains(word)).map(|word| format!("+{word}"));
        let removed =
            before.iter().filter(|word| !now.contains(word)).map(|word| format!("-{word}"));
        let words: Vec<String> = added.chain(removed).collect();
        match words.is_empty() {
            true => f.write_str("interfaces (their order)"),
            false => write!(f, "interfaces ({})", words.join(COMMA)),
        }
    }
}

/// The settings that are no options, as text.
pub(super) fn texts_of(settings: &Settings) -> impl Iterator<Item = (String, String)> {
    let object = settings.object.iter().map(|path| ("object", path.display().to_string()));
    let hook = ("hook", settings.hook.name().to_owned());
    let interfaces = ("interfaces", settings.interfaces.join(COMMA));
    let named = [hook, interfaces].into_iter().chain(object);
    let sections = settings.xdp_modes.by_name.iter();
    let word = |mode: &XdpMode| mode.to_possible_value().map(|it| it.get_name().to_owned());
    let sections =
        sections.filter_map(move |(name, mode)| Some((format!("{SECTION}{name}"), word(mode)?)));
    named.map(|(key, text)| (key.to_owned(), text)).chain(sections)
}

#[cfg(test)]
mod tests {
    use super::super::file::Contents;
    use super::*;

    fn settings(text: &str) -> Settings {
        let contents = Contents::parse(text).expect("no mistake");
        contents.settings(&["--max-connections=7".into()]).expect("settings")
    }

    fn told(changes: &[Change]) -> Vec<(String, bool)> {
        changes.iter().map(|change| (change.to_string(), change.is_live())).collect()
    }

    const BEFORE: &str = "hook = 'tc'\ninterfaces = ['lan0', 'lan1']\ninterval = 100";

    #[test]
    fn changes_are_told_and_the_same_is_none() {
        let before = settings(BEFORE);
        assert_eq!(before.changes(&before), []);
        let defaults = settings("interfaces = ['lan0', 'lan1']\nhook = 'tc'\nlog-level = 'info'");
        assert_eq!(before.changes(&defaults), [], "defaults, and what the command line says");
        let after = settings(
            "hook = 'xdp'\ninterfaces = ['lan1', 'wan0']\ninterval = 50\nobject = 'a.o'
             offload-mark = '7'\n[interface.wan0]\nxdp-mode = 'generic'",
        );
        let expected = [
            ("hook (tc -> xdp)", false),
            ("interface.wan0 (default -> generic)", true),
            ("interfaces (+wan0, -lan0)", true),
            ("interval (100 -> 50)", true),
            ("object (default -> a.o)", false),
            ("offload-mark (default -> 7)", true),
        ];
        let expected = expected.map(|(text, live)| (text.to_owned(), live));
        assert_eq!(told(&before.changes(&after)), expected);
    }

    #[test]
    fn what_needs_a_restart_is_told_again_until_then() {
        let mut settings_now = settings(BEFORE);
        let after = settings("hook = 'xdp'\ninterfaces = ['lan0']\ninterval = 500");
        let changes = settings_now.changes(&after);
        let need_restart: Vec<Change> =
            changes.into_iter().filter(|change| change.key != "interfaces").collect();
        settings_now.adopt(after.clone(), &need_restart);
        assert_eq!(settings_now.interfaces, ["lan0"]);
        assert_eq!(settings_now.options.interval, 100);
        assert_eq!(settings_now.hook.name(), "tc");
        assert_eq!(settings_now.changes(&after), need_restart);
    }
}
