// SPDX-License-Identifier: GPL-2.0-only
//! The answer for all connections: how many are on the fast path, and why the others are not.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

use super::judge::Judge;
use super::{Answer, dump};
use crate::error::Result;
use crate::status::Cause;
use crate::view::words::number;

/// How many connections there are for a reason.
struct Group {
    cause: Cause,
    fast: bool,
    count: u64,
}

/// Judges all connections that conntrack has.
pub(super) fn answer(judge: &mut Judge<'_>, json: bool) -> Result<Answer> {
    let mut groups = BTreeMap::<String, Group>::new();
    dump(|entry| {
        let verdict = judge.judge(&entry)?;
        // Details differ from one connection to the next.
        let cause = Cause { detail: None, ..verdict.cause };
        let new = |cause| Group { cause, fast: verdict.fast, count: 0 };
        groups.entry(cause.name.clone()).or_insert_with(|| new(cause)).count += 1;
        Ok(())
    })?;
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse((group.fast, group.count)));
    let text = if json { object(&groups) } else { text(&groups) };
    Ok(Answer { essence: text.clone(), text, code: ExitCode::SUCCESS })
}

fn total(groups: &[Group]) -> u64 {
    groups.iter().map(|group| group.count).sum()
}

fn text(groups: &[Group]) -> String {
    let mut text = format!("{} connections of tcp and udp in conntrack\n", number(total(groups)));
    for Group { cause, count, .. } in groups {
        let advice = cause.advice.as_ref().map(|advice| format!(" ({advice})"));
        // Nothing fails that writes to a string.
        let _ =
            writeln!(text, "{:>10}  {}{}", number(*count), cause.words, advice.unwrap_or_default());
    }
    text
}

fn object(groups: &[Group]) -> String {
    let reason = |group: &Group| {
        json!({
            "verdict": if group.fast { "fast" } else { "stack" },
            "reason": group.cause.name,
            "words": group.cause.words,
            "advice": group.cause.advice,
            "connections": group.count,
        })
    };
    let reasons: Vec<_> = groups.iter().map(reason).collect();
    format!("{}\n", json!({"connections": total(groups), "reasons": reasons}))
}
