//! Server certificates by name. Owns what a handshake needs; knows nothing of requests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::model::{Certificate, Tls};

/// Why certificates can not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {cause}")]
    Pem {
        path: PathBuf,
        cause: rustls_pki_types::pem::Error,
    },
    #[error("{path}: holds no certificate")]
    Empty { path: PathBuf },
    #[error("{cert} and {key}: {cause}")]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        cause: rustls::Error,
    },
    #[error("TLS can not be set up: {0}")]
    Config(rustls::Error),
    #[error("a TLS listener has no certificate")]
    NoCertificates,
}

/// Compiles a listener's TLS: 1.2 and 1.3, HTTP/2 preferred, certificates read from their files now.
pub fn compile(model: &Tls) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut names = Names::default();
    for certificate in &model.certificates {
        names.add(&load(certificate)?);
    }
    if names.default.is_none() {
        return Err(Error::NoCertificates);
    }
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Config)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Workers share no sessions, so resumption is by ticket.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(Error::Config)?;
    Ok(Arc::new(config))
}

fn load(model: &Certificate) -> Result<Arc<CertifiedKey>, Error> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |cause| Error::Pem { path, cause }
    };
    let chain = CertificateDer::pem_file_iter(&model.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(pem(&model.cert))?;
    if chain.is_empty() {
        return Err(Error::Empty {
            path: model.cert.clone(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(&model.key).map_err(pem(&model.key))?;
    let pair = |cause| Error::Pair {
        cert: model.cert.clone(),
        key: model.key.clone(),
        cause,
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(pair)
}

/// Certificates by the DNS names in them; the first of all is for those who name nothing known.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`, which stands for one label (RFC 6125, 6.4.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Names {
    fn add(&mut self, key: &Arc<CertifiedKey>) {
        self.default.get_or_insert_with(|| Arc::clone(key));
        let Some(leaf) = key.cert.first() else { return };
        let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else {
            return;
        };
        for name in leaf.valid_dns_names() {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix("*.") {
                Some(parent) => self
                    .wildcard
                    .entry(parent.into())
                    .or_insert_with(|| Arc::clone(key)),
                None => self.exact.entry(name).or_insert_with(|| Arc::clone(key)),
            };
        }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let known = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
        });
        known.or(self.default.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}
