// SPDX-License-Identifier: GPL-2.0-only
//! A text that is shown again and again: over itself on a terminal, else one below the other.

use std::io::{self, IsTerminal, StdoutLock, Write};

use crate::datapath::sys;

/// The other screen of a terminal, where its user's lines are not; without a cursor, and with lines that are cut off.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All as it was.
const END: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// To the first line's begin; each line clears what stood behind it, and the last one what stood below.
const HOME: &str = "\x1b[H";
const TO_LINES_END: &str = "\x1b[K";
const TO_SCREENS_END: &str = "\x1b[J";
/// A terminal that does not tell its size.
const ROWS: usize = 24;

/// Where it is shown.
pub(super) struct Screen {
    out: StdoutLock<'static>,
    redraws: bool,
}

impl Screen {
    /// A terminal that can do so is drawn over, until the end.
    pub(super) fn new() -> io::Result<Self> {
        let mut out = io::stdout().lock();
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let redraws = out.is_terminal() && !is_dumb;
        if redraws {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // Nothing better can be done if the terminal is gone.
                let _ = write!(io::stderr(), "{END}");
                before(panic);
            }));
            write!(out, "{BEGIN}")?;
        }
        Ok(Self { out, redraws })
    }

    /// How many lines there is room for; `None` where there is no end.
    pub(super) fn rows(&self) -> Option<usize> {
        self.redraws.then(|| sys::terminal_rows(&self.out).unwrap_or(ROWS))
    }

    /// Shows it.
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        if self.redraws {
            let lines: Vec<&str> = text.lines().take(self.rows().unwrap_or(ROWS)).collect();
            let lines = lines.join(&format!("{TO_LINES_END}\r\n"));
            write!(self.out, "{HOME}{lines}{TO_LINES_END}{TO_SCREENS_END}")?;
        } else {
            writeln!(self.out, "{text}")?;
        }
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.redraws {
            // As above.
            let _ = write!(self.out, "{END}").and_then(|()| self.out.flush());
        }
    }
}
