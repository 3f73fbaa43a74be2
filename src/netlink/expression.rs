// SPDX-License-Identifier: GPL-2.0-only
//! One expression of an nftables rule (linux/netfilter/nf_tables.h), as far as it tells which
//! packets a rule is for and what becomes of them. `firewall/statements.rs` and `firewall/walk.rs` judge it.

use super::attribute::{find, text, u16_at, u32_at};

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
/// The same numbers in NFTA_META_* and NFTA_CT_*.
const KEY_DREG: u16 = 1;
const KEY_KEY: u16 = 2;
const NFTA_META_SREG: u16 = 3;
const NFTA_CT_SREG: u16 = 4;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_PAYLOAD_SREG: u16 = 5;
const NFTA_EXTHDR_DREG: u16 = 1;
const NFTA_EXTHDR_TYPE: u16 = 2;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_OBJREF_IMM_TYPE: u16 = 1;
/// The same numbers in NFTA_MATCH_* and NFTA_TARGET_*.
const XT_NAME: u16 = 1;
const XT_REVISION: u16 = 2;
const XT_INFO: u16 = 3;

const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// In struct xt_conntrack_mtinfo2 and later (linux/netfilter/xt_conntrack.h): behind eight addresses
/// and masks, two times, a protocol and four ports.
const XT_CONNTRACK_MATCH_FLAGS: usize = 146;
const XT_CONNTRACK_INVERT_FLAGS: usize = 148;
const XT_CONNTRACK_STATE_MASK: usize = 150;
const XT_CONNTRACK_STATE: u16 = 1;

/// A value that an expression reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A packet's circumstances, by NFT_META_*.
    Meta(u32),
    /// Its connection's properties, by NFT_CT_*.
    Ct(u32),
    /// Bytes of the packet: NFT_PAYLOAD_* base, offset and length.
    Payload {
        /// Which header the offset counts from.
        base: u32,
        /// Bytes from there.
        offset: u32,
        /// How many bytes.
        length: u32,
    },
    /// An IPv6 extension header, or an option of TCP or IPv4, by its number.
    Option(u8),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has passed this base chain.
    Accept,
    /// It is dropped.
    Drop,
    /// Back to the chain that called.
    Return,
    /// To another chain, and back if that does not decide.
    Jump(String),
    /// To another chain, and back to the caller of this one.
    Goto(String),
}

/// An expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// A field is read into a register.
    Load {
        /// Number of the register.
        register: u32,
        /// What is read.
        field: Field,
    },
    /// A field is written.
    Store(Field),
    /// `(register & mask) ^ xor`
    Bitwise {
        /// Register that is read.
        from: u32,
        /// Register that is written.
        to: u32,
        /// As long as the value.
        mask: Vec<u8>,
        /// As long as the value.
        xor: Vec<u8>,
    },
    /// The rule goes on if register and value are equal, or are not.
    Compare {
        /// Register that is read.
        register: u32,
        /// Equal; otherwise different.
        equal: bool,
        /// What it is compared with.
        value: Vec<u8>,
    },
    /// A register's value is looked up in a set or map.
    Lookup {
        /// The set's name; those of sets written within a rule begin with two underscores.
        set: String,
        /// Register that is read.
        register: u32,
        /// The map's value goes to this register, 0 being the verdict; a set has none.
        into: Option<u32>,
    },
    /// A verdict that is always the same.
    Verdict(Verdict),
    /// The xtables matches `conntrack` and `state`: the states of a connection, as bits of the
    /// same numbers as nftables'.
    XtState {
        /// Bits of the states.
        states: u32,
        /// All but these.
        inverted: bool,
    },
    /// Another match of xtables (iptables-nft), by name.
    XtMatch(String),
    /// A target of xtables, by name.
    XtTarget(String),
    /// A stateful object, by its type NFT_OBJECT_*; `None` if a map chooses it.
    Object(Option<u32>),
    /// Another expression of nftables', by name.
    Other(String),
}

impl Expression {
    /// Decodes NFTA_LIST_ELEM of NFTA_RULE_EXPRESSIONS. What is cut off or strange becomes
    /// [`Expression::Other`].
    pub fn decode(bytes: &[u8]) -> Self {
        let name = find(bytes, NFTA_EXPR_NAME).map(text).unwrap_or_default();
        let data = find(bytes, NFTA_EXPR_DATA).unwrap_or_default();
        let known = match name.as_str() {
            "meta" => keyed(data, Field::Meta, NFTA_META_SREG),
            "ct" => keyed(data, Field::Ct, NFTA_CT_SREG),
            "payload" => payload(data),
            "exthdr" => option(data),
            "bitwise" => bitwise(data),
            "cmp" => compare(data),
            "lookup" => lookup(data),
            "immediate" => verdict(data).map(Self::Verdict),
            "objref" => Some(Self::Object(number(data, NFTA_OBJREF_IMM_TYPE))),
            "match" => Some(xt_match(data)),
            "target" => Some(Self::XtTarget(find(data, XT_NAME).map(text).unwrap_or_default())),
            _ => None,
        };
        known.unwrap_or(Self::Other(name))
    }
}

