//! Whole configurations: what must load, what must not and exactly how that is told, and what no text may do.

mod bad;
mod good;
mod hostile;
mod survey;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Config, Faults, Warning};

/// The smallest configuration that serves.
const SMALL: &str = "\
listen: [{address: 127.0.0.1:8080}]
xdp: {mode: none}
routes:
  - match: {path: /**}
    upstream: [{url: http://127.0.0.1:9000}]
";

/// SHA-256 of `demo-key`.
const HASH: &str = "c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c";

/// A directory with everything that the examples name, in place of /etc/gateway.
fn etc() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
    fs::create_dir(dir.path().join("tls")).expect("a directory");
    let pair = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let api = pair("api.example.com");
    write("tls/api.crt", &api.cert.pem());
    write("tls/api.key", &api.signing_key.serialize_pem());
    write("tls/clients.crt", &pair("clients").cert.pem());
    write("tls/clients.crl", &revoked());
    write(
        "tls/other.key",
        &pair("other.example.com").signing_key.serialize_pem(),
    );
    write(
        "drop.txt",
        "# a feed\n203.0.113.0/24 ; SBL1\n\n2001:db8:1::/48\r\n::ffff:192.0.2.66\n",
    );
    write("tls/internal-ca.crt", &pair("ca.internal").cert.pem());
    write(
        "api.yaml",
        "openapi: 3.1.0\npaths: {/orders: {get: {operationId: listOrders, responses: {}}}}\n",
    );
    write("sticky.key", "0123456789abcdef0123456789abcdef\n");
    write("redis.key", "secret\n");
    write("error.json", "{\"code\": \"{code}\", \"id\": \"{request_id}\"}\n");
    write("allow.txt", "192.0.2.1\n");
    let key = rcgen::KeyPair::generate().expect("a key");
    write("jwt.pem", &key.public_key_pem());
    write(
        "jwks.json",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}"#,
    );
    write("introspection.secret", "secret\n");
    write("partner.secret", "0123456789abcdef0123456789abcdef\n");
    write("partner.pem", &key.public_key_pem());
    write("oidc.secret", "secret\n");
    write("session.keys", "# sessions\n0123456789abcdef0123456789abcdef\n");
    write(
        "passwords",
        "ops:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n",
    );
    write("jwt.secret", "0123456789abcdef0123456789abcdef\n");
    write("keys.yaml", &format!("- {{name: partner-a, sha256: {HASH}}}\n"));
    dir
}

/// A list that revokes nothing.
fn revoked() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), key);
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).and_then(|list| list.pem());
    list.expect("a list")
}

/// Loads `text` with `dir` in place of /etc/gateway.
fn load_in(dir: &Path, text: &str) -> Result<(Config, Vec<Warning>), Faults> {
    let text = text.replace("/etc/gateway", &dir.display().to_string());
    Config::parse(&text, "gateway.yaml", dir)
}

fn load(text: &str) -> Result<(Config, Vec<Warning>), Faults> {
    Config::parse(text, "g.yaml", Path::new("/nowhere"))
}
