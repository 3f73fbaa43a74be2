// SPDX-License-Identifier: GPL-2.0-only
//! The tables of reasons are complete, each reason is given somewhere, and docs/reasons.md lists them all.
//! `BPFW_BLESS=1 cargo test --test reasons` writes that page anew.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bpfw::abi;
use bpfw::reasons::Reason;
use bpfw::reasons::answer::Answer;
use bpfw::reasons::connection::Refusal;
use bpfw::reasons::interface::Problem;
use bpfw::reasons::packet::{TESTIMONIES, VERDICTS};
use bpfw::reasons::pause::Pause;

const PAGE: &str = "docs/reasons.md";

/// A table, and what the page says of it.
struct Table {
    title: &'static str,
    about: &'static str,
    reasons: Vec<Reason>,
}

fn tables() -> Vec<Table> {
    vec![
        Table {
            title: "Packets",
            about: "What becomes of a packet (`.data.counters`). All but the first two pass it up to the \
                    network stack.",
            reasons: VERDICTS.to_vec(),
        },
        Table {
            title: "Proofs",
            about: "What the way out makes of a packet that the network stack was asked to show (also \
                    `.data.counters`).",
            reasons: TESTIMONIES.to_vec(),
        },
        Table {
            title: "Connections",
            about: "Why a connection stays with the network stack (`refused_map`), or why nothing is \
                    offloaded.",
            reasons: Refusal::ALL.iter().map(|refusal| refusal.reason()).collect(),
        },
        Table {
            title: "Answers",
            about: "What `bpfw why` says of a connection where none of the other tables has the reason.",
            reasons: Answer::ALL.iter().map(|answer| answer.reason()).collect(),
        },
        Table {
            title: "Pauses",
            about: "Why the fast path as a whole pauses: all packets go to the network stack for a \
                    while. Those of a moment are logged by `--log-level debug` only.",
            reasons: Pause::ALL.iter().map(|pause| pause.reason()).collect(),
        },
        Table {
            title: "Interfaces",
            about: "What is wrong with an interface. With 1 to 9, its packets stay with the network stack; \
                    with 10 to 14, those that leave by it. With the others it is used, but not as it could \
                    be.",
            reasons: Problem::ALL.iter().map(|problem| problem.reason()).collect(),
        },
    ]
}

/// The page with all tables.
fn page() -> String {
    let mut page = String::from(
        "<!-- SPDX-License-Identifier: GPL-2.0-only -->\n\
         <!-- Made of src/reasons/ by: BPFW_BLESS=1 cargo test --test reasons -->\n\
         # Reasons\n\n\
         Each reason that bpfw gives, and what to do about it. The log has the words. The names stay the\n\
         same for good.\n",
    );
    for Table { title, about, reasons } in tables() {
        let _ = write!(
            page,
            "\n## {title}\n\n{about}\n\n| number | name | words | advice |\n|---|---|---|---|\n"
        );
        for Reason { number, name, words, advice } in reasons {
            let _ = writeln!(page, "| {number} | `{name}` | {words} | {} |", advice.unwrap_or("-"));
        }
    }
    page
}

#[test]
fn the_page_lists_them_as_they_are() {
    let made = page();
    if std::env::var_os("BPFW_BLESS").is_some() {
        fs::write(PAGE, &made).expect("docs/ is there");
    }
    let kept = fs::read_to_string(PAGE).unwrap_or_default();
    let differs = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "{PAGE} is not what the tables make: {differs:?}; BPFW_BLESS=1 writes it"
    );
}

#[test]
fn numbers_and_names_are_unique_and_all_is_said() {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    for Table { title, reasons, .. } in tables() {
        let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
        for Reason { number, name, words, advice } in reasons {
            assert!(numbers.insert(number), "{title}: {number} is there twice");
            assert!(names.insert(name), "{title}: {name} is there twice");
            assert!(!name.is_empty() && name.chars().all(is_name), "{title}: {name}");
            for text in [Some(words), advice].into_iter().flatten() {
                assert!(!text.is_empty() && !text.ends_with('.'), "{title}: {name}: {text}");
            }
            // The log has it in brackets.
            assert!(
                advice.is_none_or(|advice| !advice.contains('(')),
                "{title}: {name}: {advice:?}"
            );
        }
    }
}

#[test]
fn every_number_of_the_datapath_has_its_row() {
    let rows = VERDICTS.iter().chain(&TESTIMONIES).map(|reason| reason.number);
    assert!(rows.eq(abi::BPFW_FORWARDED..abi::BPFW_TESTIMONIES));
}

/// What the code of all files in this folder says, without comments, tests and the tables themselves.
fn code(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("src/reasons") {
            all += &code(&path);
        } else if path.extension().is_some_and(|of| of == "rs" || of == "c" || of == "h") {
            let text = fs::read_to_string(&path).expect("a source file");
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            lines.for_each(|line| all.extend([line, "\n"]));
        }
    }
    all
}

/// The words that code is made of: `Refusal::Full` and `BPFW_PASS_TTL` are one each.
fn words(code: &str) -> HashSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').collect()
}

#[test]
fn every_reason_is_given_somewhere() {
    let source = code(Path::new("src"));
    let source = words(&source);
    for refusal in Refusal::ALL {
        assert!(source.contains(&*format!("Refusal::{refusal:?}")), "nobody gives {refusal:?}");
    }
    for answer in Answer::ALL {
        assert!(source.contains(&*format!("Answer::{answer:?}")), "nobody gives {answer:?}");
    }
    for pause in Pause::ALL {
        assert!(source.contains(&*format!("Pause::{pause:?}")), "nobody gives {pause:?}");
    }
    for problem in Problem::ALL {
        assert!(source.contains(&*format!("Problem::{problem:?}")), "nobody gives {problem:?}");
    }
    let header = fs::read_to_string("include/bpfw_abi.h").expect("the header is there");
    let programs = code(Path::new("bpf"));
    let programs = words(&programs);
    let mut given = 0;
    for kind in ["bpfw_verdict", "bpfw_testimony"] {
        for verdict in enumerators(&header, kind) {
            assert!(programs.contains(verdict), "nobody gives {verdict}");
            given += 1;
        }
    }
    assert_eq!(given, VERDICTS.len() + TESTIMONIES.len());
}

/// The names of a C enum's values, except for the one that says "go on", and the number of all.
fn enumerators<'a>(header: &'a str, kind: &str) -> impl Iterator<Item = &'a str> {
    let start = header.find(&format!("enum {kind} {{")).expect("the enum is there");
    let body = header[start..].split('}').next().unwrap_or_default();
    let names = body.lines().skip(1).filter_map(|line| line.split([',', ' ']).next());
    let names = names.map(str::trim).filter(|name| name.starts_with("BPFW_"));
    names.filter(|name| !["BPFW_GO_ON", "BPFW_VERDICTS", "BPFW_TESTIMONIES"].contains(name))
}
