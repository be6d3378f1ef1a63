//! `setup`: what the other verbs need on this machine, and installing what of it is missing.
//!
//! Owns the list of purposes and the order of work: look, tell, install, look again. Every look is a fast local
//! check, so that a machine that has everything is told so without touching the network. `needs` is the list,
//! `bpf` the compiler for the kernel program, `system` the package manager.

mod bpf;
mod needs;
mod system;

use anyhow::{Result, bail};

use crate::shell;
pub use needs::tools_dir;
use needs::{Fix, Need};
use system::System;

/// What a tool is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    Build,
    Test,
    /// The tests that need root, on top of `test`.
    Privileged,
    Lint,
    Bench,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Test => "test",
            Self::Privileged => "test (privileged)",
            Self::Lint => "lint",
            Self::Bench => "bench",
        }
    }
}

/// Arguments of `setup`.
#[derive(clap::Args)]
pub struct Args {
    /// Only report what is missing; fail if anything is.
    #[arg(long)]
    check: bool,
    /// What to set up for; may be given more than once. Everything but bench if absent. Each includes build.
    #[arg(long = "for", value_name = "PURPOSE")]
    purposes: Vec<Purpose>,
}

/// Sets this machine up, or reports.
pub fn main(args: &Args) -> Result<()> {
    let mut purposes = args.purposes.clone();
    if purposes.is_empty() {
        purposes = vec![Purpose::Test, Purpose::Privileged, Purpose::Lint];
    }
    if !purposes.contains(&Purpose::Build) {
        purposes.insert(0, Purpose::Build);
    }
    let missing = missing(&purposes);
    if missing.is_empty() {
        shell::step("nothing to do: everything needed is here");
        return Ok(());
    }
    report(&missing);
    if args.check {
        bail!(
            "{} of the things needed are missing; `cargo xtask setup` installs them",
            missing.len()
        );
    }
    install(&missing)
}

/// What the other verbs call: silent if nothing is missing.
pub fn ensure(purposes: &[Purpose]) -> Result<()> {
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    report(&missing);
    install(&missing)
}

fn missing(purposes: &[Purpose]) -> Vec<Need> {
    needs::all()
        .into_iter()
        .filter(|need| purposes.contains(&need.purpose) && !(need.present)())
        .collect()
}

fn report(missing: &[Need]) {
    shell::step("missing on this machine:");
    for need in missing {
        eprintln!("    {:<16} to {}: {}", need.what, need.purpose.name(), need.why);
    }
}

fn install(missing: &[Need]) -> Result<()> {
    let system = System::detect();
    let packages: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.fix.packages())
        .copied()
        .collect();
    let by_hand = !packages.is_empty()
        || missing
            .iter()
            .any(|need| matches!(need.fix, Fix::BpfCompiler | Fix::BpfLinker));
    if by_hand && !system.is_served() {
        eprintln!(
            "\nThis is {}; setup knows Debian 12 and 13 and Ubuntu 24.04. Please install:",
            system.name()
        );
        for need in missing {
            eprintln!(
                "\n  {}, to {}: {}\n      {}",
                need.what,
                need.purpose.name(),
                need.why,
                need.fix.by_hand()
            );
        }
        bail!(
            "{} things to install by hand, listed above; then run this again",
            missing.len()
        );
    }
    if !packages.is_empty() {
        system::install(&packages)?;
    }
    for need in missing {
        need.fix.apply()?;
    }
    let left: Vec<&str> = missing
        .iter()
        .filter(|need| !(need.present)())
        .map(|need| need.what)
        .collect();
    if !left.is_empty() {
        bail!(
            "installed without an error, yet still not usable: {}",
            left.join(", ")
        );
    }
    shell::step("this machine is ready");
    Ok(())
}
