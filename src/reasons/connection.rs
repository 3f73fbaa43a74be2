// SPDX-License-Identifier: GPL-2.0-only
//! Why a connection, or all of them, stay with the network stack.

reasons! {
    /// Why a connection stays with the stack. `refused_map` holds these numbers.
    pub enum Refusal {
        /// Conntrack does not know the connection: its entry is gone, or a rule says `notrack`.
        NotTracked = 1, "not-tracked", "not in conntrack",
            "remove the notrack rule, if there is one";
        /// The user asked for connections with another mark.
        Mark = 2, "mark", "another mark",
            "set the mark of --offload-mark by a rule";
        /// Routing rules go by marks, and it has none that they could go by.
        RouteMark = 3, "route-mark", "no mark to be routed by",
            "save the mark in conntrack by a rule, in nft: ct mark set meta mark";
        /// Its first packet has not left the machine yet.
        Unconfirmed = 4, "unconfirmed", "not confirmed";
        /// The entry is on its way out, or not a connection's.
        Dying = 5, "dying", "dying";
        /// It belongs to a conntrack zone, which packets do not show.
        Zone = 6, "zone", "in a conntrack zone";
        /// A helper, a SYN proxy or a sequence adjustment must see each packet.
        Watched = 7, "watched", "helper, SYN proxy or sequence adjustment",
            "remove the helper or the SYN proxy, if nobody needs it";
        /// Its timeout is fixed: packets must not refresh it.
        FixedTimeout = 8, "fixed-timeout", "fixed timeout";
        /// A policy gives it another timeout than the sysctls that it would be refreshed by.
        OwnTimeout = 9, "own-timeout", "timeout of its own",
            "remove its timeout policy, if speed matters more";
        /// The kernel's flow table or hardware forwards it.
        FlowTable = 10, "flow-table", "in the kernel's flow table",
            "use one of the two: remove the flow table, or stop bpfw";
        /// One of its ends is this machine.
        Local = 11, "local", "local";
        /// An address is not a host's: multicast, broadcast, loopback, and link-local of IPv6.
        NotUnicast = 12, "not-unicast", "not unicast";
        /// Its tuples differ where its status bits say that the kernel does not translate: another
        /// program has added the entry.
        NotTranslated = 13, "not-translated", "tuples differ without NAT";
        /// No answer was seen: the policy may not have allowed it.
        NoReply = 14, "no-reply", "no reply yet";
        /// TCP is opening or closing.
        NotEstablished = 15, "not-established", "TCP not established";
        /// Its timeout is none that packets leave: another program has set it, or it is nearly over.
        OddTimeout = 16, "odd-timeout", "timeout set by another program, nearly over, or below 3 s",
            "raise conntrack's timeout sysctl, if it is below 3 s";
        /// Routing rules go by firewall marks that bpfw does not look at.
        PolicyRouting = 17, "policy-routing", "routing rules by mark",
            "name all bits of these marks by --route-mark-mask, or remove the rules";
        /// Routing rules or routes go by the type of service, which may differ from packet to packet.
        TypeOfService = 18, "type-of-service", "routing rules or routes by type of service",
            "remove the rules and routes with tos or dsfield";
        /// A routing rule has an attribute that look-ups do not ask with.
        UnknownRule = 19, "unknown-rule", "a routing rule by what look-ups do not know",
            "remove this routing rule";
        /// Routes or rules give packets realms, which firewall rules and filters of queueing disciplines
        /// may ask for. A packet that was forwarded past routing has none.
        Realms = 20, "realms", "routes or routing rules with realms",
            "remove the realms";
        /// Routes spread packets over next hops by more than their addresses.
        Multipath = 21, "multipath", "routes over several next hops, by more than addresses",
            "set net.ipv4.fib_multipath_hash_policy to 0, and use no resilient nexthop groups";
        /// The kernel compares forwarded packets with learned path MTUs.
        PathMtu = 22, "path-mtu", "net.ipv4.ip_forward_use_pmtu is set",
            "set it to 0";
        /// The kernel takes gateways from ICMP redirects.
        Redirects = 23, "redirects", "ICMP redirects are accepted",
            "set accept_redirects to 0: net.ipv4.conf.all's, and for IPv6 that of each interface";
        /// Rules send copies of packets (nft's `dup`, iptables' TEE): who gets them wants all. A copy may
        /// leave where its packet is dropped.
        Copies = 24, "copies", "rules send copies of packets",
            "remove the rules with dup or TEE";
        /// An IPsec policy may cover its packets. Of all connections: IPsec blocks by default, or there are
        /// too many policies to compare with.
        Ipsec = 25, "ipsec", "IPsec policies";
        /// There are policies for timeouts, and its own does not tell whether it has one.
        TimeoutUnclear = 26, "timeout-unclear", "timeout not clear yet";
        /// There is no room for more connections.
        Full = 27, "full", "too many connections",
            "raise --max-connections";
    }
}

impl Refusal {
    /// Whether the reason stays for the connection's life, as far as one can tell.
    pub fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Zone
                | Self::Watched
                | Self::FixedTimeout
                | Self::OwnTimeout
                | Self::FlowTable
                | Self::Local
                | Self::NotUnicast
                | Self::NotTranslated
                | Self::Ipsec
                | Self::Full
        )
    }
}
