//! Caddy in its own words. It has no limit of rates in Debian's package: its full chain is without one.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::{Files, KEY, POOL, Peer, Routes, Setup, local};

const PORT: u16 = 18085;

/// The proxy.
pub fn proxy(files: &Files<'_>, setup: &Setup) -> Result<Peer> {
    let address = local(PORT);
    let upstream = setup.upstream();
    // The forwarding lines it writes unasked.
    let told = if setup.told {
        "header_up X-Real-IP {remote_host} \n header_up X-Request-Id {http.request.uuid} \n header_up Via \"1.1 caddy\""
    } else {
        ""
    };
    let to = |edits: &str| {
        format!(
            "reverse_proxy {upstream} {{ \n transport http {{ \n keepalive_idle_conns {POOL} \n keepalive_idle_conns_per_host {POOL} \n }} \n {told} \n {edits} \n }}"
        )
    };
    let mut site = String::new();
    if setup.tls {
        let _ = writeln!(
            site,
            "tls {} {}",
            files.certificate.display(),
            files.key.display()
        );
    }
    if setup.told {
        site.push_str("header X-Request-Id {http.request.uuid}\n");
    }
    match setup.routes {
        Routes::Token | Routes::Keys(_) => bail!("Caddy takes no part in this"),
        Routes::One => site.push_str(&to("")),
        Routes::Many(count) => {
            for number in 0..count {
                let _ = writeln!(site, "handle /svc{number}/* {{\n {} \n}}", to(""));
            }
        }
        Routes::Chain(count) => {
            let _ = writeln!(
                site,
                "@stranger not header X-Api-Key {KEY}\n route {{\n respond @stranger 401\n header X-Frame-Options DENY\n header +Vary Origin"
            );
            let edits = "header_up -X-Debug \n header_up X-Gateway edge \n header_up X-Holder partner \n header_down -Server";
            for number in 0..count {
                let _ = writeln!(site, "handle /svc{number}/* {{\n {} \n}}", to(edits));
            }
            site.push_str("}\n");
        }
    }
    let scheme = if setup.tls { "https" } else { "http" };
    let text = format!(
        "{{\n admin off\n auto_https off\n default_sni localhost\n log {{\n level ERROR\n }}\n servers {{\n protocols h1 h2\n }}\n}}\n\
         {scheme}://:{PORT} {{\n bind 127.0.0.1\n {site}\n}}\n"
    );
    let file = files.write("Caddyfile", &text)?;
    let home = files.dir.join("caddy").into_os_string();
    let mut peer = files.peer(
        "caddy",
        address,
        "caddy",
        &[
            "run".into(),
            "--adapter".into(),
            "caddyfile".into(),
            "--config".into(),
            file.into(),
        ],
    );
    // One processor, as the others have one thread; and nothing in the user's own directories.
    peer.environment = vec![
        ("GOMAXPROCS", "1".into()),
        ("XDG_DATA_HOME", home.clone()),
        ("XDG_CONFIG_HOME", home.clone()),
        ("HOME", home),
    ];
    Ok(peer)
}
