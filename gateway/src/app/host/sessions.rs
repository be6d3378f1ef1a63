//! Who sits at an SSH session: clients that logged in, told from those that merely opened a connection.
//!
//! An established connection proves nothing but a handshake; whoever holds one open must not be safe from blocks by it.
//! Three sources know of logins, and each speaks for itself:
//! * systemd's sessions (`/run/systemd/sessions`), made by PAM after authentication, whatever the port;
//! * `utmp`, written by the SSH server for sessions with a terminal;
//! * the server's own processes: after authentication, and never before, one of them runs as the user or is titled
//!   `sshd: root@pts/0`. Before, it is `sshd: root [priv]`, and its child `[net]` runs as a user of its own.
//!
//! Only where none can say anything about a connection, as in a container that sees neither the host's `/run` nor its
//! processes, every client of an SSH port is taken for an operator.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::diag::Connection;
use super::{processes, utmp};

/// Where systemd keeps one file for each session.
const SYSTEMD: &str = "/run/systemd/sessions";
/// Made by systemd's keeper of sessions when it starts: without it an empty directory says nothing.
const KEEPER: &str = "/run/systemd/seats/seat0";
const UTMP: &[&str] = &["/run/utmp", "/var/run/utmp"];
/// Where the server's ports stand.
const SSHD_CONFIG: &[&str] = &["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"];
const SSH_PORT: u16 = 22;
/// Walking the processes takes milliseconds, and is asked for while someone misbehaves.
const WALK_EVERY: Duration = Duration::from_secs(1);

/// What is known of those who are logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    pub operators: BTreeSet<IpAddr>,
    /// Some of them are taken for operators by their connection alone.
    pub by_connection: bool,
}

/// Reads the sources, cheapest first.
pub fn gather() -> Sessions {
    let mut operators = BTreeSet::new();
    let mut told = false;
    if let Some(clients) = systemd(Path::new(SYSTEMD)) {
        operators.extend(clients);
        told = true;
    }
    told |= Path::new(KEEPER).exists();
    for path in UTMP {
        if let Ok(records) = std::fs::read(path) {
            operators.extend(utmp::clients(&records, alive));
            // An empty file is one that nobody writes to.
            told |= !records.is_empty();
        }
    }
    let connections = super::connections(&ports());
    let unknown = connections
        .into_iter()
        .filter(|one| !operators.contains(&one.client));
    let unknown: Vec<Connection> = unknown.collect();
    if unknown.is_empty() {
        return Sessions {
            operators,
            by_connection: false,
        };
    }
    let servers = walk();
    judge(operators, &unknown, told, &servers)
}

/// Decides about connections of whom neither systemd nor utmp says that they are logged in.
fn judge(
    mut operators: BTreeSet<IpAddr>,
    unknown: &[Connection],
    told: bool,
    servers: &processes::Servers,
) -> Sessions {
    let mut by_connection = false;
    for Connection { client, inode } in unknown {
        match servers.logged_in(*inode) {
            Some(true) => {
                operators.insert(*client);
            }
            Some(false) => {}
            None if told => {}
            None => {
                operators.insert(*client);
                by_connection = true;
            }
        }
    }
    Sessions {
        operators,
        by_connection,
    }
}

fn walk() -> processes::Servers {
    static LAST: Mutex<Option<(Instant, processes::Servers)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((at, servers)) if at.elapsed() < WALK_EVERY => servers.clone(),
        _ => {
            let servers = processes::walk(Path::new("/proc"));
            *last = Some((Instant::now(), servers.clone()));
            servers
        }
    }
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The remote hosts of systemd's sessions; `None` if it keeps none here.
fn systemd(dir: &Path) -> Option<Vec<IpAddr>> {
    let files = std::fs::read_dir(dir).ok()?.flatten();
    let texts: Vec<String> = files
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .collect();
    // A directory without a session is that of a host where nobody keeps any, as far as can be told.
    (!texts.is_empty()).then(|| texts.iter().filter_map(|text| session(text)).collect())
}

