//! Client certificates, versions, sessions, and names that do not belong together.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use gateway::config::model::{Certificate, ClientAuth, Tls, TlsVersion};
use gateway::http::reject::Reject;
use gateway_tests::l7::{Gateway, Site, Upstream};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Makes certificates of servers and clients.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, dir: &Path, file: &str, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        let (cert, secret) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        std::fs::write(&cert, made.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        Certificate { cert, key: secret }
    }

    fn server(&self, dir: &Path, names: &[&str]) -> Certificate {
        self.issue(dir, &names[0].replace('*', "any"), |params| {
            params.subject_alt_names = names
                .iter()
                .map(|name| SanType::DnsName((*name).try_into().unwrap()))
                .collect();
        })
    }

    fn client(&self, dir: &Path, name: &str) -> Certificate {
        self.issue(dir, name, |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names =
                vec![SanType::URI(format!("spiffe://test/{name}").try_into().unwrap())];
        })
    }

    /// A client that trusts this issuer.
    fn config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<&Certificate>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_file(&own.cert).unwrap()];
                let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Connects for a name and asks for a host. Returns the answer and whether the session was a resumed one.
fn ask(
    gateway: &Gateway,
    config: &Arc<ClientConfig>,
    sni: &str,
    host: &str,
    more: &str,
) -> std::io::Result<(String, bool)> {
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(session, TcpStream::connect(gateway.address())?);
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((answer, resumed))
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn site(upstream: &Upstream, certificates: Vec<Certificate>, change: impl FnOnce(&mut Tls)) -> Site {
    let mut site = Site::to(upstream);
    let mut tls = Tls::with(certificates);
    change(&mut tls);
    site.config.listen[0].tls = Some(tls);
    site
}

#[test]
fn t14_a_client_s_certificate_is_verified_and_only_the_gateway_speaks_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, stranger) = (Ca::new(), Ca::new());
    let issuers = dir.path().join("clients.crt");
    std::fs::write(&issuers, &ca.pem).unwrap();
    let server = ca.server(dir.path(), &["a.test"]);
    let alice = ca.client(dir.path(), "alice");
    let mallory = stranger.client(dir.path(), "mallory");
    let forged = "X-Client-Cert-Subject: CN=root\r\nX-Client-Cert-SAN: URI:root\r\nx_client_cert_subject: CN=root\r\n\
                  X-Client-Cert-Fingerprint: 00\r\nX-Client-Cert-Verified: 1\r\n";
    for required in [true, false] {
        let upstream = Upstream::text("ok");
        let gateway = Gateway::start(&site(&upstream, vec![server.clone()], |tls| {
            tls.client_auth = Some(ClientAuth {
                ca: issuers.clone(),
                crl: None,
                required,
            });
        }));
        for versions in [BOTH, &[&rustls::version::TLS12]] {
            let config = ca.config(versions, Some(&alice));
            for _ in 0..2 {
                let (answer, resumed) = ask(&gateway, &config, "a.test", "a.test", forged).unwrap();
                assert_eq!(status(&answer), "200");
                assert!(!resumed, "a session would outlive the certificate");
                let seen = upstream.last();
                assert_eq!(seen.header("x-client-cert-subject"), ["CN=alice"]);
                assert_eq!(seen.header("x-client-cert-san"), ["URI:spiffe://test/alice"]);
                assert_eq!(seen.header("x-client-cert-fingerprint")[0].len(), 64);
                assert!(seen.headers.iter().all(|(_, value)| !value.contains("root")));
                assert_eq!(seen.header("x-client-cert-verified"), Vec::<&str>::new());
            }
            let before = upstream.requests().len();
            let bad = ask(
                &gateway,
                &ca.config(versions, Some(&mallory)),
                "a.test",
                "a.test",
                "",
            );
            assert!(bad.is_err(), "{bad:?}");
            assert!(gateway.told(Reject::TlsHandshake));
            let none = ask(&gateway, &ca.config(versions, None), "a.test", "a.test", forged);
            if required {
                assert!(none.is_err(), "{none:?}");
                assert_eq!(upstream.requests().len(), before);
            } else {
                assert_eq!(status(&none.unwrap().0), "200");
                let lines = upstream.last().headers;
                assert!(
                    lines.iter().all(|(name, _)| !name.contains("client")),
                    "{lines:?}"
                );
            }
        }
    }
}

