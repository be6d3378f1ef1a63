//! TLS towards upstreams: whom to believe, under which name, and what to show of oneself.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::Error;
use crate::config::model::{self, Address};

/// What connections of one upstream are made with.
#[derive(Debug)]
pub(super) struct Configs {
    /// For requests: HTTP/1.1 only.
    pub(super) http1: Arc<ClientConfig>,
    /// For health checks of gRPC.
    pub(super) http2: Arc<ClientConfig>,
}

impl Configs {
    /// Reads the files that the configuration names.
    pub(super) fn compile(model: &model::Upstream) -> Result<Self, Error> {
        let mut http1 = client_config(&model.name, &model.tls)?;
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
        })
    }
}

/// What connections are made with, whatever is spoken on them; `name` is for errors. Reads the files that the settings name.
///
/// # Errors
/// One of them can not be used.
pub fn client_config(name: &str, tls: &model::UpstreamTls) -> Result<ClientConfig, Error> {
    let wrong = |reason: String| Error::Tls {
        upstream: name.to_owned(),
        reason,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let builder = if tls.insecure_skip_verify {
        tracing::warn!(
            upstream = name,
            "TLS TO THIS UPSTREAM IS NOT VERIFIED (insecure_skip_verify): anyone in between can read and change it"
        );
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        let roots = match &tls.ca {
            None => system_roots(name)?,
            Some(path) => Arc::new(roots_of(path).map_err(wrong)?),
        };
        builder.with_root_certificates(roots)
    };
    let Some(pair) = &tls.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let shown = pair.cert.display();
    let chain = CertificateDer::pem_file_iter(&pair.cert)
        .and_then(Iterator::collect)
        .map_err(|e| wrong(format!("{shown}: {e}")))?;
    // The library's own message would quote the file.
    let key = PrivateKeyDer::from_pem_file(&pair.key)
        .map_err(|_| wrong(format!("{} holds no private key", pair.key.display())))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| wrong(format!("{shown}: {e}")))
}

/// Under which name an endpoint is asked and verified; `None` if it is not spoken to by TLS. `found` is the host that an
/// SRV record named.
pub(super) fn server_name(
    upstream: &model::Upstream,
    endpoint: &model::Endpoint,
    found: Option<&str>,
) -> Result<Option<ServerName<'static>>, Error> {
    if !endpoint.tls {
        return Ok(None);
    }
    let host = match (&upstream.tls.server_name, &endpoint.address, found) {
        (Some(name), _, _) => name.clone(),
        (None, _, Some(found)) => found.to_owned(),
        (None, Address::Ip(address), None) => return Ok(Some(ServerName::from(address.ip()))),
        (None, Address::Name { host, .. }, None) => host.clone(),
        // Known when it has been looked up; the same holds for what has no name at all.
        (None, Address::Service(_) | Address::Unix(_), None) => return Ok(None),
    };
    match ServerName::try_from(host) {
        Ok(name) => Ok(Some(name)),
        Err(_) => Err(Error::ServerName {
            upstream: upstream.name.clone(),
            host: endpoint.address.to_string(),
        }),
    }
}

/// The issuers in a file.
fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let shown = path.display();
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(path).map_err(|error| format!("{shown}: {error}"))?;
    for issuer in read {
        let issuer = issuer.map_err(|error| format!("{shown}: {error}"))?;
        roots.add(issuer).map_err(|error| format!("{shown}: {error}"))?;
    }
    Ok(roots)
}

/// For what the gateway itself asks: HTTP/1.1, believing the system's issuers or those in a file.
pub(super) fn plain_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        Some(path) => Arc::new(roots_of(path)?),
        None => system_roots("").map_err(|_| "the system has no root certificates".to_owned())?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The system's roots, read once for the process.
fn system_roots(upstream: &str) -> Result<Arc<RootCertStore>, Error> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a root certificate could not be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::NoRoots {
            upstream: upstream.into(),
        });
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// Believes every certificate, but not every signature: the other side must hold the key of what it shows.
struct Anyone(Arc<CryptoProvider>);

impl fmt::Debug for Anyone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anyone")
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
