// SPDX-License-Identifier: GPL-2.0-only
//! Random frames go into two routers that are alike, one with bpfw. The same bytes leave both by
//! the same ports, whether bpfw forwards a frame or passes it up.
//!
//! `BPFW_PACKETS` says how many frames each hook gets, `BPFW_SEED` which ones.

mod support;

use bpfw::abi;
use bpfw::reasons::packet::{self, VERDICTS};
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddrV4;
use std::time::Instant;
use support::conversation::conversations;
use support::flow::{LAN, WAN};
use support::lab::{CLIENT, SERVER};
use support::packet::Packet;
use support::port::PortFrame;
use support::random::Random;
use support::router::at;
use support::samples::{Sample, Samples};
use support::spoil::{step, sums_if_else_alike};
use support::twins::{Outcome, Policy, Seen, Twins};

on_both_hooks!(the_same_bytes_leave_by_the_same_port);

/// Frames for each hook, where `BPFW_PACKETS` says nothing.
const PACKETS: usize = 30_000;
/// Frames that go in together, from one side. A veth takes 256 at a time.
const BATCH: usize = 64;
/// Batches with the same connections.
const ROUND: usize = 40;
/// How often a shorter story is tried when a difference was found.
const TRIES: usize = 80;

/// A number from the environment, decimal.
fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

struct Search {
    twins: Twins,
    hook: &'static str,
    injected: usize,
    spoiled_forwarded: usize,
}

fn the_same_bytes_leave_by_the_same_port(hook: &'static str, test: &str) {
    let start = Instant::now();
    let packets = variable("BPFW_PACKETS").map_or(PACKETS, |number| number as usize);
    let mut seed = variable("BPFW_SEED").unwrap_or_else(|| RandomState::new().hash_one(hook));
    println!("{hook}: BPFW_SEED={seed}");
    let twins = Twins::new(hook, test, conversations());
    let mut search = Search { twins, hook, injected: 0, spoiled_forwarded: 0 };
    while search.injected < packets {
        search.round(seed);
        seed = seed.wrapping_add(1);
    }
    search.report(start);
}

impl Search {
    /// Fresh connections and as many batches as a round has. Each round has its own seed, so that
    /// it can be had again without those before it.
    fn round(&mut self, seed: u64) {
        let mut samples = Samples::new(seed, conversations(), self.hook == "tc");
        self.twins.renew(policy(seed));
        let (mut story, mut spoiled) = (Vec::<Sample>::new(), Vec::new());
        for batch in 0..ROUND {
            let from = if batch % 2 == 0 { LAN } else { WAN };
            let begin = story.len();
            while story.len() < begin + BATCH {
                let (last, now) = samples.next(from).into_iter().partition(Sample::is_spoiled);
                spoiled.extend::<Vec<_>>(last);
                story.extend::<Vec<_>>(now);
            }
            if let Err(difference) = self.try_batch(&story[begin..]) {
                self.fail(seed, story, difference);
            }
        }
        // Last, because what is to come of them is not certain, so that it takes time to wait for.
        spoiled.sort_by_key(|sample| sample.from.device);
        if let Err(difference) = self.try_samples(&spoiled) {
            story.extend(spoiled);
            self.fail(seed, story, difference);
        }
    }

    fn fail(&mut self, seed: u64, story: Vec<Sample>, difference: String) -> ! {
        println!("{}: BPFW_SEED={seed}\n{difference}", self.hook);
        let (short, difference) = self.shorten(policy(seed), story, difference);
        panic!("{}", tell(seed, &short, &difference));
    }

    /// Injects samples that come from the same side.
    fn try_batch(&mut self, samples: &[Sample]) -> Result<(), String> {
        let from = samples[0].from;
        let right: Vec<_> = samples.iter().map(|sample| sample.frame.clone()).collect();
        let spoiled: Vec<_> = samples.iter().filter_map(|sample| sample.spoiled.clone()).collect();
        self.injected += right.len() + spoiled.len();
        let outcome = self.twins.inject(from, &right);
        if !outcome.is_equal() {
            return Err(outcome.to_string());
        }
        if spoiled.is_empty() {
            return Ok(());
        }
        let wrong = self.twins.inject(from, &spoiled);
        let [missing, more] = wrong.differences();
        self.spoiled_forwarded += more.len();
        let accepted = |(device, frame): &(&str, PortFrame)| {
            let mut good = outcome.stack.iter().filter(|(other, _)| other == device);
            good.any(|(_, good)| is_update(samples, frame, good))
        };
        if missing.is_empty() && more.iter().all(accepted) {
            return Ok(());
        }
        Err(format!("with wrong checksums:\n{wrong}"))
    }

