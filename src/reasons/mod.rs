// SPDX-License-Identifier: GPL-2.0-only
//! Every reason that bpfw gives, each in one place. It says what became of a packet, why a
//! connection stays with the stack, why the fast path pauses, or what is wrong with an interface.
//!
//! The rest of the code works with the enums, and takes from here what people read.
//! docs/reasons.md is made of these tables (`BPFW_BLESS=1 cargo test --test reasons`). A new reason is a
//! row here, and someone who gives it; of connections see also `is_lasting`.

use std::fmt;

/// Makes an enum of reasons out of its table, so that no value is without its row.
macro_rules! reasons {
    (
        $(#[$about:meta])*
        pub enum $kind:ident {
            $(
                $(#[$why:meta])*
                $value:ident = $number:literal, $name:literal, $words:literal $(, $advice:literal)?;
            )+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $kind {
            $($(#[$why])* $value = $number,)+
        }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Its row of the table.
            pub const fn reason(self) -> $crate::reasons::Reason {
                use $crate::reasons::Reason;
                match self {
                    $(Self::$value => Reason::new($number, $name, $words)$(.advise($advice))?,)+
                }
            }
        }

        impl ::std::fmt::Display for $kind {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.reason().words)
            }
        }
    };
}

pub mod answer;
pub mod connection;
pub mod interface;
pub mod packet;
pub mod pause;

/// One reason, as people and other programs know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its number among the reasons of its kind.
    pub number: u32,
    /// Its short name, which stays the same for good.
    pub name: &'static str,
    /// What it means.
    pub words: &'static str,
    /// What the user can do about it, if anything.
    pub advice: Option<&'static str>,
}

impl Reason {
    /// The words, followed by the advice.
    pub fn line(&self) -> String {
        format!("{}{}", self.words, self.hint())
    }

    /// The same, with what the reason is about in this case.
    pub fn line_about(&self, detail: impl fmt::Display) -> String {
        format!("{}: {detail}{}", self.words, self.hint())
    }

    fn hint(&self) -> String {
        self.advice.map(|advice| format!(" ({advice})")).unwrap_or_default()
    }

    const fn new(number: u32, name: &'static str, words: &'static str) -> Self {
        Self { number, name, words, advice: None }
    }

    /// The same reason with this advice.
    #[must_use]
    const fn advise(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}
