// SPDX-License-Identifier: GPL-2.0-only
//! `bpfw status`: the first line is the answer, what follows explains it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::words::{number, time};
use super::{no_daemon, print};
use crate::abi;
use crate::error::Result;
use crate::flow::family::Family;
use crate::netlink::routing_sysctls::kernel_forwards;
use crate::reasons::Reason;
use crate::reasons::connection::Refusal;
use crate::reasons::packet::VERDICTS;
use crate::status::client::{self, Answer};
use crate::status::{Cause, Interface, Pauses, State, Status, Warning};

/// It runs, but not all packets take the fast path.
const NOT_ALL: u8 = 4;
/// So many reasons are shown of each kind.
const SHOWN: usize = 4;

/// Options of `bpfw status`.
#[derive(Debug, Args)]
pub struct Options {
    /// Write one JSON object a line for each daemon, as the daemon has sent it
    #[arg(long)]
    json: bool,

    /// Show all reasons, not only the most frequent ones
    #[arg(long)]
    all: bool,
}

/// Shows all daemons of this network namespace.
pub(super) fn show(options: &Options) -> Result<ExitCode> {
    let daemons = client::ask()?;
    if daemons.here.is_empty() {
        return Ok(no_daemon(&daemons));
    }
    let text = |answer: &Answer| {
        if options.json { answer.text.clone() + "\n" } else { text(&answer.status, options.all) }
    };
    let texts: Vec<String> = daemons.here.iter().map(text).collect();
    print(&texts.join(if options.json { "" } else { "\n" }))?;
    let is_complete = |status: &Status| status.is_complete() && forbidden(status).is_empty();
    let complete = daemons.here.iter().all(|answer| is_complete(&answer.status));
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) })
}

fn text(status: &Status, all: bool) -> String {
    let mut text = first_line(status);
    if let Some(advice) = status.reason.as_ref().and_then(|reason| reason.advice.as_ref()) {
        // Nothing fails that writes to a string.
        let _ = writeln!(text, "    to do: {advice}");
    }
    if status.state == State::Late {
        return text;
    }
    for (family, cause) in forbidden(status) {
        let advice = cause.advice.as_ref().map(|advice| format!(" ({advice})"));
        let _ = writeln!(text, "    {family}: {}{}", cause.text(), advice.unwrap_or_default());
    }
    interfaces(&mut text, &status.interfaces, &|_| None);
    if status.more_interfaces > 0 {
        let _ = writeln!(text, "and {} more", number(status.more_interfaces as u64));
    }
    text.push('\n');
    let mut line = |name: &str, words: String| {
        let _ = writeln!(text, "{name:<13}{words}");
    };
    let usage = |used: u64, limit: u64| format!("{} of {}", number(used), number(limit));
    let connections = usage(status.connections.used, status.connections.limit);
    line("CONNECTIONS", format!("{connections} offloaded"));
    line("NEXT HOPS", format!("{} used", usage(status.next_hops.used, status.next_hops.limit)));
    line("HEARTBEAT", heartbeat(status));
    line("PAUSES", pauses(&status.pauses));
    line("PACKETS", packets(status));
    let passed = VERDICTS.iter().filter(|reason| is_pass(reason));
    list(&mut text, passed.map(|reason| (*reason, count(&status.packets, reason))), all);
    let refusals = Refusal::ALL.iter().map(|refusal| refusal.reason());
    let refused: Vec<_> =
        refusals.map(|reason| (reason, count(&status.refusals, &reason))).collect();
    let times = refused.iter().map(|(_, times)| times).sum();
    let _ = writeln!(
        text,
        "{:<13}{} times a connection stayed with the stack when bpfw looked at it",
        "REFUSED",
        number(times)
    );
    list(&mut text, refused.into_iter(), all);
    warnings(&mut text, &status.warnings);
    text
}

pub(super) fn warnings(text: &mut String, warnings: &[Warning]) {
    for warning in warnings {
        let chain = warning.chain.as_ref().map(|chain| format!(", in {chain}")).unwrap_or_default();
        // Nothing fails that writes to a string.
        let _ = writeln!(
            text,
            "{:<13}offloaded packets do not meet: {}{chain}",
            "WARNING", warning.what
        );
    }
}

pub(super) fn first_line(status: &Status) -> String {
    let about = &status.bpfw;
    if status.state == State::Late {
        let pid = match about.pid {
            0 => String::new(),
            pid => format!(" (pid {pid})"),
        };
        return format!(
            "bpfw{pid}: late: no answer within a second; all packets go to the stack\n"
        );
    }
    let state = match (status.state, &status.reason) {
        (State::Forwarding, _) => forwarding(status),
        (State::Paused, Some(reason)) => {
            format!("paused for {}: {}", time(status.paused_ms.unwrap_or_default()), reason.text())
        }
        (State::Forbidden, Some(reason)) => format!("nothing is offloaded: {}", reason.text()),
        (State::NothingUsable, _) => "forwarding nothing: no usable interface".to_owned(),
        _ => "in a state that this version does not know".to_owned(),
    };
    let (version, pid, up, hook) = (&about.version, about.pid, time(about.up_ms), &about.hook);
    format!("bpfw {version} (pid {pid}, hook {hook}, up {up}): {state}\n")
}

fn forwarding(status: &Status) -> String {
    let families = forbidden(status).into_iter().map(|(family, _)| family.as_str());
    forwarding_but(families, &status.interfaces)
}

