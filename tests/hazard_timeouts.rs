// SPDX-License-Identifier: GPL-2.0-only
//! Whose word counts for a conntrack entry's timeout, and that what others set stays as it is.

mod support;

use bpfw::abi;
use bpfw::conntrack::events::{Event, Events};
use bpfw::flow::family::Families;
use bpfw::flow::tuple::{Protocol, Tuple};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};
use support::conntrack::{entry, is_in_state, time_left, update};
use support::daemon::Daemon;
use support::lab::{CLIENT, Lab};
use support::maps::Maps;
use support::packet::tcp;
use support::router::*;
use support::rules::snat_rules;
use support::segments::{End, Segments};
use support::udp::UdpClient;
use support::wait::eventually;

on_both_hooks!(
    hazard_03_fields_of_others_survive,
    hazard_03_a_shortened_timeout_ends_no_busy_connection,
    hazard_03_a_prolonged_timeout_of_an_idle_connection_stays,
    hazard_03_a_timeout_set_after_a_refresh_ends_no_busy_stream,
    hazard_03_a_timeout_set_without_an_event_ends_no_busy_stream,
    hazard_03_another_timeout_of_tcp_counts_until_its_next_packet,
    hazard_03_a_packet_ends_another_timeout_of_tcp_without_an_event,
    hazard_05_timeouts_follow_the_sysctls,
    hazard_05_fixed_timeouts_are_not_refreshed,
    hazard_06_a_connection_outlives_its_silence,
    hazard_06_a_stream_that_one_side_sends_lives,
    hazard_06_a_busy_stream_is_refreshed_late_and_in_time,
    hazard_06_a_busy_connection_is_told_once_when_it_falls_silent,
    hazard_06_a_busy_tcp_connection_outlives_a_segment_by_the_stack,
    hazard_06_a_quiet_tcp_connection_keeps_its_timeout,
    hazard_06_tcp_that_nobody_answers_gets_less,
    hazard_06_no_refresh_revives_a_deleted_entry,
    hazard_06_a_timeout_too_short_to_be_kept_is_left_to_the_stack,
);

const PORT: u16 = 40000;
/// No socket's port.
const NOBODY: u32 = u32::MAX;
const TIMEOUT: &str = "net/netfilter/nf_conntrack_udp_timeout";
const STREAM: &str = "net/netfilter/nf_conntrack_udp_timeout_stream";

fn original() -> Tuple {
    let source = SocketAddrV4::new(CLIENT, PORT);
    Tuple::new(Protocol::Udp, source, ECHO)
}

/// Conntrack's number of the entry: another number is another entry.
fn id(lab: &Lab, port: u16) -> Option<String> {
    let list = support::netns::text(&lab.conntrack(&["-L", "-o", "id"]).stdout);
    let line = list.lines().find(|line| line.contains(&format!("sport={port} ")))?;
    line.split_whitespace().find(|word| word.starts_with("id=")).map(str::to_owned)
}

/// UDP's timeouts, in seconds.
fn set_timeouts(lab: &Lab, seconds: &str) {
    [TIMEOUT, STREAM].iter().for_each(|sysctl| lab.router.sysctl(sysctl, seconds));
}

/// A TCP connection on the fast path. Its timeout is 600 s, or 30 s with data that is not acknowledged; the
/// daemon looks around every 3 s.
fn offloaded_tcp(lab: &Lab, daemon: &Daemon, port: u16) -> Segments {
    let tcp = Segments::open(lab, port, Some(7));
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "it is offloaded", || maps.has_connection(tcp.original()));
    tcp
}

fn set_tcp_timeouts(lab: &Lab) {
    let tcp = |name, seconds| {
        lab.router.sysctl(&format!("net/netfilter/nf_conntrack_tcp_timeout_{name}"), seconds);
    };
    tcp("established", "600");
    tcp("unacknowledged", "30");
    tcp("max_retrans", "30");
    lab.router.sysctl(STREAM, "16");
}

