//! SSH servers among the processes: which sockets they hold, and whether someone has logged in over them.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Sockets held by SSH servers, by inode, and whether someone has logged in over each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers(HashMap<u32, bool>);

impl FromIterator<(u32, bool)> for Servers {
    /// Several processes hold one socket: one of them that is logged in is enough.
    fn from_iter<I: IntoIterator<Item = (u32, bool)>>(sockets: I) -> Self {
        let mut all = HashMap::new();
        for (inode, logged_in) in sockets {
            *all.entry(inode).or_default() |= logged_in;
        }
        Self(all)
    }
}

impl Servers {
    /// Whether someone has logged in over a socket; `None` if no server that can be seen holds it.
    pub fn logged_in(&self, inode: u32) -> Option<bool> {
        self.0.get(&inode).copied()
    }
}

/// Looks at every process under `proc`. What this process may not look into is left out.
pub fn walk(proc: &Path) -> Servers {
    let unprivileged = separate_user();
    let processes = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let servers = processes.filter_map(|process| {
        let dir = process.path();
        let name = std::fs::read_to_string(dir.join("comm")).ok()?;
        if !matches!(name.trim_end(), "sshd" | "sshd-session" | "sshd-auth") {
            return None;
        }
        let uid = std::fs::metadata(&dir).ok()?.uid();
        let title = std::fs::read(dir.join("cmdline")).ok()?;
        let logged_in = is_logged_in(uid, &String::from_utf8_lossy(&title), unprivileged);
        let sockets = std::fs::read_dir(dir.join("fd")).ok()?.flatten();
        let inodes: Vec<u32> = sockets
            .filter_map(|fd| inode(std::fs::read_link(fd.path()).ok()?.to_str()?))
            .collect();
        Some(inodes.into_iter().map(move |inode| (inode, logged_in)))
    });
    servers.flatten().collect()
}

/// Whether a server's process is one that there is only after a login: it runs as the user, or says whose session it
/// is. `unprivileged` is the user that the server reads unauthenticated bytes as.
fn is_logged_in(uid: u32, title: &str, unprivileged: Option<u32>) -> bool {
    let title = title.split('\0').next().unwrap_or_default();
    if uid != 0 {
        // Without a name for that user, a process that is not root's proves nothing.
        return unprivileged.is_some_and(|other| other != uid) && !title.contains(" [");
    }
    titled(title)
}

/// `sshd: root@pts/0` or `sshd-session: root@notty`; not `sshd: root [priv]`, `[net]`, `[accepted]` or the listener.
fn titled(title: &str) -> bool {
    let session = title
        .strip_prefix("sshd: ")
        .or_else(|| title.strip_prefix("sshd-session: "));
    session.is_some_and(|session| {
        let terminal = session.rsplit_once('@').map(|(_, terminal)| terminal);
        !session.contains(' ') && terminal.is_some_and(|name| name == "notty" || name.starts_with("pts/"))
    })
}

fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The user that OpenSSH separates privileges with.
fn separate_user() -> Option<u32> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("sshd:"))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_after_a_login_counts() {
        let sshd = Some(74);
        for (uid, title) in [
            (0, "sshd: root@pts/0"),
            (0, "sshd-session: root@notty\0"),
            (1000, "sshd: bob@pts/1"),
            (1000, "sshd: bob@corp@notty"),
        ] {
            assert!(is_logged_in(uid, title, sshd), "{uid} {title}");
        }
        for (uid, title) in [
            (0, "sshd: /usr/sbin/sshd -D [listener] 1 of 10-100 startups"),
            (0, "sshd: [accepted]"),
            (0, "sshd: root [priv]"),
            (0, "sshd: bob@pts [priv]"),
            (0, "sshd-session: unknown [priv]"),
            (74, "sshd: root [net]"),
            (74, "sshd: root@pts/0"),
            (0, "nonsense: root@pts/0"),
            (0, ""),
        ] {
            assert!(!is_logged_in(uid, title, sshd), "{uid} {title}");
        }
        assert!(
            !is_logged_in(74, "sshd: root@pts/0", None),
            "who that user is can not be told"
        );
    }

    #[test]
    fn processes_are_read_from_a_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        let process = |pid: &str, comm: &str, title: &str, sockets: &[&str]| {
            let fds = dir.path().join(pid).join("fd");
            std::fs::create_dir_all(&fds).expect("made");
            std::fs::write(dir.path().join(pid).join("comm"), format!("{comm}\n")).expect("written");
            std::fs::write(dir.path().join(pid).join("cmdline"), title).expect("written");
            for (fd, target) in sockets.iter().enumerate() {
                std::os::unix::fs::symlink(target, fds.join(fd.to_string())).expect("linked");
            }
        };
        process("10", "sshd", "sshd: root [priv]", &["socket:[7]", "/dev/null"]);
        process("11", "sshd", "sshd: root [net]", &["socket:[7]", "pipe:[9]"]);
        process("20", "curl", "sshd: root@pts/0", &["socket:[8]"]);
        let servers = walk(dir.path());
        assert_eq!(servers.logged_in(7), Some(false));
        assert_eq!(servers.logged_in(8), None, "anyone may call itself what it likes");
        // A process of the tree belongs to whoever runs this test; titles are told apart above.
        let both = Servers::from_iter([(7, false), (7, true)]);
        assert_eq!(both.logged_in(7), Some(true));
    }

    #[test]
    fn of_links_those_to_sockets_are_read() {
        assert_eq!(inode("socket:[123]"), Some(123));
        for link in ["pipe:[123]", "/dev/null", "socket:[x]", "socket:["] {
            assert_eq!(inode(link), None, "{link}");
        }
    }
}
