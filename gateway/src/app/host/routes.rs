//! The way out: default gateways and resolvers, whose loss cuts this host off as surely as a denied operator.
//!
//! Of the main routing table, as the kernel prints it; gateways of other tables are not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTF_UP | RTF_GATEWAY` of `linux/route.h`.
const THROUGH_GATEWAY: u32 = 0x1 | 0x2;

/// The next hops of default routes, with the interface they are behind.
pub fn gateways() -> Vec<(IpAddr, String)> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/self/net/route"), read("/proc/self/net/ipv6_route"));
    let mut all: Vec<_> = v4.lines().skip(1).filter_map(default4).collect();
    all.extend(v6.lines().filter_map(default6));
    all.sort();
    all.dedup();
    all
}

/// The resolvers that `resolv.conf` names, but for those on this host.
pub fn resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut all: Vec<IpAddr> = text.lines().filter_map(resolver).collect();
    // A stub resolver on this host asks others; systemd's says whom.
    if all.iter().any(IpAddr::is_loopback) {
        let upstream = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default();
        all.extend(upstream.lines().filter_map(resolver));
    }
    all.retain(|addr| !addr.is_loopback() && !addr.is_unspecified());
    all.sort_unstable();
    all.dedup();
    all
}

fn resolver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let (Some("nameserver"), Some(addr)) = (words.next(), words.next()) else {
        return None;
    };
    let addr: IpAddr = addr.split('%').next()?.parse().ok()?;
    Some(addr.to_canonical())
}

/// One line of `/proc/net/route`: interface, destination, gateway, flags, three more, mask. Numbers are as the
/// processor has them in memory.
fn default4(line: &str) -> Option<(IpAddr, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let (destination, gateway, flags, mask) = (number(1)?, number(2)?, number(3)?, number(7)?);
    let is_default = destination == 0 && mask == 0 && flags & THROUGH_GATEWAY == THROUGH_GATEWAY;
    let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
    (is_default && !gateway.is_unspecified()).then(|| (gateway.into(), fields[0].to_owned()))
}

/// One line of `/proc/net/ipv6_route`: destination and its length, source and its length, next hop, three numbers,
/// flags, interface.
fn default6(line: &str) -> Option<(IpAddr, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let addr = |at: usize| Some(Ipv6Addr::from(u128::from_str_radix(fields.get(at)?, 16).ok()?));
    let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
    let is_default = addr(0)?.is_unspecified() && fields.get(1) == Some(&"00");
    let gateway = addr(4)?;
    let through = flags & THROUGH_GATEWAY == THROUGH_GATEWAY && !gateway.is_unspecified();
    (is_default && through).then(|| (gateway.into(), fields.get(9).unwrap_or(&"").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn only_default_routes_through_a_gateway_count() {
        let row = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        let gateway = ("192.168.1.1".parse().expect("an address"), "eth0".to_owned());
        assert_eq!(default4(row), Some(gateway));
        let inside = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0";
        let through = "eth0\t0000000A\t0101A8C0\t0003\t0\t0\t100\t000000FF\t0\t0\t0";
        let direct = "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0";
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
        for row in [inside, through, direct, header, "", "nonsense"] {
            assert_eq!(default4(row), None, "{row}");
        }
    }

    #[test]
    fn ipv6_routers_are_found() {
        let zero = "0".repeat(32);
        let router = "fe800000000000000000000000000001";
        let row = format!("{zero} 00 {zero} 00 {router} 00000400 00000001 00000000 00000003     eth0");
        let (addr, interface) = default6(&row).expect("a default route");
        assert_eq!(
            (addr.to_string().as_str(), interface.as_str()),
            ("fe80::1", "eth0")
        );
        // What the kernel rejects packets with.
        let reject = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo");
        let inside = format!(
            "20010db8{} 20 {zero} 00 {router} 0 0 0 00000003 eth0",
            "0".repeat(24)
        );
        for row in [reject.as_str(), inside.as_str(), "", "0 00 0"] {
            assert_eq!(default6(row), None, "{row}");
        }
    }

    #[test]
    fn resolvers_are_read_whatever_stands_around_them() {
        let addr = |line| resolver(line).map(|addr| addr.to_string());
        assert_eq!(addr("nameserver 192.0.2.53").as_deref(), Some("192.0.2.53"));
        assert_eq!(addr("  nameserver\tfe80::1%eth0 # x").as_deref(), Some("fe80::1"));
        for line in [
            "# nameserver 192.0.2.53",
            "search example.com",
            "nameserver",
            "nameserver x",
            "",
        ] {
            assert_eq!(addr(line), None, "{line}");
        }
    }
}
