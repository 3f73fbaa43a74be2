// SPDX-License-Identifier: GPL-2.0-only
//! When conntrack must be told that a connection lives, whose packets only the fast path sees.

use std::time::Duration;

use super::tuple::Protocol;

/// How old a timeout may be that counts as just given. Conntrack shows whole seconds.
pub const JUST_GIVEN: Duration = Duration::from_secs(3);

const SECOND: Duration = Duration::from_secs(1);

/// The longest interval between sweeps.
const LONGEST: Duration = Duration::from_secs(60);

/// The shortest timeout that can be refreshed in time.
const SHORTEST: Duration = Duration::from_secs(3);

/// Conntrack's timeouts, from its sysctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `nf_conntrack_udp_timeout`
    pub udp: Duration,
    /// `nf_conntrack_udp_timeout_stream`
    pub udp_stream: Duration,
    /// `nf_conntrack_tcp_timeout_established`
    pub tcp_established: Duration,
    /// `nf_conntrack_tcp_timeout_unacknowledged` and `nf_conntrack_tcp_timeout_max_retrans`, which
    /// cut the one above while data waits for its acknowledgement.
    pub tcp_waiting: [Duration; 2],
}

/// What the timeout says that conntrack has just given to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// It is that of the sysctls.
    Ordinary,
    /// It may be: conntrack waits for an acknowledgement.
    Unclear,
    /// A policy has given it another one.
    Own,
}

impl Timeouts {
    /// What packets give such a connection.
    pub fn of(&self, protocol: Protocol, assured: bool) -> Lifetime {
        let full = match (protocol, assured) {
            (Protocol::Tcp, _) => self.tcp_established,
            (Protocol::Udp, true) => self.udp_stream,
            (Protocol::Udp, false) => self.udp,
        };
        let least = match protocol {
            Protocol::Tcp => self.tcp_waiting.into_iter().fold(full, Duration::min),
            Protocol::Udp => full,
        };
        Lifetime { full, least }
    }

    /// Judges what is left of the timeout shortly after a packet; `None` if nobody knows when the
    /// last one was.
    pub fn judge(&self, protocol: Protocol, assured: bool, left: Option<Duration>) -> Given {
        let Some(left) = left else {
            return Given::Unclear;
        };
        let fits =
            |timeout: Duration| timeout.checked_sub(left).is_some_and(|age| age <= JUST_GIVEN);
        if fits(self.of(protocol, assured).full) {
            Given::Ordinary
        } else if protocol == Protocol::Tcp && self.tcp_waiting.into_iter().any(fits) {
            Given::Unclear
        } else {
            Given::Own
        }
    }

    /// From the start of one sweep through all connections to that of the next. Unassured UDP
    /// passes up from its second second on, so conntrack misses 2 s of it at most. One sweep before
    /// half of its timeout will do.
    pub fn sweep_interval(&self, unassured: bool) -> Duration {
        // Conntrack is told whole seconds.
        let part = |protocol, of| (self.of(protocol, true).least / of).saturating_sub(SECOND);
        // Each sweep must know that an entry lasts until the next one has come to it (`lasts`).
        let interval = part(Protocol::Tcp, 2).min(part(Protocol::Udp, 4));
        let interval = if unassured { interval.min(self.udp / 2) } else { interval };
        interval.clamp(SECOND, LONGEST)
    }
}

/// The timeout that conntrack gives a connection on each of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Where nothing is wrong.
    pub full: Duration,
    /// TCP, where data is not acknowledged; otherwise the same.
    pub least: Duration,
}

impl Lifetime {
    /// Whether an entry whose last known packet is so old lasts until the next sweep.
    pub fn lasts(&self, known: Duration, until_next: Duration) -> bool {
        known + until_next < self.least
    }

    /// Whether a packet so long ago has left so much of the timeout: of TCP, the full one or the
    /// shortest.
    pub fn explains(&self, left: Duration, known: Duration) -> bool {
        let given = left + known + JUST_GIVEN;
        let most = self.full + JUST_GIVEN * 2;
        given >= self.least && given <= most
    }

