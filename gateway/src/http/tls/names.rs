//! Certificates by the names in them. Owns which is for whom, and whether one covers a host.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate and the DNS names in it, in lower case.
#[derive(Debug)]
pub struct Certified {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certified {
    fn of(key: &Arc<CertifiedKey>) -> Self {
        let leaf = key.end_entity_cert().ok();
        let leaf = leaf.and_then(|leaf| webpki::EndEntityCert::try_from(leaf).ok());
        let names = leaf.iter().flat_map(|leaf| leaf.valid_dns_names());
        Self {
            names: names.map(str::to_ascii_lowercase).collect(),
            key: Arc::clone(key),
        }
    }

    /// Whether a client that has verified it may ask for `host`, a canonical name, on the same connection.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => name == host,
        })
    }
}

/// Certificates by name; the first of all is for those who name nothing known.
#[derive(Debug, Default)]
pub struct Names {
    exact: HashMap<String, Arc<Certified>>,
    /// By what follows `*.`, which stands for one label (RFC 6125, 6.4.3).
    wildcard: HashMap<String, Arc<Certified>>,
    default: Option<Arc<Certified>>,
}

impl Names {
    pub(super) fn add(&mut self, key: &Arc<CertifiedKey>) {
        let certified = Arc::new(Certified::of(key));
        self.default.get_or_insert_with(|| Arc::clone(&certified));
        for name in &certified.names {
            let (table, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            table
                .entry(name.to_owned())
                .or_insert_with(|| Arc::clone(&certified));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.default.is_none()
    }

    /// The certificate that is for this name; none for a name that only gets the first of all.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<&Arc<Certified>> {
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.server_name().and_then(|name| self.known(name));
        let found = known.or(self.default.as_ref());
        found.map(|certified| Arc::clone(&certified.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_covers_its_names_and_one_label_of_a_wildcard() {
        let names = ["a.test", "*.b.test"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
        let mut names = Names::default();
        names.add(&Arc::new(key));
        let certified = names.known("A.test").expect("its own name");
        for (host, covered) in [
            ("a.test", true),
            ("x.b.test", true),
            ("b.test", false),
            ("x.y.b.test", false),
            ("x.a.test", false),
            ("192.0.2.1", false),
            ("", false),
        ] {
            assert_eq!(certified.covers(host), covered, "{host}");
            assert_eq!(names.known(host).is_some(), covered, "{host}");
        }
    }
}
