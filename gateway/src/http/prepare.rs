//! What is done with a request's header around the policy, none of which waits: who asks, what for and by which route
//! before it; the form that the upstream gets after it.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri, Version};

use super::body::Incoming;
use super::cors::{self, Granted};
use super::filter::Exchange;
use super::forwarded::{self, Told};
use super::host::Named;
use super::reject::{Form, Reject};
use super::router::Ask;
use super::service::Conn;
use super::site::{Route, Site};
use super::template::Source;
use super::websocket::{self, Opening};
use super::{coding, headers, host, path, rewrite};
use crate::config::model::{Coding, HostRewrite, Paths};
use crate::http1::Upgrade;
use crate::net::fields::has_outer_blanks;

/// What is known of a request while it is served.
pub(super) struct Facts {
    /// What the policy knows and has learnt.
    pub(super) exchange: Exchange,
    pub(super) id: HeaderValue,
    /// In which form a refusal is told.
    pub(super) form: Form,
    pub(super) route: Option<Arc<Route>>,
    /// The canonical path, once there is one and if it is not the one sent.
    pub(super) path: Option<String>,
    /// What the socket's owner says of the request, if it is a trusted proxy.
    pub(super) told: Option<Told>,
    /// What the route's `cors` grants the request's origin.
    pub(super) granted: Option<Granted>,
    /// How the body is to be made plain, and the cap in bytes on what it becomes.
    pub(super) decode: Option<(Coding, u64)>,
    /// For a path that is served with other methods: which.
    pub(super) allow: Option<HeaderValue>,
}

/// Where a request is to go.
pub(super) struct Found {
    pub(super) route: Arc<Route>,
    /// It is one that the route's `cors` answers, before anybody is asked for credentials.
    pub(super) preflight: bool,
    pub(super) websocket: bool,
}

/// Who asks, and under which id.
pub(super) fn identify(conn: &Conn, site: &Site, head: &Parts) -> Facts {
    let mut client = conn.caller;
    let (mut id, mut told) = (None, None);
    if !site.trusted_proxies.is_empty() && site.trusts(conn.caller.effective()) {
        let said = forwarded::told(&head.headers, site.forwarding_header, |ip| site.trusts(ip));
        client.forwarded = said.client().or(client.forwarded);
        told = Some(said);
        id = head
            .headers
            .get(&headers::REQUEST_ID)
            .filter(|id| is_request_id(id))
            .cloned();
    }
    Facts {
        exchange: Exchange::new(client),
        id: id.unwrap_or_else(|| conn.worker.request_id()),
        form: Form::of(&head.headers),
        route: None,
        path: None,
        told,
        granted: None,
        decode: None,
        allow: None,
    }
}

/// Finds the route of a request, and takes from its header whatever is not the client's to say.
pub(super) fn prepare(
    conn: &Conn,
    site: &Site,
    facts: &mut Facts,
    head: &mut Parts,
    body: &Incoming,
) -> Result<Found, Reject> {
    if facts
        .exchange
        .client
        .forwarded
        .is_some_and(|client| !conn.worker.watch.admits_forwarded(client))
    {
        return Err(Reject::Blocked);
    }
    // Of HTTP/1, the connection has made sure.
    if head.version == Version::HTTP_2
        && (!headers::plain_framing(&head.headers) || has_outer_blanks(&head.headers))
    {
        return Err(Reject::Malformed);
    }
    // TRACE would echo what the gateway adds; nobody needs it through a gateway. CONNECT names whom to connect to, which here
    // is never the client's to say.
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
    match host::scheme(head, conn.secure.is_some()) {
        Named::Fits => {}
        Named::Foreign => return Err(Reject::Malformed),
        // A trusted proxy has ended TLS in front of us.
        Named::OtherConnection if site.trusts(conn.caller.socket.ip()) => {}
        Named::OtherConnection => return Err(Reject::Misdirected),
    }
    if conn.secure.as_ref().is_some_and(|secure| !secure.covers(&host)) {
        return Err(Reject::Misdirected);
    }
    let (route, preflight) = {
        let path =
            path::canonical(head.uri.path(), site.paths_at(&conn.door)).map_err(|_| Reject::BadPath)?;
        let found = find(site, &host, &path, head);
        let allow = found.is_none().then(|| allowed(site, &host, &path, head));
        if let std::borrow::Cow::Owned(path) = path {
            facts.path = Some(path);
        }
        facts.allow = allow.flatten();
        match (found, &facts.allow) {
            (Some(found), _) => found,
            (None, Some(_)) => return Err(Reject::MethodNotAllowed),
            (None, None) => return Err(Reject::NoRoute),
        }
    };
    facts.route = Some(Arc::clone(&route));
    facts.granted = route.cors.as_ref().map(|cors| cors.judge(&head.headers));
    if preflight {
        return Ok(Found {
            route,
            preflight,
            websocket: false,
        });
    }
    head.uri = origin_form(std::mem::take(&mut head.uri), facts.path.as_deref())?;
    let outward = headers::Outward {
        host: &authority,
        request_id: &facts.id,
        socket: &conn.peer,
        socket_ip: conn.caller.effective(),
        tls: conn.secure.is_some(),
        identity: conn.secure.as_ref().and_then(|secure| secure.identity.as_ref()),
        forwarding: site.forwarding_header,
        told: facts.told.as_ref(),
    };
    let opens = head.extensions.get::<Opening>().is_some();
    let websocket = opens || body.is_end_stream() && headers::wants_websocket(head);
    headers::prepare_request(&mut head.headers, head.version, &outward).map_err(|_| Reject::LoopDetected)?;
    Ok(Found {
        route,
        preflight,
        websocket,
    })
}

