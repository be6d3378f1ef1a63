//! HAProxy in its own words.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::{CHAIN_BURST, Files, KEY, POOL, Peer, Routes, Setup, local};

const PORT: u16 = 18082;

/// The proxy.
pub fn proxy(files: &Files<'_>, setup: &Setup) -> Result<Peer> {
    let address = local(PORT);
    let upstream = setup.upstream();
    let tls = if setup.tls {
        format!(
            " ssl crt {} ssl-min-ver TLSv1.2 alpn h2,http/1.1",
            files.pair.display()
        )
    } else {
        String::new()
    };
    let mut rules = String::new();
    if setup.told {
        let _ = write!(
            rules,
            "  option forwardfor
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request add-header Via 1.1\\ haproxy
  http-response set-header X-Request-Id %[unique-id]
",
            scheme = setup.scheme()
        );
    }
    match setup.routes {
        Routes::One => {}
        Routes::Token | Routes::Keys(_) => bail!("HAProxy takes no part in this"),
        Routes::Many(count) => {
            let map = routes(files, count)?;
            let _ = writeln!(rules, "  use_backend %[path,map_beg({map},none)]");
        }
        Routes::Chain(count) => {
            let map = routes(files, count)?;
            let keys = files.write("haproxy-keys.map", &format!("{KEY} partner\n"))?;
            let keys = keys.display();
            let _ = write!(
                rules,
                "  stick-table type string len 64 size 10k expire 60s store http_req_rate(1s)
  http-request set-var(txn.holder) req.hdr(x-api-key),map_str({keys})
  http-request deny deny_status 401 unless {{ var(txn.holder) -m found }}
  http-request track-sc0 req.hdr(x-api-key)
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {CHAIN_BURST} }}
  http-request del-header X-Debug
  http-request set-header X-Gateway edge
  http-request set-header X-Holder %[var(txn.holder)]
  http-response del-header Server
  http-response set-header X-Frame-Options DENY
  http-response add-header Vary Origin
  use_backend %[path,map_beg({map},none)]
"
            );
        }
    }
    let fallback = match setup.routes {
        Routes::One => "  default_backend b\n",
        _ => "",
    };
    let text = format!(
        "global
  nbthread 1
  maxconn {connections}
  ssl-default-bind-options ssl-min-ver TLSv1.2
  # It reckons two descriptors for each client; here nearly all idle, and one will do.
  no strict-limits
defaults
  mode http
  timeout connect 3s
  timeout client 300s
  timeout server 300s
  timeout tunnel 300s
  http-reuse always
frontend f
  bind {address} backlog 4096{tls}
{rules}{fallback}backend b
  server s {upstream} pool-max-conn {POOL}
",
        connections = setup.connections / 2
    );
    let file = files.write("haproxy.cfg", &text)?;
    Ok(files.peer(
        "haproxy",
        address,
        "haproxy",
        &["-db".into(), "-f".into(), file.into()],
    ))
}

/// A map of path prefixes to the backend.
fn routes(files: &Files<'_>, count: u32) -> Result<String> {
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(text, "/svc{number}/ b");
    }
    Ok(files.write("haproxy-routes.map", &text)?.display().to_string())
}