/// Data of the client's, every 50 ms, for so long. Conntrack would take nothing for data that is not
/// acknowledged from a segment that acknowledges what it has not seen, so the server sends none.
fn keep_sending(tcp: &mut Segments, time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        tcp.data(End::Client, b"data");
        tcp.acknowledge(End::Server);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Echoes, one every 50 ms, for so long.
fn keep_busy(client: &UdpClient, time: Duration) {
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < time {
        number += 1;
        assert!(client.echoes(number, LIMIT), "echo {number} is lost");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A label has no number outside; a rule counts the packets of connections that have it.
const LABELS: &str = "
table ip labels {
    counter seen_label { }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        ct state new ct label set 5
        ct label 5 counter name seen_label
    }
}
";

fn hazard_03_fields_of_others_survive(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    set_timeouts(&lab, "4");
    lab.nft(LABELS);
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let mut tcp = Segments::open(&lab, 41001, Some(7));
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "TCP is offloaded", || maps.has_connection(tcp.original()));
    update(&lab, original(), "-m 77");
    update(&lab, tcp.original(), "-m 78");
    // Refreshes of the one, flags of both: some segments go up.
    for _ in 0..4 {
        keep_busy(&client, Duration::from_secs(1));
        tcp.show_conntrack(End::Client);
        tcp.exchange();
    }
    for (port, mark) in [(PORT, "mark=77"), (41001, "mark=78")] {
        let entry = entry(&lab, port).expect("it lives");
        assert!(entry.contains(mark) && entry.contains("[ASSURED]"), "{entry}");
    }
    let seen = || lab.router.sh("nft list counter ip labels seen_label");
    let before = seen();
    tcp.show_conntrack(End::Client);
    eventually(LIMIT, "a segment of the labeled connection", || seen() != before);
    assert_eq!(offloaded(&daemon), 2);
}

fn hazard_03_a_shortened_timeout_ends_no_busy_connection(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let number = id(&lab, PORT);
    update(&lab, original(), "-t 3");
    wait_until_offloaded(&daemon, 0);
    // The kernel's own answer to the next packet.
    let started = Instant::now();
    assert!(client.echoes(1, LIMIT));
    assert!(time_left(&lab, PORT) > 100);
    wait_until_fast(&lab, &client);
    println!("{hook}: fast again {:?} after the next packet", started.elapsed());
    keep_busy(&client, Duration::from_secs(4));
    assert_eq!(id(&lab, PORT), number);
}

fn hazard_03_a_prolonged_timeout_of_an_idle_connection_stays(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl(TIMEOUT, "4");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    update(&lab, original(), "-t 5000");
    wait_until_offloaded(&daemon, 0);
    // Several rounds of refreshing.
    std::thread::sleep(Duration::from_secs(4));
    assert!(time_left(&lab, PORT) > 4900);
    assert!(client.echoes(1, LIMIT));
    assert!(time_left(&lab, PORT) <= 120);
    wait_until_fast(&lab, &client);
}

/// The refresh gave it 16 s: the look that would come in time for these is too late now. Without an event,
/// an audit notices it, or that the entry is about to end.
fn expect_to_outlive_another_timeout(hook: &str, test: &str, events: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_events", events);
    lab.router.sysctl(STREAM, "16");
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let number = id(&lab, PORT);
    for (what, seconds) in [("time passes", 0..=11), ("it is refreshed", 14..=16)] {
        eventually(LIMIT, what, || {
            keep_busy(&client, Duration::from_millis(100));
            seconds.contains(&time_left(&lab, PORT))
        });
    }
    update(&lab, original(), "-t 8");
    keep_busy(&client, Duration::from_secs(14));
    assert_eq!(id(&lab, PORT), number, "conntrack's entry ended while it was in use");
}

fn hazard_03_a_timeout_set_after_a_refresh_ends_no_busy_stream(hook: &str, test: &str) {
    expect_to_outlive_another_timeout(hook, test, "1");
}

fn hazard_03_a_timeout_set_without_an_event_ends_no_busy_stream(hook: &str, test: &str) {
    expect_to_outlive_another_timeout(hook, test, "0");
}

/// 40 s are more than what data that is not acknowledged gets, so the entry is taken to last so long.
fn hazard_03_another_timeout_of_tcp_counts_until_its_next_packet(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    set_tcp_timeouts(&lab);
    let daemon = start(&lab, hook, &[]);
    let mut tcp = offloaded_tcp(&lab, &daemon, PORT);
    keep_sending(&mut tcp, Duration::from_secs(1));
    let number = id(&lab, PORT);
    update(&lab, tcp.original(), "-t 40");
    // Several looks, the last of them when the entry may have to be refreshed.
    std::thread::sleep(Duration::from_secs(28));
    let left = time_left(&lab, PORT);
    assert!(left <= 13, "{left} s are left: another program's timeout is overwritten");
    // Only conntrack's own entry lets these pass, and they leave it the usual timeout.
    eventually(LIMIT, "packets count again", || {
        keep_sending(&mut tcp, Duration::from_millis(100));
        time_left(&lab, PORT) > 580
    });
    assert_eq!(id(&lab, PORT), number);
    update(&lab, tcp.original(), "-t 40");
    keep_sending(&mut tcp, Duration::from_secs(45));
    assert_eq!(id(&lab, PORT), number, "conntrack's entry ended while it was in use");
    assert_eq!(offloaded(&daemon), 1);
}

/// The audit finds the timeout each second; the packets that come after it must not be forgotten by that.
fn hazard_03_a_packet_ends_another_timeout_of_tcp_without_an_event(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_events", "0");
    set_tcp_timeouts(&lab);
    let daemon = start(&lab, hook, &[]);
    let mut tcp = Segments::open(&lab, PORT, Some(7));
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "it is offloaded", || {
        keep_sending(&mut tcp, Duration::from_millis(100));
        maps.has_connection(tcp.original())
    });
    // The stack sends the first ones.
    keep_sending(&mut tcp, Duration::from_millis(300));
    update(&lab, tcp.original(), "-t 200");
    std::thread::sleep(Duration::from_secs(2));
    let before = lab.stack_packets();
    keep_sending(&mut tcp, Duration::from_secs(1));
    assert_eq!(lab.stack_packets(), before, "the fast path takes all");
    eventually(LIMIT * 2, "conntrack is told of these packets", || time_left(&lab, PORT) > 500);
}

