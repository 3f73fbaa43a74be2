// SPDX-License-Identifier: GPL-2.0-only
//! What decoders promise for any input. Each function hands its input to one family of decoders,
//! and panics when a promise is broken.
//!
//! The fuzz targets look for such inputs for as long as they are let, `tests/fuzz.rs` for a few
//! seconds in each run of the tests.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bpfw::cli::{self, Task};
use bpfw::config::Settings;
use bpfw::config::file::Contents;
use bpfw::conntrack::decoders as conntrack;
use bpfw::firewall::walk;
use bpfw::flow::family::Family as AddressFamily;
use bpfw::flow::mark::OffloadMark;
use bpfw::flow::selector::Selector;
use bpfw::netlink::decoders::{self as netlink, Message};
use bpfw::netlink::network::Network;
use bpfw::netlink::ruleset::{Chain, Object, Rule, Ruleset};

/// A family of decoders: its name, which is also its fuzz target's, and what must hold.
pub type Family = (&'static str, fn(&[u8]));

/// All of them.
pub const FAMILIES: [Family; 10] = [
    ("conntrack_message", conntrack_message),
    ("conntrack_datagram", conntrack_datagram),
    ("network", network),
    ("rules", rules),
    ("tc", tc),
    ("xfrm", xfrm),
    ("ruleset", ruleset),
    ("sysctl", sysctl),
    ("command_line", command_line),
    ("configuration", configuration),
];

/// The lower bytes of nftables' message types.
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWOBJ: u16 = 18;

/// What a netlink message begins with: its length.
const LENGTH: usize = 4;
/// A netlink message's header.
const HEADER: usize = 16;

/// One message about a conntrack entry.
pub fn conntrack_message(bytes: &[u8]) {
    // Nearly always of another length than it says.
    conntrack::entry(bytes);
    let message = with_length(bytes);
    let entry = conntrack::entry(&message);
    assert_eq!(conntrack::entry(&message), entry, "read twice");
    let Some(entry) = entry else { return };
    assert_eq!(conntrack::tuple_of_request(&entry.original), Some(entry.original), "asked for");
    for cut in prefixes(&message) {
        assert_eq!(conntrack::entry(cut), None, "cut to {}", cut.len());
    }
}

/// A datagram of conntrack's socket.
pub fn conntrack_datagram(bytes: &[u8]) {
    let messages = netlink_messages(bytes);
    assert!(messages.iter().all(|message| message.whole.len() >= HEADER));
    let events = conntrack::events(bytes);
    assert!(events.len() <= messages.len());
    assert_eq!(conntrack::events(bytes), events, "read twice");
    for message in &messages {
        // Its result stands for itself; reading it must end well.
        let _ = netlink::outcome(message);
    }
}

/// A datagram of route netlink: links, addresses, neighbors, routes, applied one by one.
pub fn network(bytes: &[u8]) {
    let messages = netlink_messages(bytes);
    let [mut first, mut second] = [(); 2].map(|()| netlink::network());
    for message in &messages {
        let changes = netlink::apply(&mut first, message);
        assert_eq!(netlink::apply(&mut second, message), changes, "read twice");
    }
    expect_same(&first, &second);
    // What comes by messages goes by messages: nothing that strangers cause piles up for ever.
    for message in &messages {
        let deletion = Message { kind: deletion(message.kind), ..*message };
        netlink::apply(&mut first, &deletion);
    }
    netlink::routes_were_read(&mut first);
    assert_eq!(format!("{first:?}"), format!("{:?}", netlink::network()), "left behind");
}

/// A datagram of policy rules.
pub fn rules(bytes: &[u8]) {
    for message in netlink_messages(bytes) {
        let facts = netlink::rule(message.payload);
        for cut in prefixes(message.payload) {
            let fewer = netlink::rule(cut);
            for family in AddressFamily::ALL {
                let (fewer, facts) = (fewer[family], facts[family]);
                assert!(fewer.tos <= facts.tos, "cut to {}", cut.len());
                assert!(fewer.unknown <= facts.unknown, "cut to {}", cut.len());
            }
        }
    }
}

/// A datagram of filters and qdiscs.
pub fn tc(bytes: &[u8]) {
    for message in netlink_messages(bytes) {
        let filter = netlink::filter(&message);
        let qdisc = netlink::qdisc(&message);
        for payload in prefixes(message.payload) {
            let cut = Message { payload, ..message };
            if let Some(part) = netlink::filter(&cut) {
                let whole = filter.as_ref().expect("a cut filter is not more than the whole");
                let same = (part.priority, part.handle, &part.kind);
                assert_eq!(same, (whole.priority, whole.handle, &whole.kind));
            }
            let part = netlink::qdisc(&cut);
            assert!(part.is_none() || part == qdisc, "{part:?} of {qdisc:?}");
        }
    }
}

/// A datagram of IPsec policies or of their defaults.
pub fn xfrm(bytes: &[u8]) {
    // What is cut off selects everything, so that less never frees packets.
    for payload in netlink_messages(bytes).iter().map(|message| message.payload) {
        let (selector, blocks) =
            (netlink::policy_selector(payload), netlink::defaults_block_forwarding(payload));
        for cut in prefixes(payload) {
            let part = netlink::policy_selector(cut);
            let safe = part == selector || part == Some(Selector::ANYTHING);
            assert!(safe, "policy {}: {part:?} of {selector:?}", cut.len());
            assert!(netlink::defaults_block_forwarding(cut) >= blocks, "default {}", cut.len());
        }
    }
}

/// A datagram of nftables' chains, rules and objects, and what the walk through them finds.
pub fn ruleset(bytes: &[u8]) {
    let mut ruleset = Ruleset::default();
    for message in netlink_messages(bytes) {
        match message.kind & 0xff {
            NFT_MSG_NEWCHAIN => ruleset.chains.extend(Chain::decode(message.payload)),
            NFT_MSG_NEWOBJ => ruleset.objects.extend(Object::decode(message.payload)),
            NFT_MSG_NEWRULE => ruleset.rules.extend(rule(message.payload)),
            _ => {}
        }
    }
    for family in AddressFamily::ALL {
        let findings = walk::find(&ruleset, family);
        assert_eq!(findings, walk::find(&ruleset, family), "walked twice");
    }
}

fn rule(payload: &[u8]) -> Option<Rule> {
    let rule = Rule::decode(payload);
    for part in prefixes(payload).filter_map(Rule::decode) {
        let whole = rule.as_ref().expect("a cut rule is not more than the whole");
        assert_eq!((&part.table, &part.chain), (&whole.table, &whole.chain));
        assert!(part.expressions.is_empty() || part.expressions == whole.expressions);
    }
    rule
}

/// A sysctl's file.
pub fn sysctl(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(number) = conntrack::sysctl_number(text) {
        assert_eq!(conntrack::sysctl_number(&format!("{number}\n")), Some(number));
    }
}

/// The words of a command line, each ended by a NUL byte as in /proc/<pid>/cmdline; each of them
/// also as a mark.
pub fn command_line(bytes: &[u8]) {
    let words = || bytes.split(|byte| *byte == 0).map(OsStr::from_bytes);
    // What is in the files that it names is no matter of the command line.
    if words().any(|word| word == "run") {
        return;
    }
    let parse = || cli::task([OsStr::new("bpfw")].into_iter().chain(words()).map(OsStr::to_owned));
    words().filter_map(OsStr::to_str).for_each(mark);
    let task = match parse() {
        Ok(task) => task,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let again = parse().expect("it was fine before");
    assert_eq!(format!("{again:?}"), format!("{task:?}"), "read twice");
    if let Task::Forward(Ok(settings), _) = task {
        expect_sensible(&settings);
        assert!(!settings.interfaces.iter().any(|name| name.contains('/')));
        let named = usize::from(settings.object.is_some()) + settings.interfaces.len();
        assert!(named <= words().count());
    }
}

/// The text of a configuration file.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let contents = match Contents::parse(text) {
        Ok(contents) => contents,
        Err(mistake) => {
            let mistake = mistake.to_string();
            let line: usize =
                mistake.split(':').next().and_then(|it| it.parse().ok()).expect("a line");
            return assert!((1..=text.lines().count() + 1).contains(&line), "{mistake}");
        }
    };
    let again = Contents::parse(text).expect("it was fine before");
    assert_eq!(format!("{again:?}"), format!("{contents:?}"), "read twice");
    // What a file can say, the command line can say, too.
    if let Ok(settings) = contents.settings(&[]) {
        expect_sensible(&settings);
    }
}