/// Makes the header of a request that may pass what the upstream is to get. `paths` is the policy that it was routed by.
pub(super) fn finish(
    found: &Found,
    paths: Paths,
    facts: &mut Facts,
    head: &mut Parts,
    body: &Incoming,
) -> Result<(), Reject> {
    let route = &found.route;
    if let (Some(cap), Some(length)) = (route.body_bytes, body.size_hint().exact())
        && length > cap
    {
        return Err(Reject::BodyTooLarge);
    }
    if let Some(most) = route.decompress
        && !body.is_end_stream()
    {
        let coding = coding::of_request(&head.headers).map_err(|_| Reject::UnsupportedCoding)?;
        if let Some(coding) = coding {
            facts.decode = Some((coding, most));
            head.headers.remove(CONTENT_ENCODING);
            head.headers.remove(CONTENT_LENGTH);
            for name in coding::OF_THE_BYTES {
                head.headers.remove(name);
            }
        }
    }
    if let Some(rewrite) = &route.rewrite {
        let path = rewrite.apply(&Source::of(head), paths)?;
        head.uri = rewrite::with_path(&head.uri, &path)?;
    }
    if !route.model.query.is_empty() {
        let kept = facts.exchange.kept.as_ref().ok_or(Reject::Internal)?;
        head.uri = rewrite::with_query(&head.uri, &route.model.query, &kept.facts(&route.model.path))?;
    }
    if let HostRewrite::Name(host) = &route.model.rewrite.host {
        head.headers.insert(HOST, host.clone());
    }
    head.version = Version::HTTP_11;
    let opens = head.extensions.remove::<Opening>().is_some();
    head.extensions.clear();
    if found.websocket {
        if opens {
            websocket::ask(&mut head.headers).map_err(|_| Reject::Internal)?;
        }
        headers::switch(&mut head.headers, HeaderValue::from_static("websocket"));
        head.extensions.insert(Upgrade);
    }
    Ok(())
}

/// The route that takes a request, and whether the request is a preflight that its `cors` answers.
fn find(site: &Site, host: &str, path: &str, head: &Parts) -> Option<(Arc<Route>, bool)> {
    let ask = Ask {
        method: &head.method,
        headers: &head.headers,
        query: head.uri.query(),
        preflight: false,
    };
    if site.cors
        && let Some(method) = cors::asked(&head.method, &head.headers)
    {
        let asked = Ask {
            method: &method,
            preflight: true,
            ..ask
        };
        let found = site.router.find(host, path, &asked);
        if let Some(route) = found.filter(|route| route.cors.is_some()) {
            return Some((Arc::clone(route), true));
        }
    }
    let found = site.router.find(host, path, &ask)?;
    Some((Arc::clone(found), false))
}

/// `Allow` for a path that is served, but not with this method.
fn allowed(site: &Site, host: &str, path: &str, head: &Parts) -> Option<HeaderValue> {
    let ask = Ask {
        method: &head.method,
        headers: &head.headers,
        query: head.uri.query(),
        preflight: false,
    };
    let methods: Vec<_> = site
        .router
        .methods(host, path, &ask)
        .into_iter()
        .map(Method::as_str)
        .collect();
    if methods.is_empty() {
        return None;
    }
    HeaderValue::try_from(methods.join(", ")).ok()
}

/// The target as the upstream is asked: path and query, with the canonical path.
fn origin_form(uri: Uri, canonical: Option<&str>) -> Result<Uri, Reject> {
    let target = match canonical {
        None if uri.authority().is_none() => return Ok(uri),
        None => uri
            .into_parts()
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
        Some(path) => return rewrite::with_path(&uri, path),
    };
    Ok(Uri::from(target))
}

/// Ids of others are taken over only in a form that is safe everywhere it goes: log, header, JSON.
fn is_request_id(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&id.len()) && id.iter().all(plain)
}