#[test]
fn t14_in_cleartext_nobody_can_claim_a_certificate() {
    let upstream = Upstream::text("ok");
    // Not even a trusted proxy.
    let gateway = Gateway::start(&Site::to(&upstream).trusting(&["127.0.0.1/32"]));
    let mut client = gateway_tests::l7::Client::connect(gateway.address());
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nX-Client-Cert-Subject: CN=root\r\nX-Client-Cert-Any: 1\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let lines = upstream.last().headers;
    assert!(
        lines.iter().all(|(name, _)| !name.contains("client-cert")),
        "{lines:?}"
    );
}

#[test]
fn versions_below_the_least_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let server = ca.server(dir.path(), &["a.test"]);
    let upstream = Upstream::text("ok");
    let twelve = ca.config(&[&rustls::version::TLS12], None);
    let thirteen = ca.config(&[&rustls::version::TLS13], None);
    for (least, serves_twelve) in [(TlsVersion::V1_2, true), (TlsVersion::V1_3, false)] {
        let gateway = Gateway::start(&site(&upstream, vec![server.clone()], |tls| {
            tls.min_version = least
        }));
        assert!(ask(&gateway, &thirteen, "a.test", "a.test", "").is_ok());
        assert_eq!(
            ask(&gateway, &twelve, "a.test", "a.test", "").is_ok(),
            serves_twelve
        );
    }
}

#[test]
fn t34_a_host_that_the_named_certificate_does_not_cover_is_misdirected() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let certificates = vec![
        ca.server(dir.path(), &["default.test"]),
        ca.server(dir.path(), &["a.test", "b.test"]),
        ca.server(dir.path(), &["*.wild.test"]),
    ];
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&site(&upstream, certificates, |_| {}));
    let config = ca.config(BOTH, None);
    for (sni, host, expected) in [
        ("a.test", "a.test", "200"),
        ("a.test", "A.test:443", "200"),
        // Coalescing: both names stand in one certificate.
        ("a.test", "b.test", "200"),
        ("x.wild.test", "y.wild.test", "200"),
        ("a.test", "default.test", "421"),
        ("a.test", "x.wild.test", "421"),
        ("x.wild.test", "wild.test", "421"),
        ("a.test", "127.0.0.1", "421"),
        ("default.test", "a.test", "421"),
    ] {
        let (answer, _) = ask(&gateway, &config, sni, host, "").unwrap();
        assert_eq!(status(&answer), expected, "{sni} {host}");
        assert_eq!(answer.contains("\"misdirected\""), expected == "421");
    }
    // By address, without a name, there is nothing that could not fit.
    let port = gateway.address().port();
    let words = [
        "-sS",
        "-k",
        "-m",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Host: a.test",
    ];
    let mut curl = std::process::Command::new("curl");
    let output = curl
        .args(words)
        .arg(format!("https://127.0.0.1:{port}/"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200");
}

#[test]
fn sessions_are_resumed_and_go_on_over_reloads_and_renewed_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let upstream = Upstream::text("ok");
    let server = ca.server(dir.path(), &["a.test"]);
    let site = site(&upstream, vec![server.clone()], |_| {});
    let gateway = Gateway::start(&site);
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let config = ca.config(versions, None);
        let resumed = || ask(&gateway, &config, "a.test", "a.test", "").unwrap().1;
        assert!(!resumed(), "the first");
        assert!(resumed());
        gateway.reload(&site);
        assert!(resumed(), "nothing has changed");
        ca.server(dir.path(), &["a.test"]);
        gateway.reload(&site);
        assert!(resumed(), "renewed");
    }
}

