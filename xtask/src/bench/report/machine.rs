//! The machine in words: without them nobody can tell what a figure means.

use std::fs;

use crate::shell;

/// A bullet list: date, processor, kernel, congestion control, mitigations, versions of the peers named.
pub fn describe(peers: &[&str]) -> String {
    let date = shell::output(shell::command("date").args(["-u", "+%Y-%m-%d"])).unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model(&cpuinfo).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let virtualised = if cpuinfo.contains(" hypervisor") {
        ", a virtual machine"
    } else {
        ""
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let versions: Vec<String> = peers.iter().map(|peer| version(peer)).collect();
    let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    format!(
        "- {date}, {model}, {cores} cores{virtualised}, Linux {}, TCP {}\n- processor mitigations: {}\n- {}\n",
        kernel.trim(),
        congestion.trim(),
        mitigations(),
        versions.join("; ")
    )
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']))
}

/// What the kernel says of each flaw that this processor has.
fn mitigations() -> String {
    let Ok(dir) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return "not known".to_owned();
    };
    let mut known: Vec<String> = dir
        .flatten()
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            let state = state.trim();
            let name = entry.file_name();
            (state != "Not affected").then(|| format!("{}: {state}", name.to_string_lossy()))
        })
        .collect();
    known.sort();
    if known.is_empty() {
        "none needed".to_owned()
    } else {
        known.join("; ")
    }
}

/// The first line that begins with the program's name and holds a number, of the ways to ask that there are. Some answer
/// on standard error, some with a failure.
fn version(program: &str) -> String {
    let Some(path) = shell::find(program) else {
        return format!("{program}: not there");
    };
    let ways: [&[&str]; 4] = [&["--version"], &["-v"], &["load", "--version"], &["version"]];
    ways.iter()
        .find_map(|words| {
            let output = shell::command(&path).args(*words).output().ok()?;
            named(
                program,
                &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()),
            )
        })
        .unwrap_or_else(|| format!("{program}, version unknown"))
}

fn named(program: &str, said: &str) -> Option<String> {
    let line = said.lines().next()?.trim();
    // Caddy says the number alone.
    if line.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("{program} {line}"));
    }
    let fits = line.to_lowercase().starts_with(program) && line.contains(|c: char| c.is_ascii_digit());
    fits.then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_version_from_an_excuse() {
        assert_eq!(
            named("nft", "nftables v1.0.6 (x)\nmore\n").as_deref(),
            Some("nftables v1.0.6 (x)")
        );
        assert_eq!(
            named("haproxy", "HAProxy version 2.6 y\n").as_deref(),
            Some("HAProxy version 2.6 y")
        );
        assert_eq!(named("caddy", "2.6.2\n").as_deref(), Some("caddy 2.6.2"));
        assert_eq!(named("xdp-filter", "Command '--version' is unknown\n"), None);
    }

    #[test]
    fn reads_the_model() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A B 7\n"), Some("A B 7"));
        assert_eq!(model(""), None);
    }
}
