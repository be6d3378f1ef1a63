//! TLS of a listener: what a handshake needs, made from files. Knows nothing of requests.
//!
//! [`ServerTls::compile`] is called again whenever a file may have changed. What is equal stays the same object, so that
//! sessions go on; what can not be used is an error, and the caller keeps what he has.

mod identity;
mod names;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

pub use identity::Identity;
pub use names::{Certified, Names};

use crate::config::defaults::CRL_BYTES;
use crate::config::model::{Certificate, ClientAuth, Tls, TlsVersion};

/// Longest file taken, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Why certificates can not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path}: is larger than {most} MiB")]
    TooLarge { path: PathBuf, most: u64 },
    // The library's own messages quote the file, which may be a key.
    #[error("{path}: holds no PEM of the kind that is needed")]
    Pem { path: PathBuf },
    #[error("{cert} and {key}: {cause}")]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        cause: rustls::Error,
    },
    #[error("{path}: {cause}")]
    Issuers { path: PathBuf, cause: String },
    #[error("TLS can not be set up: {0}")]
    Config(rustls::Error),
    #[error("a TLS listener has no certificate")]
    NoCertificates,
}

/// TLS of a listener, compiled.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    names: Arc<Names>,
    lifetimes: Vec<Lifetime>,
    model: Tls,
    /// SHA-256 of all files.
    contents: [u8; 32],
}

/// Until when a certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The file it came from.
    pub file: PathBuf,
    /// In seconds since 1970.
    pub not_after: i64,
}

impl ServerTls {
    /// Compiles a listener's TLS, reading its files now; `previous` itself if neither model nor files have changed.
    ///
    /// Sessions are resumed by tickets, whose keys change every six hours and are good for twelve. Renewed certificates keep
    /// them. With client certificates there are none: a resumed session would outlive the certificate it was opened with.
    pub fn compile(model: &Tls, previous: Option<&Arc<Self>>) -> Result<Arc<Self>, Error> {
        let files = Files::read(model)?;
        if let Some(previous) = previous
            && (&previous.model, previous.contents) == (model, files.contents)
        {
            return Ok(Arc::clone(previous));
        }
        let (mut names, mut lifetimes) = (Names::default(), Vec::new());
        for (certificate, (cert, key)) in model.certificates.iter().zip(&files.pairs) {
            let key = certified(certificate, cert, key)?;
            lifetimes.push(Lifetime {
                file: certificate.cert.clone(),
                not_after: key.end_entity_cert().map_or(0, |leaf| identity::not_after(leaf)),
            });
            names.add(&key);
        }
        if names.is_empty() {
            return Err(Error::NoCertificates);
        }
        let names = Arc::new(names);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions: &[&SupportedProtocolVersion] = match model.min_version {
            TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V1_3 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(Error::Config)?;
        let builder = match (&model.client_auth, files.issuers) {
            (Some(auth), Some(pem)) => {
                let verifier = verifier(auth, &pem, files.revoked.as_deref(), provider)?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let resolver: Arc<dyn rustls::server::ResolvesServerCert> = Arc::clone(&names) as _;
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A cache would be a lock that all workers share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if model.client_auth.is_some() {
            config.send_tls13_tickets = 0;
        } else {
            let before = previous.filter(|previous| previous.model.client_auth.is_none());
            config.ticketer = match before {
                Some(previous) => Arc::clone(&previous.config.ticketer),
                None => tickets()?,
            };
        }
        Ok(Arc::new(Self {
            config: Arc::new(config),
            names,
            lifetimes,
            model: model.clone(),
            contents: files.contents,
        }))
    }

    /// For handshakes.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Its certificates by name.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Until when its certificates are good, in the order of the configuration.
    #[must_use]
    pub fn lifetimes(&self) -> &[Lifetime] {
        &self.lifetimes
    }
}

fn tickets() -> Result<Arc<dyn ProducesTickets>, Error> {
    aws_lc_rs::Ticketer::new().map_err(Error::Config)
}

/// The contents of all files of a listener.
struct Files {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    issuers: Option<Vec<u8>>,
    revoked: Option<Vec<u8>>,
    contents: [u8; 32],
}

impl Files {
    fn read(model: &Tls) -> Result<Self, Error> {
        let mut digest = Sha256::new();
        let mut read = |path: &Path, most| {
            let bytes = read(path, most)?;
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(&bytes);
            Ok(bytes)
        };
        let pairs = model.certificates.iter();
        let pairs = pairs
            .map(|pair| Ok((read(&pair.cert, MOST_BYTES)?, read(&pair.key, MOST_BYTES)?)))
            .collect::<Result<_, _>>()?;
        let issuers = model
            .client_auth
            .as_ref()
            .map(|auth| read(&auth.ca, MOST_BYTES))
            .transpose()?;
        let crl = model.client_auth.as_ref().and_then(|auth| auth.crl.as_ref());
        let revoked = crl.map(|path| read(path, CRL_BYTES.into())).transpose()?;
        Ok(Self {
            pairs,
            issuers,
            revoked,
            contents: digest.finalize().into(),
        })
    }
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let failed = |cause| Error::Read {
        path: path.to_owned(),
        cause,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            most: most >> 20,
        });
    }
    Ok(bytes)
}

fn certified(model: &Certificate, cert: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificates(&model.cert, cert)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::Pem {
        path: model.key.clone(),
    })?;
    let pair = |cause| Error::Pair {
        cert: model.cert.clone(),
        key: model.key.clone(),
        cause,
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(pair)
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Error::Pem {
            path: path.to_owned(),
        }),
    }
}

