// SPDX-License-Identifier: GPL-2.0-only
//! What the tests share: a lab of network namespaces, frames, traffic, and the daemon in it.

// Every test binary compiles all of this and uses a part of it.
#![allow(dead_code)]

pub mod ask;
pub mod bystander;
pub mod capture;
pub mod checksum;
pub mod compile;
pub mod configuration;
pub mod conntrack;
pub mod conversation;
pub mod crowd;
pub mod daemon;
pub mod datapath;
pub mod flow;
pub mod injection;
pub mod ipv6;
pub mod lab;
pub mod live;
pub mod maps;
pub mod model;
pub mod mutate;
pub mod netns;
pub mod nfqueue;
pub mod nics;
pub mod outcome;
pub mod outlaw;
pub mod packet;
pub mod patched;
pub mod port;
pub mod pppoe;
pub mod prelude;
pub mod priorities;
pub mod process;
pub mod random;
pub mod raw_end;
pub mod raw_lab;
pub mod router;
pub mod rules;
pub mod samples;
pub mod seeds;
pub mod segments;
pub mod spoil;
pub mod steady;
pub mod talk;
pub mod tcp;
pub mod trial;
pub mod tun;
pub mod tun_device;
pub mod tunnels;
pub mod twins;
pub mod twist;
pub mod udp;
pub mod view;
pub mod wait;
