//! The examples of `config/examples`, as they are written, with files and addresses of the test in the place of theirs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use gateway::config::Config;
use gateway_tests::l7::{Gateway, Issuer, Provider, Site, Upstream};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer as Signer, KeyPair, SanType};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A directory in the place of /etc/gateway, and who signs what lies in it.
struct Etc {
    dir: tempfile::TempDir,
    ca: String,
    signer: Signer<'static, KeyPair>,
}

impl Etc {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tls")).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of equal names curl takes the leaf for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let etc = Self {
            dir,
            ca,
            signer: Signer::new(params, key),
        };
        let names = ["api.example.com", "app.example.com"];
        let names = names.map(|name| SanType::DnsName(name.try_into().unwrap()));
        let (cert, key) = etc.issue(|params| params.subject_alt_names = names.into());
        etc.write("tls/api.crt", &cert);
        etc.write("tls/api.key", &key);
        etc.write("tls/clients.crt", &etc.ca);
        etc
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.signer).unwrap();
        (made.pem(), key.serialize_pem())
    }

    /// The example, serving.
    fn serve(&self, name: &str, upstream: &Upstream, change: impl Fn(String) -> String) -> Gateway {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../config/examples")
            .join(name);
        let text = std::fs::read_to_string(file).unwrap();
        let text = text
            .replace("/etc/gateway", &self.dir.path().display().to_string())
            .replace("10.0.0.1:8080", &upstream.address().to_string())
            .replace("10.0.0.2:8080", &upstream.address().to_string());
        let (mut config, warnings) =
            Config::parse(&change(text), name, self.dir.path()).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(warnings, [], "an example gives no cause for warnings");
        for listener in &mut config.listen {
            listener.address = "127.0.0.1:0".parse().unwrap();
        }
        config.workers = std::num::NonZeroU32::MIN;
        Gateway::start(&Site { config })
    }

    /// A client, with a certificate or without.
    fn client(&self, own: Option<&(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}

/// The status of an answer over TLS.
fn ask(gateway: &Gateway, client: &Arc<ClientConfig>, line: &str, lines: &str) -> std::io::Result<u16> {
    let name = ServerName::try_from("api.example.com").unwrap();
    let session = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut stream = StreamOwned::new(session, TcpStream::connect(gateway.address())?);
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{lines}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("no answer"))
}

#[test]
fn a_public_api_with_keys() {
    let (etc, upstream) = (Etc::new(), Upstream::text("in"));
    let key = |secret: &str, scopes: &str| {
        let hash: String = Sha256::digest(secret)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("- {{name: {secret}, sha256: {hash}, scopes: [{scopes}], labels: {{tenant: t}}}}\n")
    };
    etc.write(
        "keys.yaml",
        &[key("reader", "orders.read"), key("writer", "orders.write")].concat(),
    );
    let gateway = etc.serve("public-api-keys.yaml", &upstream, |text| text);
    let client = etc.client(None);
    for (line, lines, status) in [
        ("GET /v1/orders/1", "X-API-Key: reader\r\n", 200),
        ("GET /v1/orders/1?api_key=reader", "", 200),
        ("DELETE /v1/orders/1", "X-API-Key: reader\r\n", 403),
        ("DELETE /v1/orders/1", "X-API-Key: writer\r\n", 200),
        ("GET /v1/orders/1", "X-API-Key: nobody\r\n", 401),
        ("GET /v1/orders/1", "", 401),
        ("GET /v1/openapi.json", "", 200),
        ("GET /v1/other", "", 404),
    ] {
        assert_eq!(
            ask(&gateway, &client, line, lines).unwrap(),
            status,
            "{line} {lines}"
        );
    }
    let told = upstream.requests();
    let told = told.iter().find(|request| request.method == "DELETE").unwrap();
    assert_eq!(told.header("x-partner"), ["writer"]);
    assert_eq!(told.header("x-tenant"), ["t"]);
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| !request.target.contains("api_key"))
    );
}

