//! `listen` and `admin`: where the gateway itself can be reached.
//!
//! Certificates are read and tried here, so that a bad one is a fault of the configuration and not of the first client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::files;
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Admin, Certificate, ClientAuth, Listener, Paths, Tls, TlsVersion};
use crate::config::scalar::{choice, number, or_off, truth};

/// Longest certificate chain or key taken, in bytes.
const MOST_PEM: usize = 1 << 20;
/// Longest name of a Unix socket, in bytes (`sun_path` less its final zero).
const MOST_SOCKET_PATH: usize = 107;

/// The listeners, with `standard` for what they do not say of paths, and where the first of them asks for the PROXY protocol.
pub(super) fn listeners<'t>(
    walk: &mut Walk,
    top: &mut Table<'t>,
    standard: Paths,
) -> (Vec<Listener>, Option<Field<'t>>) {
    let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
    let mut listeners = Vec::new();
    let mut proxied = None;
    for item in top.list(walk, "listen") {
        let read = walk.table(&item, |walk, table| {
            let field = table.require(walk, "address", "such as address: 0.0.0.0:8080");
            let tls = table.get(walk, "tls").and_then(|field| tls(walk, &field));
            let proxy_field = table.get(walk, "proxy_protocol");
            let proxy_protocol = proxy_field
                .as_ref()
                .and_then(|field| walk.value(field, truth))
                .unwrap_or(false);
            if proxy_protocol && proxied.is_none() {
                proxied = proxy_field;
            }
            let paths = super::paths(walk, table, standard);
            let redirect = table.get(walk, "redirect_to_https");
            if let (Some(redirect), true) = (&redirect, table.has("tls")) {
                let wrong = Wrong::new("a listener with tls speaks HTTPS already");
                walk.fault(redirect, wrong.hint("redirect from a listener without tls"));
            }
            let redirect = redirect
                .and_then(|field| walk.value(&field, https_port))
                .flatten();
            let address = field.and_then(|field| {
                let address = walk.value(&field, socket_address)?;
                if let Some(place) = taken.get(&address) {
                    walk.fault(
                        &field,
                        Wrong::new(format!("{address} is already listened on, at {place}")),
                    );
                } else if address.port() != 0 {
                    taken.insert(address, field.place());
                }
                Some(address)
            });
            Some(Listener {
                address: address?,
                tls,
                proxy_protocol,
                redirect_to_https: redirect,
                paths,
            })
        });
        listeners.extend(read.flatten());
    }
    (listeners, proxied)
}

/// `true`, `false`, or the port at which HTTPS is spoken.
fn https_port(text: &str) -> Result<Option<u16>, Wrong> {
    if let Ok(redirects) = truth(text) {
        return Ok(redirects.then_some(defaults::HTTPS_PORT));
    }
    match number(1..=65_535)(text) {
        Ok(port) => Ok(u16::try_from(port).ok()),
        Err(_) => {
            let wrong = Wrong::new(format!("{} is not true, false or a port", quote(text)));
            Err(wrong.hint("true stands for 443"))
        }
    }
}

pub(super) fn admin(walk: &mut Walk, top: &mut Table<'_>, listeners: &[Listener]) -> Admin {
    let standard = defaults::admin();
    let read = top.get(walk, "admin").and_then(|field| {
        walk.table(&field, |walk, table| {
            let socket = table.value_or(walk, "socket", standard.socket.clone(), socket_path);
            let metrics = table.get(walk, "metrics").map(|field| {
                let metrics = walk.value(&field, or_off(socket_address)).flatten();
                if metrics.is_some_and(|at| listeners.iter().any(|one| collide(one.address, at))) {
                    let wrong = Wrong::new("clients are listened for at this address");
                    walk.fault(&field, wrong.hint("metrics need an address or port of their own"));
                }
                metrics
            });
            Admin {
                socket,
                metrics: metrics.unwrap_or(standard.metrics),
            }
        })
    });
    read.unwrap_or(standard)
}

/// Whether one socket would take the other's connections: same port, and same address or one that stands for all.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || everywhere)
}

/// An address and port. An IPv4-mapped address is the IPv4 one.
fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Err(_) => {
            let wrong = Wrong::new(format!("{} is not an address and port", quote(text)));
            Err(wrong.hint("write 0.0.0.0:8080, or \"[::]:8080\" in quotes; names are not looked up here"))
        }
    }
}

fn socket_path(text: &str) -> Result<PathBuf, Wrong> {
    if text.len() > MOST_SOCKET_PATH {
        let wrong = Wrong::new(format!("the path is {} bytes long", text.len()));
        return Err(wrong.hint(format!("a socket's path has at most {MOST_SOCKET_PATH}")));
    }
    files::absolute(text)
}

