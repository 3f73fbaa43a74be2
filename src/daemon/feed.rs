// SPDX-License-Identifier: GPL-2.0-only
//! Telling those who listen what begins and ends.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::connections::journal::News;
use crate::datapath::conn_map::Walk;
use crate::error::Result;
use crate::status::event::{Event, Offload};

/// So long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Daemon<'_> {
    /// Lets in who has come to listen.
    pub(super) fn welcome_clients(&mut self) {
        let Some(feed) = &mut self.clients.feed else { return };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        feed.welcome(&Event::Listening { version, pid: std::process::id() });
        self.connections.offload.set_heard(feed.is_heard());
    }

    /// Tells what this turn has changed.
    pub(super) fn tell_news(&mut self) {
        let Some(feed) = self.clients.feed.as_mut().filter(|feed| feed.is_heard()) else { return };
        let (news, lost) = self.connections.offload.take_news();
        feed.tell(&events(&news), lost);
    }

    /// With the daemon all offloads end. Nothing is attached any more.
    pub(super) fn tell_last_news(&mut self) -> Result<()> {
        self.tell_news();
        let Some(feed) = self.clients.feed.as_mut().filter(|feed| feed.is_heard()) else {
            return Ok(());
        };
        let (mut walk, until) = (Walk::default(), Instant::now() + LAST_WORDS);
        loop {
            let (news, is_last) = self.connections.offload.end_all(&mut walk)?;
            feed.wait_for_room(until);
            feed.tell(&events(&news), 0);
            if is_last {
                return Ok(());
            }
        }
    }
}

fn events(news: &[News]) -> Vec<Event> {
    let event = |news: &News| match news {
        News::Begun(connection) => Some(Event::Begin(Offload::new(
            connection.id,
            connection.mark,
            connection.original,
            connection.reply,
        ))),
        News::Ended(original, tuple, reply) => {
            Offload::of(original, tuple, reply.as_ref()).map(Event::End)
        }
    };
    news.iter().filter_map(event).collect()
}
