//! `fuzz`: the targets in `tests/fuzz`, built for coverage with the address sanitizer, each run for a while.
//!
//! The flags are those of cargo-fuzz. They are unstable, so the stable compiler is told to take them for this one build.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Purpose};
use crate::shell;
use crate::summary::Summary;

const DIR: &str = "tests/fuzz";
/// Each with the folder of inputs to begin with, if there is one.
const TARGETS: &[(&str, Option<&str>)] = &[
    ("packet", None),
    ("head", None),
    ("config", Some("config")),
    ("import", None),
    ("path", None),
    ("rewrite", None),
    ("proxy", None),
    ("openapi", None),
    ("body", None),
    ("token", None),
];
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
];

/// Arguments of `fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// Seconds for each target; 0 only builds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run only this target.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.iter().map(|(name, _)| *name)))]
    target: Option<String>,
}

/// Builds all targets and runs those asked for. A finding is left as a file, whose name is printed.
pub fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Build])?;
    if shell::find("c++").is_none() {
        bail!("libFuzzer is C++ and there is no compiler for it: sudo apt-get install g++");
    }
    let programs = build()?;
    let mut summary = Summary::default();
    let chosen = |name: &str| args.seconds > 0 && args.target.as_deref().is_none_or(|only| only == name);
    for (name, seeds) in TARGETS.iter().filter(|(name, _)| chosen(name)) {
        summary.section(&format!("fuzz {name}"), || {
            run(&programs, name, *seeds, args.seconds)
        });
    }
    summary.close("fuzz")
}

/// Returns the folder of the programs.
fn build() -> Result<PathBuf> {
    shell::step("building the fuzz targets");
    let target = shell::target()?.join("fuzz");
    let host = shell::host()?;
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(Path::new(DIR).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        // Named, so that build scripts and macros are compiled without the flags.
        .args(["--target", &host])
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("RUSTC_BOOTSTRAP", "1");
    shell::run(&mut cargo)?;
    Ok(target.join(host).join("release"))
}

fn run(programs: &Path, name: &str, seeds: Option<&str>, seconds: u32) -> Result<()> {
    let root = shell::root().join(DIR);
    let corpus = root.join("corpus").join(name);
    let findings = root.join("artifacts").join(name);
    for dir in [&corpus, &findings] {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let mut program = shell::command(programs.join(name));
    program
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .args([
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-use_value_profile=1",
            "-print_final_stats=1",
            "-verbosity=0",
        ])
        .arg(&corpus)
        .args(seeds);
    shell::run(&mut program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_known() {
        let manifest = shell::root().join(DIR).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).expect("the manifest");
        let there = text.lines().filter_map(|line| line.strip_prefix("path = \""));
        let there: Vec<_> = there.filter_map(|rest| rest.strip_suffix(".rs\"")).collect();
        let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(there, known);
        for (_, seeds) in TARGETS {
            assert!(seeds.is_none_or(|dir| shell::root().join(dir).is_dir()));
        }
    }
}
