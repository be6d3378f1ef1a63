//! The programs of the measurement, each configured as its makers advise for a plain proxy: one thread, kept
//! connections to the upstream, no log of requests.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;

const UPSTREAM: ([u8; 4], u16) = ([127, 0, 0, 1], 18090);

/// A program to start.
pub struct Peer {
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    pub command: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// What all proxies forward to: nginx with a small JSON answer.
pub fn upstream(dir: &Path) -> Result<Peer> {
    let answer = format!("{{\"id\":1,\"text\":\"{}\"}}", "x".repeat(108));
    let address = SocketAddr::from(UPSTREAM);
    let server = format!(
        "server {{ listen {address} backlog=4096 reuseport; location / {{ default_type application/json; return 200 '{answer}'; }} }}"
    );
    nginx(dir, "upstream", address, &server)
}

/// The proxies; the first is what the others are compared with.
pub fn all(dir: &Path, gateway: &Path) -> Result<Vec<Peer>> {
    let upstream = SocketAddr::from(UPSTREAM);
    Ok(vec![
        nginx_proxy(dir, upstream)?,
        haproxy(dir, upstream)?,
        ours(dir, gateway, upstream)?,
    ])
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn nginx_proxy(dir: &Path, upstream: SocketAddr) -> Result<Peer> {
    let address = local(18081);
    let server = format!(
        "upstream u {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
         server {{
           listen {address} backlog=4096;
           location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ''; }}
         }}"
    );
    nginx(dir, "nginx", address, &server)
}

/// One process: no master, so that the process started is the one that works.
fn nginx(dir: &Path, name: &'static str, address: SocketAddr, server: &str) -> Result<Peer> {
    let home = dir.display();
    let text = format!(
        "daemon off; master_process off; pid {home}/{name}.pid; error_log stderr crit;
         events {{ worker_connections 9000; }}
         http {{
           access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;
           client_body_temp_path {home}/{name}-body; proxy_temp_path {home}/{name}-proxy;
           fastcgi_temp_path {home}/{name}-fastcgi; uwsgi_temp_path {home}/{name}-uwsgi; scgi_temp_path {home}/{name}-scgi;
           {server}
         }}\n"
    );
    let file = write(dir, &format!("{name}.conf"), &text)?;
    Ok(peer(dir, name, address, "nginx", &["-c".into(), file.into()]))
}

fn haproxy(dir: &Path, upstream: SocketAddr) -> Result<Peer> {
    let address = local(18082);
    let text = format!(
        "global
  nbthread 1
  maxconn 4500
defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind {address} backlog 4096
  default_backend b
backend b
  server s {upstream}
"
    );
    let file = write(dir, "haproxy.cfg", &text)?;
    Ok(peer(
        dir,
        "haproxy",
        address,
        "haproxy",
        &["-db".into(), "-f".into(), file.into()],
    ))
}

/// The request path alone: no kernel program, so that no privilege is needed and every peer gets the same packets.
fn ours(dir: &Path, gateway: &Path, upstream: SocketAddr) -> Result<Peer> {
    let address = local(18083);
    let home = dir.display();
    let text = format!(
        "listen: [{{address: \"{address}\"}}]
admin: {{socket: {home}/admin.sock, metrics: \"127.0.0.1:18084\"}}
xdp: {{mode: none}}
log: {{access: false}}
state_dir: {home}/state
workers: 1
routes:
  - match: {{path: /**}}
    upstream: [{{url: \"http://{upstream}\"}}]
"
    );
    let file = write(dir, "gateway.yaml", &text)?;
    Ok(peer(
        dir,
        "gateway",
        address,
        gateway,
        &["run".into(), "--config".into(), file.into()],
    ))
}

fn peer(
    dir: &Path,
    name: &'static str,
    address: SocketAddr,
    program: impl AsRef<Path>,
    arguments: &[OsString],
) -> Peer {
    let program = program.as_ref();
    // The administrator's programs are often not on a user's PATH.
    let found = program
        .to_str()
        .and_then(shell::find)
        .unwrap_or_else(|| program.to_path_buf());
    let mut command = vec![found.into_os_string()];
    command.extend_from_slice(arguments);
    Peer {
        name,
        address,
        command,
        log: dir.join(format!("{name}.log")),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
