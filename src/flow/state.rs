// SPDX-License-Identifier: GPL-2.0-only
//! What conntrack says about a connection's state: its status bits and its TCP state.

/// Conntrack's status bits of a connection (the kernel's `IPS_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// The connection was expected by a helper.
    pub const EXPECTED: Self = Self(1 << 0);
    /// Packets were seen in both directions.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// The connection is not dropped early when the table is full.
    pub const ASSURED: Self = Self(1 << 2);
    /// The first packet has left the machine.
    pub const CONFIRMED: Self = Self(1 << 3);
    /// The original direction's source is translated.
    pub const SRC_NAT: Self = Self(1 << 4);
    /// The original direction's destination is translated.
    pub const DST_NAT: Self = Self(1 << 5);
    /// TCP sequence numbers are adjusted.
    pub const SEQ_ADJUST: Self = Self(1 << 6);
    /// The entry is about to go.
    pub const DYING: Self = Self(1 << 9);
    /// Packets do not refresh the timeout.
    pub const FIXED_TIMEOUT: Self = Self(1 << 10);
    /// The entry is a template, not a connection.
    pub const TEMPLATE: Self = Self(1 << 11);
    /// The connection is not tracked.
    pub const UNTRACKED: Self = Self(1 << 12);
    /// A helper was attached by a rule.
    pub const HELPER: Self = Self(1 << 13);
    /// The kernel's flow table forwards the connection.
    pub const OFFLOAD: Self = Self(1 << 14);
    /// Hardware forwards the connection.
    pub const HW_OFFLOAD: Self = Self(1 << 15);

    /// Whether all bits of `bits` are set.
    pub fn contains(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Whether any bit of `bits` is set.
    pub fn intersects(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }
}

impl std::ops::BitOr for Status {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Conntrack's view of a TCP connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// No packet seen yet.
    None,
    /// A SYN was seen.
    SynSent,
    /// A SYN and ACK was seen.
    SynRecv,
    /// The handshake is complete.
    Established,
    /// One side has sent its FIN.
    FinWait,
    /// That FIN was acknowledged.
    CloseWait,
    /// Both sides have sent their FIN.
    LastAck,
    /// The last acknowledgement was seen.
    TimeWait,
    /// A RST was seen.
    Close,
    /// SYNs were seen from both sides.
    SynSent2,
    /// A number that this version does not know.
    Unknown(u8),
}

impl TcpState {
    /// The state with the kernel's number.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynRecv,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            other => Self::Unknown(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_asked_together_or_singly() {
        let status = Status::SEEN_REPLY | Status::CONFIRMED;
        assert!(status.contains(Status::SEEN_REPLY));
        assert!(!status.contains(Status::SEEN_REPLY | Status::ASSURED));
        assert!(status.intersects(Status::SEEN_REPLY | Status::ASSURED));
        assert!(!status.intersects(Status::DYING));
    }

    #[test]
    fn unknown_tcp_states_keep_their_number() {
        assert_eq!(TcpState::from_number(3), TcpState::Established);
        assert_eq!(TcpState::from_number(10), TcpState::Unknown(10));
    }
}
