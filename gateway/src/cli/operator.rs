//! Where the operator sits. Owns the look for the SSH connection that this command was typed over.

use std::net::IpAddr;

/// Parents looked at, at most: a login shell is seldom more than a few processes up.
const ANCESTORS: usize = 16;

/// Addresses of the SSH clients behind this process, from its environment and that of its parents.
///
/// `sudo` drops `SSH_CONNECTION` from the environment of its child but not from that of the shell above it.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut pid = std::process::id();
    for _ in 0..ANCESTORS {
        if let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) {
            found.extend(environment.split(|byte| *byte == 0).filter_map(client_of));
        }
        match parent(pid) {
            Some(above) if above > 1 => pid = above,
            _ => break,
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The client in a line such as `SSH_CONNECTION=203.0.113.7 50312 192.0.2.1 22`.
fn client_of(line: &[u8]) -> Option<IpAddr> {
    let line = std::str::from_utf8(line).ok()?;
    let value = line
        .strip_prefix("SSH_CONNECTION=")
        .or_else(|| line.strip_prefix("SSH_CLIENT="))?;
    let addr: IpAddr = value.split_whitespace().next()?.split('%').next()?.parse().ok()?;
    Some(addr.to_canonical())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may itself hold spaces and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_first_word() {
        let client = |line: &str| client_of(line.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(
            client("SSH_CONNECTION=203.0.113.7 50312 192.0.2.1 22").as_deref(),
            Some("203.0.113.7")
        );
        assert_eq!(
            client("SSH_CLIENT=fe80::1%eth0 50312 22").as_deref(),
            Some("fe80::1")
        );
        assert_eq!(
            client("SSH_CONNECTION=::ffff:203.0.113.7 1 ::1 22").as_deref(),
            Some("203.0.113.7")
        );
        for line in [
            "SSH_CONNECTION=",
            "SSH_TTY=/dev/pts/0",
            "",
            "SSH_CONNECTION=nonsense 1",
        ] {
            assert_eq!(client(line), None, "{line}");
        }
    }

    #[test]
    fn this_process_has_a_parent() {
        assert!(parent(std::process::id()).is_some());
    }
}