fn expect_sensible(settings: &Settings) {
    assert!((10..=1000).contains(&settings.options.interval().as_millis()));
    assert!(settings.options.max_connections != Some(0));
    assert!(!settings.interfaces.is_empty());
}

fn mark(text: &str) {
    let Ok(mark) = text.parse::<OffloadMark>() else { return };
    assert!(mark.mask != 0 && mark.matches(mark.value) != mark.negated);
    let not = if mark.negated { "!" } else { "" };
    assert_eq!(format!("{not}{:#x}/{:#x}", mark.value, mark.mask).parse(), Ok(mark));
}

/// The messages of a datagram, which end, and lie one behind the other.
fn netlink_messages(bytes: &[u8]) -> Vec<Message<'_>> {
    let found: Vec<_> = netlink::messages(bytes).collect();
    let whole: Vec<_> = found.iter().copied().map_while(|message| message).collect();
    assert!(found.len() - whole.len() <= 1, "a malformed message ends the datagram");
    expect_parts(bytes, &whole.iter().map(|message| message.payload).collect::<Vec<_>>());
    for cut in prefixes(bytes) {
        let fewer = netlink::messages(cut).flatten();
        assert!(fewer.zip(&whole).all(|(part, whole)| part.payload == whole.payload));
    }
    whole
}

