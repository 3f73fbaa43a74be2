// SPDX-License-Identifier: GPL-2.0-only
//! The conntrack module against the running kernel, each test in its own network namespace.

#[path = "support/live.rs"]
mod live;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bpfw::conntrack::dump::{Dump, DumpProgress};
use bpfw::conntrack::entry::Entry;
use bpfw::conntrack::events::{Drained, Event, Events};
use bpfw::conntrack::requests::Requests;
use bpfw::conntrack::sysctl::Sysctls;
use bpfw::flow::family::Families;
use bpfw::flow::state::{Status, TcpState};
use bpfw::flow::tuple::{Protocol, Tuple};
use nix::sched::{CloneFlags, unshare};

const BUFFER: usize = 1024 * 1024;
/// No socket's port.
const NOBODY: u32 = u32::MAX;
/// Sockets of each family, on ports that the kernel chooses.
const ANYWHERE: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
const RULES: &str = "table inet t {
    chain o { type filter hook output priority 0; ct state established counter accept; }
    chain i { type filter hook input priority 0; ct state established counter accept; }
}";

/// Runs `body` in a new network namespace in which conntrack works; it ends with the thread.
fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if !live::root_or_skip(test) {
        return;
    }
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(RULES.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A UDP client and server that have talked both ways.
struct Udp {
    client: UdpSocket,
    server: UdpSocket,
}

impl Udp {
    fn open() -> Self {
        Self::open_at(ANYWHERE[0])
    }

    fn open_at(address: &str) -> Self {
        let [client, server] = [0, 1].map(|_| UdpSocket::bind(address).unwrap());
        let udp = Self { client, server };
        udp.talk();
        udp
    }

    fn tuple(&self) -> Tuple {
        let [source, destination] =
            [&self.client, &self.server].map(|socket| socket.local_addr().unwrap());
        Tuple::new(Protocol::Udp, source, destination)
    }

    fn talk(&self) {
        let mut buffer = [0];
        self.client.send_to(&[1], self.server.local_addr().unwrap()).unwrap();
        let (_, client) = self.server.recv_from(&mut buffer).unwrap();
        self.server.send_to(&[2], client).unwrap();
        self.client.recv_from(&mut buffer).unwrap();
    }
}

/// Both ends of an established TCP connection, and its original tuple.
fn tcp() -> (TcpStream, TcpStream, Tuple) {
    tcp_at(ANYWHERE[0])
}

fn tcp_at(address: &str) -> (TcpStream, TcpStream, Tuple) {
    let listener = TcpListener::bind(address).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[1]).unwrap();
    server.read_exact(&mut [0]).unwrap();
    let tuple =
        Tuple::new(Protocol::Tcp, client.local_addr().unwrap(), client.peer_addr().unwrap());
    (client, server, tuple)
}

fn drain(events: &mut Events) -> Vec<Event> {
    let mut found = Vec::new();
    let drained = events.read(soon(), &mut |event| found.push(event)).unwrap();
    assert_eq!(drained, Drained::Empty);
    found
}

fn updates(events: &[Event]) -> Vec<&Entry> {
    let mut entries = Vec::new();
    for event in events {
        if let Event::Update(entry) = event {
            entries.push(entry);
        }
    }
    entries
}

fn get(requests: &mut Requests, tuple: &Tuple) -> Entry {
    requests.get(tuple).unwrap().unwrap_or_else(|| panic!("no entry of {tuple}"))
}

