// SPDX-License-Identifier: GPL-2.0-only
//! The log's lines on their way to the log, which may take no lines: a pipe that nobody
//! reads, a stopped terminal, a full or hung disk.
//!
//! A thread writes them, so that only this thread waits. Nothing else serves all kinds of logs.
//! `O_NONBLOCK` means nothing to files. It belongs to the open file, which the shell that started us
//! shares. `poll` promises 4,096 bytes of room in a pipe, but less in a terminal or a socket.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::destination::{Destination, Form};

/// Bytes that may wait: some ten thousand lines.
const ROOM: usize = 1 << 20;
/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Room for a signal handler and for formatting a line.
const STACK: usize = 128 << 10;

/// Lines that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Lines that found no room, all of them behind those that wait.
    lost: u64,
    /// There will be no more lines.
    ending: bool,
    /// All is written, as far as the log took it.
    ended: bool,
}

impl Queue {
    /// A queue whose lines go to this log.
    pub(super) fn start(log: Box<dyn Destination>, form: Form) -> io::Result<Arc<Self>> {
        let queue = Arc::<Self>::default();
        let writer = Writer { log, form, lost: 0, torn: false };
        let lines = Arc::clone(&queue);
        thread::Builder::new()
            .name("bpfw-log".into())
            .stack_size(STACK)
            .spawn(move || writer.run(&lines))?;
        Ok(queue)
    }

    /// Waits until all lines are written, but not for a log that takes none.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.ending = true;
        self.changed.notify_all();
        // Whether they are or not, this is the end.
        let _ = self.changed.wait_timeout_while(state, PATIENCE, |state| !state.ended);
    }

    /// Takes a whole line.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        // One gap at a time, so that its place in the log is known.
        if state.lost > 0 || state.bytes + line.len() > ROOM {
            state.lost += 1;
        } else {
            state.bytes += line.len();
            state.lines.push_back(line.into());
        }
        self.changed.notify_all();
    }

    /// Takes all that waits, as soon as there is something to do.
    fn take(&self) -> State {
        let idle = |state: &mut State| state.lines.is_empty() && state.lost == 0 && !state.ending;
        let waited = self.changed.wait_while(self.state(), idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        let ending = state.ending;
        std::mem::replace(&mut *state, State { ending, ..State::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    log: Box<dyn Destination>,
    form: Form,
    /// Lines that were lost, and the log does not say so yet.
    lost: u64,
    /// The log's last line lacks its end.
    torn: bool,
}

impl Writer {
    fn run(mut self, queue: &Queue) {
        loop {
            let taken = queue.take();
            for line in taken.lines {
                if !self.report_lost() || !self.write(&line) {
                    self.lost += 1;
                }
            }
            self.lost += taken.lost;
            self.report_lost();
            if taken.ending {
                break;
            }
        }
        queue.state().ended = true;
        queue.changed.notify_all();
    }

    /// Says how many lines were lost, if any; `false` if the log still takes none.
    fn report_lost(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let end = if self.torn { "\n" } else { "" };
        let warning = self.form.warning();
        let reported =
            self.write(format!("{end}{warning}{} log lines were lost\n", self.lost).as_bytes());
        if reported {
            self.lost = 0;
        }
        reported
    }

    /// Writes a line; `false` if the log does not take all of it.
    fn write(&mut self, line: &[u8]) -> bool {
        let mut left = line;
        while !left.is_empty() {
            let error = match self.log.write(left) {
                Ok(0) => ErrorKind::WriteZero,
                Ok(written) => {
                    left = &left[written..];
                    continue;
                }
                Err(error) => error.kind(),
            };
            match error {
                ErrorKind::Interrupted => {}
                // Somebody else made the open file non-blocking.
                ErrorKind::WouldBlock => self.wait_for_room(),
                _ => {
                    self.torn |= left.len() < line.len();
                    return false;
                }
            }
        }
        self.torn = false;
        true
    }

    fn wait_for_room(&self) {
        let log = PollFd::new(self.log.as_fd(), PollFlags::POLLOUT);
        // If it fails, the next attempt to write shows why.
        let _ = poll(&mut [log], PollTimeout::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// A queue before somebody who does not read yet.
    fn unread() -> (Arc<Queue>, UnixStream) {
        let (log, reader) = UnixStream::pair().unwrap();
        (start(log), reader)
    }

    fn start(log: UnixStream) -> Arc<Queue> {
        Queue::start(Box::new(File::from(OwnedFd::from(log))), Form::Words).unwrap()
    }

    fn line(number: usize) -> String {
        format!("{number:0100}\n")
    }

    fn read(mut reader: UnixStream) -> Vec<String> {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Reads all that 50,000 lines leave, of which not all fit, and sees that what is lost is counted.
    fn a_gap_is_counted(queue: Arc<Queue>, reader: UnixStream) {
        let before: Vec<String> = (0..50_000).map(line).collect();
        before.iter().for_each(|line| queue.push(line.as_bytes()));
        let reading = thread::spawn(move || read(reader));
        let is_empty = || queue.state().lost == 0;
        while !is_empty() {
            thread::yield_now();
        }
        queue.push(line(50_000).as_bytes());
        queue.finish();
        let seen = reading.join().unwrap();
        let (mut next, mut gaps) = (0, 0);
        for seen in seen {
            // The writer may have come between, so that there are several gaps.
            if let Some(lost) = seen.strip_prefix(" WARN ") {
                next +=
                    lost.strip_suffix(" log lines were lost").unwrap().parse::<usize>().unwrap();
                gaps += 1;
            } else {
                assert_eq!(seen, line(next).trim_end());
                next += 1;
            }
        }
        assert_eq!(next, 50_001);
        assert!(gaps > 0);
    }

    #[test]
    fn hazard_60_lines_without_room_are_counted_in_their_place() {
        let (queue, reader) = unread();
        a_gap_is_counted(queue, reader);
    }

    #[test]
    fn hazard_60_a_log_that_somebody_made_non_blocking_loses_no_more() {
        let (log, reader) = UnixStream::pair().unwrap();
        log.set_nonblocking(true).unwrap();
        a_gap_is_counted(start(log), reader);
    }

    #[test]
    fn hazard_60_the_end_waits_for_slow_readers_but_not_for_ever() {
        let (queue, reader) = unread();
        let lines: Vec<String> = (0..5_000).map(line).collect();
        lines.iter().for_each(|line| queue.push(line.as_bytes()));
        let reading = thread::spawn(move || read(reader));
        queue.finish();
        assert!(queue.state().ended);
        assert_eq!(reading.join().unwrap().len(), lines.len());

        let (queue, _reader) = unread();
        lines.iter().for_each(|line| queue.push(line.as_bytes()));
        queue.finish();
        assert!(!queue.state().ended);
    }

    /// A file of this size is full, until somebody makes it shorter.
    #[test]
    fn hazard_60_a_log_that_takes_lines_again_says_what_is_missing() {
        let (mut writer, mut reader) = {
            let (log, reader) = UnixStream::pair().unwrap();
            let log = Box::new(File::from(OwnedFd::from(log)));
            (Writer { log, form: Form::Words, lost: 0, torn: false }, reader)
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut writer.log, Box::new(full));
        assert!(!writer.write(b"first\n") && !writer.torn);
        writer.lost = 3;
        assert!(!writer.report_lost());
        writer.log = good;
        writer.torn = true;
        assert!(writer.report_lost() && writer.write(b"second\n"));
        assert_eq!((writer.lost, writer.torn), (0, false));
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\n WARN 3 log lines were lost\nsecond\n");
    }
}
