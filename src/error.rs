// SPDX-License-Identifier: GPL-2.0-only
//! The one error type: what failed, why, and what to do about it.

use std::io;

/// Why bpfw cannot go on. `Display` gives one line, cause and advice included.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or a file refused what was asked.
    #[error("{doing}: {cause}{}", hint(.advice))]
    System {
        /// What was being done, naming the interface, file or sysctl.
        doing: String,
        /// The system's answer.
        cause: io::Error,
        /// What the user can do, if anything is known to help.
        advice: Option<String>,
    },
    /// bpfw itself says no: the input or the machine does not allow what was asked.
    #[error("{what}{}", hint(.advice))]
    Refused {
        /// What is wrong, naming the interface, file or sysctl.
        what: String,
        /// What the user can do.
        advice: Option<String>,
    },
}

/// What a refusal of the kernel's usually means.
const RIGHTS: &str = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// The result type of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

fn hint(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}

impl Error {
    /// A failed system call or file access.
    pub fn system(doing: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let denied = cause.kind() == io::ErrorKind::PermissionDenied;
        Self::System { doing: doing.into(), cause, advice: denied.then(|| RIGHTS.to_owned()) }
    }

    /// Something that bpfw will not do.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), advice: None }
    }

    /// The same error with a hint at what to do.
    #[must_use]
    pub fn with_advice(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::System { advice, .. } | Self::Refused { advice, .. } => {
                *advice = Some(text.into());
            }
        }
        self
    }
}
