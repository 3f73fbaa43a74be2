// SPDX-License-Identifier: GPL-2.0-only
//! What a start would come to: all of it that changes nothing.

use std::collections::BTreeMap;

use nix::sys::utsname::uname;

use super::firewall::Rules;
use super::interfaces::follow::first_interfaces;
use super::interfaces::preview::Preview;
use super::interfaces::wanted::Wanted;
use super::policy::Policy;
use super::setup::{heartbeat_limit, settings};
use crate::abi::bpfw_conn;
use crate::clock::Hz;
use crate::config::Settings;
use crate::connections::topology;
use crate::conntrack::sysctl::Sysctls;
use crate::datapath::devices::Devices;
use crate::datapath::object::LoadedObject;
use crate::datapath::probe;
use crate::datapath::skeleton::Storage;
use crate::error::{Error, Result};
use crate::flow::family::{Families, Family};
use crate::limits;
use crate::netlink::drivers::Drivers;
use crate::netlink::monitor::{Monitor, Network};
use crate::netlink::routing_sysctls::RoutingSysctls;
use crate::netlink::xfrm::Xfrm;
use crate::status::Cause;
use crate::status::check::Check;

/// Says what would happen. An error if the daemon would not start. The programs are loaded, so the kernel's
/// verifier has seen them; nothing is attached.
pub fn check(asked: &Settings, from_file: bool, storage: &mut Storage) -> Result<Check> {
    let wanted = Wanted::new(&asked.interfaces, from_file);
    limits::ensure_files(wanted.most())?;
    let monitor = Monitor::open(Families::FORWARDED)?;
    let network = monitor.network();
    let first = first_interfaces(&wanted, &network.links, asked.hook)?;
    let sysctls = Sysctls::read()?;
    let beat_limit = Hz::from_kernel()?.count_u32(heartbeat_limit(asked));
    let settings = settings(asked, &sysctls, beat_limit, network.links.len())?;
    let object = LoadedObject::load(asked.object.as_deref(), &settings, storage)?;
    let names = |index| first.iter().any(|interface| interface.index == index);
    let names: Vec<_> = topology::named(&network.links, &names).collect();
    let mut policy = Policy {
        xfrm: Xfrm::open(Families::FORWARDED)?,
        rules: Rules::open()?,
        sysctls: RoutingSysctls::read(Families::FORWARDED, &names)?,
        route_mark: settings.route_mark,
    };
    policy.rules.read()?;
    policy.rules.report_legacy();
    let mut drivers = Drivers::open()?;
    let features = probe::features(&drivers).to_vec();
    let (interfaces, before) = Preview {
        hook: asked.hook,
        modes: &asked.xdp_modes,
        network,
        policy: &policy,
        drivers: &mut drivers,
        room: Devices::new(object.object())?.room(),
    }
    .interfaces(&wanted)?;
    let release =
        uname().map_err(|errno| Error::system("asking for the kernel's release", errno))?;
    Ok(Check {
        hook: asked.hook.name(),
        programs: object.programs_number(),
        release: release.release().to_string_lossy().into_owned(),
        features,
        interfaces,
        before,
        forbidden: forbidden(&policy, network),
        events: sysctls.events,
        connections: settings.max_connections,
        memory: u64::from(settings.cells) * size_of::<bpfw_conn>() as u64,
        warnings: policy.rules.warnings(),
    })
}

/// Why no connection of an address family would be offloaded.
fn forbidden(policy: &Policy, network: &Network) -> BTreeMap<String, Cause> {
    let forbidden = |family: Family| {
        let refusal = policy.refusal(network, family)?;
        Some((family.name().to_owned(), refusal.reason().into()))
    };
    Families::FORWARDED.iter().filter_map(forbidden).collect()
}
