//! The walk of one request: facts, route, policy, upstream, and back.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{self, Fault, Progress, RequestBody, ResponseBody};
use super::budget::Budget;
use super::client::{Client, ClientAddr};
use super::filter::{Admitted, Exchange};
use super::reject::Reject;
use super::site::{Route, Site};
use super::wire::Seen;
use super::worker::Worker;
use super::{headers, host, path};
use crate::config::model::Limits;
use crate::telemetry::access_log;
use crate::upstream::{Deadlines, Failure, Sent};

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    pub(super) client: ClientAddr,
    /// The client's address as a header value, made once.
    pub(super) socket: HeaderValue,
    pub(super) tls: bool,
    pub(super) seen: Rc<Seen>,
    /// What its answers may hold in memory; under HTTP/1 there is one at a time.
    pub(super) budget: Option<Rc<Budget>>,
    /// Requests so far.
    pub(super) begun: Cell<u64>,
    /// Requests under way, and since when there is none.
    pub(super) active: Cell<u32>,
    pub(super) quiet_since: Cell<Instant>,
}

/// What is known of a request while it is served.
struct Facts {
    client: Client,
    id: HeaderValue,
    route: Option<Arc<Route>>,
    /// The canonical path, once there is one and if it is not the one sent.
    path: Option<String>,
}

/// Serves one request. Never fails: every refusal is an answer.
pub(super) async fn serve(
    conn: Rc<Conn>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    conn.seen.partial.set(false);
    conn.begun.set(conn.begun.get() + 1);
    conn.active.set(conn.active.get() + 1);
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let site = conn.worker.site();
    let log = (site.access_log && access_log::wanted()).then(|| Box::new(Line::of(&head)));
    let mut facts = identify(&conn, &site, &head);
    let prepared = match conn.seen.doomed.get() {
        // What was sent is not known; hyper has only seen what stands for it.
        Some((number, reject)) if number == conn.begun.get() => Err((reject, true)),
        _ => prepare(&conn, &site, &mut facts, &mut head, &body).map_err(|reject| (reject, false)),
    };
    let limits = site.limits;
    drop(site);
    let mut finish = Finish {
        conn: Rc::clone(&conn),
        client: facts.client,
        route: facts.route.clone(),
        status: unanswered(),
        started,
        bytes: 0,
        complete: false,
        reject: None,
        progress: None,
        endpoint: None,
        log,
        id: facts.id.clone(),
    };
    if let (Some(line), Some(path)) = (&mut finish.log, facts.path.take()) {
        line.path = path;
    }
    // The connection can not be used again unless the whole request was read.
    let unread = !body.is_end_stream() && head.version < Version::HTTP_2;
    let unread_body = conn.budget.is_some().then(|| conn.worker.unread.clone());
    let (admitted, route) = match prepared {
        Ok(admitted) => admitted,
        Err((reject, last)) => {
            let close = last || unread || reject == Reject::Malformed;
            if let Some(unread) = &unread_body {
                body::discard(body, unread);
            }
            return Ok(refuse(finish, reject, close));
        }
    };
    let (body, progress) = RequestBody::new(body, route.body_bytes, limits.body_progress, unread_body);
    finish.progress.clone_from(&progress);
    match forward(
        admitted,
        &conn.worker,
        &route,
        &limits,
        Request::from_parts(head, body),
        progress.as_deref(),
    )
    .await
    {
        Ok(Sent { response, lease }) => {
            finish.endpoint = finish.log.is_some().then(|| Arc::clone(lease.endpoint()));
            if !is_honest(&response) {
                drop(lease);
                return Ok(refuse(finish, Reject::UpstreamMalformed, unread));
            }
            finish.status = response.status();
            let (mut head, incoming) = response.into_parts();
            headers::prepare_response(&mut head.headers, &facts.id);
            route.chain.respond(&mut head.headers);
            head.extensions.clear();
            let share = conn.budget.as_ref().map(Budget::share);
            let body = ResponseBody::upstream(incoming, lease, limits.body_progress, share, finish);
            Ok(Response::from_parts(head, body))
        }
        Err(failure) => {
            let fault = progress.and_then(|progress| progress.fault());
            if fault == Some(Fault::Gone) {
                // A client that only stopped sending can still read this. It is no refusal, and no strike.
                let (head, body) = Reject::Malformed.answer(Some(&facts.id), unread).into_parts();
                return Ok(Response::from_parts(head, ResponseBody::to_nobody(body, finish)));
            }
            let reject = match fault {
                Some(Fault::Reject(reject)) => reject,
                _ => reject_of(&failure, &route),
            };
            Ok(refuse(finish, reject, unread))
        }
    }
}

