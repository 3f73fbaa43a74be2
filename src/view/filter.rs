// SPDX-License-Identifier: GPL-2.0-only
//! Which connections are asked for: conntrack's options, or bare words.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Args;

use crate::flow::mark::OffloadMark;
use crate::flow::tuple::{Protocol, Tuple};

/// What a connection must be like, in all that is given. Addresses and ports may be the original or the
/// translated ones.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only this protocol: tcp or udp
    #[arg(short, long = "proto", value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<Protocol>,

    /// Only from this address or network
    #[arg(short, long = "src", visible_alias = "orig-src", value_name = "ADDRESS[/LENGTH]")]
    source: Option<Network>,

    /// Only to this address or network
    #[arg(short, long = "dst", visible_alias = "orig-dst", value_name = "ADDRESS[/LENGTH]")]
    destination: Option<Network>,

    /// Only from this port
    #[arg(long, visible_alias = "orig-port-src", value_name = "PORT")]
    sport: Option<u16>,

    /// Only to this port
    #[arg(long, visible_alias = "orig-port-dst", value_name = "PORT")]
    dport: Option<u16>,

    /// Only with this mark
    #[arg(short, long, value_name = "VALUE[/MASK]")]
    mark: Option<OffloadMark>,

    /// A protocol, an address with or without a port, a network, or a port, at either end; or in quotes a line
    /// of conntrack -L
    #[arg(value_name = "WORD")]
    words: Vec<Word>,
}

/// A connection, as filters see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    /// The first direction.
    pub(super) original: Tuple,
    /// The other one.
    pub(super) reply: Tuple,
    /// Conntrack's mark.
    pub(super) mark: u32,
}

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    length: u8,
}

/// What may stand anywhere in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Protocol(Protocol),
    End(SocketAddr),
    Network(Network),
    Port(u16),
    /// The first tuple of a line that conntrack's tool has written.
    Line(Tuple),
}

impl Filter {
    /// Whether all connections match.
    pub(super) fn is_empty(&self) -> bool {
        self.protocol.is_none()
            && self.source.is_none()
            && self.destination.is_none()
            && self.sport.is_none()
            && self.dport.is_none()
            && self.mark.is_none()
            && self.words.is_empty()
    }

    /// The only connection that is meant, if it is named by both ends, or by a line of conntrack's.
    pub(super) fn exact(&self) -> Option<Tuple> {
        match self.words[..] {
            [Word::Line(tuple)] => Some(tuple),
            [Word::Protocol(protocol), Word::End(source), Word::End(destination)] => {
                tuple(protocol, source, destination)
            }
            _ => None,
        }
    }

    /// Whether a connection matches.
    pub(super) fn matches(&self, subject: &Subject) -> bool {
        let Subject { original, reply, mark } = subject;
        let sources = [original.source, reply.destination];
        let destinations = [original.destination, reply.source];
        let within = |network: Option<Network>, ends: &[SocketAddr]| {
            network.is_none_or(|network| ends.iter().any(|end| network.holds(end.ip())))
        };
        let at = |port: Option<u16>, ends: &[SocketAddr]| {
            port.is_none_or(|port| ends.iter().any(|end| end.port() == port))
        };
        let [first, second] = sources;
        let [third, fourth] = destinations;
        let ends = [first, second, third, fourth];
        self.protocol.is_none_or(|protocol| protocol == original.protocol)
            && within(self.source, &sources)
            && within(self.destination, &destinations)
            && at(self.sport, &sources)
            && at(self.dport, &destinations)
            && self.mark.is_none_or(|wanted| wanted.matches(*mark))
            && self.words.iter().all(|word| word.is_in(subject, &ends))
    }
}

impl Word {
    fn is_in(self, subject: &Subject, ends: &[SocketAddr]) -> bool {
        match self {
            Self::Line(tuple) => [subject.original, subject.reply].contains(&tuple),
            Self::Protocol(wanted) => wanted == subject.original.protocol,
            Self::End(wanted) => ends.contains(&wanted),
            Self::Network(network) => ends.iter().any(|end| network.holds(end.ip())),
            Self::Port(port) => ends.iter().any(|end| end.port() == port),
        }
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no protocol, address, network or port");
        if text.contains("src=") {
            let line =
                line(text).ok_or("not a whole line of conntrack -L, of tcp or udp, in quotes");
            return Ok(Self::Line(line?));
        }
        if let Ok(protocol) = protocol(text) {
            return Ok(Self::Protocol(protocol));
        }
        if let Ok(port) = text.parse() {
            return Ok(Self::Port(port));
        }
        if let Ok(end) = text.parse() {
            return Ok(Self::End(end));
        }
        text.parse().map(Self::Network).map_err(|_| wrong())
    }
}

