//! `test`: every test there is, in the order of what they stand on; or all that need no privileges.
//!
//! Owns which of the test programs need privileges. A program that it does not know is an error, so that a new one can
//! not be left out by oversight.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::privilege::Privilege;
use crate::setup::{self, Purpose};
use crate::shell;
use crate::summary::Summary;

/// Programs in `tests/tests` that any user can run, in order.
const UNPRIVILEGED: &[&str] = &["packets", "cookies", "abi", "l7", "edge", "regression", "deploy"];
/// Programs that attach to interfaces, write maps or make network namespaces.
const PRIVILEGED: &[&str] = &["kernel", "e2e"];
/// Packages with unit tests.
const UNITS: &[&str] = &["gateway-common", "gateway-ebpf", "gateway", "xtask"];

/// Arguments of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out what needs privileges, and say so.
    #[arg(long)]
    unprivileged: bool,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

/// Runs the tests; fails if any section fails, after having run all.
pub fn main(args: &Args) -> Result<()> {
    let privilege = if args.unprivileged { None } else { Some(obtain()?) };
    let targets = Targets::read(&shell::root().join("tests/tests"))?;
    let mut purposes = vec![Purpose::Build, Purpose::Test];
    if privilege.is_some() {
        purposes.push(Purpose::Privileged);
    }
    setup::ensure(&purposes)?;
    let filter = args.filter.as_deref();
    let mut summary = Summary::default();
    let mut gateway = None;
    summary.section("build the gateway", || {
        gateway = Some(build::gateway(false)?);
        Ok(())
    });
    let Some(gateway) = gateway else {
        return summary.close("tests");
    };
    summary.section("unit tests", || {
        let mut cargo = shell::cargo();
        cargo.arg("test").arg("--no-fail-fast");
        for package in UNITS {
            cargo.args(["--package", package]);
        }
        shell::run(filtered(&mut cargo, filter))
    });
    summary.section("the test harness", || {
        let mut cargo = shell::cargo();
        shell::run(filtered(
            cargo.args(["test", "--package", "gateway-tests", "--lib"]),
            filter,
        ))
    });
    for target in &targets.unprivileged {
        summary.section(target, || {
            shell::run(filtered(&mut program(target, &gateway)?, filter))
        });
    }
    for target in &targets.privileged {
        let Some(privilege) = privilege else {
            summary.skip(target, "--unprivileged was given");
            continue;
        };
        summary.section(&format!("{target} (privileged)"), || {
            let mut cargo = program(target, &gateway)?;
            if privilege == Privilege::Sudo {
                // Compiled by the user, run by root: the target directory stays the user's.
                cargo.env(format!("CARGO_TARGET_{}_RUNNER", host()?), "sudo -n -E");
            }
            shell::run(filtered(&mut cargo, filter))
        });
    }
    summary.close("tests")
}

fn obtain() -> Result<Privilege> {
    Privilege::obtain().context(
        "the tests attach programs and make network namespaces; run them as root or with sudo, or leave those out with \
         `cargo xtask test --unprivileged`",
    )
}

/// One test program of the package `gateway-tests`, told where the gateway and the tools are.
pub fn program(target: &str, gateway: &Path) -> Result<Command> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "gateway-tests", "--test", target]);
    cargo
        .env("GATEWAY_BIN", gateway)
        .env("GATEWAY_TOOLS", setup::tools_dir()?);
    Ok(cargo)
}

fn filtered<'a>(cargo: &'a mut Command, filter: Option<&str>) -> &'a mut Command {
    cargo.args(filter)
}

/// The host's target triple as it stands in the names of cargo's variables.
fn host() -> Result<String> {
    Ok(shell::host()?.to_uppercase().replace(['-', '.'], "_"))
}

/// The test programs that exist, in the order of the lists above.
#[derive(Debug, Default, PartialEq, Eq)]
struct Targets {
    unprivileged: Vec<String>,
    privileged: Vec<String>,
}

impl Targets {
    fn read(dir: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            let is_program =
                path.extension().is_some_and(|ext| ext == "rs") || path.join("main.rs").is_file();
            if let (true, Some(name)) = (is_program, path.file_stem()) {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        Self::sort(&names)
    }

    fn sort(names: &[String]) -> Result<Self> {
        if let Some(name) = names.iter().find(|name| {
            let name = name.as_str();
            !UNPRIVILEGED.contains(&name) && !PRIVILEGED.contains(&name)
        }) {
            bail!(
                "tests/tests/{name} is in neither list of {}: does it need privileges?",
                file!()
            );
        }
        let there = |list: &[&str]| {
            let found = list
                .iter()
                .filter(|listed| names.iter().any(|name| name == *listed));
            found.map(|name| (*name).to_owned()).collect()
        };
        Ok(Self {
            unprivileged: there(UNPRIVILEGED),
            privileged: there(PRIVILEGED),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_program_is_an_error() {
        assert!(Targets::sort(&["packets".into(), "new".into()]).is_err());
        let targets = Targets::sort(&["kernel".into(), "deploy".into(), "packets".into()]).expect("known");
        assert_eq!(targets.unprivileged, ["packets", "deploy"]);
        assert_eq!(targets.privileged, ["kernel"]);
    }

    #[test]
    fn the_programs_of_this_repository_are_known() {
        Targets::read(&shell::root().join("tests/tests")).expect("every program is in a list");
    }
}