    /// The story in two new labs: nothing of another try is left, such as fragments that wait.
    fn tell_again(&mut self, policy: Policy, story: &[Sample]) -> Result<(), String> {
        self.twins = Twins::new(self.hook, "differential", conversations());
        self.twins.renew(policy);
        self.try_samples(story)
    }

    fn try_samples(&mut self, samples: &[Sample]) -> Result<(), String> {
        let batches = samples.chunk_by(|one, next| one.from == next.from);
        batches.flat_map(|batch| batch.chunks(BATCH)).try_for_each(|batch| self.try_batch(batch))
    }

    /// Leaves out what the difference does not need.
    fn shorten(
        &mut self,
        policy: Policy,
        mut story: Vec<Sample>,
        mut difference: String,
    ) -> (Vec<Sample>, String) {
        if self.tell_again(policy, &story).is_ok() {
            return (story, format!("not seen again in another try:\n{difference}"));
        }
        let (mut size, mut tries) = (story.len(), 0);
        while size > 0 && tries < TRIES {
            let mut at = 0;
            while at < story.len() && tries < TRIES {
                let mut shorter = story.clone();
                shorter.drain(at..(at + size).min(story.len()));
                tries += 1;
                match self.tell_again(policy, &shorter) {
                    Err(found) => (story, difference) = (shorter, found),
                    Ok(()) => at += size,
                }
            }
            size /= 2;
        }
        (story, difference)
    }

    fn report(&self, start: Instant) {
        let packets = |verdict| self.twins.maps().packets(verdict);
        let forwarded = packets(abi::BPFW_FORWARDED);
        println!(
            "{}: {} frames in {:.1?}, no difference; {forwarded} forwarded by bpfw, \
             {} of them with a wrong checksum",
            self.hook,
            self.injected,
            start.elapsed(),
            self.spoiled_forwarded
        );
        for reason in VERDICTS.iter().filter(|reason| packets(reason.number) > 0) {
            println!("{}", packet::summary(reason, packets(reason.number)));
        }
        assert!(forwarded * 4 > self.injected as u64, "too few took the fast path");
    }
}

/// Those of a third of the connections: that their openers send, and that they get.
const BANS: [Option<&str>; 5] = [
    None,
    None,
    Some("th sport 20010-20019 drop"),
    Some("th dport 20010-20019 drop"),
    Some("th sport 20010-20019 reject"),
];

/// What rules and sysctls say in this round.
fn policy(seed: u64) -> Policy {
    let mut random = Random::new(!seed);
    Policy { rp_filter: random.pick::<&str>(&["0", "1", "2"]), ban: *random.pick(&BANS) }
}

/// Whether a frame that came out equals what the right one became, except for a wrong checksum.
/// That must have changed by as much as the right one's.
fn is_update(samples: &[Sample], frame: &PortFrame, good: &PortFrame) -> bool {
    let Some(after) = sums_if_else_alike(&good.bytes, &frame.bytes) else { return false };
    let pairs = samples.iter().filter_map(|each| Some((&each.frame, each.spoiled.as_ref()?)));
    let mut before = pairs.filter_map(|(good, bad)| sums_if_else_alike(&good.bytes, &bad.bytes));
    before.any(|before| step(before) == step(after))
}

fn tell(seed: u64, story: &[Sample], difference: &str) -> String {
    let frames = |each: &Sample| {
        let of_both = each.spoiled.iter().chain([&each.frame]);
        of_both.map(|frame| format!("  {} {frame}\n", each.from.device)).collect::<String>()
    };
    let frames: String = story.iter().map(frames).collect();
    let policy = policy(seed);
    format!("BPFW_SEED={seed}, {policy:?}; frames that came in:\n{frames}{difference}")
}

/// Two frames that differ by their source port are alike only if the kernel chose it in both routers.
#[test]
fn a_port_by_chance_is_no_difference() {
    let seen = |port| {
        let from = SocketAddrV4::new(SERVER, port);
        vec![("lan0", PortFrame::from(Packet::tcp(from, at(CLIENT, 7003)).build()))]
    };
    let of_a_lab = vec![443, 7003];
    let judge = |stack, bpfw| Outcome::new(seen(stack), seen(bpfw), of_a_lab.clone()).is_equal();
    assert!(judge(443, 443) && judge(1111, 1111));
    assert!(judge(1111, 2222), "chosen by chance in both");
    assert!(!judge(443, 2222) && !judge(1111, 443), "a connection's own port in one of them");
    let fewer = Outcome::new(seen(1111), Seen::new(), of_a_lab.clone());
    assert!(!fewer.is_equal(), "missing");
}
