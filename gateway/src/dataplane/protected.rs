//! Who must not be locked out. Owns the answer to "may this network be denied or blocked?"; gathers nothing itself.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Facts about this host, gathered by `app`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Addresses of this host's interfaces, with the interface's name.
    pub own: Vec<(IpAddr, String)>,
    /// Clients of established SSH connections.
    pub operators: Vec<IpAddr>,
}

/// Why a network is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    OwnAddress { addr: IpAddr, interface: String },
    Operator { addr: IpAddr },
    TrustedProxy { net: IpNet },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAddress { addr, interface } => {
                write!(f, "{addr} is this host's own address on {interface}")
            }
            Self::Operator { addr } => write!(f, "{addr} is the client of an SSH session on this host"),
            Self::TrustedProxy { net } => write!(f, "{net} is a trusted proxy"),
        }
    }
}

/// Whether denying or blocking `net` would cut off someone who must not be.
#[must_use]
pub fn protects(host: &Host, operators: &[IpAddr], proxies: &[IpNet], net: &IpNet) -> Option<Why> {
    if let Some((addr, interface)) = host
        .own
        .iter()
        .find(|(addr, _)| net.contains(&addr.to_canonical()))
    {
        return Some(Why::OwnAddress {
            addr: *addr,
            interface: interface.clone(),
        });
    }
    if let Some(addr) = operators
        .iter()
        .chain(&host.operators)
        .find(|addr| net.contains(&addr.to_canonical()))
    {
        return Some(Why::Operator { addr: *addr });
    }
    let proxy = proxies
        .iter()
        .find(|proxy| proxy.contains(net) || net.contains(*proxy))?;
    Some(Why::TrustedProxy { net: *proxy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn a_network_that_holds_someone_protected_is_protected() {
        let host = Host {
            own: vec![("192.0.2.1".parse().expect("an address"), "eth0".to_owned())],
            operators: vec!["198.51.100.9".parse().expect("an address")],
        };
        let proxies = [net("203.0.113.0/24")];
        let why = |text: &str| {
            protects(
                &host,
                &["2001:db8::9".parse().expect("an address")],
                &proxies,
                &net(text),
            )
        };
        assert!(matches!(why("192.0.2.1/32"), Some(Why::OwnAddress { .. })));
        assert!(matches!(why("192.0.0.0/16"), Some(Why::OwnAddress { .. })));
        assert!(matches!(why("198.51.100.0/24"), Some(Why::Operator { .. })));
        assert!(matches!(why("2001:db8::/32"), Some(Why::Operator { .. })));
        assert!(matches!(why("203.0.113.7/32"), Some(Why::TrustedProxy { .. })));
        assert!(matches!(why("203.0.0.0/8"), Some(Why::TrustedProxy { .. })));
        assert_eq!(why("192.0.2.2/32"), None);
        assert_eq!(why("::/64"), None);
    }
}
