// SPDX-License-Identifier: GPL-2.0-only
//! Why a request failed: the kernel's error number, and its words where it has some (extended ACK,
//! Documentation/userspace-api/netlink/intro.rst).

use std::fmt;
use std::io::{self, ErrorKind};

use super::attribute::{find, text, u32_at};
use super::message::{HEADER, Message, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE};
use crate::error::Error;

const ERROR_NUMBER: usize = 4;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What a request to the kernel gives.
pub type Answer<T> = Result<T, Failure>;

/// Why a request failed.
#[derive(Debug)]
pub struct Failure {
    cause: io::Error,
    words: Option<String>,
}

impl Failure {
    /// The kernel did not answer in time.
    pub fn silence() -> Self {
        io::Error::new(ErrorKind::TimedOut, "the kernel is silent").into()
    }

    /// The kernel's answer did not arrive.
    pub fn loss() -> Self {
        io::Error::other("an answer was lost").into()
    }

    /// Whether this is the error number.
    pub fn is(&self, number: i32) -> bool {
        self.cause.raw_os_error() == Some(number)
    }

    /// The error of whoever was doing this.
    pub fn during(self, doing: &str) -> Error {
        let Self { cause, words } = self;
        let doing = words.map_or_else(|| doing.to_owned(), |words| format!("{doing}: {words}"));
        Error::system(doing, cause)
    }
}

/// What NLMSG_ERROR or NLMSG_DONE tells: both begin with 0 or a negative error number.
pub fn outcome(message: &Message<'_>) -> Answer<()> {
    match u32_at(message.payload, 0).ok_or(ErrorKind::InvalidData)? as i32 {
        0.. => Ok(()),
        number => Err(Failure {
            cause: io::Error::from_raw_os_error(number.saturating_neg()),
            words: words(message),
        }),
    }
}

/// NLMSG_ERROR repeats the header of the request before its attributes.
fn words(message: &Message<'_>) -> Option<String> {
    let attributes = match message.kind {
        NLMSG_DONE => ERROR_NUMBER,
        _ if message.flags & NLM_F_CAPPED != 0 => ERROR_NUMBER + HEADER,
        _ => return None,
    };
    let attributes = message.payload.get(attributes..)?;
    let has_attributes = message.flags & NLM_F_ACK_TLVS != 0;
    find(attributes, NLMSGERR_ATTR_MSG).filter(|_| has_attributes).map(text)
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self { cause, words: None }
    }
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        io::Error::from(kind).into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.words {
            Some(words) => write!(f, "{words}: {}", self.cause),
            None => self.cause.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attribute::append;
    use super::super::message::NLMSG_ERROR;
    use super::*;

    fn failure(kind: u16, flags: u16, payload: &[u8]) -> Option<Failure> {
        outcome(&Message { kind, flags, payload, ..Message::default() }).err()
    }

    #[test]
    fn outcomes_are_error_numbers() {
        let number = |code: i32| failure(NLMSG_ERROR, 0, &code.to_ne_bytes());
        assert!(number(0).is_none());
        assert!(number(-2).is_some_and(|failure| failure.is(2)));
        assert!(number(i32::MIN).is_some());
        assert!(failure(NLMSG_ERROR, 0, &[]).is_some());
    }

    #[test]
    fn the_kernels_words_are_shown() {
        let mut payload = (-2_i32).to_ne_bytes().to_vec();
        append(&mut payload, NLMSGERR_ATTR_MSG, b"no such thing\0");
        let done = failure(NLMSG_DONE, NLM_F_ACK_TLVS, &payload).unwrap();
        payload.splice(ERROR_NUMBER..ERROR_NUMBER, [0; HEADER]);
        let with_words = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let error = failure(NLMSG_ERROR, with_words, &payload).unwrap();
        for failure in [done, error] {
            assert!(failure.is(2) && failure.to_string().starts_with("no such thing: "));
            assert!(failure.during("asking").to_string().starts_with("asking: no such thing: "));
        }
        for flags in [0, NLM_F_CAPPED, NLM_F_ACK_TLVS] {
            assert_eq!(failure(NLMSG_ERROR, flags, &payload).unwrap().words, None);
        }
    }
}
