//! The one spelling of a network, and whose the settings are; shared by all keepers of the tables.

use gateway_common::tables::{NEVER, Settings, feature};
use ipnet::IpNet;

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

/// Whether an entry with deadline `a` stays at least as long as one with deadline `b`.
pub fn outlasts(a: u64, b: u64) -> bool {
    a == NEVER || b != NEVER && a >= b
}

/// `wanted`, with what is the keeper's own taken from `kept`.
pub fn keep_own(wanted: Settings, kept: &Settings) -> Settings {
    let features = wanted.features & !feature::TABLES | kept.features & feature::TABLES;
    Settings {
        features,
        hash_key: kept.hash_key,
        layout: kept.layout,
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
    fn a_mapped_network_is_the_ipv4_network() {
        assert_eq!(canonical(net("::ffff:192.0.2.9/120")), net("192.0.2.0/24"));
        assert_eq!(canonical(net("::ffff:192.0.2.9/128")), net("192.0.2.9/32"));
        assert_eq!(canonical(net("::ffff:0:0/95")), net("::fffe:0:0/95"));
    }
}
