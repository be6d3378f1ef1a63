//! Keys that tokens and signatures are verified by, as they are written: PEM, JWK (RFC 7517) and plain secrets. A part of
//! the model, which hands it on.
//!
//! Owns their forms and which algorithm goes with which kind of key: that is decided by the key, never by a token. Pure; a
//! key set from the network is read here, too.

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::Value;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

/// Most keys of one set.
pub const MOST_KEYS: usize = 128;
/// Longest part of a key, in bytes: that of an RSA key of 8192 bits.
const MOST_PART: usize = 1_024;
/// Longest secret, in bytes.
const MOST_SECRET: usize = 4_096;

/// How a token is signed (RFC 7518, 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By its registered name, letter by letter. There is no `none`.
    pub const ALL: [(&'static str, Self); 14] = [
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("EdDSA", Self::EdDsa),
        // RFC 9864 gives the one curve that is served a name of its own.
        ("Ed25519", Self::EdDsa),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(own, _)| *own == name).map(|(_, algorithm)| *algorithm)
    }

    /// The kind of key that it needs.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => Kind::Secret,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => Kind::Rsa,
            Self::Es256 => Kind::P256,
            Self::Es384 => Kind::P384,
            Self::Es512 => Kind::P521,
            Self::EdDsa => Kind::Ed25519,
        }
    }

    /// What verifies it; `None` for those with a shared secret.
    #[must_use]
    pub fn verifier(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => return None,
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::EdDsa => &signature::ED25519,
        })
    }

    /// Shortest secret, in bytes: that of the hash (RFC 7518, 3.2).
    fn shortest_secret(self) -> usize {
        match self {
            Self::Hs384 => 48,
            Self::Hs512 => 64,
            _ => 32,
        }
    }
}

/// What sort of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifyKey {
    /// The name that tokens call it by.
    pub id: Option<String>,
    pub kind: Kind,
    /// The one algorithm that it is for, if its owner says so.
    pub only: Option<Algorithm>,
    /// A secret; an RSA key as PKCS #1 writes it; a point, uncompressed; or 32 bytes of Ed25519.
    bytes: Vec<u8>,
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl VerifyKey {
    /// A secret that the issuer has, too.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn secret(bytes: Vec<u8>) -> Result<Self, String> {
        let shortest = Algorithm::Hs256.shortest_secret();
        if !(shortest..=MOST_SECRET).contains(&bytes.len()) {
            return Err(format!(
                "a secret has {shortest} to {MOST_SECRET} bytes, and this has {} (RFC 7518, 3.2)",
                bytes.len()
            ));
        }
        Ok(Self {
            id: None,
            kind: Kind::Secret,
            only: None,
            bytes,
        })
    }

    /// The public keys, and those of certificates, in a text in PEM form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>) as PemObject>::pem_slice_iter(text.as_bytes()) {
            let (kind, der) = section.map_err(|_| "it is not PEM".to_owned())?;
            let key = match kind {
                SectionKind::PublicKey => {
                    let (rest, key) =
                        SubjectPublicKeyInfo::from_der(&der).map_err(|_| "a key in it can not be read")?;
                    if !rest.is_empty() {
                        return Err("something stands behind a key in it".to_owned());
                    }
                    Self::from_spki(&key)?
                }
                SectionKind::Certificate => {
                    let (_, certificate) =
                        X509Certificate::from_der(&der).map_err(|_| "a certificate in it can not be read")?;
                    Self::from_spki(certificate.public_key())?
                }
                _ => return Err("it holds something other than public keys and certificates".to_owned()),
            };
            keys.push(key);
            if keys.len() > MOST_KEYS {
                return Err(format!("it holds more than {MOST_KEYS} keys"));
            }
        }
        if keys.is_empty() {
            return Err("it holds no public key (BEGIN PUBLIC KEY) and no certificate".to_owned());
        }
        Ok(keys)
    }

    fn from_spki(key: &SubjectPublicKeyInfo<'_>) -> Result<Self, String> {
        let curve = || {
            let parameters = key.algorithm.parameters.as_ref()?;
            parameters.as_oid().ok().map(|oid| oid.to_id_string())
        };
        let kind = match key.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Kind::Rsa,
            "1.3.101.112" => Kind::Ed25519,
            "1.2.840.10045.2.1" => match curve().as_deref() {
                Some("1.2.840.10045.3.1.7") => Kind::P256,
                Some("1.3.132.0.34") => Kind::P384,
                Some("1.3.132.0.35") => Kind::P521,
                _ => return Err("it has a curve other than P-256, P-384 and P-521".to_owned()),
            },
            _ => return Err("it is neither RSA, nor ECDSA, nor Ed25519".to_owned()),
        };
        Self::public(kind, key.subject_public_key.data.to_vec())
    }

    /// Refuses what the cryptography would refuse.
    fn public(kind: Kind, bytes: Vec<u8>) -> Result<Self, String> {
        let key = Self {
            id: None,
            kind,
            only: None,
            bytes,
        };
        let any = match kind {
            Kind::Rsa => Algorithm::Rs256,
            Kind::P256 => Algorithm::Es256,
            Kind::P384 => Algorithm::Es384,
            Kind::P521 => Algorithm::Es512,
            Kind::Ed25519 | Kind::Secret => Algorithm::EdDsa,
        };
        match key.parsed(any) {
            Some(_) => Ok(key),
            None if kind == Kind::Rsa => Err("it is no good RSA key of 2048 to 8192 bits".to_owned()),
            None => Err("it is no good public key".to_owned()),
        }
    }

    /// A JSON Web Key for signatures (RFC 7517, 4).
    ///
    /// # Errors
    /// Why it can not be used; many sets hold keys that are for something else.
    pub fn from_jwk(jwk: &Value) -> Result<Self, String> {
        let text = |name: &str| match jwk.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("its {name} is not text")),
        };
        if text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err("it is not for signatures".to_owned());
        }
        if let Some(purposes) = jwk.get("key_ops") {
            let verifies = |purposes: &Vec<Value>| purposes.iter().any(|purpose| purpose == "verify");
            if !purposes.as_array().is_some_and(verifies) {
                return Err("it is not for verifying".to_owned());
            }
        }
        let part = |name: &str| {
            let text = text(name)?.ok_or_else(|| format!("it has no {name}"))?;
            let bytes = URL_SAFE_NO_PAD
                .decode(text)
                .ok()
                .filter(|bytes| bytes.len() <= MOST_SECRET);
            bytes.ok_or_else(|| format!("its {name} is not base64url, or too long"))
        };
        let point = |kind, length: usize| {
            let (x, y) = (part("x")?, part("y")?);
            if x.len() != length || y.len() != length {
                return Err("its point has the wrong length".to_owned());
            }
            Self::public(kind, [vec![4], x, y].concat())
        };
        let curve = text("crv")?;
        let mut key = match (text("kty")?, curve) {
            (Some("RSA"), _) => {
                let (n, e) = (part("n")?, part("e")?);
                if n.len() > MOST_PART || e.len() > 8 {
                    return Err("it is too long".to_owned());
                }
                Self::public(Kind::Rsa, pkcs1(&n, &e))
            }
            (Some("EC"), Some("P-256")) => point(Kind::P256, 32),
            (Some("EC"), Some("P-384")) => point(Kind::P384, 48),
            (Some("EC"), Some("P-521")) => point(Kind::P521, 66),
            (Some("OKP"), Some("Ed25519")) => Self::public(Kind::Ed25519, part("x")?),
            (Some("oct"), _) => Self::secret(part("k")?),
            _ => Err("it is of a kind that is not served".to_owned()),
        }?;
        key.id = text("kid")?.map(str::to_owned);
        key.only = match text("alg")? {
            None => None,
            Some(name) => match Algorithm::named(name).filter(|algorithm| algorithm.kind() == key.kind) {
                Some(algorithm) => Some(algorithm),
                None => return Err("its alg does not go with it".to_owned()),
            },
        };
        Ok(key)
    }

    /// Whether it can verify what is signed so.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind == algorithm.kind()
            && self.only.is_none_or(|only| only == algorithm)
            && (self.kind != Kind::Secret || self.bytes.len() >= algorithm.shortest_secret())
    }

    /// Made ready to verify; `None` for a secret, and for what is no key of that kind.
    #[must_use]
    pub fn parsed(&self, algorithm: Algorithm) -> Option<ParsedPublicKey> {
        ParsedPublicKey::new(algorithm.verifier()?, &self.bytes).ok()
    }

    /// The bytes of a secret.
    #[must_use]
    pub fn secret_bytes(&self) -> Option<&[u8]> {
        (self.kind == Kind::Secret).then_some(&self.bytes)
    }
}