fn hazard_05_timeouts_follow_the_sysctls(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    lab.router.sysctl(STREAM, "10");
    wait_until_fast(&lab, &client);
    let number = id(&lab, PORT);
    for (seconds, least) in [("40", 20), ("8", 4)] {
        lab.router.sysctl(STREAM, seconds);
        let most: u64 = seconds.parse().unwrap();
        let (started, stack) = (Instant::now(), lab.stack_packets());
        eventually(LIMIT * 3, "the new timeout is given", || {
            keep_busy(&client, Duration::from_millis(100));
            (least..=most).contains(&time_left(&lab, PORT))
        });
        let by_stack = lab.stack_packets() - stack;
        println!(
            "{hook}: {seconds} s are given after {:?}, {by_stack} packets by the stack",
            started.elapsed()
        );
        // One packet of each direction asks for the new one; a shorter one begins the offload anew.
        if seconds == "40" {
            assert!((1..=4).contains(&by_stack), "{by_stack} packets by the stack");
        }
        wait_until_fast(&lab, &client);
    }
    assert_eq!(id(&lab, PORT), number);
}

fn hazard_05_fixed_timeouts_are_not_refreshed(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    update(&lab, original(), "-t 60");
    update(&lab, original(), "-u SEEN_REPLY,ASSURED,FIXED_TIMEOUT");
    wait_until_offloaded(&daemon, 0);
    let before = time_left(&lab, PORT);
    keep_busy(&client, Duration::from_secs(4));
    assert_eq!(offloaded(&daemon), 0);
    let after = time_left(&lab, PORT);
    assert!(after + 3 <= before, "{before} s, later {after} s");
}

/// Silence for most of the timeout, then packets again: each alone must save the entry.
fn hazard_06_a_connection_outlives_its_silence(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl(STREAM, "8");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let number = id(&lab, PORT);
    eventually(LIMIT, "the entry is about to end", || time_left(&lab, PORT) <= 1);
    keep_busy(&client, Duration::from_secs(3));
    assert_eq!(id(&lab, PORT), number, "conntrack's entry ended while it was in use");
    assert!(Maps::of(daemon.pid()).packets(abi::BPFW_PASS_IDLE) > 0);
    assert!(echo_is_fast(&lab, &client, 1_000));
}

