//! `lint`: every check of form that needs no privileges. Runs them all, then fails if one failed.

mod imports;
mod lengths;
mod source;
mod tokens;

use anyhow::{Result, bail};

use crate::setup::{self, Purpose};
use crate::shell;
use crate::summary::Summary;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    Format,
    Clippy,
    Deny,
    Advisories,
    Imports,
    Lengths,
    Locks,
}

const ALL: &[Check] = &[
    Check::Format,
    Check::Imports,
    Check::Lengths,
    Check::Locks,
    Check::Clippy,
    Check::Deny,
    Check::Advisories,
];

/// Arguments of `lint`.
#[derive(clap::Args)]
pub struct Args {
    /// Run only this check; may be given more than once.
    #[arg(long, value_name = "CHECK")]
    only: Vec<Check>,
}

/// Runs the checks.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Lint])?;
    let chosen = if args.only.is_empty() { ALL } else { &args.only };
    let mut summary = Summary::default();
    for check in chosen {
        match check {
            Check::Format => summary.section("format", format),
            Check::Clippy => summary.section("clippy", clippy),
            Check::Deny => summary.section("licences, bans, sources", || {
                deny(&["licenses", "bans", "sources"])
            }),
            Check::Advisories => advisories(&mut summary),
            Check::Imports => {
                summary.section("who may import whom", || report(imports::check(&shell::root())?))
            }
            Check::Lengths => summary.section("file lengths", || report(lengths::check(&shell::root())?)),
            Check::Locks => summary.section("lock files", locks),
        }
    }
    summary.close("lint")
}

/// The fuzz targets are a workspace of their own.
fn format() -> Result<()> {
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        shell::run(shell::cargo().args(["fmt", "--all", "--check", "--manifest-path", manifest]))?;
    }
    Ok(())
}

/// Every lock file is of its manifests: the fuzz targets are built by nothing else here, and would be found broken late.
fn locks() -> Result<()> {
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let mut cargo = shell::cargo();
        cargo.args([
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--manifest-path",
            manifest,
        ]);
        shell::run(cargo.stdout(std::process::Stdio::null()))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    shell::run(&mut cargo)
}

fn deny(checks: &[&str]) -> Result<()> {
    shell::run(
        shell::cargo()
            .args([
                "deny",
                "--workspace",
                "--all-features",
                "check",
                "--hide-inclusion-graph",
            ])
            .args(checks),
    )
}

/// The list of advisories comes from the network. Without it nothing is known, which is neither a pass nor a fault here.
fn advisories(summary: &mut Summary) {
    if shell::succeeds(shell::cargo().args(["deny", "fetch", "db"])) {
        summary.section("advisories", || {
            shell::run(shell::cargo().args(["deny", "--workspace", "check", "--disable-fetch", "advisories"]))
        });
    } else {
        summary.skip(
            "advisories",
            "the advisory database could not be fetched (`cargo deny fetch db` says why)",
        );
    }
}

fn report(faults: Vec<String>) -> Result<()> {
    for fault in &faults {
        eprintln!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} faults", faults.len());
    }
    Ok(())
}