#[test]
fn t34_a_session_of_one_listener_is_worth_nothing_at_another() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let issuers = dir.path().join("clients.crt");
    std::fs::write(&issuers, &ca.pem).unwrap();
    let upstream = Upstream::text("ok");
    let server = ca.server(dir.path(), &["a.test"]);
    let open = site(&upstream, vec![server], |_| {});
    let mut both = open.clone();
    both.config.listen.push(open.config.listen[0].clone());
    let gateway = Gateway::start(&open);
    let config = ca.config(BOTH, None);
    assert!(!ask(&gateway, &config, "a.test", "a.test", "").unwrap().1);
    assert!(ask(&gateway, &config, "a.test", "a.test", "").unwrap().1);
    // The same address now asks for certificates: what was agreed before does not let in.
    let mut closed = open.clone();
    if let Some(tls) = &mut closed.config.listen[0].tls {
        tls.client_auth = Some(ClientAuth {
            ca: issuers,
            crl: None,
            required: true,
        });
    }
    gateway.reload(&closed);
    let refused = ask(&gateway, &config, "a.test", "a.test", "");
    assert!(refused.is_err(), "{refused:?}");
    gateway.reload(&both);
    let second = gateway.server().addresses()[1];
    let name = ServerName::try_from("a.test").unwrap();
    let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
    let mut stream = StreamOwned::new(session, TcpStream::connect(second).unwrap());
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn a_revoked_certificate_is_refused_from_the_moment_the_list_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (issuers, crl) = (dir.path().join("clients.crt"), dir.path().join("clients.crl"));
    std::fs::write(&issuers, &ca.pem).unwrap();
    let server = ca.server(dir.path(), &["a.test"]);
    let numbered = |name: &str, number: u64| {
        ca.issue(dir.path(), name, |params| {
            params.serial_number = Some(number.into());
            params.distinguished_name.push(DnType::CommonName, name);
        })
    };
    let (alice, bob) = (numbered("alice", 1001), numbered("bob", 1002));
    let revoke = |numbers: &[u64], next_update| {
        let revoked = |number: &u64| rcgen::RevokedCertParams {
            serial_number: (*number).into(),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update,
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        std::fs::write(&crl, list.signed_by(&ca.issuer).unwrap().pem().unwrap()).unwrap();
    };
    let (far, past) = (rcgen::date_time_ymd(2100, 1, 1), rcgen::date_time_ymd(2025, 1, 1));
    revoke(&[1002], far);
    let upstream = Upstream::text("ok");
    let site = site(&upstream, vec![server], |tls| {
        tls.client_auth = Some(ClientAuth {
            ca: issuers.clone(),
            crl: Some(crl.clone()),
            required: false,
        });
    });
    let gateway = Gateway::start(&site);
    let passes = |own: &Certificate| {
        let answer = ask(&gateway, &ca.config(BOTH, Some(own)), "a.test", "a.test", "");
        answer.is_ok_and(|(answer, _)| status(&answer) == "200")
    };
    assert!(passes(&alice) && !passes(&bob));
    revoke(&[1001], far);
    gateway.reload(&site);
    assert!(!passes(&alice) && passes(&bob), "the file is read again");
    // What can not be used changes nothing.
    std::fs::write(&crl, "nonsense").unwrap();
    assert!(gateway.try_reload(&site).is_err());
    assert!(!passes(&alice) && passes(&bob));
    revoke(&[1001], past);
    gateway.reload(&site);
    assert!(!passes(&bob), "a list that is out of date speaks for nobody");
}

/// RUSTSEC-2026-0049 (lists of revocations that count for another issuer), 0098 and 0099 (constraints on names that are passed over)
/// and 0104 (a panic at a list): all of them have their fix in 0.103.13.
#[test]
fn t37_the_library_that_verifies_certificates_has_its_fixes() {
    let lock = include_str!("../../../Cargo.lock");
    let versions: Vec<Vec<u32>> = lock
        .split("[[package]]")
        .filter(|package| package.contains("name = \"rustls-webpki\""))
        .filter_map(|package| package.split("version = \"").nth(1)?.split('"').next())
        .map(|version| version.split('.').filter_map(|part| part.parse().ok()).collect())
        .collect();
    assert!(!versions.is_empty(), "it is used");
    for version in versions {
        assert!(version >= vec![0, 103, 13], "{version:?}");
    }
}
