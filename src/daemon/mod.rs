// SPDX-License-Identifier: GPL-2.0-only
//! The daemon: sets everything up, then one thread in one loop until it is asked to end.

mod backlog;
mod check;
mod datapath;
mod events;
mod feed;
mod firewall;
mod generations;
mod housekeeping;
mod interfaces;
mod manager;
mod neighbors;
mod network;
mod pause;
mod pauses;
mod period;
mod policy;
mod reload;
mod resume;
mod schedule;
mod setup;
mod status;
mod stop;
mod turns;

use std::time::Duration;

use crate::config::{Settings, Source};
use crate::datapath::skeleton::Storage;
use crate::error::Result;
use crate::limits;
use crate::logging::Log;
use crate::netlink::monitor::Monitor;
use crate::notify::Notify;
use crate::shutdown::Shutdown;

pub use check::check;
use datapath::Datapath;
use events::Connections;
use generations::Generations;
use interfaces::Interfaces;
use interfaces::wanted::Wanted;
use pause::FastPath;
use policy::Policy;
use schedule::Schedule;
use status::Clients;

/// The longest piece of work before the daemon reads events again.
const SLICE: Duration = Duration::from_millis(10);
/// The longest piece of housekeeping: events, and new connections, do not wait for more of it.
const CHORE: Duration = Duration::from_millis(2);

/// What the daemon is asked to do.
#[derive(Debug)]
pub struct Request<'a> {
    /// What to do.
    pub settings: Settings,
    /// Where that comes from, if from a file.
    pub source: Option<Source>,
    /// Where it says what it does.
    pub log: &'a Log,
}

/// Runs until a signal asks for the end, and detaches from all interfaces.
pub fn run(request: Request<'_>, storage: &mut Storage) -> Result<()> {
    // Those of a file are a service's, which starts before some interfaces are there.
    let wanted = Wanted::new(&request.settings.interfaces, request.source.is_some());
    limits::ensure_files(wanted.most())?;
    let shutdown = Shutdown::watch(request.source.is_some())?;
    let mut daemon = Daemon::start(request, wanted, storage, shutdown)?;
    daemon.manager.ready();
    let result = daemon.run();
    let stopped = daemon.stop();
    result.and(stopped)
}

struct Daemon<'obj> {
    settings: Settings,
    /// Where they come from, if from a file.
    source: Option<Source>,
    log: &'obj Log,
    manager: Notify,
    clients: Clients,
    shutdown: Shutdown,
    schedule: Schedule,
    /// The network as the kernel describes it.
    monitor: Monitor,
    policy: Policy,
    interfaces: Interfaces,
    connections: Connections,
    datapath: Datapath<'obj>,
    /// Whether it forwards.
    fast_path: FastPath,
    generations: Generations,
}
