//! `Content-Digest` (RFC 9530): what a body must be, and holding one until it is known to be that. Pure but for the reading.

use std::net::IpAddr;

use aws_lc_rs::digest::{self, SHA256, SHA512};
use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};
use subtle::ConstantTimeEq as _;

use super::body::{Progress, RequestBody};
use super::filter::auth::Once;
use super::headers::joined;
use super::held::Held;
use super::reject::Reject;
use super::shape::Ended;
use super::shape::gather::collect;

pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// What must hold of a signed request besides its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `None`: nothing that is signed speaks of a body, and there may be none.
    pub digest: Option<Digest>,
    /// Longest body that is held, in bytes; `None`: bodies are not looked at.
    pub most: Option<u64>,
    /// To be used up when all else was found good.
    pub once: Vec<Once>,
}

impl Expected {
    /// What must hold where both must.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.once.extend(other.once);
        let (digest, most) = match (self.most, other.most) {
            (None, most) => (other.digest, most),
            (most, None) => (self.digest, most),
            // Both speak of the same line; a body that one does not speak of may not be there.
            (Some(a), Some(b)) => (self.digest.and(other.digest), Some(a.min(b))),
        };
        Self {
            digest,
            most,
            once: self.once,
        }
    }

    /// Uses the nonces up, at the second `now`.
    ///
    /// # Errors
    /// As [`Once::take`].
    pub fn take_nonces(&self, now: u64) -> Result<(), Reject> {
        self.once.iter().try_for_each(|once| once.take(now))
    }
}

/// Hashes that one body has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

impl Digest {
    /// What a header says; `None` if it says nothing that can be held against a body. Algorithms that are not known, or not
    /// safe, say nothing.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let line = joined(headers, &CONTENT_DIGEST)?;
        let told: Dictionary = Parser::new(&*line).parse().ok()?;
        let of = |name: &str| match told.get(name) {
            None => Some(None),
            Some(ListEntry::Item(item)) => match &item.bare_item {
                BareItem::ByteSequence(bytes) => Some(Some(bytes.clone())),
                _ => None,
            },
            Some(ListEntry::InnerList(_)) => None,
        };
        let digest = Self {
            sha256: of("sha-256")?,
            sha512: of("sha-512")?,
        };
        (digest != Self::default()).then_some(digest)
    }

    /// Whether a body has all of these.
    #[must_use]
    pub fn is_of(&self, body: &[u8]) -> bool {
        let fits = |wanted: &Option<Vec<u8>>, algorithm| {
            wanted
                .as_ref()
                .is_none_or(|wanted| digest::digest(algorithm, body).as_ref().ct_eq(wanted).into())
        };
        fits(&self.sha256, &SHA256) && fits(&self.sha512, &SHA512)
    }
}

/// Reads a body to its end, and lets it go on if it is what was signed.
pub(super) async fn hold(
    expected: &Expected,
    body: RequestBody,
    progress: Option<&Progress>,
    client: IpAddr,
) -> Result<RequestBody, Ended> {
    use http_body::Body as _;
    let Some(most) = expected.most else {
        return Ok(body);
    };
    if body.is_end_stream() {
        return match &expected.digest {
            Some(digest) if !digest.is_of(b"") => Err(Ended::Reject(Reject::CredentialsInvalid)),
            _ => Ok(body),
        };
    }
    let Some(digest) = &expected.digest else {
        tracing::debug!("a body comes with a signature that does not speak of one");
        return Err(Ended::Reject(Reject::CredentialsInvalid));
    };
    let held = collect(body, progress, most, Held::of(client)).await?;
    if digest.is_of(held.bytes()) {
        return Ok(RequestBody::Whole(Some(held.into_bytes())));
    }
    tracing::debug!("a body is not the one that was signed");
    Err(Ended::Reject(Reject::CredentialsInvalid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&'static str]) -> Option<Digest> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_DIGEST, line.parse().expect("a value"));
        }
        Digest::read(&headers)
    }

    #[test]
    fn what_two_signatures_ask_for_is_asked_for_together() {
        let of = |(digest, most): (bool, _)| Expected {
            digest: digest.then(Digest::default),
            most,
            once: Vec::new(),
        };
        for (a, b, both) in [
            ((true, Some(9)), (true, Some(5)), (true, Some(5))),
            ((true, Some(9)), (false, Some(9)), (false, Some(9))),
            ((false, Some(9)), (true, Some(9)), (false, Some(9))),
            ((false, None), (true, Some(9)), (true, Some(9))),
            ((true, Some(9)), (false, None), (true, Some(9))),
            ((false, None), (false, None), (false, None)),
        ] {
            assert_eq!(of(a).and(of(b)), of(both), "{a:?} {b:?}");
        }
    }

    /// RFC 9421, B.2, and RFC 9530, B.
    #[test]
    fn a_body_is_what_its_digest_says_or_is_not() {
        let body = br#"{"hello": "world"}"#;
        let (long, short) = (
            "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
        );
        for lines in [&[long][..], &[short], &[long, short], &["md5=:AA==:", short]] {
            let digest = read(lines).expect("a digest");
            assert!(
                digest.is_of(body) && !digest.is_of(b"") && !digest.is_of(&body[1..]),
                "{lines:?}"
            );
        }
        let wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert!(
            !read(&[long, wrong]).expect("a digest").is_of(body),
            "both must be right"
        );
        assert!(read(&[wrong]).expect("a digest").is_of(b""));
        assert!(!read(&["sha-256=:AA==:"]).expect("a digest").is_of(body));
        for nothing in [
            &[][..],
            &["md5=:AA==:"],
            &["sha-256=1"],
            &["sha-256"],
            &["sha-256=(:AA==:)"],
            &["?"],
            &[""],
        ] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
    }
}
