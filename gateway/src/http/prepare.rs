//! Everything between a request's header and its upstream that needs no waiting: who asks, what for, by which route, and
//! whether it may.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, Version};

use super::body::Incoming;
use super::client::Client;
use super::filter::{Admitted, Exchange};
use super::reject::Reject;
use super::service::Conn;
use super::site::{Route, Site};
use super::{headers, host, path};
use crate::http1::Upgrade;

/// What is known of a request while it is served.
pub(super) struct Facts {
    pub(super) client: Client,
    pub(super) id: HeaderValue,
    pub(super) route: Option<Arc<Route>>,
    /// The canonical path, once there is one and if it is not the one sent.
    pub(super) path: Option<String>,
}

/// Who asks, and under which id.
pub(super) fn identify(conn: &Conn, site: &Site, head: &Parts) -> Facts {
    let mut client = conn.caller;
    let mut id = None;
    if !site.trusted_proxies.is_empty() && site.trusts(conn.caller.effective()) {
        let named = headers::forwarded_for(&head.headers, |ip| site.trusts(ip));
        client.forwarded = named.or(client.forwarded);
        id = head
            .headers
            .get(&headers::REQUEST_ID)
            .filter(|id| is_request_id(id))
            .cloned();
    }
    Facts {
        client,
        id: id.unwrap_or_else(|| conn.worker.request_id()),
        route: None,
        path: None,
    }
}

/// Finds the route of a request, makes its header fit for the upstream, and runs it through the policy.
pub(super) fn prepare(
    conn: &Conn,
    site: &Site,
    facts: &mut Facts,
    head: &mut Parts,
    body: &Incoming,
) -> Result<(Admitted, Arc<Route>), Reject> {
    if facts
        .client
        .forwarded
        .is_some_and(|client| !conn.worker.watch.admits_forwarded(client))
    {
        return Err(Reject::Blocked);
    }
    // Of HTTP/1, the connection has made sure.
    if head.version == Version::HTTP_2 && !headers::plain_framing(&head.headers) {
        return Err(Reject::Malformed);
    }
    // TRACE would echo what the gateway adds; nobody needs it through a gateway.
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Reject::NotSupported);
    }
    if head.headers.len() > site.limits.header_count as usize {
        return Err(Reject::HeaderTooLarge);
    }
    let length = head.uri.path().len() + head.uri.query().map_or(0, |query| query.len() + 1);
    if length > site.limits.uri_bytes as usize {
        return Err(Reject::UriTooLong);
    }
    let authority = host::authority(head).map_err(|_| Reject::BadHost)?;
    let host = host::name(authority.to_str().map_err(|_| Reject::BadHost)?).map_err(|_| Reject::BadHost)?;
    if head
        .uri
        .query()
        .is_some_and(|query| query.bytes().any(|b| b < 0x20 || b == 0x7f))
    {
        return Err(Reject::BadPath);
    }
    if conn.secure.as_ref().is_some_and(|secure| !secure.covers(&host)) {
        return Err(Reject::Misdirected);
    }
    let route = {
        let path = path::canonical(head.uri.path()).map_err(|_| Reject::BadPath)?;
        let route = site.router.find(&host, &path).map(Arc::clone);
        if let std::borrow::Cow::Owned(path) = path {
            facts.path = Some(path);
        }
        route.ok_or(Reject::NoRoute)?
    };
    facts.route = Some(Arc::clone(&route));
    head.uri = origin_form(std::mem::take(&mut head.uri), facts.path.as_deref())?;
    let trusted = !site.trusted_proxies.is_empty() && site.trusts(conn.caller.effective());
    let outward = headers::Outward {
        host: &authority,
        request_id: &facts.id,
        socket: &conn.peer,
        effective: facts.client.effective(),
        tls: conn.secure.is_some(),
        trusted,
        identity: conn.secure.as_ref().and_then(|secure| secure.identity.as_ref()),
    };
    let websocket = body.is_end_stream() && headers::wants_websocket(head);
    headers::prepare_request(&mut head.headers, head.version, &outward);
    let admitted = route.chain.admit(&mut Exchange::default(), head)?;
    if let (Some(cap), Some(length)) = (route.body_bytes, body.size_hint().exact())
        && length > cap
    {
        return Err(Reject::BodyTooLarge);
    }
    head.version = Version::HTTP_11;
    head.extensions.clear();
    if websocket {
        headers::switch(&mut head.headers, HeaderValue::from_static("websocket"));
        head.extensions.insert(Upgrade);
    }
    Ok((admitted, route))
}

/// The target as the upstream is asked: path and query, with the canonical path.
fn origin_form(uri: Uri, canonical: Option<&str>) -> Result<Uri, Reject> {
    let target = match canonical {
        None if uri.authority().is_none() => return Ok(uri),
        None => uri
            .into_parts()
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
        Some(path) => {
            let target = match uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            };
            PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| Reject::BadPath)?
        }
    };
    Ok(Uri::from(target))
}

/// Ids of others are taken over only in a form that is safe everywhere it goes: log, header, JSON.
fn is_request_id(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&id.len()) && id.iter().all(plain)
}
