//! The one door: everything a person or a CI machine does with this repository is a verb of `cargo xtask`.
//!
//! Owns the command line and nothing else: each verb is a module. Must not depend on the gateway's crates, so that it
//! builds in seconds on a machine where they do not build yet.

mod bench;
mod build;
mod fuzz;
mod lint;
mod privilege;
mod run;
mod setup;
mod shell;
mod soak;
mod summary;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set up, build, run, test and check the gateway.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  cargo xtask run                         the demonstration on the loopback device
  cargo xtask run -- --config my.yaml     any configuration
  cargo xtask test                        every test; needs root or sudo
  cargo xtask lint                        every check that needs no privileges";

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing on this machine: compilers, tools for tests and checks.
    ///
    /// Says what it will install and why before it does; installs only what is missing; a second run does nothing.
    /// Debian 12 and 13 and Ubuntu 24.04 are served; elsewhere it prints what is needed and fails.
    #[command(after_help = "Examples:
  cargo xtask setup                 all that build, test and lint need
  cargo xtask setup --check         report only; fails if something is missing
  cargo xtask setup --for bench     what the side-by-side measurements need")]
    Setup(setup::Args),
    /// Build the gateway with the kernel program inside it.
    #[command(after_help = "Examples:
  cargo xtask build                 quick to build, for work
  cargo xtask build --release       the binary to deploy; takes minutes")]
    Build(build::Args),
    /// Build and start the gateway; without arguments, as a demonstration on the loopback device.
    #[command(after_help = "Examples:
  cargo xtask run                           config/minimal.yaml and a small upstream of its own
  cargo xtask run -- --config my.yaml       another configuration, without that upstream
  cargo xtask run --release                 the optimised build

Ctrl-C stops it and leaves no program attached and no pin behind.")]
    Run(run::Args),
    /// Run the tests: units, the packet table on the host and in the kernel, layer 7, end to end.
    #[command(after_help = "Examples:
  cargo xtask test                  everything; fails without privileges
  cargo xtask test --unprivileged   what an ordinary user can run; says what it left out
  cargo xtask test vlan             only tests with `vlan` in their name")]
    Test(test::Args),
    /// Check form, lints, licences, the import table and file lengths.
    #[command(after_help = "Examples:
  cargo xtask lint                  every check, going on after a failure
  cargo xtask lint --only imports   one of: format, clippy, deny, advisories, imports, lengths")]
    Lint(lint::Args),
    /// Throw random input at whatever reads from outside: frames, request headers, configurations, lists.
    #[command(after_help = "Examples:
  cargo xtask fuzz                       each target for a minute
  cargo xtask fuzz head --seconds 3600   one of: packet, head, config, import")]
    Fuzz(fuzz::Args),
    /// Serve every kind of client at once, with reloads, for minutes: nothing fails, memory is flat, nothing is left.
    #[command(after_help = "Examples:
  cargo xtask soak                       five minutes
  cargo xtask soak --seconds 3600 --release")]
    Soak(soak::Args),
    /// Measure the gateway side by side with nginx, HAProxy and Caddy, xdp-filter and nftables.
    #[command(after_help = "Examples:
  cargo xtask bench http                 beside nginx, HAProxy and Caddy; writes docs/benchmarks.md
  cargo xtask bench http --quick --case tls
  cargo xtask bench packets              packets a second beside xdp-filter and nftables; writes docs/benchmarks.md
  cargo xtask bench packets --quick --only prefixes --json figures.json")]
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Setup(args) => setup::main(&args),
        Verb::Build(args) => build::main(&args),
        Verb::Run(args) => run::main(&args),
        Verb::Test(args) => test::main(&args),
        Verb::Lint(args) => lint::main(&args),
        Verb::Fuzz(args) => fuzz::main(&args),
        Verb::Soak(args) => soak::main(&args),
        Verb::Bench(args) => bench::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