/// Who asks, and under which id.
fn identify(conn: &Conn, site: &Site, head: &Parts) -> Facts {
    let mut client = Client {
        socket: conn.client,
        forwarded: None,
    };
    let mut id = None;
    if !site.trusted_proxies.is_empty() && site.trusts(conn.client.ip()) {
        client.forwarded = headers::forwarded_for(&head.headers, |ip| site.trusts(ip));
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

/// Everything between the header and the upstream that needs no waiting.
fn prepare(
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
    if !headers::plain_framing(&head.headers) {
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
    let trusted = !site.trusted_proxies.is_empty() && site.trusts(conn.client.ip());
    let outward = headers::Outward {
        host: &authority,
        request_id: &facts.id,
        socket: &conn.socket,
        effective: facts.client.effective(),
        tls: conn.tls,
        trusted,
    };
    headers::prepare_request(&mut head.headers, head.version, &outward);
    let admitted = route.chain.admit(&mut Exchange::default(), head)?;
    if let (Some(cap), Some(length)) = (route.body_bytes, body.size_hint().exact())
        && length > cap
    {
        return Err(Reject::BodyTooLarge);
    }
    head.version = Version::HTTP_11;
    head.extensions.clear();
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

/// Sends an admitted request to its route's upstream.
async fn forward(
    _admitted: Admitted,
    worker: &Worker,
    route: &Route,
    limits: &Limits,
    request: Request<RequestBody>,
    progress: Option<&Progress>,
) -> Result<Sent<RequestBody>, Failure> {
    let deadlines = Deadlines {
        connect: limits.connect,
        idle: limits.upstream_idle,
        idle_connections: limits.upstream_idle_connections as usize,
    };
    // Only what changes nothing, or changes the same twice, and has no body that is gone already.
    let spare = (request.method().is_idempotent() && request.body().is_end_stream()).then(|| copy(&request));
    // The clock runs from the last piece of the request, so that a long upload is no slow answer.
    let respond_by = || async {
        match progress {
            None => tokio::time::sleep(route.response_header).await,
            Some(progress) => loop {
                let moved = progress.moved();
                tokio::time::sleep_until(moved + route.response_header).await;
                if progress.moved() == moved {
                    return;
                }
            },
        }
    };
    worker
        .upstreams
        .send(&route.upstream, request, &deadlines, respond_by, || spare)
        .await
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// Whether a response's header leaves no doubt about where the response ends, and answers what was asked.
fn is_honest(response: &Response<Incoming>) -> bool {
    response.status() != StatusCode::SWITCHING_PROTOCOLS && headers::plain_framing(response.headers())
}

fn reject_of(failure: &Failure, route: &Route) -> Reject {
    tracing::debug!(route = &*route.name, ?failure, "no response");
    match failure {
        Failure::Connect(_) => Reject::UpstreamUnreachable,
        Failure::ConnectTimeout | Failure::ResponseTimeout => Reject::UpstreamTimeout,
        Failure::Exchange(_) => Reject::UpstreamMalformed,
    }
}

/// The gateway's own answer.
fn refuse(mut finish: Finish, reject: Reject, close: bool) -> Response<ResponseBody> {
    finish.broke(reject);
    finish.status = reject.status();
    let (head, body) = reject.answer(Some(&finish.id), close).into_parts();
    Response::from_parts(head, ResponseBody::own(body, finish))
}

/// Ids of others are taken over only in a form that is safe everywhere it goes: log, header, JSON.
fn is_request_id(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&id.len()) && id.iter().all(plain)
}

/// What the record needs of the request. Made only if there will be a record.
#[derive(Debug)]
struct Line {
    method: Method,
    host: String,
    path: String,
}

impl Line {
    fn of(head: &Parts) -> Self {
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => host_line(&head.headers),
        };
        Self {
            method: head.method.clone(),
            host,
            path: head.uri.path().to_owned(),
        }
    }
}

fn host_line(headers: &HeaderMap) -> String {
    let line = headers
        .get(http::header::HOST)
        .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    line.unwrap_or_default()
}

/// Status in the record of a request that ended without an answer, as the client went away or its connection was
/// closed: 499, as nginx has it. Never sent.
fn unanswered() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// The end of a request, wherever it comes: when this is dropped, the request is counted and logged, once.
#[derive(Debug)]
pub(super) struct Finish {
    conn: Rc<Conn>,
    client: Client,
    route: Option<Arc<Route>>,
    status: StatusCode,
    started: Instant,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    reject: Option<Reject>,
    progress: Option<Rc<Progress>>,
    endpoint: Option<Arc<str>>,
    log: Option<Box<Line>>,
    id: HeaderValue,
}

impl Finish {
    /// The gateway refused, or cut off what was under way. Tells it; the first reason counts.
    pub(super) fn broke(&mut self, reject: Reject) {
        if self.reject.is_none() {
            self.reject = Some(reject);
            self.conn
                .worker
                .refused(self.client, self.route.as_deref(), reject);
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        // A body can break the rules after the upstream has begun to answer.
        if let Some(Fault::Reject(reject)) = self.progress.as_ref().and_then(|progress| progress.fault()) {
            self.broke(reject);
        }
        self.conn.seen.partial.set(false);
        self.conn.seen.finished.set(self.conn.seen.finished.get() + 1);
        self.conn.active.set(self.conn.active.get().saturating_sub(1));
        let now = Instant::now();
        self.conn.seen.idle_since.set(Some(now));
        self.conn.quiet_since.set(now);
        let duration = now - self.started;
        let metrics = self
            .route
            .as_ref()
            .map_or(&self.conn.worker.unrouted, |route| &route.metrics);
        metrics.answered(self.status, duration.as_secs_f64());
        if let Some(line) = &self.log {
            access_log::write(&access_log::Record {
                request_id: self.id.to_str().unwrap_or("-"),
                client: self.client.effective(),
                socket: self.client.socket.ip(),
                method: line.method.as_str(),
                host: &line.host,
                path: &line.path,
                status: self.status.as_u16(),
                reject: self.reject.map(Reject::code),
                route: self.route.as_ref().map_or("-", |route| &route.name),
                endpoint: self.endpoint.as_deref(),
                bytes: self.bytes,
                duration,
                complete: self.complete,
            });
        }
    }
}
