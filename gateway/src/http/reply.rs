//! What the client gets of an upstream's answer: its header made fit, what follows it, and how that is coded. None of it waits.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, response};

use super::coding::encode::Encoder;
use super::coding::{self, Accepted};
use super::held::HeldBytes;
use super::prepare::Facts;
use super::reject::Reject;
use super::service::dress;
use super::site::Route;
use super::{headers, websocket};
use crate::config::model::StatusMap;

/// What comes behind an upstream's header.
pub(super) enum Follows {
    Body,
    /// Nothing, whatever the upstream sends.
    Nothing,
    /// Another protocol, on the connection.
    Tunnel,
    /// The same, on a stream of HTTP/2 that asked for it.
    Stream,
    /// Such a stream asked for it, and the upstream does not say that it has understood.
    Nonsense,
}

/// Makes an upstream's header what the client gets. `key` is there if a stream of HTTP/2 asked for another protocol with it.
pub(super) fn pass(
    head: &mut response::Parts,
    route: &Route,
    facts: &Facts,
    cookie: Option<HeaderValue>,
    key: Option<&HeaderValue>,
) -> Follows {
    let upgrade = headers::prepare_response(head, &facts.id);
    let mapped = !route.model.status.0.is_empty() && map_status(&route.model.status, head);
    let bodiless = mapped || head.status == StatusCode::RESET_CONTENT;
    if bodiless {
        without_body(&mut head.headers);
    }
    route.chain.respond(&facts.exchange, &mut head.headers);
    if let Some(cookie) = cookie {
        head.headers.append(SET_COOKIE, cookie);
    }
    dress(route, facts, &mut head.headers);
    match (upgrade, key) {
        (Some(_), Some(key)) if websocket::opens(head, key) => Follows::Stream,
        (Some(_), Some(_)) => Follows::Nonsense,
        // To a stream that asked for another protocol, any success says that it is spoken from here on.
        (None, Some(_)) if head.status.is_success() => Follows::Nonsense,
        (Some(protocol), None) => {
            headers::switch(&mut head.headers, protocol);
            Follows::Tunnel
        }
        (None, _) if bodiless => Follows::Nothing,
        (None, _) => Follows::Body,
    }
}

/// Gives an answer the status that the route says. Whether there is no body with that one, whatever the upstream sends.
fn map_status(map: &StatusMap, head: &mut response::Parts) -> bool {
    let status = map.of(head.status);
    if status == head.status {
        return false;
    }
    head.status = status;
    status == StatusCode::NO_CONTENT
}

/// Takes out what tells of a body. A 205 has none, though its framing can say so, and one that is sent all the same is not
/// passed on (RFC 9110, 15.3.6).
fn without_body(headers: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, ETAG] {
        headers.remove(name);
    }
}

/// What codes the upstream's answer, if the route does so and the answer and the client are fit for it.
pub(super) fn encoder(
    route: &Route,
    accepted: Option<Accepted>,
    head: &mut response::Parts,
) -> std::io::Result<Option<Encoder>> {
    let (Some(policy), Some(accepted)) = (&route.compress, accepted) else {
        return Ok(None);
    };
    let coding = coding::choose(policy, &accepted, head.status, &mut head.headers);
    coding.map(Encoder::new).transpose()
}

/// A whole body, coded as [`encoder`] says, and its length.
pub(super) fn coded(
    route: &Route,
    accepted: Option<Accepted>,
    head: &mut response::Parts,
    body: HeldBytes,
) -> Result<Bytes, Reject> {
    let body = match encoder(route, accepted, head).map_err(|_| Reject::Internal)? {
        None => body,
        Some(encoder) => {
            let coded = encoder.whole(body.bytes()).map_err(|_| Reject::Internal)?;
            body.replace(coded).ok_or(Reject::Overloaded)?
        }
    };
    let body = body.into_bytes();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(body)
}
