//! Where an entry of a list is kept. Owns the mapping from a network to a table and a key, once for all keepers.

use std::net::IpAddr;

use gateway_common::addr::Addr;
use gateway_common::tables::Settings;
use gateway_common::tables::feature;
use gateway_ebpf::policy::Table;
use ipnet::IpNet;

use super::List;

/// The key of a network: full-length ones are single addresses and live in the hash of their list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Addr(Addr),
    Net4 { bits: u32, data: [u8; 4] },
    Net6 { bits: u32, data: [u8; 16] },
}

/// Table and key of `net` in `list`; `None` for a prefix in the block list, which holds single addresses only.
///
/// Host bits are cut off. A network of mapped IPv4 addresses (`::ffff:192.0.2.0/120`) is the IPv4 network it means.
pub fn place(list: List, net: IpNet) -> Option<(Table, Key)> {
    let key = key(canonical(net));
    let table = match (list, key) {
        (List::Allow, Key::Addr(_)) => Table::AllowAddr,
        (List::Allow, Key::Net4 { .. }) => Table::AllowNet4,
        (List::Allow, Key::Net6 { .. }) => Table::AllowNet6,
        (List::Deny, Key::Addr(_)) => Table::DenyAddr,
        (List::Deny, Key::Net4 { .. }) => Table::DenyNet4,
        (List::Deny, Key::Net6 { .. }) => Table::DenyNet6,
        (List::Block, Key::Addr(_)) => Table::BlockAddr,
        (List::Block, _) => return None,
    };
    Some((table, key))
}

/// The one spelling of a network: no host bits, and IPv4 as IPv4.
pub fn canonical(net: IpNet) -> IpNet {
    let net = net.trunc();
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => ipnet::Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        _ => net,
    }
}

fn key(net: IpNet) -> Key {
    if net.prefix_len() == net.max_prefix_len() {
        return Key::Addr(net.addr().into());
    }
    let bits = u32::from(net.prefix_len());
    match net.addr() {
        IpAddr::V4(ip) => Key::Net4 {
            bits,
            data: ip.octets(),
        },
        IpAddr::V6(ip) => Key::Net6 {
            bits,
            data: ip.octets(),
        },
    }
}

/// `wanted`, with what is the keeper's own taken from `kept`.
pub fn keep_own(wanted: Settings, kept: &Settings) -> Settings {
    let features = wanted.features & !feature::TABLES | kept.features & feature::TABLES;
    Settings {
        features,
        hash_key: kept.hash_key,
        ..wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a literal")
    }

    #[test]
    fn full_length_is_a_single_address_and_host_bits_are_cut() {
        assert_eq!(
            place(List::Deny, net("192.0.2.1/32")),
            Some((Table::DenyAddr, Key::Addr(Addr::v4([192, 0, 2, 1]))))
        );
        assert_eq!(
            place(List::Allow, net("192.0.2.77/24")),
            Some((
                Table::AllowNet4,
                Key::Net4 {
                    bits: 24,
                    data: [192, 0, 2, 0]
                }
            ))
        );
        assert_eq!(
            place(List::Deny, net("::/0")),
            Some((
                Table::DenyNet6,
                Key::Net6 {
                    bits: 0,
                    data: [0; 16]
                }
            ))
        );
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        assert_eq!(canonical(net("::ffff:192.0.2.9/120")), net("192.0.2.0/24"));
        assert_eq!(canonical(net("::ffff:192.0.2.9/128")), net("192.0.2.9/32"));
        assert_eq!(canonical(net("::ffff:0:0/95")), net("::fffe:0:0/95"));
    }

    #[test]
    fn blocks_are_single_addresses() {
        assert_eq!(place(List::Block, net("192.0.2.0/24")), None);
    }
}
