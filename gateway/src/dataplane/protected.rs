//! Who must not be locked out. Owns the answer to "may this network be denied or blocked?"; gathers nothing itself.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Facts about this host, gathered by `app`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Addresses of this host's interfaces, with the interface's name.
    pub own: Vec<(IpAddr, String)>,
    /// Clients of SSH sessions.
    pub operators: Vec<IpAddr>,
    /// Some of the operators are known by their connection to an SSH port alone.
    pub by_connection: bool,
    /// Next hops of default routes, with the interface they are behind.
    pub gateways: Vec<(IpAddr, String)>,
    /// Name servers that this host asks.
    pub resolvers: Vec<IpAddr>,
}

/// Why a network is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    OwnAddress {
        addr: IpAddr,
        interface: String,
    },
    Operator {
        addr: IpAddr,
    },
    /// As before, but whether anyone logged in over the connection can not be told.
    Connected {
        addr: IpAddr,
    },
    Gateway {
        addr: IpAddr,
        interface: String,
    },
    Resolver {
        addr: IpAddr,
    },
    TrustedProxy {
        net: IpNet,
    },
    /// Nobody is known, as the configuration could not be read; but it was not in force before.
    Unread,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAddress { addr, interface } => {
                write!(f, "{addr} is this host's own address on {interface}")
            }
            Self::Operator { addr } => write!(f, "{addr} is the client of an SSH session on this host"),
            Self::Connected { addr } => write!(
                f,
                "{addr} is connected to this host's SSH port (who is logged in can not be told here)"
            ),
            Self::Gateway { addr, interface } => {
                write!(f, "{addr} is this host's default gateway on {interface}")
            }
            Self::Resolver { addr } => write!(f, "{addr} is a name server of this host"),
            Self::TrustedProxy { net } => write!(f, "{net} is a trusted proxy"),
            Self::Unread => f.write_str(
                "it was not in force before, and what would tell why can not be read of the configuration",
            ),
        }
    }
}

/// All that must not be cut off, as networks.
#[derive(Clone, Debug, Default)]
pub struct Protected(Vec<Shield>);

#[derive(Clone, Debug)]
struct Shield {
    net: IpNet,
    why: Why,
    /// A loopback address whose interface is not filtered. No other interface takes packets from it, so that a
    /// default-deny need not allow it.
    aside: bool,
}

impl Protected {
    /// From facts about the host, `operators` that are known besides, and the configuration's trusted proxies.
    /// `filters` says whether an interface is filtered.
    #[must_use]
    pub fn new(host: &Host, operators: &[IpAddr], proxies: &[IpNet], filters: impl Fn(&str) -> bool) -> Self {
        let own = host.own.iter().map(|(addr, interface)| Shield {
            net: IpNet::from(addr.to_canonical()),
            why: Why::OwnAddress {
                addr: *addr,
                interface: interface.clone(),
            },
            aside: addr.is_loopback() && !filters(interface),
        });
        let single = |addr: &IpAddr, why| Shield {
            net: IpNet::from(addr.to_canonical()),
            why,
            aside: false,
        };
        let typing = operators
            .iter()
            .map(move |addr| single(addr, Why::Operator { addr: *addr }));
        let logged_in = host.operators.iter().map(move |addr| {
            let why = if host.by_connection {
                Why::Connected { addr: *addr }
            } else {
                Why::Operator { addr: *addr }
            };
            single(addr, why)
        });
        let gateways = host.gateways.iter().map(move |(addr, interface)| {
            let why = Why::Gateway {
                addr: *addr,
                interface: interface.clone(),
            };
            single(addr, why)
        });
        let resolvers = host
            .resolvers
            .iter()
            .map(move |addr| single(addr, Why::Resolver { addr: *addr }));
        let proxies = proxies.iter().map(|net| Shield {
            net: *net,
            why: Why::TrustedProxy { net: *net },
            aside: false,
        });
        let people = typing.chain(logged_in);
        let way_out = gateways.chain(resolvers);
        Self(own.chain(people).chain(way_out).chain(proxies).collect())
    }

