//! Which host a request is for: exactly one, in one form, or none.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Version};

/// The request names no host, several, or something that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request must name exactly one valid host")]
pub struct NoHost;

/// The one authority of a request, as the client wrote it, fit to be sent on as `Host`.
///
/// HTTP/1 must have one `Host` line (RFC 9112, 3.2), HTTP/2 an `:authority` (RFC 9113, 8.3.1) or a `Host`. Where a
/// target in absolute form stands next to a `Host`, the two must agree: whichever one of them we chose, somebody
/// behind us might choose the other.
pub fn authority(head: &Parts) -> Result<HeaderValue, NoHost> {
    let mut lines = head.headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() || (line.is_none() && head.version <= Version::HTTP_11) {
        return Err(NoHost);
    }
    match (head.uri.authority(), line) {
        (Some(target), Some(line)) if !line.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()) => {
            Err(NoHost)
        }
        (_, Some(line)) => Ok(line.clone()),
        (Some(target), None) => HeaderValue::from_str(target.as_str()).map_err(|_| NoHost),
        (None, None) => Err(NoHost),
    }
}

/// Whether the scheme that a target names is one that is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It is, or none is named.
    Fits,
    /// `https` in cleartext: an answer would vouch for what no certificate does (RFC 9110, 4.2.2 and 7.4).
    OtherConnection,
    /// Neither `http` nor `https`.
    Foreign,
}

/// The scheme of a target in absolute form, or that of HTTP/2. What names `http` inside TLS is served as what it came by:
/// nothing that it asks for is missing.
#[must_use]
pub fn scheme(head: &Parts, secure: bool) -> Named {
    match head.uri.scheme_str() {
        None | Some("http") => Named::Fits,
        Some("https") if secure => Named::Fits,
        Some("https") => Named::OtherConnection,
        Some(_) => Named::Foreign,
    }
}

/// The host of an authority in the form routes are written in: lower case, no port, no trailing dot.
pub fn name(authority: &str) -> Result<Cow<'_, str>, NoHost> {
    let host = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(NoHost)?;
        let (host, port) = authority.split_at(end + 1);
        host[1..end].parse::<std::net::Ipv6Addr>().map_err(|_| NoHost)?;
        check_port(port)?;
        host
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        check_port(port)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.is_empty()
            || host.len() > 253
            || !host.bytes().all(valid)
            || host.split('.').any(str::is_empty)
        {
            return Err(NoHost);
        }
        host
    };
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

/// `port` is empty or begins with its colon.
fn check_port(port: &str) -> Result<(), NoHost> {
    let Some(digits) = port.strip_prefix(':') else {
        return if port.is_empty() { Ok(()) } else { Err(NoHost) };
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    if plain && (digits.is_empty() || digits.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err(NoHost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_one_form() {
        for (authority, host) in [
            ("a.example", "a.example"),
            ("A.Example:8080", "a.example"),
            ("a.example.", "a.example"),
            ("a.example:", "a.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(name(authority).as_deref(), Ok(host), "{authority}");
        }
        for bad in [
            "", ".", "a..b", "a b", "a/b", "user@a", "a:b", "a:99999", "a:1:2", "[::1", "[::1]x", "[x]",
            "a\u{0}", "a,b", "a:+1", "ä",
        ] {
            assert_eq!(name(bad), Err(NoHost), "{bad:?}");
        }
    }

    fn parts(uri: &str, hosts: &[&str], version: Version) -> Parts {
        let mut builder = http::Request::builder().uri(uri).version(version);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_scheme_fits_the_connection_or_not() {
        let named = |uri, secure| scheme(&parts(uri, &[], Version::HTTP_11), secure);
        for (uri, plain, secure) in [
            ("/", Named::Fits, Named::Fits),
            ("http://a/", Named::Fits, Named::Fits),
            ("HTTPS://a/", Named::OtherConnection, Named::Fits),
            ("ftp://a/", Named::Foreign, Named::Foreign),
        ] {
            assert_eq!((named(uri, false), named(uri, true)), (plain, secure), "{uri}");
        }
    }

    #[test]
    fn target_and_host_must_agree() {
        let ok = |uri, hosts: &[&str], version| authority(&parts(uri, hosts, version)).is_ok();
        assert!(ok("/", &["a"], Version::HTTP_11));
        assert!(ok("http://a/", &["A"], Version::HTTP_11));
        assert!(ok("http://a/", &[], Version::HTTP_2));
        assert!(!ok("http://a/", &["b"], Version::HTTP_11));
        assert!(!ok("http://a/", &["b"], Version::HTTP_2));
        assert!(!ok("/", &[], Version::HTTP_11));
        assert!(!ok("/", &["a", "a"], Version::HTTP_11));
        assert!(!ok("/", &[], Version::HTTP_2));
    }
}
