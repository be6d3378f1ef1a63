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
    /// Plain HTTP/1.1 over kept connections, a small JSON answer: processor time of the proxy for each request.
    Http(http::Args),
    /// Packets a second through the packet filter, beside xdp-filter and nftables; needs root or sudo.
    Packets(packets::Args),
    /// The half of `packets` that runs with privileges in namespaces of its own.
    #[command(hide = true)]
    PacketsInside(packets::inside::Args),
}

/// Measures.
pub fn main(args: &Args) -> Result<()> {
    match &args.what {
        What::Http(args) => http::main(args),
        What::Packets(args) => packets::main(args),
        What::PacketsInside(args) => packets::inside::main(args),
    }
}
