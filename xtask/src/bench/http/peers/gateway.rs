//! The gateway's configuration: the request path alone, no kernel program, so that no privilege is needed and every peer
//! gets the same packets.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;

use super::{CHAIN_BURST, Files, KEY_SHA256, POOL, Peer, Routes, Setup, TOKEN_KEY, local};

const PORT: u16 = 18083;

/// The proxy.
pub fn proxy(files: &Files<'_>, setup: &Setup) -> Result<Peer> {
    let file = configure(files, setup, 0)?;
    Ok(files.peer(
        "gateway",
        local(PORT),
        files.gateway,
        &["run".into(), "--config".into(), file.into()],
    ))
}

/// Writes the configuration. Every route's answers name `generation` if it is not 0, so that a reload can be seen.
pub fn configure(files: &Files<'_>, setup: &Setup, generation: u32) -> Result<PathBuf> {
    let address = local(PORT);
    let upstream = setup.upstream();
    let home = files.dir.display();
    let tls = if setup.tls {
        format!(
            ", tls: {{certificates: [{{cert: \"{}\", key: \"{}\"}}]}}",
            files.certificate.display(),
            files.key.display()
        )
    } else {
        String::new()
    };
    let connections = setup.connections;
    let mut text = format!(
        "listen: [{{address: \"{address}\"{tls}}}]
admin: {{socket: {home}/admin.sock, metrics: \"127.0.0.1:18084\"}}
xdp: {{mode: none}}
log: {{access: false}}
state_dir: {home}/state
workers: 1
limits: {{connections: {connections}, connections_per_client: {connections}, request_header: 300s, upstream_idle_connections: {POOL}}}
upstreams: {{u: {{endpoints: [{{url: \"http://{upstream}\"}}]}}}}
routes:
"
    );
    let shown = if generation == 0 {
        String::new()
    } else {
        format!("    response: {{headers: {{set: {{X-Generation: \"{generation}\"}}}}}}\n")
    };
    match setup.routes {
        Routes::One => {
            let _ = write!(text, "  - match: {{path: /**}}\n    upstream: u\n{shown}");
        }
        Routes::Many(count) => {
            for number in 0..count {
                let _ = write!(
                    text,
                    "  - match: {{path: /svc{number}/**}}\n    upstream: u\n{shown}"
                );
            }
        }
        Routes::Token => {
            let key = files.write("token.pem", TOKEN_KEY)?;
            let _ = write!(
                text,
                "  - match: {{path: /**}}
    auth: {{jwt: {{issuer: https://issuer.example, audience: bench, keys: {{pem: {}}}}}}}
    rate_limit: {{rate: {CHAIN_BURST}/s, burst: {CHAIN_BURST}, by: [claim:sub]}}
    request: {{headers: {{set: {{X-Gateway: edge}}}}}}
    upstream: u
",
                key.display()
            );
        }
        Routes::Keys(count) => {
            let keys = keys(files, count)?;
            let keys = keys.display();
            let _ = write!(
                text,
                "  - match: {{path: /**}}
    auth: {{api_key: {{header: X-API-Key, keys: {{file: {keys}}}}}}}
    upstream: u
"
            );
        }
        Routes::Chain(count) => {
            let keys = keys(files, 1)?;
            let keys = keys.display();
            for number in 0..count {
                let _ = write!(
                    text,
                    "  - match: {{path: /svc{number}/**}}
    auth: {{api_key: {{header: X-API-Key, keys: {{file: {keys}}}}}}}
    rate_limit: {{rate: {CHAIN_BURST}/s, burst: {CHAIN_BURST}, by: client_ip}}
    request: {{headers: {{remove: [X-Debug], set: {{X-Gateway: edge, X-Holder: partner}}}}}}
    response: {{headers: {{remove: [Server], set: {{X-Frame-Options: DENY}}, add: {{Vary: Origin}}}}}}
    upstream: u
"
                );
            }
        }
    }
    files.write("gateway.yaml", &text)
}

/// A key file with the benchmark's key among `count`. The others are hashes of nothing.
fn keys(files: &Files<'_>, count: u32) -> Result<PathBuf> {
    let mut text = String::new();
    for number in 1..count {
        // Spread as hashes are: the constant is 2^64 by the golden ratio.
        let spread = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let _ = writeln!(
            text,
            "- {{name: other-{number}, sha256: {:064x}}}",
            u128::from(spread) << 64 | u128::from(number)
        );
    }
    let _ = writeln!(text, "- {{name: partner, sha256: {KEY_SHA256}}}");
    files.write("keys.yaml", &text)
}
