//! `build`: the gateway's binary, with the kernel program compiled and embedded by its build script.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup::{self, Purpose};
use crate::shell;

/// Arguments of `build`.
#[derive(clap::Args)]
pub struct Args {
    /// Optimise fully: whole-program, one unit. Takes minutes; what `run` and `test` use is built without it.
    #[arg(long)]
    release: bool,
}

/// Builds, and says where the binary is.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    gateway(args.release).map(drop)
}

/// Builds the gateway; returns the path of its binary.
pub fn gateway(release: bool) -> Result<PathBuf> {
    shell::step(if release {
        "building the gateway (release)"
    } else {
        "building the gateway"
    });
    let mut cargo = shell::cargo();
    cargo.args(["build", "--package", "gateway"]);
    if release {
        cargo.arg("--release");
    }
    shell::run(&mut cargo)?;
    let binary = shell::target()?
        .join(if release { "release" } else { "debug" })
        .join("gateway");
    let size = std::fs::metadata(&binary)
        .with_context(|| format!("looking at {}", binary.display()))?
        .len();
    shell::step(format!(
        "built {} ({:.1} MiB)",
        shown(&binary),
        size as f64 / f64::from(1 << 20)
    ));
    Ok(binary)
}

/// A path as one would type it in the workspace root.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(shell::root())
        .unwrap_or(path)
        .display()
        .to_string()
}