/// For twice as long as the timeout: what the look finds on the client's side is silence. Then again after
/// silences of both sides, which the walk may have noted before the server speaks.
fn hazard_06_a_stream_that_one_side_sends_lives(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl(STREAM, "6");
    let _daemon = start(&lab, hook, &[]);
    let (server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let (number, source) = (id(&lab, PORT), server.sources().pop().expect("echoes"));
    drop(server);
    let server = UdpClient::open(&lab.server, ECHO, source);
    // The first packet after 1.5 s goes to the stack.
    for (silence, by_stack) in [(0, 0), (500, 0), (2_000, 1)] {
        std::thread::sleep(Duration::from_millis(silence));
        let before = lab.stack_packets();
        for datagram in 1..=240 {
            server.send(datagram);
            assert_eq!(client.recv(LIMIT), Some(datagram));
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(id(&lab, PORT), number, "conntrack's entry ended while it was in use");
        let stack = lab.stack_packets() - before;
        assert_eq!(stack, by_stack, "packets by the stack after a silence of {silence} ms");
    }
}

/// While what conntrack was told leaves it time until after the next look, it is told nothing.
fn hazard_06_a_busy_stream_is_refreshed_late_and_in_time(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl(STREAM, "16");
    let _daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let (number, stack, started) = (id(&lab, PORT), lab.stack_packets(), Instant::now());
    let mut least = 16;
    while started.elapsed() < Duration::from_secs(35) {
        keep_busy(&client, Duration::from_millis(100));
        least = least.min(time_left(&lab, PORT));
    }
    assert_eq!(id(&lab, PORT), number, "conntrack's entry ended while it was in use");
    assert_eq!(lab.stack_packets(), stack, "the fast path takes all");
    // There is a look every 3 s; one that always refreshed would leave 12 s.
    assert!(least < 9, "{least} s were left at the least");
    println!("{hook}: {least} s of 16 were left at the least");
}

/// How often a program other than the stack has changed the entry with this client port.
fn edits(events: &mut Events, port: u16) -> usize {
    let mut edits = 0;
    let mut note = |event| {
        if let Event::Edit { entry, .. } = event {
            edits += usize::from(entry.original.source.port() == port && entry.timeout.is_some());
        }
    };
    events.read(Instant::now(), &mut note).unwrap();
    edits
}

/// In each period the stack sees a packet of both directions, which is enough. When they end, conntrack
/// must count from the last one that the fast path has forwarded.
fn hazard_06_a_busy_connection_is_told_once_when_it_falls_silent(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl(STREAM, "16");
    let _daemon = start(&lab, hook, &["--prove-every", "3"]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    let mut events = lab.router.enter(|| Events::open(Families::Ipv4, 1 << 20, NOBODY).unwrap());
    keep_busy(&client, Duration::from_secs(12));
    assert_eq!(edits(&mut events, PORT), 0, "the stack's packets keep the entry");
    eventually(LIMIT, "the stack has not seen a packet for more than a second", || {
        keep_busy(&client, Duration::from_millis(50));
        time_left(&lab, PORT) < 15
    });
    let last = Instant::now();
    eventually(LIMIT, "conntrack is told", || edits(&mut events, PORT) == 1);
    let left = time_left(&lab, PORT);
    // The last packet came a little earlier than `last`.
    let due = Duration::from_millis(15_500).saturating_sub(last.elapsed());
    assert!(left >= due.as_secs(), "{left} s are left instead of {due:?}");
    eventually(LIMIT, "the entry expires", || id(&lab, PORT).is_none());
    let silence = last.elapsed();
    println!("{hook}: it expires {silence:?} after its last packet");
    assert!(silence > Duration::from_millis(15_500), "it lasted for {silence:?}");
    assert_eq!(edits(&mut events, PORT), 0, "it is told once");
}

/// The stack gives it the timeout of unacknowledged data, and nobody tells the daemon. What the
/// daemon itself has told conntrack was 600 s.
fn hazard_06_a_busy_tcp_connection_outlives_a_segment_by_the_stack(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    set_tcp_timeouts(&lab);
    let daemon = start(&lab, hook, &[]);
    let mut tcp = offloaded_tcp(&lab, &daemon, PORT);
    let number = id(&lab, PORT);
    for (what, seconds) in [("time passes", 0..=592), ("it is refreshed", 597..=600)] {
        eventually(LIMIT * 2, what, || {
            keep_sending(&mut tcp, Duration::from_millis(100));
            seconds.contains(&time_left(&lab, PORT))
        });
    }
    let nothing = [1, 1, 1, 0];
    tcp.send(End::Client, |packet| {
        packet.flags(tcp::ACK | tcp::PSH).ip_options(&nothing).payload(b"by the stack")
    });
    let left = time_left(&lab, PORT);
    assert!(left <= 30, "{left} s are left: the stack has taken the segment for acknowledged");
    let before = lab.stack_packets();
    keep_sending(&mut tcp, Duration::from_secs(40));
    assert_eq!(lab.stack_packets(), before, "the fast path takes all");
    assert_eq!(id(&lab, PORT), number, "conntrack's entry ended while it was in use");
    let left = time_left(&lab, PORT);
    assert!(left > 500, "{left} s are left of a connection both of whose sides speak");
}

/// A keepalive probe and its answer go by the stack. Conntrack has missed what the fast path forwarded
/// before, so it takes the probe for unacknowledged data, and would keep the entry for 30 s.
fn hazard_06_a_quiet_tcp_connection_keeps_its_timeout(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    set_tcp_timeouts(&lab);
    let daemon = start(&lab, hook, &[]);
    let mut tcp = offloaded_tcp(&lab, &daemon, PORT);
    keep_sending(&mut tcp, Duration::from_secs(1));
    let last = tcp.data(End::Client, b"data").tcp.expect("a segment");
    tcp.acknowledge(End::Server);
    let before = lab.stack_packets();
    std::thread::sleep(Duration::from_secs(9));
    tcp.send(End::Client, |packet| packet.seq(last.seq + 3));
    tcp.acknowledge(End::Server);
    assert_eq!(lab.stack_packets(), before + 2, "after a silence, packets go by the stack");
    let left = time_left(&lab, PORT);
    assert!(left <= 30, "{left} s are left: conntrack has seen all");
    eventually(LIMIT, "conntrack is told that all is acknowledged", || time_left(&lab, PORT) > 500);
}

fn hazard_06_tcp_that_nobody_answers_gets_less(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    lab.router.sysctl("net/netfilter/nf_conntrack_tcp_timeout_established", "600");
    lab.router.sysctl("net/netfilter/nf_conntrack_tcp_timeout_unacknowledged", "4");
    let daemon = start(&lab, hook, &[]);
    let mut one = Segments::open(&lab, 41001, Some(7));
    one.exchange();
    let maps = Maps::of(daemon.pid());
    eventually(LIMIT, "it is offloaded", || maps.has_connection(one.original()));
    let step = Duration::from_millis(20);
    eventually(LIMIT * 3, "one side alone gets 4 s at most", || {
        one.data(End::Client, b"hello?");
        std::thread::sleep(step);
        time_left(&lab, 41001) <= 4
    });
    let before = lab.stack_packets();
    for _ in 0..250 {
        one.data(End::Client, b"hello?");
        std::thread::sleep(step);
    }
    assert_eq!(lab.stack_packets(), before, "all of it takes the fast path, and it lives");
    eventually(LIMIT * 3, "both sides get all", || {
        one.exchange();
        std::thread::sleep(step);
        time_left(&lab, 41001) > 580
    });
    assert!(is_in_state(&lab, 41001, "ESTABLISHED"));
}

fn hazard_06_no_refresh_revives_a_deleted_entry(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    set_timeouts(&lab, "4");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    wait_until_fast(&lab, &client);
    keep_busy(&client, Duration::from_secs(2));
    assert!(lab.conntrack(&["-D", "-p", "udp", "--sport", "40000"]).status.success());
    // Refreshes of the traffic just now would be due.
    let revived = support::wait::becomes_true(Duration::from_secs(3), || id(&lab, PORT).is_some());
    assert!(!revived);
    assert_eq!(offloaded(&daemon), 0);
}

fn hazard_06_a_timeout_too_short_to_be_kept_is_left_to_the_stack(hook: &str, test: &str) {
    let lab = lab(hook, test, &snat_rules());
    set_timeouts(&lab, "2");
    let daemon = start(&lab, hook, &[]);
    let (_server, client) = echo(&lab, PORT);
    keep_busy(&client, Duration::from_secs(1));
    let number = id(&lab, PORT);
    keep_busy(&client, Duration::from_secs(4));
    assert!(number.is_some() && id(&lab, PORT) == number, "conntrack's entry ended while in use");
    assert_eq!(offloaded(&daemon), 0);
    // With one that can be kept, the same connection is offloaded.
    set_timeouts(&lab, "30");
    wait_until_fast(&lab, &client);
}