/// Says that it forwards, and what not even so.
pub(super) fn forwarding_but<'a>(
    families: impl Iterator<Item = &'a str>,
    interfaces: &[Interface],
) -> String {
    let families = families.map(|family| format!("nothing of {family}"));
    let names = not_used(interfaces);
    let devices = (!names.is_empty()).then(|| format!("not all at {}", names.join(", ")));
    let but: Vec<_> = families.chain(devices).collect();
    if but.is_empty() {
        return "forwarding".to_owned();
    }
    format!("forwarding, but {}", but.join(", "))
}

/// The address families that the kernel forwards and bpfw does not, unless it is so with all of them.
fn forbidden(status: &Status) -> Vec<(&String, &Cause)> {
    let is_one_of_several = |_: &(&String, &Cause)| status.state == State::Forwarding;
    let forbidden = status.forbidden.iter().filter(is_one_of_several);
    forbidden.filter(|(family, _)| is_forwarded(family)).collect()
}

/// A router of IPv4 alone need not hear of IPv6.
pub(super) fn is_forwarded(name: &str) -> bool {
    Family::ALL.into_iter().any(|family| family.name() == name && kernel_forwards(family))
}

/// The first ones that are not used as they could be.
fn not_used(interfaces: &[Interface]) -> Vec<&str> {
    let left = interfaces.iter().filter(|interface| !interface.is_used());
    let mut names: Vec<_> = left.map(|interface| &*interface.device).take(SHOWN + 1).collect();
    if let Some(last) = names.get_mut(SHOWN) {
        *last = "...";
    }
    names
}

/// A table, with what else there is to say of an interface by its name.
pub(super) fn interfaces(
    text: &mut String,
    interfaces: &[Interface],
    more: &dyn Fn(&str) -> Option<String>,
) {
    let widest = interfaces.iter().map(|interface| interface.device.len()).max();
    let width = widest.unwrap_or_default().max("INTERFACE".len()) + 2;
    let _ = writeln!(
        text,
        "\n{:<width$}{:<10}{:<14}{:<14}PACKETS TO IT",
        "INTERFACE", "KIND", "ATTACHED", "PACKETS FROM"
    );
    for interface in interfaces {
        let kind = interface.kind.as_deref().unwrap_or("-");
        let path = |fast| if fast { "forwarded" } else { "the stack's" };
        let _ = writeln!(
            text,
            "{:<width$}{kind:<10}{:<14}{:<14}{}",
            interface.device,
            attached(interface),
            path(interface.forwards_from),
            path(interface.forwards_to)
        );
        for cause in interface.reason.iter().chain(&interface.notices) {
            let advice = cause.advice.as_ref().map(|advice| format!(" ({advice})"));
            let _ = writeln!(text, "    {}{}", cause.text(), advice.unwrap_or_default());
        }
        if let Some(more) = more(&interface.device) {
            let _ = writeln!(text, "    {more}");
        }
    }
}

fn attached(interface: &Interface) -> String {
    match (&interface.attached, &interface.mode) {
        (Some(attached), Some(mode)) => format!("{attached} {mode}"),
        (Some(attached), None) => attached.clone(),
        (None, _) if !interface.stands_for.is_empty() => {
            format!("at {}", interface.stands_for.join(", "))
        }
        (None, _) if interface.forwards_from => "by its port".to_owned(),
        (None, _) if interface.reason.is_none() => "not yet".to_owned(),
        (None, _) => "-".to_owned(),
    }
}

fn heartbeat(status: &Status) -> String {
    let heartbeat = &status.heartbeat;
    let (age, limit) = (time(heartbeat.age_ms), time(heartbeat.limit_ms));
    format!("{age} ago, too old after {limit}")
}

fn pauses(pauses: &Pauses) -> String {
    let Some(last) = &pauses.last else { return "none".to_owned() };
    format!(
        "{}, {} in all; the last one {} ago, {}: {}",
        number(pauses.count),
        time(pauses.ms),
        time(last.ago_ms),
        time(last.ms),
        last.reason.text()
    )
}

fn packets(status: &Status) -> String {
    let of = |number: u32| {
        VERDICTS
            .iter()
            .find(|reason| reason.number == number)
            .map_or(0, |reason| count(&status.packets, reason))
    };
    let passed: u64 = VERDICTS
        .iter()
        .filter(|reason| is_pass(reason))
        .map(|reason| count(&status.packets, reason))
        .sum();
    let (forwarded, dropped) = (of(abi::BPFW_FORWARDED), of(abi::BPFW_DROP_ERROR));
    let (forwarded, passed, dropped) = (number(forwarded), number(passed), number(dropped));
    format!("{forwarded} forwarded, {passed} passed up to the stack, {dropped} dropped")
}

fn is_pass(reason: &Reason) -> bool {
    !matches!(reason.number, abi::BPFW_FORWARDED | abi::BPFW_DROP_ERROR)
}

fn count(counts: &std::collections::BTreeMap<String, u64>, reason: &Reason) -> u64 {
    counts.get(reason.name).copied().unwrap_or_default()
}

/// Those that there were, the most frequent ones first.
fn list(text: &mut String, counted: impl Iterator<Item = (Reason, u64)>, all: bool) {
    let mut counted: Vec<_> = counted.filter(|(_, times)| *times > 0).collect();
    counted.sort_by_key(|(reason, times)| (std::cmp::Reverse(*times), reason.number));
    let shown = if all { counted.len() } else { counted.len().min(SHOWN) };
    let (first, others) = counted.split_at(shown);
    for (reason, times) in first {
        let _ = writeln!(text, "{:>16}  {}", number(*times), reason.words);
    }
    if !others.is_empty() {
        let times = others.iter().map(|(_, times)| times).sum();
        let _ = writeln!(
            text,
            "{:>16}  {} other reasons: bpfw status --all",
            number(times),
            others.len()
        );
    }
}
