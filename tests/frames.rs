// SPDX-License-Identifier: GPL-2.0-only
//! The frame builder, the frame view and the plain checksums agree with known values.

mod support;

use std::net::{Ipv4Addr, SocketAddrV4};
use support::checksum;
use support::packet::{Packet, Tag, tcp};
use support::view::{Checksum, Ethernet, View};

const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 40000);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 443);

fn view(packet: &Packet) -> View {
    View::parse(&packet.build()).expect("an IPv4 frame")
}

#[test]
fn sum_of_rfc_1071_example() {
    assert_eq!(checksum::sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    assert_eq!(checksum::sum(&[0x12, 0x34, 0x56]), 0x6834);
    assert_eq!(checksum::internet(&[]), 0xffff);
}

#[test]
fn header_checksum_of_a_known_header() {
    let mut header =
        [0x45, 0, 0, 0x3c, 0x1c, 0x46, 0x40, 0, 0x40, 0x06, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
    // 0x4500 + 0x003c + 0x1c46 + 0x4000 + 0x4006 + 0xc000 + 0x0201 + 0xc633 + 0x6401 = 0x2cdbd
    assert_eq!(checksum::ipv4_header(&header), !0xcdbf);
    header[10] = 0xaa;
    assert_eq!(checksum::ipv4_header(&header), !0xcdbf, "the field itself does not count");
}

#[test]
fn udp_never_computes_zero() {
    let (src, dst) = (*CLIENT.ip(), *SERVER.ip());
    let every = (0..=u16::MAX).map(|id| Packet::udp(CLIENT, SERVER).payload(&id.to_be_bytes()));
    let fields: Vec<u16> = every.map(|packet| view(&packet).l4_field).collect();
    assert!(!fields.contains(&0) && fields.contains(&0xffff));
    assert_eq!(
        checksum::partial(src, dst, 17, 8),
        checksum::sum(&[192, 0, 2, 2, 198, 51, 100, 2, 0, 17, 0, 8])
    );
}

#[test]
fn udp_comes_back_as_it_was_built() {
    let packet = Packet::udp(CLIENT, SERVER).payload(b"abc").ttl(7).tos(0xb8).id(99).df(false);
    let view = view(&packet.mac([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).pad_to(60));
    assert_eq!((view.src, view.dst), (CLIENT, SERVER));
    assert_eq!((view.ttl, view.tos, view.id, view.df, view.mf), (7, 0xb8, 99, false, false));
    assert_eq!((view.protocol, view.total_length), (17, 31));
    assert_eq!(view.payload, b"abc", "padding is not payload");
    assert_eq!(view.ethernet.src, [2, 0, 0, 0, 0, 1]);
    assert_eq!(view.ethernet.dst, [2, 0, 0, 0, 0, 2]);
    assert!(view.checksums_right());
}

#[test]
fn tcp_comes_back_as_it_was_built() {
    let packet = Packet::tcp(SERVER, CLIENT).seq(0xffff_fff0).ack(5).flags(tcp::SYN | tcp::ACK);
    let view = view(&packet.window(1234).tcp_options(&[2, 4, 5, 0xb4]).payload(b"odd"));
    let tcp = view.tcp.as_ref().expect("TCP");
    assert_eq!((tcp.seq, tcp.ack, tcp.flags, tcp.window), (0xffff_fff0, 5, 0x12, 1234));
    assert_eq!(tcp.options, [2, 4, 5, 0xb4]);
    assert_eq!(view.payload, b"odd");
    assert!(view.df && view.checksums_right());
}

#[test]
fn tags_come_back_outermost_first() {
    let packet = Packet::udp(CLIENT, SERVER).vlan(100, 5, 0x88a8).vlan(7, 0, 0x8100);
    let tags = [Tag { id: 100, pcp: 5, proto: 0x88a8 }, Tag { id: 7, pcp: 0, proto: 0x8100 }];
    let view = view(&packet);
    assert_eq!(view.ethernet.vlans, tags);
    assert_eq!((view.ethernet.ethertype, view.dst), (0x0800, SERVER));
}

#[test]
fn spoiled_checksums_are_told_apart() {
    for packet in [Packet::udp(CLIENT, SERVER), Packet::tcp(CLIENT, SERVER)] {
        let packet = packet.payload(b"payload");
        assert_eq!(view(&packet).l4_checksum, Checksum::Right);
        assert_eq!(view(&packet.clone().bad_l4_checksum()).l4_checksum, Checksum::Wrong);
        assert_eq!(view(&packet.clone().partial_l4_checksum()).l4_checksum, Checksum::Partial);
        let bad_ip = view(&packet.clone().bad_ip_checksum());
        assert!(!bad_ip.ip_checksum_right && bad_ip.l4_checksum == Checksum::Right);
    }
    let zero = |packet: Packet| view(&packet.zero_l4_checksum()).l4_checksum;
    assert_eq!(zero(Packet::udp(CLIENT, SERVER)), Checksum::Absent);
    assert_eq!(zero(Packet::tcp(CLIENT, SERVER)), Checksum::Wrong);
}

#[test]
fn fragments_options_and_lengths() {
    let packet = Packet::udp(CLIENT, SERVER).payload(b"0123456789");
    let first = view(&packet.clone().fragment(0, true));
    assert_eq!((first.mf, first.fragment_offset, first.dst), (true, 0, SERVER));
    assert_eq!(first.l4_checksum, Checksum::Unknown);
    let later = view(&packet.clone().fragment(185, false));
    assert_eq!((later.mf, later.fragment_offset, later.dst.port()), (false, 185, 0));
    let options = view(&packet.clone().ip_options(&[7, 3, 4, 0]));
    assert_eq!(options.ip_options, [7, 3, 4, 0]);
    assert!(options.checksums_right() && options.payload == b"0123456789");
    assert_eq!(view(&packet.clone().total_length(1000)).total_length, 1000);
    assert_ne!(view(&packet.clone().udp_length(9)).payload.len(), 1);
    assert_eq!(View::parse(&packet.clone().header_words(4).build()), None);
}

#[test]
fn cut_frames_are_no_views() {
    let packet = Packet::tcp(CLIENT, SERVER).payload(b"payload");
    let whole = packet.build().len();
    for length in 0..whole {
        let frame = packet.clone().truncate(length).build();
        assert_eq!(frame.len(), length);
        let complete_headers = length >= 14 + 20 + 20;
        assert_eq!(View::parse(&frame).is_some(), complete_headers, "{length} bytes");
    }
    assert!(Ethernet::parse(&[0; 13]).is_none());
}