fn verifier(
    auth: &ClientAuth,
    pem: &[u8],
    revoked: Option<&[u8]>,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Error> {
    let failed = |cause: String| Error::Issuers {
        path: auth.ca.clone(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for issuer in certificates(&auth.ca, pem)? {
        roots.add(issuer).map_err(|error| failed(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match (&auth.crl, revoked) {
        // A certificate that no list speaks of is as bad as one that is revoked, and so is one whose list is out of date.
        (Some(path), Some(pem)) => {
            let lists = CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            // Without any, nothing would be looked at.
            let lists = lists.ok().filter(|lists| !lists.is_empty());
            let lists = lists.ok_or_else(|| Error::Pem { path: path.clone() })?;
            builder.with_crls(lists).enforce_revocation_expiration()
        }
        _ => builder,
    };
    let builder = if auth.required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(dir: &Path, name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (dir.join("a.crt"), dir.join("a.key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Certificate { cert, key }
    }

    #[test]
    fn what_is_equal_is_the_same_and_a_renewed_certificate_keeps_the_tickets() {
        let dir = tempfile::tempdir().unwrap();
        let model = Tls::with(vec![pair(dir.path(), "a.test")]);
        let first = ServerTls::compile(&model, None).unwrap();
        let second = ServerTls::compile(&model, Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        pair(dir.path(), "a.test");
        let renewed = ServerTls::compile(&model, Some(&second)).unwrap();
        assert!(!Arc::ptr_eq(&first, &renewed));
        assert!(Arc::ptr_eq(&first.config.ticketer, &renewed.config.ticketer));
        let auth = ClientAuth {
            ca: model.certificates[0].cert.clone(),
            crl: None,
            required: true,
        };
        let asking = Tls {
            client_auth: Some(auth),
            ..model.clone()
        };
        let asking = ServerTls::compile(&asking, Some(&renewed)).unwrap();
        assert!(!asking.config.ticketer.enabled() && asking.config.send_tls13_tickets == 0);
        let open = ServerTls::compile(&model, Some(&asking)).unwrap();
        assert!(open.config.ticketer.enabled());
    }

    #[test]
    fn files_that_can_not_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = pair(dir.path(), "a.test");
        let tell = |model: &Tls| ServerTls::compile(model, None).unwrap_err().to_string();
        let model = Tls::with(vec![good.clone()]);
        std::fs::write(&good.key, "-----BEGIN PRIVATE KEY-----\nsecret\n").unwrap();
        let told = tell(&model);
        assert!(told.contains("a.key") && !told.contains("secret"), "{told}");
        std::fs::write(&good.key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(tell(&model).contains("a.crt"));
        std::fs::write(&good.cert, vec![b' '; (MOST_BYTES + 1) as usize]).unwrap();
        assert!(tell(&model).contains("larger"));
        std::fs::remove_file(&good.cert).unwrap();
        assert!(tell(&model).contains("No such file"));
    }
}
