// SPDX-License-Identifier: GPL-2.0-only
//! The kernel's conntrack settings. They are read, never written.

use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// The settings of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctls {
    /// The most entries that the table takes; 0 is no limit.
    pub max: u32,
    /// Entries in the table now.
    pub count: u32,
    /// Whether events are sent: 0 never, 1 always, 2 for connections that begin while someone
    /// listens. `None` in a kernel without conntrack events.
    pub events: Option<u8>,
    /// How long a UDP connection lives that was seen in one direction.
    pub udp_timeout: Duration,
    /// How long a UDP stream lives.
    pub udp_timeout_stream: Duration,
    /// How long an established TCP connection lives.
    pub tcp_timeout_established: Duration,
    /// How long one lives at most whose data was not acknowledged.
    pub tcp_timeout_unacknowledged: Duration,
    /// How long one lives at most whose data was sent again and again.
    pub tcp_timeout_max_retrans: Duration,
}

impl Sysctls {
    /// Reads the settings.
    pub fn read() -> Result<Self> {
        Self::read_from(Path::new(DIRECTORY))
    }

    fn read_from(directory: &Path) -> Result<Self> {
        let seconds = |name| number(directory, name).map(Duration::from_secs);
        Ok(Self {
            max: number(directory, "nf_conntrack_max")?,
            count: number(directory, "nf_conntrack_count")?,
            events: optional(directory, "nf_conntrack_events")?,
            udp_timeout: seconds("nf_conntrack_udp_timeout")?,
            udp_timeout_stream: seconds("nf_conntrack_udp_timeout_stream")?,
            tcp_timeout_established: seconds("nf_conntrack_tcp_timeout_established")?,
            tcp_timeout_unacknowledged: seconds("nf_conntrack_tcp_timeout_unacknowledged")?,
            tcp_timeout_max_retrans: seconds("nf_conntrack_tcp_timeout_max_retrans")?,
        })
    }
}

fn number<T: FromStr>(directory: &Path, name: &str) -> Result<T> {
    optional(directory, name)?.ok_or_else(|| {
        let doing = format!("reading {}", directory.join(name).display());
        Error::system(doing, io::ErrorKind::NotFound)
            .with_advice("the nf_conntrack module must be loaded")
    })
}

fn optional<T: FromStr>(directory: &Path, name: &str) -> Result<Option<T>> {
    let path = directory.join(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::system(format!("reading {}", path.display()), error)),
    };
    let no_number = || format!("{} holds {:?}, no number", path.display(), text.trim());
    parse(&text).map(Some).ok_or_else(|| Error::refused(no_number()))
}

pub(super) fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_named_with_advice() {
        let error = Sysctls::read_from(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/nf_conntrack_max"), "{error}");
        assert!(error.contains("module must be loaded"), "{error}");
    }
}
