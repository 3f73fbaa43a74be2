// SPDX-License-Identifier: GPL-2.0-only
//! libnetfilter_conntrack behind safe types. No pointer leaves this file.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::libc::{sock_filter, sock_fprog};

use super::socket::HEADERS;

/// The library's declarations, made from its header.
pub(super) mod api {
    #![allow(dead_code, missing_docs, non_camel_case_types, non_upper_case_globals)]
    include!(concat!(env!("OUT_DIR"), "/conntrack_api.rs"));
}

/// Words for a built message. All attributes of a `Draft` together take less than 400 bytes.
const BUILD_WORDS: usize = 256;

macro_rules! attributes {
    ($(#[$doc:meta])* $name:ident { $($(#[$when:meta])* $constant:ident = $number:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(api::nf_conntrack_attr);

        impl $name {
            $($(#[$when])* pub(super) const $constant: Self = Self(api::$number);)+
        }
    };
}

attributes! {
    /// An attribute of one byte.
    U8 {
        ORIGINAL_FAMILY = ATTR_ORIG_L3PROTO,
        ORIGINAL_PROTOCOL = ATTR_ORIG_L4PROTO,
        #[cfg(test)]
        REPLY_FAMILY = ATTR_REPL_L3PROTO,
        #[cfg(test)]
        REPLY_PROTOCOL = ATTR_REPL_L4PROTO,
        #[cfg(test)]
        TCP_STATE = ATTR_TCP_STATE,
        TCP_FLAGS_ORIGINAL = ATTR_TCP_FLAGS_ORIG,
        TCP_FLAGS_REPLY = ATTR_TCP_FLAGS_REPL,
        TCP_MASK_ORIGINAL = ATTR_TCP_MASK_ORIG,
        TCP_MASK_REPLY = ATTR_TCP_MASK_REPL,
    }
}

attributes! {
    /// An attribute of two bytes; ports are in network order.
    U16 {
        ORIGINAL_SOURCE_PORT = ATTR_ORIG_PORT_SRC,
        ORIGINAL_DESTINATION_PORT = ATTR_ORIG_PORT_DST,
        #[cfg(test)]
        REPLY_SOURCE_PORT = ATTR_REPL_PORT_SRC,
        #[cfg(test)]
        REPLY_DESTINATION_PORT = ATTR_REPL_PORT_DST,
        #[cfg(test)]
        ZONE = ATTR_ZONE,
    }
}

attributes! {
    /// An attribute of four bytes; addresses are in network order.
    U32 {
        ORIGINAL_SOURCE = ATTR_ORIG_IPV4_SRC,
        ORIGINAL_DESTINATION = ATTR_ORIG_IPV4_DST,
        #[cfg(test)]
        REPLY_SOURCE = ATTR_REPL_IPV4_SRC,
        #[cfg(test)]
        REPLY_DESTINATION = ATTR_REPL_IPV4_DST,
        #[cfg(test)]
        STATUS = ATTR_STATUS,
        #[cfg(test)]
        MARK = ATTR_MARK,
        TIMEOUT = ATTR_TIMEOUT,
    }
}

/// The library's conntrack object, freed when dropped.
struct Object(NonNull<api::nf_conntrack>);

impl Object {
    /// An empty object; `None` when there is no memory.
    fn new() -> Option<Self> {
        // SAFETY: takes nothing, returns a new object or null.
        NonNull::new(unsafe { api::nfct_new() }).map(Self)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object came from nfct_new, nobody else has it, and it is not used again.
        unsafe { api::nfct_destroy(self.0.as_ptr()) }
    }
}

/// What a netlink message's header says.
#[derive(Clone, Copy)]
pub(super) struct Header {
    /// Subsystem and message type.
    pub(super) kind: u16,
    /// `NLM_F_*`.
    pub(super) flags: u16,
    /// The sequence number.
    pub(super) sequence: u32,
}

impl Header {
    /// Writes it over that of a message.
    pub(super) fn write(self, message: &mut [u8]) {
        message[4..6].copy_from_slice(&self.kind.to_ne_bytes());
        message[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
    }
}

/// A message in the making.
pub(super) struct Draft(Object);

impl Draft {
    /// An empty message; `None` when there is no memory.
    pub(super) fn new() -> Option<Self> {
        Object::new().map(Self)
    }

    /// Sets an attribute of one byte.
    pub(super) fn set_u8(&mut self, attribute: U8, value: u8) -> &mut Self {
        // SAFETY: the object is alive, and the attribute is one of one byte.
        unsafe { api::nfct_set_attr_u8(self.0.0.as_ptr(), attribute.0, value) }
        self
    }

    /// Sets an attribute of two bytes.
    pub(super) fn set_u16(&mut self, attribute: U16, value: u16) -> &mut Self {
        // SAFETY: the object is alive, and the attribute is one of two bytes.
        unsafe { api::nfct_set_attr_u16(self.0.0.as_ptr(), attribute.0, value) }
        self
    }

    /// Sets an attribute of four bytes.
    pub(super) fn set_u32(&mut self, attribute: U32, value: u32) -> &mut Self {
        // SAFETY: the object is alive, and the attribute is one of four bytes.
        unsafe { api::nfct_set_attr_u32(self.0.0.as_ptr(), attribute.0, value) }
        self
    }

    /// Appends the encoded IPv4 message to `out`; `None` when the library refuses.
    pub(super) fn append_to(&self, header: Header, out: &mut Vec<u8>) -> Option<()> {
        let mut words = header_words(header);
        // SAFETY: `words` is aligned and starts with a header that says that both headers are
        // filled; the library appends the attributes that were set. Only this file's typed
        // attributes can be set, none of variable length, and all of them fit. It keeps no pointer.
        let result = unsafe { api::nfct_nlmsg_build(words.as_mut_ptr().cast(), self.0.0.as_ptr()) };
        if result < 0 {
            return None;
        }
        let length = usize::try_from(words[0]).ok()?;
        out.extend(words.iter().flat_map(|word| word.to_ne_bytes()).take(length));
        Some(())
    }
}

/// A message buffer with `nlmsghdr` and the `nfgenmsg` of IPv4 filled in.
fn header_words(header: Header) -> [u32; BUILD_WORDS] {
    let mut words = [0; BUILD_WORDS];
    let ([kind_0, kind_1], [flags_0, flags_1]) =
        (header.kind.to_ne_bytes(), header.flags.to_ne_bytes());
    words[0] = HEADERS as u32;
    words[1] = u32::from_ne_bytes([kind_0, kind_1, flags_0, flags_1]);
    words[2] = header.sequence;
    words[4] = u32::from_ne_bytes([nix::libc::AF_INET as u8, 0, 0, 0]);
    words
}

/// The request to dump all IPv4 entries: a message of headers only.
pub(super) fn bare_message(header: Header) -> Vec<u8> {
    header_words(header).iter().flat_map(|word| word.to_ne_bytes()).take(HEADERS).collect()
}

/// Lets only what the filter accepts into the socket.
pub(super) fn attach_filter(socket: BorrowedFd<'_>, filter: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the descriptor is borrowed, so it is open. Program and filter, whose sizes are given,
    // live through the call; the kernel copies them and writes to neither.
    let result = unsafe {
        nix::libc::setsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            nix::libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as nix::libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
