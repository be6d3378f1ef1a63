//! The request path alone, for measuring: `proxy UPSTREAM_ADDRESS [WORKERS]` serves on a free port until it is killed.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use gateway_tests::l7::{Gateway, Site};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let upstream: SocketAddr = arguments
        .next()
        .and_then(|a| a.parse().ok())
        .expect("the upstream's address");
    let mut site = Site::new().route("*", "/**", &[(upstream, 1)]).limits(|limits| {
        limits.upstream_idle_connections = 256;
    });
    site.config.log.access = false;
    site.config.workers = arguments
        .next()
        .and_then(|a| a.parse().ok())
        .unwrap_or(NonZeroU32::MIN);
    let gateway = Gateway::start(&site);
    println!("{}", gateway.address());
    loop {
        std::thread::park();
    }
}
