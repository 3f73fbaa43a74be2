// SPDX-License-Identifier: GPL-2.0-only
//! The answer for one connection.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::judge::{Judge, Verdict};
use crate::conntrack::entry::Entry;
use crate::error::Result;
use crate::flow::state::Status;
use crate::flow::tuple::Tuple;
use crate::reasons::answer::Answer;
use crate::status::Cause;
use crate::view::flow::{Direction, Surroundings};
use crate::view::words::{number, time};

/// The connection stays with the stack, or one of its directions.
const STACK: u8 = 3;
/// Conntrack has no such connection.
const GONE: u8 = 4;

/// Why this connection is where it is; there may be others like it.
pub(super) fn answer(
    judge: &mut Judge<'_>,
    surroundings: &Surroundings,
    entry: Option<&Entry>,
    others: usize,
    json: bool,
) -> Result<super::Answer> {
    let Some(entry) = entry else {
        let cause = Cause::from(Answer::Gone.reason());
        let text = if json { line(&object("gone", &cause)) } else { headline("", &cause) };
        return Ok(super::Answer { text, essence: cause.name, code: ExitCode::from(GONE) });
    };
    let verdict = judge.judge(entry)?;
    let text = if json {
        line(&json_of(entry, &verdict, surroundings, others)?)
    } else {
        text(entry, &verdict, surroundings, others)
    };
    let code = if verdict.fast { ExitCode::SUCCESS } else { ExitCode::from(STACK) };
    Ok(super::Answer { text, essence: essence(entry, &verdict), code })
}

/// Which connection it is, and all that is decided about it.
fn essence(entry: &Entry, verdict: &Verdict) -> String {
    let Cause { name, detail, .. } = &verdict.cause;
    let fates = verdict.flow.as_ref().map(|flow| (flow.original.fate, flow.reply.fate));
    format!("{} {name} {detail:?} {fates:?} {:?}", entry.id, entry.tcp_state)
}

fn line(object: &Value) -> String {
    format!("{object}\n")
}

fn text(entry: &Entry, verdict: &Verdict, surroundings: &Surroundings, others: usize) -> String {
    let how = match (&verdict.flow, verdict.fast) {
        (_, true) => "",
        (Some(_), false) => "offloaded, but its packets go up to the stack: ",
        (None, false) => "stays with the stack: ",
    };
    let mut text = headline(how, &verdict.cause);
    // Nothing fails that writes to a string.
    let _ = writeln!(text, "  {}", describe(entry));
    if let Some(flow) = &verdict.flow {
        for (arrow, direction) in [("->", &flow.original), ("<-", &flow.reply)] {
            let _ = writeln!(text, "  {arrow}  {}", describe_direction(direction, surroundings));
        }
    }
    if let Some(left) = verdict.refused_for_ms {
        let _ = writeln!(text, "  bpfw looks at it again in {}, if it has packets", time(left));
    }
    if others > 0 {
        let _ =
            writeln!(text, "  {} more like it: bpfw flows, conntrack -L", number(others as u64));
    }
    text
}

/// What it is, and what to do.
fn headline(how: &str, cause: &Cause) -> String {
    let advice = cause.advice.as_ref().map(|advice| format!("  to do: {advice}\n"));
    format!("{how}{}\n{}", cause.text(), advice.unwrap_or_default())
}

fn describe(entry: &Entry) -> String {
    let Tuple { protocol, source, destination } = entry.original;
    let mut text = format!("{protocol} {source} > {destination}");
    let reply = entry.reply;
    if reply.destination != source {
        text += &format!(", leaves as {}", reply.destination);
    }
    if reply.source != destination {
        text += &format!(", goes to {}", reply.source);
    }
    if let Some(state) = entry.tcp_state {
        text += &format!(", {state:?}");
    }
    if entry.status.is_some_and(|status| status.contains(Status::ASSURED)) {
        text += ", assured";
    }
    if entry.mark != 0 {
        text += &format!(", mark {:#x}", entry.mark);
    }
    text + &format!(", conntrack's id {}", entry.id)
}

fn describe_direction(direction: &Direction, surroundings: &Surroundings) -> String {
    let name = |ifindex: Option<u32>| ifindex.map_or("?".to_owned(), |one| surroundings.name(one));
    let gateway = direction.gateway.map(|gateway| format!(" by {gateway}")).unwrap_or_default();
    format!(
        "{}: {} to {}{gateway}; {} packets forwarded; the last packet came {} ago",
        direction.fate.name(),
        name(direction.ingress),
        name(direction.egress),
        number(direction.packets),
        time(direction.idle_ms)
    )
}

fn object(verdict: &str, cause: &Cause) -> Value {
    json!({
        "verdict": verdict,
        "reason": cause.name,
        "words": cause.words,
        "advice": cause.advice,
        "detail": cause.detail,
    })
}

fn json_of(
    entry: &Entry,
    verdict: &Verdict,
    surroundings: &Surroundings,
    others: usize,
) -> Result<Value> {
    let mut object = object(if verdict.fast { "fast" } else { "stack" }, &verdict.cause);
    object["refused_for_ms"] = json!(verdict.refused_for_ms);
    object["others"] = json!(others);
    object["conntrack"] = json!({
        "id": entry.id,
        "protonum": entry.original.protocol.number(),
        "protoname": entry.original.protocol.to_string(),
        "mark": entry.mark,
        "zone": entry.zone,
        "original": tuple(&entry.original),
        "reply": tuple(&entry.reply),
    });
    object["flow"] = match &verdict.flow {
        Some(flow) => flow.value(surroundings)?,
        None => Value::Null,
    };
    Ok(object)
}

fn tuple(tuple: &Tuple) -> Value {
    let Tuple { source, destination, .. } = *tuple;
    json!({
        "src": source.ip(), "dst": destination.ip(),
        "sport": source.port(), "dport": destination.port(),
    })
}
