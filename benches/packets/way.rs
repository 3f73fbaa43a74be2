// SPDX-License-Identifier: GPL-2.0-only
//! What the router's interfaces stand on. Layers below them are the kernel's business, whoever forwards.

use super::plan::{LAN_HOSTS, WAN_HOSTS};
use super::support::lab::{
    CLIENT, CLIENT_MAC, Lab, ROUTER_LAN, ROUTER_WAN, ROUTER_WAN_MAC, SERVER, SERVER_MAC, show,
};
use super::support::netns::text;
use super::support::pppoe::Session;
use super::support::tun_device;
use super::support::wait::becomes_true;
use clap::ValueEnum;
use serde::Serialize;
use std::fs::File;
use std::time::Duration;

/// A way from the LAN to the WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From port to port
    Port,
    /// From a bridge
    Bridge,
    /// From a VLAN of a filtering bridge to a VLAN of a port
    Vlan,
    /// From a bond
    Bond,
    /// To a macvlan
    Macvlan,
    /// Between the ports of a VRF
    Vrf,
    /// To a PPPoE session
    Pppoe,
    /// To a tun
    Tun,
}

/// Where answers come in, if not at the WAN's port: they need no layers' headers there.
pub const BACK: &str = "back0";

/// How long a bond may take to see its carrier.
const CARRIER: Duration = Duration::from_secs(20);

/// What a way needs as long as it is used.
#[derive(Default)]
pub struct Layers {
    _session: Option<Session>,
    pub tun: Option<File>,
}

impl Way {
    /// The interfaces with addresses, which bpfw is told of: the LAN's, the WAN's.
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::Port | Self::Vrf => ["lan0", "wan0"],
            Self::Bridge => ["br-lan", "wan0"],
            Self::Vlan => ["vlan10", "wan0.7"],
            Self::Bond => ["bond0", "wan0"],
            Self::Macvlan => ["lan0", "mv0"],
            Self::Pppoe => ["lan0", "pppoe-wan"],
            Self::Tun => ["lan0", "tun0"],
        }
    }

    /// The interfaces of the kernel's flow table: it looks below those that it knows.
    pub fn flow_devices(self) -> [&'static str; 2] {
        match self {
            Self::Bridge | Self::Vlan | Self::Pppoe => ["lan0", "wan0"],
            _ => self.names(),
        }
    }

    /// Rules for `lan0` and `wan0`, by this way's names. The forward chain sees a VRF in place of the port
    /// where packets come in.
    pub fn rules(self, rules: &str) -> String {
        let [lan, wan] = if self == Self::Vrf { ["red", "wan0"] } else { self.names() };
        rules.replace("lan0", lan).replace("wan0", wan)
    }

    /// Where answers come in.
    pub fn back(self) -> &'static str {
        if self.names()[1] == "wan0" { "wan0" } else { BACK }
    }

    /// The commands of `ip` and others that make the interfaces.
    fn commands(self) -> &'static str {
        match self {
            Self::Port | Self::Pppoe | Self::Tun => "",
            Self::Bridge => {
                "ip link add br-lan type bridge
                 ip link set lan0 master br-lan"
            }
            Self::Vlan => {
                "ip link add br-lan type bridge vlan_filtering 1 vlan_default_pvid 10
                 ip link set lan0 master br-lan
                 ip link set br-lan up
                 bridge vlan add vid 10 dev br-lan self
                 ip link add vlan10 link br-lan type vlan id 10
                 ip link add wan0.7 link wan0 type vlan id 7"
            }
            Self::Bond => {
                "ip link add bond0 type bond mode active-backup miimon 50
                 ip link set lan0 down
                 ip link set lan0 master bond0"
            }
            Self::Macvlan => "ip link add mv0 link wan0 type macvlan mode bridge",
            Self::Vrf => {
                "ip link add red type vrf table 100
                 ip link set red up
                 ip link set lan0 master red
                 ip link set wan0 master red"
            }
        }
    }

    /// Makes the interfaces, or says why they cannot be made here. The router has neighbors and routes
    /// afterwards.
    pub fn lay(self, lab: &Lab) -> Result<Layers, String> {
        let mut layers = Layers::default();
        run(lab, "ip addr flush dev lan0\nip addr flush dev wan0")?;
        run(
            lab,
            &format!(
                "ip link add {BACK} address {} type veth peer name back1",
                show(ROUTER_WAN_MAC)
            ),
        )?;
        run(
            lab,
            &format!("ip link set {BACK} up\nip link set back1 up\nethtool -K {BACK} gro on"),
        )?;
        run(lab, self.commands())?;
        match self {
            Self::Pppoe => layers._session = Some(session(lab)?),
            Self::Tun => {
                let open = lab.router.enter(|| tun_device::open("tun0"));
                layers.tun = Some(open.map_err(|error| format!("making a tun: {error}"))?);
            }
            _ => {}
        }
        self.address(lab)?;
        if self == Self::Bond {
            run(lab, "ip link set lan0 up")?;
            let is_up = || lab.router.sh("cat /sys/class/net/bond0/carrier || true").trim() == "1";
            becomes_true(CARRIER, is_up);
        }
        Ok(layers)
    }

    fn address(self, lab: &Lab) -> Result<(), String> {
        let [lan, wan] = self.names();
        let vrf = if self == Self::Vrf { "vrf red" } else { "" };
        run(
            lab,
            &format!(
                "ip link set {lan} up\nip link set {wan} up
                 ip addr add {ROUTER_LAN}/24 dev {lan}
                 ip addr add {ROUTER_WAN}/24 dev {wan}
                 ip neigh replace {CLIENT} lladdr {} dev {lan} nud permanent
                 ip route add {LAN_HOSTS}/16 via {CLIENT} dev {lan} {vrf}
                 ip route add {WAN_HOSTS}/16 via {SERVER} dev {wan} {vrf}",
                show(CLIENT_MAC)
            ),
        )?;
        if matches!(self, Self::Pppoe | Self::Tun) {
            return Ok(());
        }
        run(
            lab,
            &format!(
                "ip neigh replace {SERVER} lladdr {} dev {wan} nud permanent",
                show(SERVER_MAC)
            ),
        )
    }
}

/// A PPPoE session over the WAN's port. Nobody answers, because the sink takes all that arrives.
fn session(lab: &Lab) -> Result<Session, String> {
    let open = lab.router.enter(|| Session::open("wan0", SERVER_MAC, 0x1234));
    let session = open.map_err(|error| format!("making a PPPoE session: {error}"))?;
    run(lab, &format!("ip link set ppp{} name pppoe-wan mtu 1492", session.unit))?;
    Ok(session)
}

/// Runs commands in the router, one a line, up to the first that fails.
fn run(lab: &Lab, commands: &str) -> Result<(), String> {
    for command in commands.lines().filter(|line| !line.trim().is_empty()) {
        let output = lab.router.try_run(&command.split_whitespace().collect::<Vec<_>>());
        if !output.status.success() {
            return Err(format!("{}: {}", command.trim(), text(&output.stderr).trim()));
        }
    }
    Ok(())
}
