//! The answer of a listener that sends everybody to HTTPS. Owns the address it names.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use super::reject::Reject;
use super::{headers, host, path};
use crate::config::model::{Limits, Paths};

/// The same URL with `https`, at `port`.
///
/// # Errors
/// Requests that are refused elsewhere are refused here: nobody is sent on with what is ambiguous.
pub(super) fn to_https(
    head: &Parts,
    port: u16,
    limits: &Limits,
    paths: Paths,
) -> Result<HeaderValue, Reject> {
    if !headers::plain_framing(&head.headers) {
        return Err(Reject::Malformed);
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Reject::NotSupported);
    }
    let query = head.uri.query();
    if head.uri.path().len() + query.map_or(0, |query| query.len() + 1) > limits.uri_bytes as usize {
        return Err(Reject::UriTooLong);
    }
    if host::scheme(head, false) == host::Named::Foreign {
        return Err(Reject::Malformed);
    }
    let authority = host::authority(head).map_err(|_| Reject::BadHost)?;
    let host = host::name(authority.to_str().map_err(|_| Reject::BadHost)?).map_err(|_| Reject::BadHost)?;
    let path = path::canonical(head.uri.path(), paths).map_err(|_| Reject::BadPath)?;
    let mut location = format!("https://{host}");
    if port != 443 {
        let _ = write!(location, ":{port}");
    }
    location.push_str(&path);
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    // Fails for control bytes in the query, which are refused on a route, too.
    HeaderValue::try_from(location).map_err(|_| Reject::BadPath)
}

/// 308, so that the method stays (RFC 9110, 15.4.9).
pub(super) fn answer(location: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(uri: &str, host: &str, port: u16) -> Result<String, Reject> {
        let request = http::Request::get(uri).header("host", host).body(()).unwrap();
        let limits = crate::config::defaults::limits();
        let location = to_https(&request.into_parts().0, port, &limits, Paths::default())?;
        Ok(location.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_url_stays_and_the_port_is_the_listener_s() {
        for (uri, host, port, expected) in [
            ("/", "a.example", 443, "https://a.example/"),
            ("/x?y=z&q", "A.example:80", 443, "https://a.example/x?y=z&q"),
            ("/x/../%41", "a.example:8080", 8443, "https://a.example:8443/A"),
            ("/", "[::1]:80", 443, "https://[::1]/"),
            (
                "//evil.example/",
                "a.example",
                443,
                "https://a.example/evil.example/",
            ),
        ] {
            assert_eq!(location(uri, host, port).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn nobody_is_sent_on_with_what_is_ambiguous() {
        assert_eq!(location("/", "a@evil.example", 443), Err(Reject::BadHost));
        assert_eq!(location("/", "", 443), Err(Reject::BadHost));
        assert_eq!(location("/%2f", "a.example", 443), Err(Reject::BadPath));
        assert_eq!(location("ftp://a/", "a", 443), Err(Reject::Malformed));
    }
}
