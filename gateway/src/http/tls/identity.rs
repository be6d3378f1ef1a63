//! What a certificate says, in words: until when it is good, and whom it names.
//!
//! Owns the text form, which goes into header lines: whatever an issuer let into a certificate, the text is one line of
//! printable ASCII, and no value can pass for another.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderValue;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name};

/// Longest text, in bytes. What is longer is left out, not cut: half a name is another name.
const MOST: usize = 4096;

/// Whom a verified client's certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The subject as RFC 4514 writes it, last part first. May be empty in a certificate, and is then absent.
    pub subject: Option<HeaderValue>,
    /// Alternative names: `DNS:a.example, URI:spiffe://b/c, IP:192.0.2.1, email:d@e`. In a value `%`, comma and all that is
    /// not printable stand as `%` and two digits; but a `%` in a URI stands for itself.
    pub san: Option<HeaderValue>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: HeaderValue,
}

impl Identity {
    /// Of a certificate that has been verified; none if it can not be read after all.
    #[must_use]
    pub fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let mut fingerprint = String::with_capacity(64);
        for byte in Sha256::digest(leaf) {
            let _ = write!(fingerprint, "{byte:02x}");
        }
        let line = |text: String| HeaderValue::try_from(text).ok();
        Some(Self {
            subject: subject(certificate.subject()).and_then(line),
            san: alternatives(&certificate).and_then(line),
            fingerprint: line(fingerprint)?,
        })
    }
}

/// End of a certificate's life in seconds since 1970; 0 if it can not be read.
pub(super) fn not_after(leaf: &CertificateDer<'_>) -> i64 {
    X509Certificate::from_der(leaf).map_or(0, |(_, certificate)| certificate.validity().not_after.timestamp())
}

/// RFC 4514, 2.1: the parts from the last to the first.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut out = String::new();
    let parts: Vec<_> = name.iter().collect();
    for part in parts.iter().rev() {
        if !out.is_empty() {
            out.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                out.push('+');
            }
            let kind = attribute.attr_type().to_id_string();
            let short = match kind.as_str() {
                "2.5.4.3" => "CN",
                "2.5.4.6" => "C",
                "2.5.4.7" => "L",
                "2.5.4.8" => "ST",
                "2.5.4.9" => "STREET",
                "2.5.4.10" => "O",
                "2.5.4.11" => "OU",
                "0.9.2342.19200300.100.1.25" => "DC",
                "0.9.2342.19200300.100.1.1" => "UID",
                other => other,
            };
            out.push_str(short);
            out.push('=');
            match attribute.as_str() {
                Ok(text) => value(&mut out, text),
                // RFC 4514, 2.4: what is no text stands as the digits of its bytes.
                Err(_) => {
                    out.push('#');
                    for byte in attribute.as_slice() {
                        let _ = write!(out, "{byte:02x}");
                    }
                }
            }
        }
    }
    (!out.is_empty() && out.len() <= MOST).then_some(out)
}

/// RFC 4514, 2.4. All that is not printable ASCII stands as backslash and digits, which it allows.
fn value(out: &mut String, text: &str) {
    let last = text.len().saturating_sub(1);
    for (index, byte) in text.bytes().enumerate() {
        let edge = (index == 0 && matches!(byte, b' ' | b'#')) || (index == last && byte == b' ');
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e if !edge => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
}

fn alternatives(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut out = String::new();
    let names = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
    for name in names.flatten() {
        let mut one = String::new();
        match name {
            GeneralName::DNSName(name) => escape(&mut one, "DNS:", name, true),
            GeneralName::URI(uri) => escape(&mut one, "URI:", uri, false),
            GeneralName::RFC822Name(mail) => escape(&mut one, "email:", mail, true),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(|ip| Ipv4Addr::from(ip).to_string());
                let v6 = <[u8; 16]>::try_from(*bytes).map(|ip| Ipv6Addr::from(ip).to_string());
                let Ok(ip) = v4.or(v6) else { continue };
                one = format!("IP:{ip}");
            }
            _ => continue,
        }
        if out.len() + one.len() + 2 > MOST {
            continue;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(&one);
    }
    (!out.is_empty()).then_some(out)
}

fn escape(out: &mut String, kind: &str, text: &str, percent: bool) {
    out.push_str(kind);
    for byte in text.bytes() {
        match byte {
            b'%' if !percent => out.push('%'),
            b'%' | b',' | b'"' | b'\\' => {
                let _ = write!(out, "%{byte:02X}");
            }
            0x21..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn identity(change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity::of(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn names_are_one_line_and_none_passes_for_two() {
        let told = identity(|params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "AT");
            name.push(DnType::OrganizationName, "A, B+C=\"D\"\r\nX-Evil: 1");
            name.push(DnType::CommonName, " caf\u{e9}#");
            params.subject_alt_names = vec![
                SanType::DnsName("a.example".try_into().unwrap()),
                SanType::URI("spiffe://b/c,DNS:evil%2c".try_into().unwrap()),
                SanType::Rfc822Name("d e@f".try_into().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
            ];
        });
        assert_eq!(
            told.subject.unwrap().to_str().unwrap(),
            "CN=\\20caf\\C3\\A9#,O=A\\, B\\+C=\\\"D\\\"\\0D\\0AX-Evil: 1,C=AT"
        );
        assert_eq!(
            told.san.unwrap().to_str().unwrap(),
            "DNS:a.example, URI:spiffe://b/c%2CDNS:evil%2c, email:d%20e@f, IP:2001:db8::1"
        );
        assert_eq!(told.fingerprint.len(), 64);
    }

    #[test]
    fn what_is_too_long_is_left_out_whole() {
        let told = identity(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "x".repeat(MOST));
            params.subject_alt_names = ["y".repeat(MOST), "z".to_owned()]
                .map(|uri| SanType::URI(uri.try_into().unwrap()))
                .into();
        });
        assert_eq!(told.subject, None);
        assert_eq!(told.san.unwrap(), "URI:z");
    }

    #[test]
    fn the_end_of_life_is_read() {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(not_after(made.der()), 1_924_992_000);
        assert_eq!(not_after(&CertificateDer::from(vec![1, 2, 3])), 0);
    }
}
