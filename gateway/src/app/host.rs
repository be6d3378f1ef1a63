//! Facts about this host that protect people from being locked out. Owns the reading; the meaning is `protected`'s.

mod diag;
mod processes;
mod routes;
mod sessions;
mod utmp;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Once;

use self::diag::Connection;
use self::routes::{gateways, resolvers};
use crate::dataplane::protected::Host;

/// `TCP_ESTABLISHED` in `/proc/net/tcp` (kernel, `include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";

/// Reads who must not be cut off: this host, its way out, and who is logged in. What can not be read is left out.
#[must_use]
pub fn gather() -> Host {
    let own = nix::ifaddrs::getifaddrs().map(|addrs| {
        addrs
            .filter_map(|entry| {
                let storage = entry.address?;
                let v4 = storage.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
                let addr = v4.or_else(|| storage.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))?;
                Some((addr, entry.interface_name))
            })
            .collect()
    });
    let own = own.unwrap_or_else(|error| {
        tracing::warn!(%error, "the host's own addresses could not be read, so they are not protected from blocks");
        Vec::new()
    });
    let sessions = sessions::gather();
    if sessions.by_connection {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                "nothing here tells who has logged in over SSH (no session of systemd, no utmp, no view of the server's \
                 processes): whoever holds a connection to an SSH port is protected from blocks"
            );
        });
    }
    Host {
        own,
        operators: sessions.operators.into_iter().collect(),
        by_connection: sessions.by_connection,
        gateways: gateways(),
        resolvers: resolvers(),
    }
}

/// Connections to these local ports; the slow way for kernels without sock_diag.
fn connections(ports: &BTreeSet<u16>) -> Vec<Connection> {
    diag::connections(ports).unwrap_or_else(|error| {
        tracing::debug!(%error, "no sock_diag; reading /proc instead");
        listed(ports)
    })
}

fn listed(ports: &BTreeSet<u16>) -> Vec<Connection> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let texts = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok());
    texts
        .flat_map(|text| {
            let lines = text.lines().skip(1);
            lines
                .filter_map(|line| established(line, ports))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// An established connection to one of these local ports, from one line of `/proc/net/tcp` or `tcp6`.
fn established(line: &str, ports: &BTreeSet<u16>) -> Option<Connection> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, port) = local.rsplit_once(':')?;
    if state != ESTABLISHED || !ports.contains(&u16::from_str_radix(port, 16).ok()?) {
        return None;
    }
    Some(Connection {
        client: address(remote.rsplit_once(':')?.0)?,
        inode: fields.nth(5)?.parse().ok()?,
    })
}

/// The kernel prints each 32-bit word of an address as a number of the host's byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn only_established_sessions_on_the_ssh_port_count() {
        let ssh = "   0: 010200C0:0016 076433C6:C350 01 00000000:00000000 02:000A 00000000     0        0 1";
        let ssh_client = |line| established(line, &BTreeSet::from([22]));
        let client = "198.51.100.7".parse().expect("an address");
        assert_eq!(ssh_client(ssh), Some(Connection { client, inode: 1 }));
        let web = "   1: 010200C0:0050 076433C6:C350 01 00000000:00000000 02:000A 00000000     0        0 1";
        assert_eq!(ssh_client(web), None);
        let listening =
            "   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:0000 00000000     0        0 1";
        assert_eq!(ssh_client(listening), None);
        assert_eq!(ssh_client("nonsense"), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn ipv6_and_mapped_addresses_are_read() {
        assert_eq!(
            address("B80D0120000000000000000001000000"),
            "2001:db8::1".parse().ok()
        );
        assert_eq!(
            address("0000000000000000FFFF0000076433C6"),
            "198.51.100.7".parse().ok()
        );
        assert_eq!(address("zz"), None);
    }

    #[test]
    fn this_host_has_a_loopback_address() {
        assert!(gather().own.iter().any(|(addr, _)| addr.is_loopback()));
    }
}
