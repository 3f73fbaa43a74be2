// SPDX-License-Identifier: GPL-2.0-only
//! The priorities of the UDP packets that leave by an interface of the router.

use super::bystander::ifindex;
use super::compile::compile;
use super::netns::Namespace;
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, TC_EGRESS, TcHookBuilder};
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// A program at TC egress; it goes with the namespace.
pub struct Priorities {
    object: Object,
}

impl Priorities {
    pub fn at_egress(namespace: &Namespace, device: &str) -> Self {
        let open = ObjectBuilder::default().open_memory(&compile("priorities"));
        let object = open.expect("opening priorities").load().expect("loading priorities");
        let program = object.progs().next().expect("a program");
        let program = program.as_fd().try_clone_to_owned().expect("a descriptor");
        let index = ifindex(namespace, device) as i32;
        namespace.enter(|| {
            let mut hook = TcHookBuilder::new(program.as_fd())
                .ifindex(index)
                .handle(1)
                .priority(1)
                .hook(TC_EGRESS);
            // It may be there.
            let _ = hook.create();
            hook.attach().map(|_| ()).expect("attached");
        });
        Self { object }
    }

    /// How many packets of each priority there were, for those that there were.
    pub fn seen(&self) -> BTreeMap<u32, u64> {
        let map = self.object.maps().find(|map| map.name() == "seen").expect("a map");
        let count = |priority: u32| {
            let value = map.lookup(&priority.to_ne_bytes(), MapFlags::ANY).expect("readable");
            u64::from_ne_bytes(value.expect("an entry").try_into().expect("eight bytes"))
        };
        (0..map.max_entries())
            .map(|priority| (priority, count(priority)))
            .filter(|(_, packets)| *packets > 0)
            .collect()
    }
}