/// The parts are within the whole, in order, and do not overlap.
fn expect_parts(whole: &[u8], parts: &[&[u8]]) {
    let mut from = whole.as_ptr();
    for part in parts {
        assert!(part.as_ptr() >= from, "a part begins before the end of the last one");
        from = part.as_ptr_range().end;
    }
    assert!(from <= whole.as_ptr_range().end, "a part ends outside");
}

fn expect_same(one: &Network, other: &Network) {
    assert_eq!(one.links, other.links);
    assert_eq!(one.local_addresses, other.local_addresses);
    assert_eq!(one.neighbors, other.neighbors);
    for family in AddressFamily::ALL {
        assert_eq!(one.has_multipath(family), other.has_multipath(family));
        let (routes, others) = (&one.routes[family], &other.routes[family]);
        assert_eq!(routes.any_by_tos(), others.any_by_tos());
        assert_eq!(routes.any_with_realm(), others.any_with_realm());
        for index in one.links.keys() {
            assert_eq!(routes.smallest_mtu(*index), others.smallest_mtu(*index));
        }
    }
}

/// The message that takes away what one of this kind brings: each RTM_NEW is followed by its
/// RTM_DEL, and both by GET and SET (linux/rtnetlink.h).
fn deletion(kind: u16) -> u16 {
    if kind % 4 == 0 { kind + 1 } else { kind }
}

/// The bytes with their own number as the length that a netlink message begins with.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes.to_vec();
    if let (Some(place), Ok(length)) = (message.get_mut(..LENGTH), u32::try_from(bytes.len())) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
    message
}

/// Two of the shorter versions, which change with each length.
fn prefixes(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lengths = [bytes.len() / 2, bytes.len().saturating_sub(1)];
    lengths.into_iter().filter(|&length| length < bytes.len()).map(|length| &bytes[..length])
}