fn tls(walk: &mut Walk, field: &Field<'_>) -> Option<Tls> {
    walk.table(field, |walk, table| {
        let list = table.require(
            walk,
            "certificates",
            "such as certificates: [{cert: a.crt, key: a.key}]",
        )?;
        let items = walk.list(&list);
        if items.is_empty() {
            walk.fault(&list, Wrong::new("TLS needs at least one certificate"));
        }
        let mut certificates = Vec::new();
        for item in items {
            let Some(certificate) = certificate(walk, &item) else {
                continue;
            };
            if certificates.contains(&certificate) {
                walk.fault(&item, Wrong::new("this certificate is given twice"));
            }
            certificates.push(certificate);
        }
        let versions = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
        let min_version = table.value_or(walk, "min_version", defaults::TLS_VERSION, choice(&versions));
        let client_auth = match table.get(walk, "client_auth") {
            Some(field) => Some(client_auth(walk, &field)?),
            None => None,
        };
        Some(Tls {
            certificates,
            min_version,
            client_auth,
        })
    })?
}

fn client_auth(walk: &mut Walk, field: &Field<'_>) -> Option<ClientAuth> {
    walk.table(field, |walk, table| {
        let ca = table.require(walk, "ca", "the issuers of clients' certificates as a PEM file");
        let modes = [("required", true), ("optional", false)];
        let required = table.value_or(walk, "mode", true, choice(&modes));
        let (crl, ca) = (table.get(walk, "crl"), ca?);
        if !walk.opens_secrets {
            let crl = crl.map(|field| files::named(walk, &field));
            let ca = files::named(walk, &ca)?;
            let crl = crl.flatten();
            return Some(ClientAuth { ca, crl, required });
        }
        let (path, issuers) = pem_file(walk, &ca, MOST_PEM, chain)?;
        let mut roots = RootCertStore::empty();
        if let Some(error) = issuers.into_iter().find_map(|issuer| roots.add(issuer).err()) {
            walk.fault(
                &ca,
                Wrong::new(format!("an issuer in it can not be used: {error}")),
            );
        }
        let crl = match crl {
            None => None,
            Some(field) => Some(revoked(walk, &field, roots)?),
        };
        Some(ClientAuth {
            ca: path,
            crl,
            required,
        })
    })?
}

fn revoked(walk: &mut Walk, field: &Field<'_>, roots: RootCertStore) -> Option<PathBuf> {
    let (path, lists) = pem_file(walk, field, defaults::CRL_BYTES as usize, |pem, path| {
        let shown = quote(&path.to_string_lossy());
        match CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
            Ok(lists) if !lists.is_empty() => Ok(lists),
            Ok(_) => Err(
                Wrong::new(format!("{shown} holds no list of revoked certificates"))
                    .hint("it begins -----BEGIN X509 CRL-----"),
            ),
            Err(_) => Err(Wrong::new(format!("{shown} is not PEM"))),
        }
    })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .build();
    // Without a usable issuer, that has been said.
    if let Err(VerifierBuilderError::InvalidCrl(error)) = built {
        walk.fault(
            field,
            Wrong::new(format!("a list in it can not be used: {}", Error::from(error))),
        );
    }
    Some(path)
}

pub(super) fn certificate(walk: &mut Walk, item: &Field<'_>) -> Option<Certificate> {
    walk.table(item, |walk, table| {
        let cert = table.require(walk, "cert", "the chain as a PEM file");
        let key = table.require(walk, "key", "the private key as a PEM file");
        let (cert, key) = (cert?, key?);
        if !walk.opens_secrets {
            return Some(Certificate {
                cert: files::named(walk, &cert)?,
                key: files::named(walk, &key)?,
            });
        }
        let chain = pem_file(walk, &cert, MOST_PEM, chain);
        let secret = pem_file(walk, &key, MOST_PEM, private_key);
        let ((cert_path, chain), (key_path, secret)) = (chain?, secret?);
        if let Err(error) = CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider()) {
            match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    let shown = quote(&cert_path.to_string_lossy());
                    walk.fault(
                        &key,
                        Wrong::new(format!("the key does not belong to the certificate {shown}")),
                    );
                }
                Error::InvalidCertificate(_) => {
                    walk.fault(
                        &cert,
                        Wrong::new(format!("the certificate can not be used: {error}")),
                    );
                }
                _ => walk.fault(&key, Wrong::new(format!("the key can not be used: {error}"))),
            }
        }
        Some(Certificate {
            cert: cert_path,
            key: key_path,
        })
    })?
}

fn pem_file<T>(
    walk: &mut Walk,
    field: &Field<'_>,
    most: usize,
    read: impl FnOnce(&[u8], &Path) -> Result<T, Wrong>,
) -> Option<(PathBuf, T)> {
    let path = files::named(walk, field)?;
    match files::read(&path, most).and_then(|pem| read(&pem, &path)) {
        Ok(content) => Some((path, content)),
        Err(wrong) => {
            walk.fault(field, wrong);
            None
        }
    }
}

fn chain(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let shown = quote(&path.to_string_lossy());
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => {
            Err(Wrong::new(format!("{shown} holds no certificate"))
                .hint("it begins -----BEGIN CERTIFICATE-----"))
        }
        Err(_) => Err(Wrong::new(format!("{shown} is not PEM"))),
    }
}

/// The library's own messages quote the file, so they are not passed on.
fn private_key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let wrong = Wrong::new(format!("{} holds no private key", quote(&path.to_string_lossy())));
        wrong.hint("an unencrypted key in PEM, such as -----BEGIN PRIVATE KEY-----")
    })
}
