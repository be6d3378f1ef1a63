//! The host as a whole: kernel, bpffs, sysctls, privileges. Reads files below a root that a test can replace.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Check;

/// Oldest kernel for the filter, for SYN cookies in XDP, and the first that does not count BPF memory as locked.
const FILTER: (u32, u32) = (5, 15);
const COOKIES: (u32, u32) = (6, 0);
const NO_MEMLOCK: (u32, u32) = (5, 11);
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// Numbers of `linux/capability.h`.
const NEEDED: &[(u32, &str)] = &[(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// What CAP_SYS_ADMIN stands for, on top of what is its own.
const SYS_ADMIN: u32 = 21;

pub fn checks(root: &Path) -> Vec<Check> {
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let release = read("proc/sys/kernel/osrelease").unwrap_or_default();
    let status = read("proc/self/status").unwrap_or_default();
    vec![
        kernel(&release),
        btf(root),
        bpffs(root),
        jit(read("proc/sys/net/core/bpf_jit_enable").as_deref()),
        cookies(read("proc/sys/net/ipv4/tcp_syncookies").as_deref()),
        capabilities(&status),
        memlock(&release),
    ]
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    match version(release) {
        None => Check::warn(
            NAME,
            format!("{release:?} is no version that is known here"),
            "the filter needs Linux 5.15 or later",
        ),
        Some(version) if version < FILTER => Check::fail(
            NAME,
            format!("{release}: too old for the filter"),
            "install Linux 5.15 or later; 6.0 for SYN cookies in XDP",
        ),
        Some(version) if version < COOKIES => Check::warn(
            NAME,
            format!("{release}: the filter works, SYN cookies in XDP do not"),
            "install Linux 6.0 or later if you want these; limits work as they are",
        ),
        Some(_) => Check::ok(NAME, release),
    }
}

fn btf(root: &Path) -> Check {
    if root.join("sys/kernel/btf/vmlinux").exists() {
        Check::ok("BTF", "the kernel describes its types")
    } else {
        Check::fail(
            "BTF",
            "there is no /sys/kernel/btf/vmlinux",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' are",
        )
    }
}

fn bpffs(root: &Path) -> Check {
    let dir = root.join("sys/fs/bpf");
    let mounted = rustix::fs::statfs(&dir).is_ok_and(|fs| fs.f_type as u64 == BPFFS_MAGIC);
    if mounted {
        Check::ok("bpffs", "mounted on /sys/fs/bpf")
    } else {
        Check::warn(
            "bpffs",
            "not mounted on /sys/fs/bpf",
            "`mount -t bpf bpf /sys/fs/bpf`; `gateway run` does it if it may (CAP_SYS_ADMIN)",
        )
    }
}

fn jit(value: Option<&str>) -> Check {
    match value {
        Some("0") => Check::fail(
            "JIT compiler",
            "off: every packet is interpreted, several times slower",
            "`sysctl -w net.core.bpf_jit_enable=1`, and in /etc/sysctl.d to stay",
        ),
        Some(_) => Check::ok("JIT compiler", "on"),
        None => Check::ok(
            "JIT compiler",
            "no switch to be seen: built in for good, or another network namespace",
        ),
    }
}

fn cookies(value: Option<&str>) -> Check {
    match value {
        Some("0") => Check::warn(
            "tcp_syncookies",
            "off: a listener's queue fills up under a flood of SYNs, and cookies made in XDP are not taken",
            "`sysctl -w net.ipv4.tcp_syncookies=1`, and in /etc/sysctl.d to stay",
        ),
        Some(value) => Check::ok("tcp_syncookies", value),
        None => Check::warn(
            "tcp_syncookies",
            "the kernel has none",
            "use a kernel built with CONFIG_SYN_COOKIES",
        ),
    }
}

fn capabilities(status: &str) -> Check {
    const NAME: &str = "capabilities";
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) else {
        return Check::warn(
            NAME,
            "can not be read",
            "run `gateway doctor` where /proc is mounted",
        );
    };
    let has = |bit: u32| held >> bit & 1 == 1;
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(bit, _)| !has(*bit) && (*bit < 38 || !has(SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        Check::ok(NAME, "this user may load and attach programs")
    } else {
        let todo = "run the gateway as root, or with these capabilities (config/systemd has a unit)";
        Check::fail(NAME, format!("this user lacks {}", missing.join(", ")), todo)
    }
}

fn memlock(release: &str) -> Check {
    const NAME: &str = "locked memory";
    if version(release).is_some_and(|version| version >= NO_MEMLOCK) {
        return Check::ok(NAME, "no limit for tables on this kernel");
    }
    match getrlimit(Resource::Memlock).current {
        None => Check::ok(NAME, "unlimited"),
        Some(bytes) => Check::warn(
            NAME,
            format!("limited to {bytes} bytes, which this kernel counts tables against"),
            "LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_number_and_not_by_text() {
        for (release, level) in [
            ("5.4.0-150-generic", Level::Fail),
            ("5.15.0", Level::Warn),
            ("5.9.16", Level::Fail),
            ("6.0.0-rc1", Level::Ok),
            ("6.18.44-fc", Level::Ok),
            ("10.1", Level::Ok),
            ("", Level::Warn),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let caps = |bits: u64| capabilities(&format!("Name:\tx\nCapEff:\t{bits:016x}\n"));
        let all = [
            jit(Some("0")),
            cookies(Some("0")),
            cookies(None),
            caps(0),
            capabilities(""),
            kernel("4.19.0"),
        ];
        for check in all {
            assert!(check.level > Level::Ok && check.todo.is_some(), "{check:?}");
        }
        assert_eq!(jit(Some("0")).level, Level::Fail);
        assert!(caps(1 << 12 | 1 << 38).found.contains("CAP_BPF"));
        for good in [1 << 12 | 1 << 38 | 1 << 39, 1 << 12 | 1 << 21, u64::MAX] {
            assert_eq!(caps(good).level, Level::Ok, "{good:x}");
        }
        assert_eq!(jit(Some("1")).level, Level::Ok);
    }

    #[test]
    fn an_empty_host_has_much_to_mend_and_this_one_can_be_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let checks = checks(dir.path());
        assert_eq!(checks.len(), 7);
        assert!(
            checks
                .iter()
                .any(|check| check.name == "BTF" && check.level == Level::Fail)
        );
        assert!(
            super::checks(Path::new("/"))
                .iter()
                .any(|check| check.level == Level::Ok)
        );
    }
}
