// SPDX-License-Identifier: GPL-2.0-only
//! What a program may see of an entry whose memory changes hands while it reads.
//!
//! The daemon frees a cell, then fills it. The kernel stores the words in no order, and a weakly ordered
//! machine shows them, and carries out the program's loads, in any order. So each word that is read may be
//! the former owner's, the free cell's or the next owner's, whatever was read before. The tests go through
//! all of these, which are all that any order of stores and loads can lead to.

use std::net::SocketAddr;

use super::*;
use crate::abi::Pod;
use crate::flow::tuple::Protocol;

/// The words of a cell that tell whose it is and what becomes of packets: tuple and rewrite, then the seal. The
/// last one is the idle limit once more, because the program reads it apart from its word.
const WORDS: usize = 7;
const GENERATION: u64 = 0x8000_0001;

/// What a program takes packets to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    Rewrite([u64; 3]),
    Translation([u64; 6]),
}

/// An entry, as its words in memory.
struct Owner {
    tuple: bpfw_tuple,
    words: [u64; WORDS],
    translation: Option<[u64; 6]>,
    /// Once its next hop is known.
    hop_word: u64,
}

impl Owner {
    fn new(original: [&str; 2], reply: [&str; 2]) -> Self {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address and a port");
        let tuple = |[from, to]: [&str; 2]| Tuple::new(Protocol::Udp, at(from), at(to));
        let connection = Connection {
            original: tuple(original),
            reply: tuple(reply),
            id: 1,
            assured: true,
            pass_from: None,
            mark: 0,
            seen: Jiffies(1),
            idle_limit: 7500,
        };
        let entry = connection.entry(false, 2, &settings());
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(entry.conn.cell.bytes().chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        }
        words[5] = entry.conn.cell.seal.into();
        words[6] = entry.conn.cell.head.idle.into();
        let translation = entry.translation.map(|translation| translation.words());
        Self { tuple: entry.tuple, words, translation, hop_word: 7 << 32 | GENERATION }
    }

    fn fate(&self) -> Fate {
        match self.translation {
            Some(words) => Fate::Translation(words),
            None if self.tuple.is_ipv6() => Fate::Stays,
            None => Fate::Rewrite([self.words[2], self.words[3], self.words[4]]),
        }
    }
}

fn settings() -> bpfw_settings {
    bpfw_settings { seed: 0x1234_5678_9abc_def1, ..Default::default() }
}

/// Connections that share words, or a tuple: with and without translation, of both families.
fn owners() -> Vec<Owner> {
    const A: &str = "192.0.2.2:1000";
    const B: &str = "198.51.100.2:53";
    const A6: &str = "[2001:db8:1::2]:1000";
    const B6: &str = "[2001:db8:2::2]:53";
    vec![
        Owner::new([A, B], [B, A]),
        Owner::new([A, B], [B, "203.0.113.9:1000"]),
        Owner::new([A, B], ["203.0.113.7:54", "203.0.113.9:4000"]),
        Owner::new([B, A], [A, B]),
        Owner::new([A6, B6], [B6, A6]),
        Owner::new([A6, B6], [B6, "[2001:db8:3::3]:1000"]),
        Owner::new([A6, B6], ["[2001:db8:4::4]:54", "[2001:db8:3::3]:4000"]),
        // Each differs from the first one of IPv6 in one word.
        Owner::new(["[2001:db9:1::2]:1000", B6], [B6, "[2001:db9:1::2]:1000"]),
        Owner::new(["[2001:db8:1::3]:1000", B6], [B6, "[2001:db8:1::3]:1000"]),
        Owner::new(["[2001:db8:1::2]:1001", B6], [B6, "[2001:db8:1::2]:1001"]),
        Owner::new([A6, "[2001:db9:2::2]:53"], ["[2001:db9:2::2]:53", A6]),
        Owner::new([A6, "[2001:db8:2::3]:53"], ["[2001:db8:2::3]:53", "[2001:db8:3::3]:1000"]),
    ]
}

/// The cell that these words are.
fn cell(words: &[u64; WORDS]) -> bpfw_cell {
    let mut bytes = vec![0; size_of::<bpfw_cell>()];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(&words[..5]) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let mut cell = bpfw_cell::from_bytes(&bytes).expect("as many bytes");
    if cell.head.is_ipv6() {
        cell.head.idle = words[6] as u16;
    }
    bpfw_cell { seal: words[5] as u32, ..cell }
}

/// Whether the program takes the cell for that of a packet with this tuple, as `ip_is_of` in bpf/ip.h.
fn is_of(words: &[u64; WORDS], packet: &bpfw_tuple) -> bool {
    if packet.is_ipv6() {
        cell(words).tuple() == *packet
    } else {
        words[..2] == packet.words()[..2]
    }
}