#[test]
fn an_internal_api_with_certificates() {
    let (etc, upstream) = (Etc::new(), Upstream::text("in"));
    let gateway = etc.serve("internal-mtls.yaml", &upstream, |text| text);
    let named = |uri: &str| {
        etc.issue(|params| {
            params.distinguished_name.push(DnType::CommonName, "service");
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        })
    };
    let billing = etc.client(Some(&named("spiffe://example.internal/billing")));
    let shop = etc.client(Some(&named("spiffe://example.internal/shop")));
    let stranger = etc.client(Some(&named("spiffe://example.internal.evil/billing")));
    let forged = "X-Client-Cert-San: URI:spiffe://example.internal/billing\r\nX-Service: root\r\n";
    assert_eq!(ask(&gateway, &billing, "POST /ledger/x", "").unwrap(), 200);
    assert_eq!(upstream.last().header("x-service"), ["CN=service"]);
    assert_eq!(ask(&gateway, &shop, "GET /ledger/x", forged).unwrap(), 200);
    assert_eq!(upstream.last().header("x-service"), ["CN=service"]);
    assert_eq!(ask(&gateway, &shop, "POST /ledger/x", forged).unwrap(), 403);
    assert_eq!(ask(&gateway, &stranger, "GET /ledger/x", forged).unwrap(), 403);
    assert!(ask(&gateway, &etc.client(None), "GET /ledger/x", forged).is_err());
}

#[test]
fn an_application_in_the_browser_with_tokens() {
    let (etc, upstream, issuer) = (Etc::new(), Upstream::text("in"), Issuer::start());
    let gateway = etc.serve("spa-jwt.yaml", &upstream, |text| {
        text.replace("https://idp.example.com", &issuer.name())
    });
    let client = etc.client(None);
    let bearer = |roles: &str, scope: &str| {
        let mut claims = issuer.claims();
        (claims["roles"], claims["scope"]) = (json!([roles]), json!(scope));
        let token = issuer
            .sign(&json!({"key": "p256", "alg": "ES256", "claims": claims}))
            .0;
        format!("Authorization: Bearer {token}\r\nOrigin: https://app.example.com\r\n")
    };
    for (line, lines, status) in [
        ("GET /v1/orders/1", bearer("viewer", "orders"), 200),
        ("POST /v1/orders/1", bearer("viewer", "orders"), 403),
        ("POST /v1/orders/1", bearer("editor", "orders"), 200),
        ("GET /v1/orders/1", bearer("editor", "other"), 403),
        ("GET /v1/orders/1", String::new(), 401),
        (
            "OPTIONS /v1/orders/1",
            "Origin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\n".to_owned(),
            204,
        ),
    ] {
        assert_eq!(
            ask(&gateway, &client, line, &lines).unwrap(),
            status,
            "{line} {lines}"
        );
    }
    let told = upstream.requests();
    let told = told.iter().find(|request| request.method == "POST").unwrap();
    assert_eq!(
        (told.header("x-user"), told.header("x-roles")),
        (vec!["alice"], vec!["editor"])
    );
    assert!(told.header("authorization").is_empty());
}

