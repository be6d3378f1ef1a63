//! `soak`: the test of mixed load, for longer than the tests do it.

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{build, shell, test};

/// Arguments of `soak`.
#[derive(clap::Args)]
pub struct Args {
    /// How long.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// The optimised build.
    #[arg(long)]
    release: bool,
}

/// Runs it; the test says what it saw.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Build, Purpose::Test])?;
    let gateway = build::gateway(args.release)?;
    let mut cargo = test::program("edge", &gateway)?;
    cargo
        .args(["soak_", "--", "--nocapture"])
        .env("GATEWAY_SOAK_SECONDS", args.seconds.to_string());
    shell::run(&mut cargo)
}
