// SPDX-License-Identifier: GPL-2.0-only
//! Conntrack's marks, as a command line gives them.

use std::str::FromStr;

/// Conntrack marks of the connections to offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadMark {
    /// What the masked mark must be.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
    /// Only connections with other marks are offloaded.
    pub negated: bool,
}

impl OffloadMark {
    /// Whether a connection with this mark is to be offloaded.
    pub fn matches(self, mark: u32) -> bool {
        (mark & self.mask == self.value) != self.negated
    }
}

impl FromStr for OffloadMark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, negated) = match text.strip_prefix('!') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number(value)?, number(mask)?),
            None => (number(text)?, u32::MAX),
        };
        if mask == 0 {
            return Err("the mask is 0: all connections are alike to it".into());
        }
        if value & !mask != 0 {
            return Err(format!("the value {value:#x} has bits outside of the mask {mask:#x}"));
        }
        Ok(Self { value, mask, negated })
    }
}

/// A number of 32 bits, decimal or hexadecimal behind 0x.
pub fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("'{text}' is not a 32-bit number: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_parsed_with_and_without_a_mask() {
        let mark: OffloadMark = "0x10/0xf0".parse().unwrap();
        assert!(mark.matches(0x1f) && !mark.matches(0x2f));
        assert_eq!("7".parse(), Ok(OffloadMark { value: 7, mask: u32::MAX, negated: false }));
        let other: OffloadMark = "!0x10/0xf0".parse().unwrap();
        assert!(other.negated && !other.matches(0x1f) && other.matches(0x2f) && other.matches(0));
        for text in ["", "!", "!!1", "1!", "x", "1/0", "3/1", "0x100000000", "-1", "1/2/3"] {
            assert!(text.parse::<OffloadMark>().is_err(), "{text}");
        }
    }
}
