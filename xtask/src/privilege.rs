//! What this process may do in the kernel, and how to start a program that may do more.

use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Capabilities that the packet half needs, with their bit (linux/capability.h).
const NEEDED: &[(&str, u32)] = &[("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];

/// How a privileged program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// This process has every capability itself.
    Own,
    /// Through sudo, which has been asked already.
    Sudo,
}

impl Privilege {
    /// Finds out what there is; asks for sudo's password if that is the way. Fails with what is missing.
    pub fn obtain() -> Result<Self> {
        let own = missing(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
        if own.is_empty() {
            return Ok(Self::Own);
        }
        if is_root() {
            bail!(
                "root here lacks {}: a container needs --privileged or these capabilities",
                own.join(", ")
            );
        }
        if shell::find("sudo").is_none() {
            bail!("not root, {} missing, and there is no sudo", own.join(", "));
        }
        if !shell::succeeds(shell::command("sudo").args(["-n", "true"])) {
            shell::step(
                "asking for root through sudo: programs are attached to interfaces, maps are written",
            );
            shell::run(shell::command("sudo").arg("-v"))?;
        }
        let status = shell::output(shell::command("sudo").args(["-n", "cat", "/proc/self/status"]))?;
        let lacking = missing(&status);
        if !lacking.is_empty() {
            bail!("root through sudo lacks {}", lacking.join(", "));
        }
        Ok(Self::Sudo)
    }

    /// A command that runs with the privileges, keeping the environment.
    pub fn command(self, program: &std::path::Path) -> Command {
        match self {
            Self::Own => shell::command(program),
            Self::Sudo => {
                let mut command = shell::command("sudo");
                command.args(["-n", "-E"]).arg(program);
                command
            }
        }
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The needed capabilities that a `/proc/PID/status` does not show as effective.
fn missing(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        assert!(missing("CapPrm:\t0\nCapEff:\t000001fffeffffff\n").is_empty());
        assert_eq!(missing("CapEff:\t0000000000000000\n").len(), NEEDED.len());
        assert_eq!(missing("CapEff:\t000001fffeffefff\n"), ["CAP_NET_ADMIN"]);
        assert_eq!(missing("").len(), NEEDED.len(), "no line means no capability");
    }
}