/// A set of keys (RFC 7517, 5): those that can be used, and why the others can not. Secrets are only taken if `secrets`.
///
/// # Errors
/// The text is no such set.
pub fn key_set(text: &[u8], secrets: bool) -> Result<(Vec<VerifyKey>, Vec<String>), String> {
    let set: Value = serde_json::from_slice(text).map_err(|_| "it is not JSON".to_owned())?;
    let listed = set.get("keys").and_then(Value::as_array);
    let listed = listed.ok_or("it has no list named keys")?;
    if listed.len() > MOST_KEYS {
        return Err(format!("it holds more than {MOST_KEYS} keys"));
    }
    let (mut keys, mut left_out) = (Vec::new(), Vec::new());
    for (at, jwk) in listed.iter().enumerate() {
        match VerifyKey::from_jwk(jwk) {
            Ok(key) if key.kind == Kind::Secret && !secrets => {
                left_out.push(format!("key {at}: it is a secret, which everyone can read there"));
            }
            Ok(key) => keys.push(key),
            Err(reason) => left_out.push(format!("key {at}: {reason}")),
        }
    }
    Ok((keys, left_out))
}

/// `RSAPublicKey` of RFC 8017, A.1.1, in DER.
fn pkcs1(n: &[u8], e: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let mut own = bytes.get(zeros..).unwrap_or_default().to_vec();
        if own.first().is_none_or(|first| *first >= 0x80) {
            own.insert(0, 0);
        }
        tagged(2, &own)
    };
    tagged(0x30, &[number(n), number(e)].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let used = length.iter().position(|byte| *byte != 0).unwrap_or(3);
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | u8::try_from(4 - used).unwrap_or(4));
    }
    out.extend(length.iter().skip(used));
    out.extend(content);
    out
}