/// A 32-bit attribute, which netfilter has in network byte order.
pub(super) fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be(u32_at(find(bytes, kind)?, 0)?))
}

fn keyed(data: &[u8], field: fn(u32) -> Field, store: u16) -> Option<Expression> {
    let field = field(number(data, KEY_KEY)?);
    if find(data, store).is_some() {
        return Some(Expression::Store(field));
    }
    Some(Expression::Load { register: number(data, KEY_DREG)?, field })
}

fn payload(data: &[u8]) -> Option<Expression> {
    let field = Field::Payload {
        base: number(data, NFTA_PAYLOAD_BASE)?,
        offset: number(data, NFTA_PAYLOAD_OFFSET)?,
        length: number(data, NFTA_PAYLOAD_LEN)?,
    };
    if find(data, NFTA_PAYLOAD_SREG).is_some() {
        return Some(Expression::Store(field));
    }
    Some(Expression::Load { register: number(data, NFTA_PAYLOAD_DREG)?, field })
}

/// Without a register to read into, the option is written or removed.
fn option(data: &[u8]) -> Option<Expression> {
    let field = Field::Option(*find(data, NFTA_EXTHDR_TYPE)?.first()?);
    Some(match number(data, NFTA_EXTHDR_DREG) {
        Some(register) => Expression::Load { register, field },
        None => Expression::Store(field),
    })
}

/// Shifts, and operations on two registers, have no mask.
fn bitwise(data: &[u8]) -> Option<Expression> {
    let value = |kind| find(find(data, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec);
    Some(Expression::Bitwise {
        from: number(data, NFTA_BITWISE_SREG)?,
        to: number(data, NFTA_BITWISE_DREG)?,
        mask: value(NFTA_BITWISE_MASK)?,
        xor: value(NFTA_BITWISE_XOR)?,
    })
}

fn compare(data: &[u8]) -> Option<Expression> {
    let equal = match number(data, NFTA_CMP_OP)? {
        NFT_CMP_EQ => true,
        NFT_CMP_NEQ => false,
        _ => return None,
    };
    let value = find(find(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)?.to_vec();
    Some(Expression::Compare { register: number(data, NFTA_CMP_SREG)?, equal, value })
}

fn lookup(data: &[u8]) -> Option<Expression> {
    Some(Expression::Lookup {
        set: text(find(data, NFTA_LOOKUP_SET)?),
        register: number(data, NFTA_LOOKUP_SREG)?,
        into: number(data, NFTA_LOOKUP_DREG),
    })
}

fn verdict(data: &[u8]) -> Option<Verdict> {
    let verdict = find(find(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
    let chain = || find(verdict, NFTA_VERDICT_CHAIN).map(text);
    match number(verdict, NFTA_VERDICT_CODE)? as i32 {
        NF_DROP => Some(Verdict::Drop),
        NF_ACCEPT => Some(Verdict::Accept),
        NFT_JUMP => chain().map(Verdict::Jump),
        NFT_GOTO => chain().map(Verdict::Goto),
        NFT_RETURN => Some(Verdict::Return),
        _ => None,
    }
}

fn xt_match(data: &[u8]) -> Expression {
    let name = find(data, XT_NAME).map(text).unwrap_or_default();
    let info = find(data, XT_INFO).unwrap_or_default();
    let state = match name.as_str() {
        "state" => u32_at(info, 0).map(|states| Expression::XtState { states, inverted: false }),
        "conntrack" if number(data, XT_REVISION) >= Some(2) => xt_conntrack(info),
        _ => None,
    };
    state.unwrap_or(Expression::XtMatch(name))
}

/// Only a match by nothing but the state is one that says for sure whom it is for.
fn xt_conntrack(info: &[u8]) -> Option<Expression> {
    if u16_at(info, XT_CONNTRACK_MATCH_FLAGS)? != XT_CONNTRACK_STATE {
        return None;
    }
    Some(Expression::XtState {
        states: u16_at(info, XT_CONNTRACK_STATE_MASK)?.into(),
        inverted: u16_at(info, XT_CONNTRACK_INVERT_FLAGS)? & XT_CONNTRACK_STATE != 0,
    })
}
