//! `bench`: the gateway beside its peers, on this machine, in one run: packets and requests.

mod http;
mod packets;
mod report;

use anyhow::Result;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Requests beside nginx, HAProxy and Caddy: processor time for each, latency, memory, reloads.
    #[command(after_help = HTTP_EXAMPLES)]
    Http(http::Args),
    /// Packets a second through the packet filter, beside xdp-filter and nftables; needs root or sudo.
    Packets(packets::Args),
    /// The half of `packets` that runs with privileges in namespaces of its own.
    #[command(hide = true)]
    PacketsInside(packets::inside::Args),
}

const HTTP_EXAMPLES: &str = "Examples:
  cargo xtask bench http                          every case, some ten minutes; writes docs/benchmarks.md
  cargo xtask bench http --quick                  every case, briefly; writes nothing
  cargo xtask bench http --case h2 --case chain   these two
  cargo xtask bench http --case plain --seconds 10 --rounds 5 --json figures.json
  cargo xtask bench http --report figures.json    puts an earlier run into docs/benchmarks.md
  cargo xtask bench http --quick --gateway ./gateway-of-yesterday

The proxies run on core 0, load and upstream on core 1; leave the machine alone meanwhile. Everything listens on loopback,
ports 18081 to 18091. A wrong answer of anyone makes the run fail.";

/// Measures.
pub fn main(args: &Args) -> Result<()> {
    match &args.what {
        What::Http(args) => http::main(args),
        What::Packets(args) => packets::main(args),
        What::PacketsInside(args) => packets::inside::main(args),
    }
}
