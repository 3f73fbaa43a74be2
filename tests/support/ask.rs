// SPDX-License-Identifier: GPL-2.0-only
//! Asks the daemons of a namespace, as a user does.

use super::daemon::program;
use super::lab::Lab;
use super::netns::{Namespace, text};
use super::schema;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// What came of a question.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

impl Answer {
    /// The first line, which is the answer.
    pub fn first_line(&self) -> &str {
        self.out.lines().next().unwrap_or_default()
    }

    /// The only object.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The sockets at which this lab's daemons are asked for their status. Each has another one beside it.
pub fn sockets(lab: &Lab) -> Vec<PathBuf> {
    let namespace = lab.router.sh("stat -L -c %i /proc/self/ns/net");
    let files = fs::read_dir("/run/bpfw").expect("its directory").flatten();
    let name = format!("{}-", namespace.trim());
    let ours = files.filter(|file| file.file_name().to_string_lossy().starts_with(&name));
    let paths = ours.map(|file| file.path());
    paths.filter(|path| path.extension() == Some("sock".as_ref())).collect()
}

/// Asks by `bpfw` and these words.
pub fn ask(namespace: &Namespace, words: &[&str]) -> Answer {
    ask_as(namespace, &[], words)
}

/// The same, behind the words of another program. JSON must be as docs/schema describes it.
pub fn ask_as(namespace: &Namespace, before: &[&str], words: &[&str]) -> Answer {
    let output = namespace.try_run(&[before, &[&program()], words].concat());
    let answer = Answer {
        code: output.status.code().expect("no signal ends it"),
        out: text(&output.stdout),
        errors: text(&output.stderr),
    };
    if words.contains(&"--json") {
        assert_eq!(schema::faults(words[0], &answer.out), Vec::<String>::new(), "{answer:?}");
    }
    answer
}
