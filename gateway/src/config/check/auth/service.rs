//! Services that the gateway itself asks: their addresses, and whose certificates are believed.

use std::path::PathBuf;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::check::{files, patterns};
use crate::config::decode::{Field, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::Url;

/// An address such as `https://idp.example.com/keys`.
pub(super) fn url(text: &str) -> Result<Url, Wrong> {
    let refuse = || Wrong::new(format!("{} is not an address", quote(text)));
    let url: Result<Url, ()> = text.parse();
    let hosted = |url: &Url| url.host.contains(':') || patterns::host(&url.host).is_ok();
    match url {
        Ok(url) if hosted(&url) => Ok(url),
        _ => Err(refuse().hint("such as https://idp.example.com/keys, without user and fragment")),
    }
}

/// Warns of what anyone in between can read and change.
pub(super) fn tell_plain(walk: &mut Walk, field: &Field<'_>, url: &Url) {
    if !url.tls && !url.is_local() {
        let wrong = Wrong::new("this is asked without TLS: anyone in between can decide who is let in");
        walk.warn(field, wrong.hint("use https://"));
    }
}

/// A file of certificates whose issuers are believed instead of the system's.
pub(super) fn ca(walk: &mut Walk, field: &Field<'_>) -> Option<PathBuf> {
    let path = files::named(walk, field)?;
    if !walk.opens_secrets {
        return Some(path);
    }
    let shown = quote(&path.to_string_lossy());
    let read = files::read(&path, 1 << 20).and_then(|bytes| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(()),
            _ => Err(Wrong::new(format!("{shown} holds no certificate in PEM form"))),
        }
    });
    if let Err(wrong) = read {
        walk.fault(field, wrong);
    }
    Some(path)
}
