// SPDX-License-Identifier: GPL-2.0-only
//! Somebody else at the router's interfaces, who counts the UDP packets that come by.

use super::compile::compile;
use super::netns::Namespace;
use bpfw::datapath::sys::{AttachType, link_create};
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, TC_INGRESS, TcHookBuilder};
use std::os::fd::{AsFd, OwnedFd};

/// Programs of somebody else; where they are attached they stay as long as the link does.
pub struct Bystander {
    object: Object,
}

impl Bystander {
    pub fn load() -> Self {
        let open = ObjectBuilder::default().open_memory(&compile("bystander"));
        Self { object: open.expect("opening bystander").load().expect("loading bystander") }
    }

    /// Attaches to an interface, behind those who are there.
    pub fn attach(&self, namespace: &Namespace, device: &str, to: AttachType) -> OwnedFd {
        let name = if matches!(to, AttachType::Xdp(_)) { "bystander_xdp" } else { "bystander_tc" };
        let (program, index) = (self.program(name), ifindex(namespace, device));
        namespace.enter(|| link_create(program.as_fd(), index, to)).expect("attached")
    }

    /// Adds it as an ingress filter, as somebody who likes our place would.
    pub fn add_filter(&self, namespace: &Namespace, device: &str, priority: u16, handle: u32) {
        let program = self.program("bystander_tc");
        let index = ifindex(namespace, device) as i32;
        let add = || {
            let mut hook = TcHookBuilder::new(program.as_fd())
                .ifindex(index)
                .replace(true)
                .handle(handle)
                .priority(priority.into())
                .hook(TC_INGRESS);
            // It may be there.
            let _ = hook.create();
            hook.attach().map(|_| ())
        };
        namespace.enter(add).expect("added");
    }

    fn program(&self, name: &str) -> OwnedFd {
        descriptor(&self.object, name)
    }

    /// The UDP packets that came by, wherever it is attached.
    pub fn seen(&self) -> u64 {
        let map = self.object.maps().find(|map| map.name() == "seen").expect("a map");
        let value = map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).expect("readable");
        u64::from_ne_bytes(value.expect("one entry").try_into().expect("eight bytes"))
    }
}

fn descriptor(object: &Object, program: &str) -> OwnedFd {
    let program = object.progs().find(|each| each.name() == program).expect("there");
    program.as_fd().try_clone_to_owned().expect("a descriptor")
}

/// Somebody else who uses tc_index.
pub struct IndexUser {
    object: Object,
}

impl IndexUser {
    pub fn load() -> Self {
        let open = ObjectBuilder::default().open_memory(&compile("tc_index"));
        Self { object: open.expect("opening").load().expect("loading") }
    }

    /// Puts `set_index`, `clear_index` or `count_index` at a side of an interface, for as long as the link is open.
    pub fn attach(
        &self,
        namespace: &Namespace,
        device: &str,
        to: AttachType,
        name: &str,
    ) -> OwnedFd {
        let (program, index) = (descriptor(&self.object, name), ifindex(namespace, device));
        namespace.enter(|| link_create(program.as_fd(), index, to)).expect("attached")
    }

    /// Packets that came by `count_index`, and those of them that had one.
    pub fn seen(&self) -> [u64; 2] {
        let map = self.object.maps().find(|map| map.name() == "seen").expect("a map");
        [0_u32, 1].map(|place| {
            let value = map.lookup(&place.to_ne_bytes(), MapFlags::ANY).expect("readable");
            u64::from_ne_bytes(value.expect("an entry").try_into().expect("eight bytes"))
        })
    }
}

/// An interface's index.
pub fn ifindex(namespace: &Namespace, device: &str) -> u32 {
    let text = namespace.sh(&format!("cat /sys/class/net/{device}/ifindex"));
    text.trim().parse().expect("a number")
}

/// Somebody else's filter at one side of clsact (`ingress`, `egress`), which counts all UDP
/// packets, and lets the filters behind it have their say.
pub fn add_filter(namespace: &Namespace, device: &str, side: &str, priority: u16) {
    namespace.sh(&format!(
        "ip link add ifb0 type ifb 2>/dev/null && ip link set ifb0 up
         tc qdisc add dev {device} clsact 2>/dev/null || true
         tc filter add dev {device} {side} prio {priority} protocol ip u32 \
            match ip protocol 17 0xff action mirred egress mirror dev ifb0 continue"
    ));
}

/// The packets that such filters saw at this side.
pub fn filtered(namespace: &Namespace, device: &str, side: &str) -> u64 {
    let shown = namespace.sh(&format!("tc -s filter show dev {device} {side}"));
    let sent =
        |line: &str| line.trim().strip_prefix("Sent ")?.split(' ').nth(2)?.parse::<u64>().ok();
    shown.lines().filter_map(sent).sum::<u64>()
}