    /// Whether sweeps come in time at all: an interval is a second, and another is lost because
    /// conntrack is told whole ones.
    pub fn can_be_kept(&self) -> bool {
        self.least >= SHORTEST
    }

    /// A silence after which the stack sees the next packet: conntrack's entry might end before
    /// the next sweep.
    pub fn idle_limit(&self) -> Duration {
        self.least / 4
    }

    /// Whether packets, and refreshes while there are some, leave an entry with so much time.
    /// Otherwise another program has set its timeout, or it is about to expire. What the next packet
    /// makes of it is for the stack to say then.
    pub fn is_usual(&self, left: Duration) -> bool {
        // Conntrack tells whole seconds, rounded down.
        left <= self.full && (left + SECOND) * 4 >= self.least
    }

    /// The timeout to give the connection so long after its last packet. TCP that moved in one direction
    /// only has data that nobody acknowledges, and is not due the full one.
    pub fn left(&self, acknowledged: bool, latest: Duration) -> Duration {
        left_after(if acknowledged { self.full } else { self.least }, latest)
    }
}

/// What is left of a timeout so long after the last packet, as it would be in conntrack.
fn left_after(timeout: Duration, latest: Duration) -> Duration {
    timeout.saturating_sub(latest).max(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const MINUTE: Duration = Duration::from_secs(60);
    const UDP: Lifetime =
        Lifetime { full: Duration::from_secs(120), least: Duration::from_secs(120) };
    const TCP: Lifetime = Lifetime { full: DAY, least: Duration::from_secs(300) };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn traffic_counts_from_its_last_packet() {
        assert_eq!(UDP.left(true, seconds(5)), seconds(115));
        assert_eq!(TCP.left(true, seconds(5)), DAY - seconds(5));
        assert_eq!(TCP.left(true, DAY), seconds(1));
    }

    #[test]
    fn one_sided_tcp_gets_what_unacknowledged_data_gets() {
        assert_eq!(TCP.left(false, seconds(0)), seconds(300));
        assert_eq!(UDP.left(false, seconds(0)), UDP.full);
    }

    #[test]
    fn hazard_03_a_timeout_of_its_own_is_seen() {
        let timeouts = Timeouts {
            udp: MINUTE / 2,
            udp_stream: MINUTE * 2,
            tcp_established: DAY,
            tcp_waiting: [Duration::from_secs(300), Duration::from_secs(200)],
        };
        let judge =
            |protocol, assured, left| timeouts.judge(protocol, assured, Some(seconds(left)));
        for (left, given) in
            [(121, Given::Own), (120, Given::Ordinary), (117, Given::Ordinary), (116, Given::Own)]
        {
            assert_eq!(judge(Protocol::Udp, true, left), given, "{left}");
        }
        assert_eq!(judge(Protocol::Udp, false, 30), Given::Ordinary);
        assert_eq!(judge(Protocol::Udp, false, 120), Given::Own);
        assert_eq!(judge(Protocol::Tcp, true, 86_399), Given::Ordinary);
        assert_eq!(judge(Protocol::Tcp, true, 300), Given::Unclear);
        assert_eq!(judge(Protocol::Tcp, true, 198), Given::Unclear);
        assert_eq!(judge(Protocol::Tcp, true, 250), Given::Own);
        assert_eq!(timeouts.judge(Protocol::Udp, true, None), Given::Unclear);
    }

    #[test]
    fn each_state_has_its_timeouts() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts {
            udp: second * 30,
            udp_stream: second * 120,
            tcp_established: second * 600,
            tcp_waiting: [second * 300, second * 400],
        };
        let of = |protocol, assured| {
            let lifetime = timeouts.of(protocol, assured);
            (lifetime.full.as_secs(), lifetime.least.as_secs())
        };
        assert_eq!(of(Protocol::Udp, false), (30, 30));
        assert_eq!(of(Protocol::Udp, true), (120, 120));
        assert_eq!(of(Protocol::Tcp, true), (600, 300));
        assert_eq!(
            (timeouts.sweep_interval(false), timeouts.sweep_interval(true)),
            (second * 29, second * 15)
        );
    }

    #[test]
    fn a_timeout_that_no_packet_gives_is_not_usual() {
        let usual = |lifetime: Lifetime, left| lifetime.is_usual(Duration::from_secs(left));
        assert!(usual(UDP, 120) && usual(UDP, 29));
        assert!(!usual(UDP, 121) && !usual(UDP, 28));
        assert!(usual(TCP, 86_400) && usual(TCP, 74) && !usual(TCP, 73));
    }

    /// A connection whose packets take the fast path, as src/connections/refresh.rs keeps it.
    struct Simulated {
        lifetime: Lifetime,
        /// How often the stack sees a packet, and when it saw the last one.
        period: u64,
        by_stack: u64,
        last: u64,
        told: u64,
        refreshes: u32,
    }

    impl Simulated {
        fn known(&self) -> u64 {
            self.by_stack.max(self.told)
        }

        /// A packet at this time, in milliseconds.
        fn packet(&mut self, now: u64) {
            let expires = self.known() + self.lifetime.least.as_millis() as u64;
            let silence = Duration::from_millis(now - self.last);
            if silence < self.lifetime.least {
                assert!(now < expires, "{:?}: expired at {expires}, {now} ms", self.lifetime);
            }
            self.last = now;
            let is_fast = silence <= self.lifetime.idle_limit();
            if !is_fast || now / self.period != self.by_stack / self.period {
                self.by_stack = now;
            }
        }

        fn sweep(&mut self, now: u64, until_next: Duration) {
            let known = Duration::from_millis(now - self.known());
            if self.last > self.known() && !self.lifetime.lasts(known, until_next) {
                self.told = self.last;
                self.refreshes += 1;
            }
        }
    }

    /// Sends packets in bursts and silences through intervals of such lengths, 20,000 of them.
    fn simulate(lifetime: Lifetime, interval: Duration, period: u64) -> Simulated {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below.max(1)
        };
        let interval = interval.as_millis() as u64;
        let timeout = lifetime.least.as_millis() as u64;
        let mut connection =
            Simulated { lifetime, period, by_stack: 0, last: 0, told: 0, refreshes: 0 };
        let (mut now, mut next_packet, mut next_sweep) = (0, 0, 0);
        for _ in 0..20_000 {
            now = next_packet.min(next_sweep);
            if now == next_packet {
                connection.packet(now);
                let silences =
                    [timeout / 100, timeout / 4, timeout * 3 / 4, timeout - 1, timeout * 2];
                let silence = silences[random(20).saturating_sub(15) as usize];
                next_packet = now + 1 + random(silence);
            }
            if now == next_sweep {
                connection.sweep(now, Duration::from_millis(interval * 3 / 2));
                next_sweep = now + interval / 2 + random(interval);
            }
        }
        assert!(now > timeout * 100);
        connection
    }

    /// A silence shorter than the timeout never finds the entry gone, whether it follows packets of the
    /// fast path or of the stack.
    #[test]
    fn an_entry_outlasts_every_silence_that_the_stack_would_bear() {
        for seconds in [8, 30, 120, 600] {
            let udp = Duration::from_secs(seconds);
            let timeouts = Timeouts {
                udp,
                udp_stream: udp,
                tcp_established: DAY,
                tcp_waiting: [udp * 5 / 2, udp * 3],
            };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let lifetime = timeouts.of(protocol, true);
                for period in [8_192, 65_536, u64::MAX] {
                    simulate(lifetime, timeouts.sweep_interval(false), period);
                }
            }
        }
        let short = Duration::from_secs(2);
        assert!(!Lifetime { full: short, least: short }.can_be_kept());
    }
}
