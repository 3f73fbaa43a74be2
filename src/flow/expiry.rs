// SPDX-License-Identifier: GPL-2.0-only
//! When conntrack must be told that a connection lives, whose packets only the fast path sees.

use std::time::Duration;

use super::tuple::Protocol;

/// The time within which TCP must have moved in both directions to get its full timeout, and the
/// timeout it gets otherwise: conntrack's own limits for unacknowledged data
/// (`nf_conntrack_tcp_timeout_unacknowledged` and `..._max_retrans`, 300 seconds).
pub const TCP_ONE_SIDED: Duration = Duration::from_secs(300);

/// How old a timeout may be that counts as just given. Conntrack shows whole seconds.
pub const JUST_GIVEN: Duration = Duration::from_secs(3);

/// The longest time between two looks at a connection.
const LONGEST_PERIOD: Duration = Duration::from_secs(120);

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
    /// The timeout that conntrack gives such a connection on each packet.
    pub fn of(&self, protocol: Protocol, assured: bool) -> Duration {
        match (protocol, assured) {
            (Protocol::Tcp, _) => self.tcp_established,
            (Protocol::Udp, true) => self.udp_stream,
            (Protocol::Udp, false) => self.udp,
        }
    }

    /// Judges what is left of the timeout shortly after a packet; `None` if nobody knows when the
    /// last one was.
    pub fn judge(&self, protocol: Protocol, assured: bool, left: Option<Duration>) -> Given {
        let Some(left) = left else {
            return Given::Unclear;
        };
        let fits =
            |timeout: Duration| timeout.checked_sub(left).is_some_and(|age| age <= JUST_GIVEN);
        if fits(self.of(protocol, assured)) {
            Given::Ordinary
        } else if protocol == Protocol::Tcp && self.tcp_waiting.into_iter().any(fits) {
            Given::Unclear
        } else {
            Given::Own
        }
    }

    /// The shortest of them.
    pub fn shortest(&self) -> Duration {
        self.udp.min(self.udp_stream).min(self.tcp_established)
    }
}

/// How often to look at a connection: half of its timeout has not gone before the next look.
pub fn period(timeout: Duration) -> Duration {
    (timeout / 2).min(LONGEST_PERIOD)
}

/// The timeout to give a connection at a look, if it had traffic since the one before.
///
/// `original` and `reply` say how long ago that direction's last packet was seen, on either path.
pub fn refresh(
    protocol: Protocol,
    timeout: Duration,
    since_last_look: Duration,
    original: Option<Duration>,
    reply: Option<Duration>,
) -> Option<Duration> {
    let latest = original.into_iter().chain(reply).min()?;
    if latest > since_last_look {
        return None;
    }
    let one_sided = match (original, reply) {
        (Some(original), Some(reply)) => original.abs_diff(reply) > since_last_look,
        _ => true,
    };
    // The age of what is left counts from the last packet, as it would in conntrack.
    let full =
        if protocol == Protocol::Tcp && one_sided { timeout.min(TCP_ONE_SIDED) } else { timeout };
    Some(full.saturating_sub(latest).max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const LOOK: Duration = Duration::from_secs(60);

    fn seconds(n: u64) -> Option<Duration> {
        Some(Duration::from_secs(n))
    }

    #[test]
    fn idle_connections_are_left_to_expire() {
        assert_eq!(refresh(Protocol::Udp, LOOK * 2, LOOK, None, None), None);
        assert_eq!(refresh(Protocol::Udp, LOOK * 2, LOOK, seconds(61), seconds(900)), None);
    }

    #[test]
    fn traffic_counts_from_its_last_packet() {
        assert_eq!(refresh(Protocol::Udp, LOOK * 2, LOOK, seconds(5), None), seconds(115));
        assert_eq!(refresh(Protocol::Udp, LOOK * 2, LOOK, seconds(5), seconds(2)), seconds(118));
    }

    #[test]
    fn one_sided_tcp_gets_what_unacknowledged_data_gets() {
        assert_eq!(refresh(Protocol::Tcp, DAY, LOOK, seconds(0), None), seconds(300));
        assert_eq!(refresh(Protocol::Tcp, DAY, LOOK, seconds(0), seconds(61)), seconds(300));
        assert_eq!(refresh(Protocol::Tcp, DAY, LOOK, seconds(0), seconds(60)), seconds(86_400));
    }

    #[test]
    fn hazard_03_a_timeout_of_its_own_is_seen() {
        let timeouts = Timeouts {
            udp: LOOK / 2,
            udp_stream: LOOK * 2,
            tcp_established: DAY,
            tcp_waiting: [Duration::from_secs(300), Duration::from_secs(200)],
        };
        let judge = |protocol, assured, left| timeouts.judge(protocol, assured, seconds(left));
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
    fn a_look_comes_before_half_of_the_timeout_has_gone() {
        assert_eq!(period(Duration::from_secs(30)), Duration::from_secs(15));
        assert_eq!(period(DAY), LONGEST_PERIOD);
    }
}
