// SPDX-License-Identifier: GPL-2.0-only
//! libnetfilter_conntrack behind safe types. No pointer leaves this file.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::libc::{sock_filter, sock_fprog};

use super::shape::{self, HEADERS};
use crate::flow::family::Family;
use crate::netlink::message::Header;

/// The library's declarations, made from its header.
pub(super) mod api {
    #![allow(dead_code, missing_docs, non_camel_case_types, non_upper_case_globals)]
    include!(concat!(env!("OUT_DIR"), "/conntrack_api.rs"));
}

/// Bytes of an address of IPv6.
const ADDRESS: usize = 16;
/// Words for a built message. All attributes that can be set together take less than 400 bytes.
const BUILD_WORDS: usize = 128;

macro_rules! attributes {
    ($(#[$doc:meta])* $name:ident { $($constant:ident = $number:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(api::nf_conntrack_attr);

        impl $name {
            $(pub(super) const $constant: Self = Self(api::$number);)+
        }
    };
}

attributes! {
    /// An attribute of one byte.
    U8 {
        ORIGINAL_FAMILY = ATTR_ORIG_L3PROTO,
        ORIGINAL_PROTOCOL = ATTR_ORIG_L4PROTO,
        REPLY_FAMILY = ATTR_REPL_L3PROTO,
        REPLY_PROTOCOL = ATTR_REPL_L4PROTO,
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
        REPLY_SOURCE_PORT = ATTR_REPL_PORT_SRC,
        REPLY_DESTINATION_PORT = ATTR_REPL_PORT_DST,
        ZONE = ATTR_ZONE,
        ORIGINAL_ZONE = ATTR_ORIG_ZONE,
        REPLY_ZONE = ATTR_REPL_ZONE,
    }
}

attributes! {
    /// An attribute of four bytes; addresses of IPv4 are in network order.
    U32 {
        ORIGINAL_SOURCE = ATTR_ORIG_IPV4_SRC,
        ORIGINAL_DESTINATION = ATTR_ORIG_IPV4_DST,
        REPLY_SOURCE = ATTR_REPL_IPV4_SRC,
        REPLY_DESTINATION = ATTR_REPL_IPV4_DST,
        ID = ATTR_ID,
        STATUS = ATTR_STATUS,
        MARK = ATTR_MARK,
        TIMEOUT = ATTR_TIMEOUT,
        ORIGINAL_SEQUENCE_OFFSET = ATTR_ORIG_NAT_SEQ_OFFSET_AFTER,
        REPLY_SEQUENCE_OFFSET = ATTR_REPL_NAT_SEQ_OFFSET_AFTER,
        SYN_PROXY_SEQUENCE = ATTR_SYNPROXY_ISN,
        SYN_PROXY_TIMESTAMP_OFFSET = ATTR_SYNPROXY_TSOFF,
    }
}

attributes! {
    /// An address of IPv6.
    Address {
        ORIGINAL_SOURCE = ATTR_ORIG_IPV6_SRC,
        ORIGINAL_DESTINATION = ATTR_ORIG_IPV6_DST,
        REPLY_SOURCE = ATTR_REPL_IPV6_SRC,
        REPLY_DESTINATION = ATTR_REPL_IPV6_DST,
    }
}

attributes! {
    /// An attribute that is a string.
    Text {
        HELPER_NAME = ATTR_HELPER_NAME,
    }
}

/// The library's conntrack object, freed when dropped: an entry, or what a request names of one.
pub(super) struct Object(NonNull<api::nf_conntrack>);

impl Object {
    /// An empty object; `None` when there is no memory.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: takes nothing, returns a new object or null.
        NonNull::new(unsafe { api::nfct_new() }).map(Self)
    }

    /// Reads a whole message, header included. It must begin at a multiple of 4 bytes in memory, as
    /// messages in a socket's buffer do. `None` when it is malformed or there is no memory.
    ///
    /// Each message gets an object of its own. The library has no call that empties one, and
    /// `nfct_copy` from an empty one would leak what the last message made it allocate.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let header = message.as_ptr().cast::<c_void>().cast::<api::nlmsghdr>();
        if !header.is_aligned() || !shape::is_readable(message) {
            return None;
        }
        let object = Self::new()?;
        // SAFETY: `header` is aligned and starts as many bytes as it says. Every attribute lies
        // inside and has a type that the library has room for and the size that it expects, and
        // strings are terminated (`shape`). It only reads the message and keeps no pointer into it.
        let result = unsafe { api::nfct_nlmsg_parse(header, object.0.as_ptr()) };
        (result == 0).then_some(object)
    }

    /// Whether the attribute is set.
    pub(super) fn has(&self, attribute: Text) -> bool {
        self.get(attribute.0).is_some()
    }

    /// The attribute's value, if it is set.
    pub(super) fn u8(&self, attribute: U8) -> Option<u8> {
        // SAFETY: the attribute is one of one byte, and the object is alive.
        self.get(attribute.0).map(|value| unsafe { value.cast().read() })
    }

    /// The attribute's value, if it is set.
    pub(super) fn u16(&self, attribute: U16) -> Option<u16> {
        // SAFETY: the attribute is one of two bytes, and the object is alive.
        self.get(attribute.0).map(|value| unsafe { value.cast().read_unaligned() })
    }

    /// The attribute's value, if it is set.
    pub(super) fn u32(&self, attribute: U32) -> Option<u32> {
        // SAFETY: the attribute is one of four bytes, and the object is alive.
        self.get(attribute.0).map(|value| unsafe { value.cast().read_unaligned() })
    }

    /// The attribute's value, if it is set.
    pub(super) fn address(&self, attribute: Address) -> Option<[u8; ADDRESS]> {
        // SAFETY: the attribute is one of 16 bytes, and the object is alive.
        self.get(attribute.0).map(|value| unsafe { value.cast().read_unaligned() })
    }

    /// Where the object has an attribute.
    fn get(&self, attribute: api::nf_conntrack_attr) -> Option<NonNull<c_void>> {
        // SAFETY: the object is alive, and the number is one of the library's own.
        NonNull::new(unsafe { api::nfct_get_attr(self.0.as_ptr(), attribute) }.cast_mut())
    }

    /// Sets an attribute of one byte.
    pub(super) fn set_u8(&mut self, attribute: U8, value: u8) -> &mut Self {
        // SAFETY: the object is alive, and the attribute is one of one byte.
        unsafe { api::nfct_set_attr_u8(self.0.as_ptr(), attribute.0, value) }
        self
    }

    /// Sets an attribute of two bytes.
    pub(super) fn set_u16(&mut self, attribute: U16, value: u16) -> &mut Self {
        // SAFETY: the object is alive, and the attribute is one of two bytes.
        unsafe { api::nfct_set_attr_u16(self.0.as_ptr(), attribute.0, value) }
        self
    }

    /// Sets an attribute of four bytes.
    pub(super) fn set_u32(&mut self, attribute: U32, value: u32) -> &mut Self {
        // SAFETY: the object is alive, and the attribute is one of four bytes.
        unsafe { api::nfct_set_attr_u32(self.0.as_ptr(), attribute.0, value) }
        self
    }

    /// Sets an address.
    pub(super) fn set_address(&mut self, attribute: Address, value: [u8; ADDRESS]) -> &mut Self {
        // SAFETY: the object is alive. The attribute is one of 16 bytes, which the library copies, so it
        // keeps no pointer to the value.
        unsafe { api::nfct_set_attr(self.0.as_ptr(), attribute.0, value.as_ptr().cast()) }
        self
    }

    /// Appends the message of what is set, in this address family, to `out`; `None` when the library
    /// refuses.
    pub(super) fn append_to(
        &self,
        family: Family,
        header: Header,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let mut words = header_words(family, header);
        // SAFETY: `words` is aligned and starts with a header that says that both headers are
        // filled; the library appends the attributes that are set. Only this file's typed
        // attributes can be set, none of variable length, and all of them fit. It keeps no pointer.
        let result = unsafe { api::nfct_nlmsg_build(words.as_mut_ptr().cast(), self.0.as_ptr()) };
        if result < 0 {
            return None;
        }
        // A message's attributes are whole words.
        let length = usize::try_from(words[0]).ok()? / size_of::<u32>();
        words.get(..length)?.iter().for_each(|word| out.extend_from_slice(&word.to_ne_bytes()));
        Some(())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the object came from nfct_new, nobody else has it, and it is not used again.
        unsafe { api::nfct_destroy(self.0.as_ptr()) }
    }
}

/// What follows `nlmsghdr` in a message about connections: `nfgenmsg` of an address family.
pub(super) fn nfgenmsg(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// A message buffer with `nlmsghdr` and `nfgenmsg` filled in.
fn header_words(family: Family, header: Header) -> [u32; BUILD_WORDS] {
    let mut words = [0; BUILD_WORDS];
    words[..4].copy_from_slice(&header.words(HEADERS));
    words[4] = u32::from_ne_bytes(nfgenmsg(family.number()));
    words
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