    /// Whom denying or blocking `net` would cut off; nobody if `allowed` is true of all that it shares with them.
    #[must_use]
    pub fn cut_off(&self, net: &IpNet, allowed: impl Fn(&IpNet) -> bool) -> Option<&Why> {
        self.all_cut_off(net, allowed).next().map(|(_, why)| why)
    }

    /// As [`Protected::cut_off`], each of them with the network that is theirs.
    pub fn all_cut_off(
        &self,
        net: &IpNet,
        allowed: impl Fn(&IpNet) -> bool,
    ) -> impl Iterator<Item = (&IpNet, &Why)> {
        let loopback = net.network().is_loopback() && net.broadcast().is_loopback();
        let cut = self.0.iter().filter(move |shield| {
            let shared = if net.contains(&shield.net) {
                &shield.net
            } else if shield.net.contains(net) {
                net
            } else {
                return false;
            };
            (loopback || !shield.aside) && !allowed(shared)
        });
        cut.map(|shield| (&shield.net, &shield.why))
    }

    /// The networks that are protected.
    pub fn nets(&self) -> impl Iterator<Item = &IpNet> {
        self.0.iter().map(|shield| &shield.net)
    }
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
            gateways: vec![("192.0.2.254".parse().expect("an address"), "eth0".to_owned())],
            resolvers: vec!["2001:db8:53::53".parse().expect("an address")],
            ..Host::default()
        };
        let proxies = [net("203.0.113.0/24")];
        let operators = ["2001:db8::9".parse().expect("an address")];
        let protected = Protected::new(&host, &operators, &proxies, |_| true);
        let why = |text: &str| protected.cut_off(&net(text), |_| false).cloned();
        assert!(matches!(why("192.0.2.1/32"), Some(Why::OwnAddress { .. })));
        assert!(matches!(why("192.0.0.0/16"), Some(Why::OwnAddress { .. })));
        assert!(matches!(why("198.51.100.0/24"), Some(Why::Operator { .. })));
        assert!(matches!(why("2001:db8::/32"), Some(Why::Operator { .. })));
        assert!(matches!(why("203.0.113.7/32"), Some(Why::TrustedProxy { .. })));
        assert!(matches!(why("203.0.0.0/8"), Some(Why::TrustedProxy { .. })));
        assert!(matches!(why("192.0.2.254/32"), Some(Why::Gateway { .. })));
        assert!(matches!(why("2001:db8:53::/48"), Some(Why::Resolver { .. })));
        assert_eq!(why("192.0.2.2/32"), None);
        assert_eq!(why("::/64"), None);
    }
    #[test]
    fn what_is_allowed_is_not_cut_off() {
        let host = Host {
            own: vec![
                ("127.0.0.1".parse().expect("an address"), "lo".to_owned()),
                ("10.0.0.5".parse().expect("an address"), "eth0".to_owned()),
            ],
            ..Host::default()
        };
        let proxies = [net("172.16.0.0/12")];
        let protected = Protected::new(&host, &[], &proxies, |interface| interface == "eth0");
        let cut = |text: &str, allow: &[&str]| {
            let allow: Vec<IpNet> = allow.iter().map(|text| net(text)).collect();
            let allowed = |shared: &IpNet| allow.iter().any(|allow| allow.contains(shared));
            protected.cut_off(&net(text), allowed).is_some()
        };
        assert!(cut("0.0.0.0/0", &[]));
        assert!(cut("0.0.0.0/0", &["10.0.0.0/8"]), "the proxies are left");
        assert!(
            cut("0.0.0.0/0", &["10.0.0.0/8", "172.16.0.0/16"]),
            "some proxies are left"
        );
        assert!(
            !cut("0.0.0.0/0", &["10.0.0.0/8", "172.16.0.0/12"]),
            "the loopback device is not filtered"
        );
        assert!(cut("127.0.0.0/8", &[]) && cut("127.0.0.1/32", &[]));
        assert!(cut("172.16.5.0/24", &["172.16.5.5/32"]) && !cut("172.16.5.0/24", &["172.16.5.0/24"]));
    }
}
