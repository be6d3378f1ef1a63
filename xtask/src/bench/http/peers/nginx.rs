//! nginx in its own words: the proxy under test, and the upstream of all.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::{CHAIN_BURST, Files, KEY, POOL, Peer, Routes, Setup, UPSTREAM, local};

const PORT: u16 = 18081;

/// The proxy.
pub fn proxy(files: &Files<'_>, setup: &Setup) -> Result<Peer> {
    let address = local(PORT);
    let upstream = setup.upstream();
    let mut http = format!(
        "upstream u {{ server {upstream}; keepalive {POOL}; keepalive_requests 1000000000; }}
         proxy_http_version 1.1;
         # Bodies go through as they come, as in the other programs, and never to a disk. The largest of several sizes of
         # buffers tried serves nginx best.
         proxy_request_buffering off; client_max_body_size 0; proxy_max_temp_file_size 0;
         proxy_buffers 16 64k; proxy_buffer_size 16k; proxy_busy_buffers_size 256k;\n"
    );
    let listen = if setup.tls {
        format!(
            "listen {address} ssl http2 backlog=4096; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;",
            files.certificate.display(),
            files.key.display()
        )
    } else {
        format!("listen {address} backlog=4096;")
    };
    let to = "proxy_pass http://u;";
    // For all locations, as none has lines of its own.
    http.push_str(if setup.websocket {
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 300s;\n"
    } else {
        "proxy_set_header Connection '';\n"
    });
    if setup.told {
        http.push_str(
            "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
             proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
             proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-Id $request_id;
             proxy_set_header Via '1.1 nginx'; add_header X-Request-Id $request_id always;\n",
        );
    }
    let mut locations = String::new();
    match setup.routes {
        Routes::One => {
            let _ = writeln!(locations, "location / {{ {to} }}");
        }
        Routes::Many(count) => {
            for number in 0..count {
                let _ = writeln!(locations, "location /svc{number}/ {{ {to} }}");
            }
        }
        Routes::Chain(count) => {
            let _ = write!(
                http,
                "map $http_x_api_key $holder {{ default ''; {KEY} partner; }}
                 limit_req_zone $http_x_api_key zone=keys:1m rate={CHAIN_BURST}r/s;
                 proxy_set_header X-Debug ''; proxy_set_header X-Gateway edge; proxy_set_header X-Holder $holder;
                 proxy_hide_header Server; add_header X-Frame-Options DENY always; add_header Vary Origin always;\n"
            );
            let _ = writeln!(
                locations,
                "if ($holder = '') {{ return 401; }} limit_req zone=keys burst={CHAIN_BURST} nodelay;"
            );
            for number in 0..count {
                let _ = writeln!(locations, "location /svc{number}/ {{ {to} }}");
            }
        }
        Routes::Token | Routes::Keys(_) => bail!("nginx takes no part in this"),
    }
    let _ = write!(http, "server {{ {listen}\n{locations} }}");
    program(files, "nginx", address, setup.connections, &http)
}

/// What all proxies forward to: a small JSON answer, files, a place that takes a body.
pub fn upstream(files: &Files<'_>, answer: &str) -> Result<Peer> {
    let address = SocketAddr::from(UPSTREAM);
    let http = format!(
        "sendfile on; tcp_nopush on; client_max_body_size 4m; client_body_buffer_size 2m;
         server {{
           listen {address} backlog=4096 reuseport;
           location / {{ default_type application/json; return 200 '{answer}'; }}
           location /files/ {{ root {}; open_file_cache max=10; }}
           # Answers once the whole body is here, as `return` alone would not.
           location /up {{
             proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Content-Length '';
             proxy_pass_request_body off; proxy_pass http://self/taken;
           }}
         }}
         upstream self {{ server {address}; keepalive 64; keepalive_requests 1000000000; }}",
        files.dir.display()
    );
    program(files, "upstream", address, 12_000, &http)
}

/// One process: no master, so that the process started is the one that works.
fn program(
    files: &Files<'_>,
    name: &'static str,
    address: SocketAddr,
    connections: u32,
    http: &str,
) -> Result<Peer> {
    let home = files.dir.display();
    let text = format!(
        "daemon off; master_process off; pid {home}/{name}.pid; error_log stderr crit;
         events {{ worker_connections {connections}; }}
         http {{
           access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; server_tokens off;
           client_body_temp_path {home}/{name}-body; proxy_temp_path {home}/{name}-proxy;
           fastcgi_temp_path {home}/{name}-fastcgi; uwsgi_temp_path {home}/{name}-uwsgi; scgi_temp_path {home}/{name}-scgi;
           {http}
         }}\n"
    );
    let file = files.write(&format!("{name}.conf"), &text)?;
    Ok(files.peer(name, address, "nginx", &["-c".into(), file.into()]))
}