impl Network {
    fn holds(self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        differ >= self.length.into()
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr =
            address.parse().map_err(|_| format!("'{address}' is not an IP address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(most), |length| length.parse().ok());
        let length = length.filter(|length| *length <= most);
        let length = length.ok_or_else(|| format!("a length is a number from 0 to {most}"))?;
        Ok(Self { address, length })
    }
}

/// The first tuple of a line of conntrack's tool or of /proc/net/nf_conntrack.
fn line(text: &str) -> Option<Tuple> {
    let value = |name: &str| text.split_whitespace().find_map(|word| word.strip_prefix(name));
    let protocol = text.split_whitespace().find_map(|word| match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    });
    let end = |address: &str, port: &str| {
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(address, port.parse().ok()?))
    };
    let source = end(value("src=")?, value("sport=")?)?;
    tuple(protocol?, source, end(value("dst=")?, value("dport=")?)?)
}

/// A tuple, whose ends are of one address family.
fn tuple(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Option<Tuple> {
    (source.is_ipv4() == destination.is_ipv4()).then(|| Tuple::new(protocol, source, destination))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" | "6" => Ok(Protocol::Tcp),
        "udp" | "17" => Ok(Protocol::Udp),
        _ => Err("bpfw offloads tcp and udp".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn matches(words: &str) -> bool {
        let at = |text: &str| text.parse().unwrap();
        let original = Tuple {
            protocol: Protocol::Tcp,
            source: at("192.0.2.2:41276"),
            destination: at("203.0.113.9:443"),
        };
        let reply = Tuple {
            protocol: Protocol::Tcp,
            source: at("192.0.2.10:8443"),
            destination: at("192.0.2.1:1024"),
        };
        let subject = Subject { original, reply, mark: 0x11 };
        let line = ["bpfw"].into_iter().chain(words.split_whitespace());
        Line::try_parse_from(line).unwrap().filter.matches(&subject)
    }

    #[test]
    fn all_that_is_given_must_match_as_original_or_translated() {
        for words in [
            "",
            "-p tcp -s 192.0.2.0/24 -d 203.0.113.9 --sport 41276 --dport 443 --mark 0x10/0xf0",
            "--src 192.0.2.1 --sport 1024 --dst 192.0.2.10 --dport 8443",
            "tcp 192.0.2.2:41276 203.0.113.9:443",
            "443 192.0.2.10 0.0.0.0/0",
        ] {
            assert!(matches(words), "{words}");
        }
        for words in [
            "-p udp",
            "-s 203.0.113.9",
            "-d 192.0.2.2",
            "--sport 443",
            "--dport 41276",
            "--mark 1",
            "-s 192.0.3.0/24",
            "udp",
            "192.0.2.2:443",
            "80",
            "::/0",
        ] {
            assert!(!matches(words), "{words}");
        }
    }

    #[test]
    fn a_line_of_conntrack_names_a_connection() {
        let line = "tcp      6 431999 ESTABLISHED src=192.0.2.2 dst=198.51.100.2 sport=41276 dport=443 \
                    src=198.51.100.2 dst=203.0.113.9 sport=443 dport=41276 [ASSURED] mark=0 use=1";
        let at = |text: &str| text.parse().unwrap();
        let expected =
            tuple(Protocol::Tcp, at("192.0.2.2:41276"), at("198.51.100.2:443")).expect("a tuple");
        for text in [line.to_owned(), format!("ipv4     2 {line}")] {
            assert_eq!(text.parse(), Ok(Word::Line(expected)));
        }
        let words = ["tcp", "192.0.2.2:41276", "198.51.100.2:443"];
        let words = words.map(|word| word.parse().unwrap()).to_vec();
        assert_eq!(Filter { words, ..Filter::default() }.exact(), Some(expected));
        for text in
            ["src=192.0.2.2", "icmp 1 src=192.0.2.2 dst=192.0.2.3 type=8", "tcp src=x dst=y"]
        {
            assert!(text.parse::<Word>().is_err(), "{text}");
        }
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for text in ["", "lan0", "192.0.2.2/33", "::1/129", "65536", "1.2.3", "1.2.3.4/x"] {
            assert!(text.parse::<Word>().is_err(), "{text}");
        }
    }
}
