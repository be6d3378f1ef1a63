//! What the access log says of an upstream that does not answer.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Stage, free_port};

/// A TLS server that shows a certificate for `app.test`, good until `year`, and says no more. The certificate goes to `file`.
fn shows(file: &Path, year: i32) -> Result<SocketAddr> {
    let mut params = rcgen::CertificateParams::new(["app.test".to_owned()])?;
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let name = format!("good until {year}");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate()?;
    let made = params.self_signed(&key)?;
    std::fs::write(file, made.pem())?;
    let chain = vec![CertificateDer::from_pem_slice(made.pem().as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0")?);
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Ok(mut session) = rustls::ServerConnection::new(Arc::clone(&config)) {
                while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
                let _ = session
                    .writer()
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                let _ = session.complete_io(&mut stream);
            }
        }
    });
    Ok(address)
}

/// A server of another protocol, that speaks first.
fn greets() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let mut open = vec![];
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"220 mail.example\r\n");
            open.push(stream);
        }
    });
    Ok(address)
}

#[test]
fn the_access_log_says_why_an_upstream_gave_no_answer() -> Result<()> {
    let stage = Stage::new()?;
    let (good, old) = (stage.file("good.crt"), stage.file("old.crt"));
    let (fresh, expired) = (shows(&good, 2100)?, shows(&old, 2000)?);
    let closing = Upstream::start(|_, _| false);
    let garbled = Upstream::start(|_, wire| {
        wire.send("nonsense\r\n\r\n");
        false
    });
    let short = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        false
    });
    let tls = |ca: &Path, name: &str| format!(", tls: {{ca: {}, server_name: {name}}}", ca.display());
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let cases = [
        (
            "expired",
            format!("https://{expired}"),
            tls(&old, "app.test"),
            "certificate_expired",
        ),
        (
            "name",
            format!("https://{fresh}"),
            tls(&good, "other.test"),
            "certificate_other_name",
        ),
        (
            "issuer",
            format!("https://{fresh}"),
            tls(&old, "app.test"),
            "certificate_unknown_issuer",
        ),
        (
            "plain",
            format!("https://{}", greets()?),
            tls(&good, "app.test"),
            "not_tls",
        ),
        ("dead", format!("http://{dead}"), String::new(), "refused"),
        (
            "closing",
            format!("http://{}", closing.address()),
            String::new(),
            "closed",
        ),
        (
            "garbled",
            format!("http://{}", garbled.address()),
            String::new(),
            "not_http1",
        ),
        (
            "short",
            format!("http://{}", short.address()),
            String::new(),
            "closed",
        ),
    ];
    let mut rest = String::from("log: {format: json}\nupstreams:\n");
    for (name, url, tls, _) in &cases {
        rest += &format!("  {name}: {{endpoints: [{{url: '{url}'}}]{tls}}}\n");
    }
    rest += "routes:\n";
    for (name, ..) in &cases {
        rest += &format!("  - {{match: {{path: /{name}}}, upstream: {name}}}\n");
    }
    stage.write("", &rest)?;
    let gateway = stage.start()?;
    for (name, _, _, reason) in &cases {
        let mut client = Client::connect(stage.address);
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answered = client.head()?.status;
        let expected = if *name == "short" { 200 } else { 502 };
        ensure!(answered == expected, "{name}: {answered}");
        let says = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            let text = line.to_string();
            text.contains(&format!("\"/{name}\"")) && text.contains(&format!("\"reason\":\"{reason}\""))
        };
        wait_until(&format!("{reason} in the log of {name}"), || {
            Ok(gateway.log().lines().any(says))
        })
        .map_err(|error| error.context(gateway.log()))?;
    }
    Ok(())
}
