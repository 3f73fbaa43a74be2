// SPDX-License-Identifier: GPL-2.0-only
//! What `bpfw why` says of a connection where no other table has the reason.

reasons! {
    /// What is known of a connection, or of one of its directions.
    pub enum Answer {
        /// Nothing stands against it.
        Fast = 1, "fast", "on the fast path, both directions";
        /// Something has changed, and the proof still holds.
        LooksUp = 2, "looks-up", "on the fast path, after its next packet has asked routing again";
        /// The last packet that went up has brought no proof.
        NotForwarded = 3, "not-forwarded", "the stack does not forward this direction",
            "look for the rule that drops its packets: nft monitor trace";
        /// Nobody has asked about it since the start, or since its refusal was forgotten.
        NotSeen = 4, "not-seen", "no packet of it has come by an interface of bpfw's yet",
            "wait for its next packet";
        /// By routing's word now.
        NotHere = 5, "not-here", "its packets come or leave by an interface that bpfw was not given",
            "name this interface, too, when starting bpfw";
        /// It has a problem, which is told with it.
        LeftInterface = 6, "left-interface", "its packets come or leave by an interface that is left to the stack",
            "see bpfw status";
        /// Or there never was one.
        Gone = 7, "gone", "no such connection in conntrack",
            "look at all of them: conntrack -L; what is not tracked stays with the stack";
        /// Both directions come and go together.
        Lonely = 8, "lonely", "one of its directions is missing", "please report it";
    }
}