#[test]
fn an_application_in_the_browser_whose_people_log_in() {
    let (etc, upstream, provider) = (Etc::new(), Upstream::text("in"), Provider::start());
    etc.write("oidc.secret", "s:e%c +\n");
    etc.write("session.keys", "0123456789abcdef0123456789abcdef\n");
    etc.write("ca.crt", &etc.ca);
    let who = json!({"sub": "7", "email": "alice@example.com", "roles": ["viewer"]});
    provider.set(&json!({"claims": who}));
    let gateway = etc.serve("spa-oidc.yaml", &upstream, |text| {
        text.replace("https://idp.example.com", &provider.name())
    });
    let (port, jar) = (gateway.address().port(), etc.dir.path().join("jar"));
    let curl = |path: &str, more: &[&str]| {
        let output = std::process::Command::new("curl")
            .args(["-sS", "-m", "10", "-L", "--max-redirs", "6", "-o", "/dev/null"])
            .args(["-w", "%{http_code} %{num_redirects} %{url_effective}"])
            .args([
                "--resolve",
                &format!("app.example.com:{port}:127.0.0.1"),
                "--cacert",
            ])
            .arg(etc.dir.path().join("ca.crt"))
            .arg("-b")
            .arg(&jar)
            .arg("-c")
            .arg(&jar)
            .args(more)
            .arg(format!("https://app.example.com:{port}{path}"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.replace(&format!("https://app.example.com:{port}"), "")
    };
    let page = &["-H", "Accept: text/html", "-H", "Sec-Fetch-Site: same-origin"][..];
    let form = &["-X", "POST"][..];
    assert_eq!(
        curl("/v1/orders/1", &[]),
        "401 0 /v1/orders/1",
        "a script is told"
    );
    assert_eq!(
        curl("/shop?x=1", page),
        "200 3 /shop?x=1",
        "a page is sent to log in"
    );
    assert_eq!(upstream.last().header("x-user"), ["alice@example.com"]);
    assert_eq!(curl("/v1/orders/1", &[]), "200 0 /v1/orders/1");
    assert_eq!(upstream.last().header("x-roles"), ["viewer"]);
    assert_eq!(curl("/v1/orders/1", form), "403 0 /v1/orders/1");
    assert_eq!(curl("/bye", page), "200 0 /bye");
    // On the way curl would read its jar again, and have the old cookie back.
    let leave = [page, &["--no-location"]].concat();
    assert_eq!(curl("/oauth2/logout", &leave), "303 0 /oauth2/logout");
    assert_eq!(curl("/v1/orders/1", &[]), "401 0 /v1/orders/1");
    provider.set(&json!({"claims": {"sub": "8", "email": "bob@example.com", "roles": ["editor"]}}));
    assert_eq!(curl("/", page), "200 3 /");
    assert_eq!(curl("/v1/orders/1", form), "200 0 /v1/orders/1");
    assert_eq!(provider.seen()["refused"], json!([]));
}

/// An answer to a request with a body, over plain HTTP.
fn post(gateway: &Gateway, line: &str, kind: &str, body: &str) -> gateway_tests::l7::Response {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    gateway_tests::l7::Client::connect(gateway.address())
        .send(request)
        .response()
}

#[test]
fn older_services_behind_a_json_api() {
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let upstream = Upstream::start(move |request, wire| {
        let body = String::from_utf8_lossy(&wire.body(request)).into_owned();
        seen.lock().unwrap().push((request.target.clone(), body));
        wire.send("HTTP/1.1 200 OK\r\nServer: perl\r\nContent-Length: 0\r\n\r\n");
        true
    });
    let gateway = Etc::new().serve("legacy-form.yaml", &upstream, |text| text);
    let json = "application/json";
    let customer = r#"{"name":"A & B","internal":1,"city":"x y"}"#;
    let response = post(&gateway, "POST /customers", json, customer);
    assert_eq!((response.status, response.header("server")), (200, None));
    let form = "application/x-www-form-urlencoded";
    assert_eq!(
        post(&gateway, "POST /contact", form, "text=hi&captcha=x").status,
        200
    );
    let order = r#"{"lines":[{"sku":"a\"<","quantity":2}]}"#;
    assert_eq!(post(&gateway, "PUT /orders/7", json, order).status, 200);
    let expected = [
        (
            "/cgi-bin/customer.pl",
            "CUSTNAME=A+%26+B&city=x+y&ORIGIN=api+127.0.0.1",
        ),
        ("/contact", r#"{"text":"hi"}"#),
        (
            "/soap/orders",
            r#"<order id="7"><line sku="a&quot;&lt;">2</line></order>"#,
        ),
    ];
    let expected = expected.map(|(target, body)| (target.to_owned(), body.to_owned()));
    assert_eq!(*bodies.lock().unwrap(), expected);
}

#[test]
fn a_service_that_is_what_its_document_says() {
    let etc = Etc::new();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/openapi/orders.yaml");
    etc.write("api.yaml", &std::fs::read_to_string(document).unwrap());
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 204 No Content\r\n\r\n");
        true
    });
    let gateway = etc.serve("openapi-first.yaml", &upstream, |text| text);
    let get = |path: &str| {
        gateway_tests::l7::Client::connect(gateway.address())
            .get(path)
            .status
    };
    assert_eq!(get("/v1/orders/mine"), 204);
    assert_eq!(upstream.last().target, "/orders/mine");
    assert_eq!(get("/v1/orders/7"), 502, "204 is not described for it");
    assert_eq!(get("/v1/orders/x"), 400);
    assert_eq!(get("/v1/orders/mine?debug=1"), 400);
    assert_eq!(get("/v1/nothing"), 404);
    assert_eq!(get("/v1/reports/7"), 204);
}

#[test]
fn a_grpc_service() {
    use gateway_tests::l7::peer::{Peer, talk};
    let peer = Peer::serve("grpc_peer.py");
    let nobody = Upstream::text("");
    let gateway = Etc::new().serve("grpc-service.yaml", &nobody, |text| {
        // The peer serves a service of its own.
        text.replace(&nobody.address().to_string(), &peer.address().to_string())
            .replace("/orders.v1.Orders/**", "/test.Echo/**")
    });
    talk("grpc_peer.py", &[&gateway.address().to_string(), "grpc.example"]);
}
