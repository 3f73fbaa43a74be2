// SPDX-License-Identifier: GPL-2.0-only
//! The configuration file is read again. What can change while packets are forwarded does; an interface that
//! stays is not detached from, and no connection is lost.

use super::Daemon;
use super::interfaces::wanted::Wanted;
use super::setup::MISSED_HEARTBEATS;
use crate::config::Settings;
use crate::config::changes::Change;
use crate::datapath::Hook;
use crate::datapath::state;
use crate::error::Result;
use crate::limits;
use crate::reasons::pause::Pause;
use crate::status::{Reload, Reloaded};

/// So many letters are told of a reload: the answer to a question must fit into a socket's buffer.
const LONGEST: usize = 2 << 10;

impl Daemon<'_> {
    /// Reads the file again. If there is a mistake in it, the settings stay as they are.
    pub(super) fn reload(&mut self) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        self.manager.reloading();
        let done = match source.read().and_then(prepare) {
            Ok((new, wanted)) => self.change_to(new, wanted),
            Err(error) => {
                tracing::error!("{error}; all settings stay as they are");
                self.note_reload(Reloaded::Refused, error.to_string());
                Ok(())
            }
        };
        self.manager.ready();
        done
    }

    fn change_to(&mut self, new: Settings, wanted: Wanted) -> Result<()> {
        let (live, need_restart): (Vec<Change>, Vec<Change>) =
            self.settings.changes(&new).into_iter().partition(|change| self.is_live(change, &new));
        self.settings.adopt(new, &need_restart);
        let done = self.carry_out(&live, wanted);
        if let Err(error) = &done {
            // The daemon pauses, then does all anew that follows from the settings.
            self.recover(error)?;
        }
        let text = told(&live, &need_restart);
        if need_restart.is_empty() {
            tracing::info!("settings: {text}");
            self.note_reload(Reloaded::Applied, text);
        } else {
            tracing::warn!("settings: {text}");
            self.note_reload(Reloaded::NeedsRestart, text);
        }
        Ok(())
    }

    /// Whether a change can be made while the daemon runs.
    fn is_live(&self, change: &Change, new: &Settings) -> bool {
        if change.key == "interval" {
            // The programs know the limit since they were loaded.
            return new.options.interval() * MISSED_HEARTBEATS <= self.datapath.heartbeat_limit();
        }
        let attached_otherwise = || {
            self.settings.hook == Hook::Xdp
                && self.interfaces.are_attached_by_others(&new.xdp_modes)
        };
        change.is_live() && !(change.is_xdp_mode() && attached_otherwise())
    }

    /// Does what follows from these changes: first all that cannot fail.
    fn carry_out(&mut self, live: &[Change], wanted: Wanted) -> Result<()> {
        let has = |key: &str| live.iter().any(|change| change.key == key);
        let options = &self.settings.options;
        self.log.set_level(options.log_level);
        self.schedule.set_interval(options.interval());
        self.connections.offload.set_mark(options.offload_mark);
        self.interfaces.set_xdp_modes(self.settings.xdp_modes.clone());
        if has("interfaces") {
            self.interfaces.set_wanted(wanted);
            self.change_interfaces()?;
        }
        if has("offload-mark") {
            self.distrust(Pause::Policy, None, state::Change::Topology)?;
        }
        if has("prove-every") { self.watch_period() } else { Ok(()) }
    }

    /// Nothing may be redirected to an interface from which the programs are taken off.
    fn change_interfaces(&mut self) -> Result<()> {
        self.pause_for_devices()?;
        self.interfaces.follow_links(&self.monitor.network().links);
        self.generations.ask(state::Change::Topology);
        self.update_devices()
    }

    fn note_reload(&mut self, result: Reloaded, text: String) {
        let text = text.chars().take(LONGEST).collect();
        let number = self.clients.reload.number + 1;
        self.clients.reload = Reload { number, result, text };
    }
}

/// What may refuse the settings, before anything is changed.
fn prepare(new: Settings) -> Result<(Settings, Wanted)> {
    let wanted = Wanted::new(&new.interfaces, true);
    limits::ensure_files(wanted.most())?;
    Ok((new, wanted))
}

/// What has changed, in a line.
fn told(live: &[Change], need_restart: &[Change]) -> String {
    let list =
        |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (live, need_restart) {
        ([], []) => "nothing has changed".to_owned(),
        (_, []) => format!("applied: {}", list(live)),
        ([], _) => format!("restart for: {}", list(need_restart)),
        _ => format!("applied: {}; restart for: {}", list(live), list(need_restart)),
    }
}
