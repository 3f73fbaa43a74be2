// SPDX-License-Identifier: GPL-2.0-only
//! Why the fast path as a whole pauses.

reasons! {
    /// Why all packets go to the network stack for a while.
    pub enum Pause {
        /// The daemon has just started: what it adds is compared with conntrack's table.
        Start = 1, "start", "bpfw has just started";
        /// Deletions may be among them: all is compared with conntrack's table.
        EventsLost = 2, "events-lost", "conntrack's events were lost";
        /// A deletion among them would count late.
        Behind = 3, "behind", "conntrack's events come faster than bpfw reads them";
        /// The daemon has missed heartbeats, and may have missed news.
        Late = 4, "late", "the daemon is late",
            "see that bpfw is not stopped, and give it priority: nice -n -10";
        /// Policies do not allow any more what is on the fast path, or allow what is not.
        Policy = 5, "policy", "policies about what may be offloaded have changed";
        /// No packet may see half of the change.
        Interfaces = 6, "interfaces", "interfaces have changed";
        /// It is emptied when no program uses it any longer.
        HopsFull = 7, "hops-full", "the table of next hops is full, and starts anew";
        /// It changes when no program uses the former one any longer.
        Period = 8, "period", "the number of connections asks for another period of proofs";
        /// The daemon tries again.
        Error = 9, "error", "something failed";
    }
}