/// The remote address in a session's file, if it is open.
fn session(text: &str) -> Option<IpAddr> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    if field("STATE") == Some("closing") {
        return None;
    }
    let host = field("REMOTE_HOST")?.split('%').next()?;
    Some(host.parse::<IpAddr>().ok()?.to_canonical())
}

/// Ports that an SSH server listens on, as its configuration says; 22 if it says nothing.
fn ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::from([SSH_PORT]);
    for path in SSHD_CONFIG {
        let path = Path::new(path);
        let parts = std::fs::read_dir(path).into_iter().flatten().flatten();
        for file in parts.map(|part| part.path()).chain([path.to_owned()]) {
            if let Ok(text) = std::fs::read_to_string(file) {
                ports.extend(text.lines().filter_map(port));
            }
        }
    }
    ports
}

/// The port of a line such as `Port 2222` or `ListenAddress [::]:2222`.
fn port(line: &str) -> Option<u16> {
    let mut words = line
        .split(|c: char| c.is_whitespace() || c == '=')
        .filter(|word| !word.is_empty());
    let (key, value) = (words.next()?, words.next()?);
    if key.eq_ignore_ascii_case("port") {
        value.parse().ok()
    } else if key.eq_ignore_ascii_case("listenaddress") {
        value.parse::<std::net::SocketAddr>().map(|addr| addr.port()).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::processes::Servers;
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_connection_alone_makes_nobody_an_operator_where_logins_are_known() {
        let attacker = Connection {
            client: addr("198.51.100.66"),
            inode: 7,
        };
        let operator = Connection {
            client: addr("192.0.2.9"),
            inode: 8,
        };
        let both = [attacker, operator];
        let known = Servers::from_iter([(7, false), (8, true)]);
        let only = BTreeSet::from([operator.client]);
        for told in [false, true] {
            let sessions = judge(BTreeSet::new(), &both, told, &known);
            assert_eq!(
                (sessions.operators, sessions.by_connection),
                (only.clone(), false)
            );
        }
        // Where the processes can not be seen, the others' word counts.
        let blind = Servers::default();
        let sessions = judge(only.clone(), &[attacker], true, &blind);
        assert_eq!((sessions.operators, sessions.by_connection), (only, false));
        // Where nothing can be seen, better one protected too many.
        let sessions = judge(BTreeSet::new(), &both, false, &blind);
        assert_eq!((sessions.operators.len(), sessions.by_connection), (2, true));
    }

    #[test]
    fn open_sessions_of_systemd_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(systemd(dir.path()), None, "nobody keeps sessions here");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
        write(
            "1",
            "UID=0\nSTATE=active\nREMOTE=1\nREMOTE_HOST=192.0.2.9\nSERVICE=sshd\n",
        );
        write("2", "UID=0\nSTATE=closing\nREMOTE=1\nREMOTE_HOST=192.0.2.10\n");
        write("3", "UID=0\nSTATE=online\nREMOTE=0\nSEAT=seat0\n");
        write("4", "STATE=online\nREMOTE_HOST=fe80::1%eth0\n");
        write("5", "STATE=online\nREMOTE_HOST=some.name\n");
        let mut found = systemd(dir.path()).expect("sessions");
        found.sort();
        assert_eq!(found, [addr("192.0.2.9"), addr("fe80::1")]);
        assert_eq!(systemd(&dir.path().join("none")), None);
    }

    #[test]
    fn ports_stand_in_the_server_s_configuration() {
        assert_eq!(port("Port 2222"), Some(2222));
        assert_eq!(port("  port=2222"), Some(2222));
        assert_eq!(port("ListenAddress 0.0.0.0:2022"), Some(2022));
        assert_eq!(port("ListenAddress [::]:2022"), Some(2022));
        for line in [
            "#Port 2222",
            "ListenAddress 0.0.0.0",
            "Port",
            "Port x",
            "PermitRootLogin no",
            "",
        ] {
            assert_eq!(port(line), None, "{line}");
        }
    }
}
