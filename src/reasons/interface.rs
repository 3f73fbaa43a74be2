// SPDX-License-Identifier: GPL-2.0-only
//! Why packets of one interface go to the network stack, and what else its user should know.

use std::fmt;

reasons! {
    /// What is wrong with an interface.
    pub enum Problem {
        // Its packets stay with the stack.
        /// It was named, and does not exist any more.
        Gone = 1, "gone", "the interface is gone",
            "bpfw attaches to it when it is back";
        /// It was named in a configuration file.
        Missing = 29, "missing", "there is no such interface yet",
            "bpfw attaches to it when it comes";
        /// It has no routes of its own: the bridge or bond has.
        Port = 2, "port", "it is part of a bridge or bond",
            "name the bridge or bond itself, for the hook tc";
        /// None of its packets reach bpfw.
        ProgramOff = 3, "program-off",
            "bpfw's program is off: someone removed it, or the driver goes away",
            "restart bpfw";
        /// Its MTU changed, and the driver refuses XDP now.
        XdpRefused = 4, "xdp-refused", "XDP could not be attached again";
        /// XDP takes the packets of its VLAN devices for its own.
        TagsRemoved = 5, "tags-removed", "its VLAN tags are removed before XDP sees them",
            "switch that off: ethtool -K INTERFACE rxvlan off";
        /// XDP comes before all of TC.
        HiddenByXdp = 6, "hidden-by-xdp", "another program or filter at TC would not see them",
            "use the hook tc";
        /// At TC, bpfw could not go behind it.
        ProgramBehind = 7, "program-behind", "a program or filter behind bpfw's would not see them";
        /// A chain of the family netdev, or one of inet with hook ingress.
        NetdevChain = 8, "netdev-chain", "a chain of nftables at it must see all packets",
            "move its rules to the hook forward";
        /// More interfaces have come since the start than there was room for.
        NoRoom = 9, "no-room", "the maps of interfaces are full",
            "restart bpfw, which makes room for all";

        /// What takes its frames has no routes that are known: openvswitch, a driver of somebody's own.
        UnknownMaster = 26, "unknown-master", "it is part of an interface of an unknown kind",
            "name the interface that has the address";
        /// After the start; at the start this is an error.
        NotAttached = 27, "not-attached", "bpfw's programs could not be attached to it",
            "bpfw tries again every second";

        // Packets to it go by the stack.
        /// Its users have switched it off.
        Down = 10, "down", "it is down";
        /// The VLAN device maps priorities of packets, which XDP does not know, to those of tags.
        TagPriorities = 11, "tag-priorities", "XDP cannot map priorities to its tags",
            "use the hook tc";
        /// Native XDP at one interface, generic XDP at the other.
        GenericTarget = 12, "generic-target", "native XDP hands no frames over to generic XDP",
            "use --xdp-mode generic for all, or the hook tc";
        /// A veth drops redirected frames otherwise.
        VethPeer = 13, "veth-peer", "a veth takes frames from XDP only while its peer has GRO or XDP",
            "use the hook tc, or switch on the peer's GRO: ethtool -K PEER gro on";
        /// By the kernel's word, or where the kernel says nothing, by a list of drivers.
        NoTransmit = 14, "no-transmit", "its driver is not known to take frames that XDP redirects",
            "use the hook tc";

        // It is used, but not as it could be.
        /// XDP redirects to the driver, past all queues.
        Shaper = 15, "shaper", "XDP sends packets past its queueing discipline",
            "use the hook tc";
        /// So no direction that leaves there is ever proven.
        StampLost = 16, "stamp-lost",
            "no packet leaves with bpfw's stamp (tc_index): rules drop them all, or another program clears it";
        /// The driver keeps the program attached, and hands packets to the stack without running it.
        XdpNotRun = 17, "xdp-not-run", "its driver does not run XDP, which is attached",
            "restart bpfw if the interface's settings have changed, or use the hook tc";
        /// Before Linux 6.3, virtio_net cannot take XDP off at such an MTU.
        LargeFrames = 18, "large-frames",
            "native XDP may lose frames larger than a page, and this kernel cannot take XDP off at such an MTU",
            "lower the MTU, then use the hook tc";
        /// The driver resets the NIC each time.
        LinkResets = 19, "link-resets",
            "its link goes down for some seconds when XDP is attached or detached, also when bpfw is killed",
            "use the hook tc, which resets nothing";
        /// The driver has no native XDP, or not with its present settings.
        GenericXdp = 20, "generic-xdp", "no native XDP, and generic XDP is slower than the hook tc";

        // It is refused.
        /// PPP, WireGuard, tun.
        NoHeaderAtXdp = 21, "no-header-at-xdp", "its packets have no Ethernet header, which XDP needs",
            "use the hook tc";
        /// ipip, gre, sit, ip6tnl, vti, xfrm: a redirected packet has no route to answer by.
        TunnelAnswers = 22, "tunnel-answers",
            "the tunnel answers with ICMP errors of its own, which packets of the fast path do not get";
        /// Frames that a bond sends and receives name its ports.
        BondAtXdp = 28, "bond-at-xdp", "XDP sees the frames of a bond at its ports only",
            "use the hook tc";
        /// Neither Ethernet nor a kind of interface that was tried.
        UnknownLinkLayer = 23, "unknown-link-layer",
            "what its packets have in front of the IP header is not known";
        /// Without the change of 2023 to dev_is_mac_header_xmit() in the kernel.
        PppKeepsHeader = 24, "ppp-keeps-header",
            "this kernel would leave Ethernet headers in PPP's packets",
            "use a kernel of late 2023 or later, also of an older series";
        /// The verifier expects all packets to have an Ethernet header.
        NeedsAlignment = 25, "needs-alignment",
            "this machine needs aligned access to packets, which only an Ethernet header gives";
    }
}

/// A problem, with what it is about at this interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The problem.
    pub problem: Problem,
    /// The program, chain or error.
    pub detail: Option<String>,
}

impl From<Problem> for Found {
    fn from(problem: Problem) -> Self {
        Self { problem, detail: None }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.problem.reason();
        f.write_str(&match &self.detail {
            Some(detail) => reason.line_about(detail),
            None => reason.line(),
        })
    }
}