/// Sets a TCP connection's mark, as another program would. The tool wants the whole tuple.
fn set_mark(tuple: &Tuple, mark: u32) {
    let [source, destination] = [tuple.source, tuple.destination];
    let arguments = format!(
        "-U -p tcp -s {} -d {} --sport {} --dport {} -m {mark}",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    run("conntrack", &arguments.split(' ').collect::<Vec<_>>());
}

#[test]
fn events_of_both_protocols_arrive() {
    // The end of a connection sends events of its own.
    for address in ANYWHERE {
        in_namespace("events_of_both_protocols_arrive", move || events_arrive(address));
    }
}

fn events_arrive(address: &str) {
    let mut events = Events::open(Families::Both, BUFFER, NOBODY).unwrap();
    let udp = Udp::open_at(address);
    let found = drain(&mut events);
    let entry = updates(&found)[0];
    assert_eq!((entry.original, entry.reply), (udp.tuple(), udp.tuple().invert()));
    assert!(entry.status.unwrap().contains(Status::SEEN_REPLY | Status::CONFIRMED));

    let (_client, _server, tuple) = tcp_at(address);
    let found = drain(&mut events);
    assert!(updates(&found).iter().any(|entry| entry.original == tuple
        && entry.tcp_state == Some(TcpState::Established)
        && entry.status.unwrap().contains(Status::ASSURED)));
    assert!(events.bytes_read() > 0);

    let id = get(&mut Requests::open().unwrap(), &udp.tuple()).id;
    let family = if address == ANYWHERE[0] { "ipv4" } else { "ipv6" };
    run("conntrack", &["-D", "-f", family, "-p", "udp"]);
    let found = drain(&mut events);
    let [Event::Destroy(entry)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((entry.original, entry.id), (udp.tuple(), id));
}

#[test]
fn hazard_42_who_does_not_ask_for_ipv6_hears_nothing_of_it() {
    in_namespace("hazard_42_who_does_not_ask_for_ipv6_hears_nothing_of_it", || {
        let mut events = Events::open(Families::Ipv4, BUFFER, NOBODY).unwrap();
        let _udp = Udp::open_at(ANYWHERE[1]);
        let _tcp = tcp_at(ANYWHERE[1]);
        assert_eq!(drain(&mut events), []);
        assert_eq!(events.bytes_read(), 0, "the kernel filters");
        assert_eq!(dump(Families::Ipv4), []);
        assert_eq!(dump(Families::Both).len(), 2);
        let _udp = Udp::open();
        assert_eq!(drain(&mut events).len(), 1);
        assert_eq!((dump(Families::Ipv4).len(), dump(Families::Both).len()), (1, 3));
    });
}

#[test]
fn other_protocols_and_own_updates_are_left_out() {
    in_namespace("other_protocols_and_own_updates_are_left_out", || {
        let mut requests = Requests::open().unwrap();
        let mut events = Events::open(Families::Ipv4, BUFFER, requests.port()).unwrap();
        let mut others = Events::open(Families::Ipv4, BUFFER, NOBODY).unwrap();
        let (_client, _server, tuple) = tcp();
        drain(&mut others);
        drain(&mut events);
        let read = events.bytes_read();
        run("ping", &["-c", "1", "127.0.0.1"]);
        run("conntrack", &["-D", "-p", "icmp"]);
        assert_eq!(drain(&mut events), []);
        assert_eq!(events.bytes_read(), read, "the kernel filters");

        requests.queue_update(&tuple, Some(1000), true).unwrap();
        requests.flush().unwrap();
        assert_eq!(drain(&mut events), []);
        assert_eq!(events.bytes_read(), read, "the kernel filters");
        assert_eq!(drain(&mut others).len(), 1, "there was an event");
        set_mark(&tuple, 7);
        let found = drain(&mut events);
        // What another program does is told apart from what packets do.
        let [Event::Edit { entry, .. }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(entry.mark, 7);
    });
}

/// A flood makes as many of them as it has packets, and when conntrack's table is full each new one
/// ends another.
#[test]
fn hazard_16_unanswered_connections_send_us_nothing() {
    in_namespace("hazard_16_unanswered_connections_send_us_nothing", || {
        let mut events = Events::open(Families::Ipv4, BUFFER, NOBODY).unwrap();
        let [client, server] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        client.send_to(&[1], server.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port().to_string();
        run("conntrack", &["-D", "-p", "udp", "--sport", &port]);
        assert_eq!(drain(&mut events), []);
        assert_eq!(events.bytes_read(), 0, "the kernel filters");
    });
}

#[test]
fn entries_are_found_by_either_tuple() {
    in_namespace("entries_are_found_by_either_tuple", || {
        for address in ANYWHERE {
            an_entry_is_found(address);
        }
    });
}

fn an_entry_is_found(address: &str) {
    let mut requests = Requests::open().unwrap();
    let udp = Udp::open_at(address);
    let entry = get(&mut requests, &udp.tuple());
    assert_eq!(get(&mut requests, &udp.tuple().invert()).id, entry.id);
    assert_eq!(entry.original, udp.tuple());
    assert_eq!((entry.mark, entry.zone, entry.has_helper), (0, 0, false));
    assert!(!entry.has_seqadj && !entry.has_synproxy);
    let unknown = Tuple { protocol: Protocol::Tcp, ..udp.tuple() };
    assert_eq!(requests.get(&unknown).unwrap(), None);
    assert_eq!(get(&mut requests, &udp.tuple()).id, entry.id);
}

#[test]
fn an_update_changes_timeout_and_flags_only() {
    in_namespace("an_update_changes_timeout_and_flags_only", || {
        for address in ANYWHERE {
            an_update_changes_an_entry(address);
        }
    });
}

fn an_update_changes_an_entry(address: &str) {
    let mut requests = Requests::open().unwrap();
    let (_client, _server, tuple) = tcp_at(address);
    let before = get(&mut requests, &tuple);
    assert!(!before.is_liberal());
    set_mark(&tuple, 42);
    requests.queue_update(&tuple, Some(1234), true).unwrap();
    let errors = requests.flush().unwrap();
    assert_eq!((errors.gone.len(), errors.failed.len()), (0, 0));
    let after = get(&mut requests, &tuple);
    let timeout = after.timeout.unwrap().as_secs();
    assert!((1230..=1234).contains(&timeout), "{timeout}");
    assert!(after.is_liberal() && !after.knows_acknowledgement());
    let tcp_flags = after.tcp_flags;
    let expected = Entry { tcp_flags, mark: 42, timeout: after.timeout, ..before };
    assert_eq!(after, expected);

    let gone = Tuple { protocol: Protocol::Udp, ..tuple };
    requests.queue_update(&gone, Some(1), false).unwrap();
    let errors = requests.flush().unwrap();
    assert_eq!((errors.gone.len(), errors.failed.len(), errors.incomplete), (1, 0, false));
    assert_eq!(requests.get(&gone).unwrap(), None, "an update creates nothing");
}

/// One socket's UDP datagrams to so many ports, each a connection of its own.
fn many_udp(count: u16) -> Vec<Tuple> {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let source = client.local_addr().unwrap();
    let destination = |port| SocketAddr::from(([127, 0, 0, 2], port));
    (10_000..10_000 + count)
        .map(|port| Tuple::new(Protocol::Udp, source, destination(port)))
        .inspect(|tuple| {
            // The error that nobody listens there comes with the next datagram.
            let _ = client.send_to(&[1], tuple.destination);
        })
        .collect()
}

fn dump(families: Families) -> Vec<Entry> {
    let (mut dump, mut entries) = (Dump::start(families).unwrap(), Vec::new());
    loop {
        let until = Instant::now() + Duration::from_millis(1);
        match dump.read(until, &mut |entry| entries.push(entry)).unwrap() {
            DumpProgress::More => (),
            DumpProgress::Done => return entries,
            DumpProgress::Interrupted => panic!("nothing changed the table"),
        }
    }
}

#[test]
fn a_thousand_updates_are_applied_and_dumped() {
    in_namespace("a_thousand_updates_are_applied_and_dumped", || {
        let mut requests = Requests::open().unwrap();
        let tuples = many_udp(1000);
        let missing = Tuple { protocol: Protocol::Tcp, ..tuples[0] };
        assert!(
            dump(Families::Ipv4)
                .iter()
                .all(|entry| entry.timeout.unwrap() < Duration::from_secs(1000))
        );
        let begin = Instant::now();
        for tuple in &tuples {
            requests.queue_update(tuple, Some(5000), false).unwrap();
            requests.queue_update(&missing, Some(5000), true).unwrap();
        }
        let errors = requests.flush().unwrap();
        println!("2,000 updates, half of them of nothing: {:?}", begin.elapsed());
        assert_eq!((errors.gone.len(), errors.failed.len(), errors.incomplete), (1000, 0, false));

        let begin = Instant::now();
        let entries = dump(Families::Ipv4);
        println!("dump of {}: {:?}", entries.len(), begin.elapsed());
        let refreshed = |entry: &&Entry| entry.timeout > Some(Duration::from_secs(4000));
        let mut found: Vec<_> = entries.iter().filter(refreshed).map(|e| e.original).collect();
        found.sort();
        assert_eq!(found, tuples);
    });
}

#[test]
fn an_overrun_is_told_and_reading_goes_on() {
    in_namespace("an_overrun_is_told_and_reading_goes_on", || {
        let mut events = Events::open(Families::Ipv4, 4096, NOBODY).unwrap();
        let _many: Vec<_> = (0..50).map(|_| Udp::open()).collect();
        assert_eq!(events.read(soon(), &mut |_| ()).unwrap(), Drained::Overrun);
        while events.read(soon(), &mut |_| ()).unwrap() != Drained::Empty {}
        let udp = Udp::open();
        let found = drain(&mut events);
        assert!(updates(&found).iter().any(|entry| entry.original == udp.tuple()));
    });
}

#[test]
fn a_read_ends_when_the_time_is_up() {
    in_namespace("a_read_ends_when_the_time_is_up", || {
        let mut events = Events::open(Families::Ipv4, BUFFER, NOBODY).unwrap();
        let _many: Vec<_> = (0..100).map(|_| Udp::open()).collect();
        let mut count = 0;
        let drained = events.read(Instant::now(), &mut |_| count += 1).unwrap();
        assert_eq!(drained, Drained::More);
        assert!((1..100).contains(&count), "{count}");
    });
}

#[test]
fn the_settings_are_read() {
    in_namespace("the_settings_are_read", || {
        let _udp = Udp::open();
        let sysctls = Sysctls::read().unwrap();
        assert_eq!(sysctls.count, 1);
        assert!(sysctls.udp_timeout_stream >= sysctls.udp_timeout);
        assert!(sysctls.tcp_timeout_established > Duration::from_secs(60));
    });
}
