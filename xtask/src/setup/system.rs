//! The distribution and its package manager.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::{privilege, shell};

/// Which distribution this is, as `/etc/os-release` tells.
#[derive(Debug, PartialEq, Eq)]
pub struct System {
    id: String,
    version: String,
    name: String,
}

impl System {
    pub fn detect() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        Self {
            id: value("ID"),
            version: value("VERSION_ID"),
            name: value("PRETTY_NAME"),
        }
    }

    /// Whether setup installs packages here.
    pub fn is_served(&self) -> bool {
        matches!(
            (self.id.as_str(), self.version.as_str()),
            ("debian", "12" | "13") | ("ubuntu", "24.04")
        )
    }

    pub fn is_debian(&self) -> bool {
        self.id == "debian"
    }

    pub fn name(&self) -> &str {
        if self.name.is_empty() {
            "an unknown system"
        } else {
            &self.name
        }
    }
}

/// A command as root: directly, or through sudo, which may ask for a password.
pub fn as_root(program: &str) -> Command {
    if privilege::is_root() {
        return shell::command(program);
    }
    let mut command = shell::command("sudo");
    command.arg(program);
    command
}

/// Whether the package index has been fetched by this process already.
static UPDATED: AtomicBool = AtomicBool::new(false);

/// Fetches the package index, once.
fn update() -> Result<()> {
    if UPDATED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    apt(&["update"])
}

/// Whether the index offers a package, fetching the index if it does not.
pub fn offers(package: &str) -> Result<bool> {
    if candidate(package)? {
        return Ok(true);
    }
    update()?;
    candidate(package)
}

fn candidate(package: &str) -> Result<bool> {
    let policy = shell::output(
        shell::command("apt-cache")
            .env("LC_ALL", "C")
            .args(["policy", package]),
    )?;
    let line = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"));
    Ok(line.is_some_and(|version| version.trim() != "(none)"))
}

/// Installs packages. An index that is stale is fetched again, once; another apt at work is waited for.
///
/// # Errors
/// If a package is not offered, if something installed would have to go, or if apt fails.
pub fn install(packages: &[&str]) -> Result<()> {
    if !privilege::is_root() && shell::find("sudo").is_none() {
        bail!(
            "not root and no sudo; as root, run: apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    for package in packages {
        if !offers(package)? {
            bail!("apt offers no package {package}; is its suite in /etc/apt/sources.list.d?");
        }
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
    arguments.extend(packages);
    if let Err(error) = apt(&arguments) {
        if UPDATED.load(Ordering::Relaxed) {
            return Err(error);
        }
        update()?;
        apt(&arguments)?;
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = as_root("env");
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    command.args(arguments);
    shell::step(format!("running {}", shell::line(&command)));
    shell::run(&mut command).context("installing packages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_served_systems() {
        let debian =
            System::parse("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n");
        assert!(debian.is_served() && debian.is_debian());
        assert_eq!(debian.name(), "Debian GNU/Linux 12 (bookworm)");
        assert!(System::parse("ID=ubuntu\nVERSION_ID=\"24.04\"").is_served());
        assert!(!System::parse("ID=ubuntu\nVERSION_ID=\"22.04\"").is_served());
        assert!(!System::parse("ID=fedora\nVERSION_ID=42").is_served());
        assert!(!System::parse("").is_served());
    }
}
