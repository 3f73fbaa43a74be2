// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw check`: what a start would come to, in the words of `bpfw status`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::print;
use super::status::{forwarding_but, interfaces, is_forwarded, warnings};
use super::words::{bytes, number};
use crate::datapath::probe::Feature;
use crate::error::Result;
use crate::status::check::Check;
use crate::status::{Cause, Interface};

/// It would start, but not all packets would take the fast path.
const NOT_ALL: u8 = 4;

/// Shows it.
pub fn show(check: &Check) -> Result<ExitCode> {
    print(&text(check))?;
    let all = forbidden(check).next().is_none() && check.interfaces.iter().all(Interface::is_used);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) })
}

/// The address families that the kernel forwards and bpfw would not.
fn forbidden(check: &Check) -> impl Iterator<Item = (&str, &Cause)> {
    let forbidden = check.forbidden.iter().map(|(family, cause)| (family.as_str(), cause));
    forbidden.filter(|(family, _)| is_forwarded(family))
}

fn text(check: &Check) -> String {
    let families = forbidden(check).map(|(family, _)| family);
    let so = match check.interfaces.iter().any(|interface| interface.forwards_from) {
        true => forwarding_but(families, &check.interfaces),
        false => "forwarding nothing: no usable interface".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("bpfw {version} (hook {}) would start: {so}\n", check.hook);
    for (family, cause) in forbidden(check) {
        let advice = cause.advice.as_ref().map(|advice| format!(" ({advice})"));
        // Nothing fails that writes to a string.
        let _ = writeln!(text, "    {family}: {}{}", cause.text(), advice.unwrap_or_default());
    }
    let behind = |device: &str| {
        let others: Vec<&str> = check.before.get(device)?.iter().map(String::as_str).collect();
        Some(format!("behind {}", others.join(", ")))
    };
    interfaces(&mut text, &check.interfaces, &behind);
    text.push('\n');
    let mut line = |name: &str, words: String| {
        let _ = writeln!(text, "{name:<13}{words}");
    };
    line("PROGRAMS", format!("{} loaded, the kernel's verifier has accepted them", check.programs));
    line("CONNECTIONS", format!("{} at most", number(check.connections.into())));
    line("MEMORY", format!("{} from the start", bytes(check.memory)));
    line("EVENTS", events(check.events).to_owned());
    line("KERNEL", format!("Linux {}", check.release));
    for Feature { name, is_there, otherwise } in &check.features {
        let words = if *is_there { name.to_string() } else { format!("no {name}: {otherwise}") };
        line("", words);
    }
    warnings(&mut text, &check.warnings);
    text
}

/// What `nf_conntrack_events` means.
fn events(setting: Option<u8>) -> &'static str {
    match setting {
        None => {
            "none of conntrack's in this kernel: a deletion counts within two periods of --prove-every"
        }
        Some(0) => {
            "nf_conntrack_events is 0: 16,384 connections at most are compared with conntrack every second"
        }
        Some(1) => "conntrack sends events of all connections",
        Some(_) => "conntrack sends events of connections that begin after bpfw",
    }
}
