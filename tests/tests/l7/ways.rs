//! The ways to an upstream: unix sockets, TLS, PROXY protocol; and real servers at their end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gateway::config::model::{Address, Certificate, ProxyVersion, UpstreamTls};
use gateway_tests::l7::{Client, Gateway, Site};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

fn to(address: Address, tls: bool) -> Site {
    Site::new()
        .route("*", "/**", &[(SocketAddr::from(NOWHERE), 1)])
        .upstream(|upstream| {
            upstream.endpoints[0].address = address;
            upstream.endpoints[0].tls = tls;
        })
}

/// Reads a request's header and answers; for as long as requests come.
fn answer(stream: impl Read + Write, text: &str) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line == "\r\n" {
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _ = stream.get_mut().write_all(reply.as_bytes());
        }
        line.clear();
    }
}

#[test]
fn a_service_on_a_unix_socket_is_reached_and_its_connection_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (accepted, connections) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            accepted.send(()).unwrap();
            std::thread::spawn(move || answer(stream, "unix"));
        }
    });
    let gateway = Gateway::start(&to(Address::Unix(path.clone()), false));
    let mut client = Client::connect(gateway.address());
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "unix");
    }
    assert_eq!(connections.try_iter().count(), 1);
    let gateway = Gateway::start(&to(Address::Unix(dir.path().join("none")), false));
    let response = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (response.status, response.code().as_deref()),
        (502, Some("upstream_unreachable"))
    );
}

fn certificate(dir: &Path, name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Certificate { cert, key }
}

/// A TLS server that answers; with `clients` only those who show that certificate.
fn tls_server(own: &Certificate, clients: Option<&Certificate>) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(&own.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(known) => {
            let mut roots = rustls::RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(&known.cert).unwrap())
                .unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || answer(rustls::StreamOwned::new(connection, stream), "tls"));
        }
    });
    address
}

fn over_tls(address: SocketAddr, tls: UpstreamTls) -> (u16, Option<String>) {
    let site = to(Address::Ip(address), true).upstream(|upstream| upstream.tls = tls);
    let gateway = Gateway::start(&site);
    let response = Client::connect(gateway.address()).get("/");
    (response.status, response.code())
}

#[test]
fn an_upstream_is_verified_by_its_own_issuer_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (
        certificate(dir.path(), "app.test"),
        certificate(dir.path(), "other.test"),
    );
    let address = tls_server(&own, None);
    let unreachable = (502, Some("upstream_unreachable".to_owned()));
    let tls = |ca: &Certificate, name: &str| UpstreamTls {
        ca: Some(ca.cert.clone()),
        server_name: Some(name.to_owned()),
        ..UpstreamTls::default()
    };
    assert_eq!(over_tls(address, tls(&own, "app.test")), (200, None));
    assert_eq!(
        over_tls(address, tls(&own, "other.test")),
        unreachable,
        "another name"
    );
    assert_eq!(
        over_tls(address, tls(&other, "app.test")),
        unreachable,
        "another issuer"
    );
    let system = UpstreamTls {
        server_name: Some("app.test".into()),
        ..UpstreamTls::default()
    };
    assert_eq!(
        over_tls(address, system.clone()),
        unreachable,
        "nobody the system knows"
    );
    let anyone = UpstreamTls {
        insecure_skip_verify: true,
        ..system
    };
    assert_eq!(over_tls(address, anyone), (200, None));
}

#[test]
fn an_upstream_that_wants_a_certificate_is_shown_one() {
    let dir = tempfile::tempdir().unwrap();
    let (own, client) = (
        certificate(dir.path(), "app.test"),
        certificate(dir.path(), "gateway.test"),
    );
    let address = tls_server(&own, Some(&client));
    let tls = |certificate: Option<&Certificate>| UpstreamTls {
        ca: Some(own.cert.clone()),
        server_name: Some("app.test".into()),
        certificate: certificate.cloned(),
        insecure_skip_verify: false,
    };
    assert_eq!(over_tls(address, tls(Some(&client))), (200, None));
    assert_eq!(over_tls(address, tls(None)).0, 502);
}

#[test]
fn the_client_s_address_is_told_in_front_of_each_connection() {
    for (version, expected) in [
        (
            ProxyVersion::V1,
            b"PROXY TCP4 127.0.0.1 0.0.0.0 0 0\r\nGET ".to_vec(),
        ),
        (
            ProxyVersion::V2,
            [
                &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
                &[127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                b"GET ",
            ]
            .concat(),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, heads) = mpsc::channel();
        let length = expected.len();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = vec![0; length];
                stream.read_exact(&mut head).unwrap();
                seen.send(head).unwrap();
                answer(stream, "proxied");
            }
        });
        let site = to(Address::Ip(address), false);
        let gateway = Gateway::start(&site.upstream(|upstream| upstream.proxy_protocol = Some(version)));
        for _ in 0..3 {
            assert_eq!(Client::connect(gateway.address()).get("/").text(), "proxied");
            let head = heads.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(head, expected, "no connection serves two clients");
        }
    }
}

/// A server that ends with the test.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn start(program: &str, args: &[&str], port: u16) -> Server {
    let server = std::process::Command::new(program).args(args).spawn();
    let server = Server(server.unwrap_or_else(|error| panic!("{program}: {error}")));
    assert!(gateway_tests::l7::gateway::eventually(|| {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    }));
    server
}

#[test]
fn nginx_and_haproxy_serve_behind_the_gateway_and_believe_its_proxy_header() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (nginx, haproxy) = (free_port(), free_port());
    std::fs::write(
        at("nginx.conf"),
        format!(
            "daemon off; master_process off; pid {pid}; error_log {log};\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp};\n\
             uwsgi_temp_path {tmp}; scgi_temp_path {tmp};\n\
             server {{ listen 127.0.0.1:{nginx} proxy_protocol;\n\
             location / {{ return 200 \"nginx $proxy_protocol_addr\"; }} }} }}\n",
            pid = at("nginx.pid"),
            log = at("nginx.log"),
            tmp = at("tmp"),
        ),
    )
    .unwrap();
    std::fs::write(
        at("haproxy.cfg"),
        format!(
            "defaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 1s\n\
             frontend f\n  bind 127.0.0.1:{haproxy} accept-proxy\n\
             http-request return status 200 content-type text/plain lf-string \"haproxy %[src]\"\n"
        ),
    )
    .unwrap();
    let _nginx = start("nginx", &["-c", &at("nginx.conf"), "-e", &at("nginx.log")], nginx);
    let _haproxy = start("haproxy", &["-db", "-f", &at("haproxy.cfg")], haproxy);
    for (name, port) in [("nginx", nginx), ("haproxy", haproxy)] {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let site = to(Address::Ip(([127, 0, 0, 1], port).into()), false).trusting(&["127.0.0.0/8"]);
            let gateway = Gateway::start(&site.upstream(|upstream| upstream.proxy_protocol = Some(version)));
            let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
            let response = Client::connect(gateway.address()).send(request).response();
            assert_eq!(response.text(), format!("{name} 203.0.113.7"), "{version:?}");
        }
    }
}