/// What it finds the packet to become by the cell alone, as `take_rewrite` and `take_untranslated` in
/// bpf/connection.h.
fn take(words: &[u64; WORDS], packet: &bpfw_tuple) -> Option<Fate> {
    let (hash, found) = (cells::hash(packet, &settings()), cell(words));
    let rewrite = Fate::Rewrite([words[2], words[3], words[4]]);
    let fate = if packet.is_ipv6() { Fate::Stays } else { rewrite };
    (seal(hash, &found, None) == found.seal).then_some(fate)
}

/// What it finds by this translation, as `take_translation`. It reads seal and idle limit anew.
fn take_translation(words: &[u64; WORDS], copy: [u64; 6], packet: &bpfw_tuple) -> Option<Fate> {
    let (hash, found) = (cells::hash(packet, &settings()), cell(words));
    let bytes: Vec<u8> = copy.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let translation = bpfw_translation::from_bytes(&bytes).expect("as many bytes");
    let fits = packet.is_ipv6() && seal(hash, &found, Some(&translation)) == found.seal;
    fits.then_some(Fate::Translation(copy))
}

/// Each combination of the words that there are for each place.
fn mixtures<const N: usize>(versions: &[[u64; N]], mut each: impl FnMut([u64; N])) {
    let choices: [Vec<u64>; N] = std::array::from_fn(|place| {
        let mut words: Vec<_> = versions.iter().map(|version| version[place]).collect();
        words.sort_unstable();
        words.dedup();
        words
    });
    for number in 0..choices.iter().map(Vec::len).product() {
        let mut rest: usize = number;
        each(std::array::from_fn(|place| {
            let words = &choices[place];
            let word = words[rest % words.len()];
            rest /= words.len();
            word
        }));
    }
}

/// Hands out each pair of owners, the tuple of a packet, and what may become of it.
fn each_change(mut each: impl FnMut(&Owner, &Owner, &bpfw_tuple, &[Fate])) {
    let owners = owners();
    for (before, after) in owners.iter().flat_map(|one| owners.iter().map(move |two| (one, two))) {
        for packet in owners.iter().map(|owner| owner.tuple) {
            let own = [before, after].into_iter().filter(|owner| owner.tuple == packet);
            each(before, after, &packet, &own.map(Owner::fate).collect::<Vec<_>>());
        }
    }
}

/// What the memory of a translation may hold: that of either owner, or a stranger's.
fn translations(before: &Owner, after: &Owner) -> Vec<[u64; 6]> {
    let stranger = [1, 2, 3, 4, 5, 6].map(|number: u64| number << 40);
    [before.translation, after.translation, Some(stranger)].into_iter().flatten().collect()
}

#[test]
fn hazard_28_no_order_of_stores_and_loads_mixes_connections() {
    let (mut taken, mut mixed) = (0, 0);
    each_change(|before, after, packet, right| {
        mixtures(&[before.words, [0; WORDS], after.words], |words| {
            if !is_of(&words, packet) {
                return;
            }
            let mut check = |fate| match fate {
                Some(fate) => {
                    assert!(right.contains(&fate), "{packet}: {fate:x?} is not of {right:x?}");
                    taken += 1;
                }
                None => mixed += 1,
            };
            check(take(&words, packet));
            mixtures(&translations(before, after), |copy| {
                check(take_translation(&words, copy, packet));
            });
        });
    });
    println!("{taken} taken, {mixed} mixtures refused");
    assert!(taken > 0 && mixed > 0, "the tuple alone does not tell");
}

/// While only one of both stores is under way: loads of one cache line are not as far apart as two calls of the
/// kernel.
#[test]
fn hazard_28_a_next_hop_is_that_of_the_packets_connection() {
    let mut with_hop = 0;
    each_change(|before, after, packet, _| {
        // The daemon inserts an entry without a generation.
        let inserted = after.hop_word & !0xffff_ffff;
        for (owner, hop_word) in [(before, before.hop_word), (after, inserted)] {
            mixtures(&[owner.words, [0; WORDS]], |words| {
                let translated = |copy| take_translation(&words, copy, packet).is_some();
                let is_taken = is_of(&words, packet)
                    && (take(&words, packet).is_some()
                        || owner.translation.is_some_and(translated));
                for hop_word in [hop_word, 0].into_iter().filter(|_| is_taken) {
                    let has_generation = hop_word as u32 != 0;
                    assert!(!has_generation || before.tuple == *packet);
                    with_hop += u32::from(has_generation);
                }
            });
        }
    });
    assert!(with_hop > 0);
}
