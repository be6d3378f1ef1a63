//! The walk of one request: facts, route, policy, upstream, and back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH};
use http::request::Parts;
use http::response;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout_at};

use super::accept::Secure;
use super::body::{self, Fault, Incoming, Progress, RequestBody, ResponseBody};
use super::budget::Budget;
use super::client::Client;
use super::coding::Accepted;
use super::coding::decode::Decoder;
use super::digest;
use super::door::Door;
use super::filter::{Admitted, At, Step};
use super::forward::{Way, forward, reject_of};
use super::prepare::{Facts, Found, finish, identify, prepare};
use super::record::{Finish, Line, unanswered};
use super::reject::{Form, Reject, Telling};
use super::reply::Follows;
use super::shape::{self, Ended};
use super::site::{Action, Route};
use super::websocket::{self, Opening};
use super::worker::Worker;
use super::{headers, redirect, reply};
use crate::config::model::Paths;
use crate::http1::alarm::Alarm;
use crate::telemetry::access_log;
use crate::upstream::{Failed, Outbound, Sent, Upstream};

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) worker: Rc<Worker>,
    /// Who is at the other end: of the socket, or of the connection that a trusted proxy has said it passes on.
    pub(super) caller: Client,
    /// The address of `caller` as a header value, made once.
    pub(super) peer: HeaderValue,
    /// The listener it came by.
    pub(super) door: Arc<Door>,
    /// Present with TLS.
    pub(super) secure: Option<Box<Secure>>,
    /// Under HTTP/2, whether the client is in the middle of a frame or a header.
    pub(super) partial: Rc<Cell<bool>>,
    /// What its answers may hold in memory; under HTTP/1 there is one at a time.
    pub(super) budget: Option<Rc<Budget>>,
    /// Requests under way, and since when there is none.
    pub(super) active: Cell<u32>,
    /// The deadlines of an HTTP/1 connection, of which there is one at a time.
    pub(super) alarm: RefCell<Alarm>,
    /// Interim answers that an HTTP/1 client is to be sent before its answer.
    pub(super) hints: RefCell<Vec<response::Parts>>,
    pub(super) quiet_since: Cell<Instant>,
}

/// Serves one request. Every refusal is an answer.
///
/// `doomed` says what is wrong with a header that could not be read; the request then only stands for it, and is refused as
/// any other, with document, id, count and record.
pub(super) async fn serve(
    conn: Rc<Conn>,
    request: Request<Incoming>,
    doomed: Option<Reject>,
) -> Response<ResponseBody> {
    conn.partial.set(false);
    conn.active.set(conn.active.get() + 1);
    let (mut head, body) = request.into_parts();
    let opening = head.extensions.get::<Opening>().cloned();
    let site = conn.worker.site();
    let log = (site.access_log && access_log::wanted()).then(|| Box::new(Line::of(&head)));
    let mut facts = identify(&conn, &site, &head);
    let limits = site.limits;
    let turn = match (doomed, conn.door.redirect_to_https) {
        (Some(reject), _) => Turn::Refusal(reject, true),
        (None, Some(port)) => match redirect::to_https(&head, port, &limits, site.paths_at(&conn.door)) {
            Ok(location) => Turn::Answer(redirect::answer(location)),
            Err(reject) => Turn::Refusal(reject, false),
        },
        (None, None) => match prepare(&conn, &site, &mut facts, &mut head, &body) {
            Ok(found) if found.preflight => preflight(&found.route, &facts),
            Ok(found) => {
                let paths = site.paths_at(&conn.door);
                // Others may be asked now, and that takes its time.
                drop(site);
                match admit(&conn.worker, &found, paths, &mut facts, &mut head, &body).await {
                    Ok(Some(admitted)) => turn(&conn.worker, admitted, found.route, &facts, &head),
                    Ok(None) => answered(&found.route, &mut facts),
                    Err(reject) => Turn::Refusal(reject, false),
                }
            }
            Err(reject) => Turn::Refusal(reject, false),
        },
    };
    let mut finish = record(&conn, &mut facts, log);
    // The connection can not be used again unless the whole request was read.
    let unread = !body.is_end_stream() && head.version < Version::HTTP_2;
    let unread_body = conn.budget.is_some().then(|| conn.worker.unread.clone());
    let give_up = |body| {
        if let Some(unread) = &unread_body {
            body::discard(body, unread);
        }
    };
    let (admitted, upstream, route) = match turn {
        Turn::Forward(admitted, upstream, route) => (admitted, upstream, route),
        Turn::Answer(response) => {
            give_up(body);
            return tell(finish, &facts, &head, response, unread);
        }
        Turn::Refusal(reject, last) => {
            give_up(body);
            let close = last || unread || reject == Reject::Malformed;
            return refuse(finish, &facts, reject, close);
        }
    };
    let (pause, patience) = if facts.form == Form::Grpc {
        (route.tunnel_idle, route.tunnel_idle)
    } else {
        (limits.body_progress, route.response_header)
    };
    let (body, progress) =
        RequestBody::new(body, route.body_bytes, pause, unread_body, route.chain.is_empty());
    finish.progress.clone_from(&progress);
    let by = route.total.map(|total| facts.exchange.started + total);
    // In boxes: routes without it have futures as small as before.
    let body = match facts.exchange.body.take() {
        None => body,
        Some(expected) => {
            let client = facts.exchange.client.effective();
            let holding = Box::pin(digest::hold(&expected, body, progress.as_deref(), client));
            let held = within(by, holding).await.and_then(|body| {
                let taken = expected.take_nonces(conn.worker.local.now());
                taken.map(|()| body).map_err(Ended::Reject)
            });
            match held {
                Ok(body) => body,
                Err(ended) => return ended_early(finish, &facts, ended, progress.as_deref(), unread),
            }
        }
    };
    let body = match (facts.decode, &progress) {
        (Some((coding, most)), Some(progress)) => match Decoder::new(coding, most) {
            Ok(decoder) => body.decoded(decoder, progress),
            Err(_) => return refuse(finish, &facts, Reject::Internal, unread),
        },
        _ => body,
    };
    let accepted = route.compress.as_ref().map(|_| Accepted::of(&head.headers));
    let body = match &route.whole {
        None => body,
        Some(whole) => {
            let shaping = Box::pin(whole.request(
                &mut head,
                body,
                progress.as_deref(),
                &mut facts,
                &route.model.path,
            ));
            let shaped = within(by, shaping).await;
            finish.observed(&std::mem::take(&mut facts.exchange.observed));
            match shaped {
                Ok(body) => body,
                Err(ended) => return ended_early(finish, &facts, ended, progress.as_deref(), unread),
            }
        }
    };
    // Where nobody was asked and no body was held, that was a moment ago.
    let now = if route.chain.is_empty() && route.whole.is_none() {
        facts.exchange.started
    } else {
        Instant::now()
    };
    let way = Way {
        now,
        worker: &conn.worker,
        route: &route,
        exchange: &facts.exchange,
        upstream: &upstream,
        limits: &limits,
        patience,
        client: facts.exchange.client,
        tls: conn.secure.is_some(),
        alarm: conn.budget.is_none().then_some(&conn.alarm),
        hints: conn.budget.is_none().then_some(&conn.hints),
    };
    let key = opening.as_ref().and_then(|_| websocket::key(&head.headers));
    let mut request = Outbound::new(head, body);
    let sent = forward(admitted, &way, &mut request, progress.as_deref());
    let sent = match by {
        None => sent.await,
        Some(by) => match timeout_at(by, sent).await {
            Ok(sent) => sent,
            Err(_) => return refuse(finish, &facts, Reject::DeadlineExceeded, unread),
        },
    };
    let (sent, cookie) = match sent {
        Ok(answered) => answered,
        Err(failed) => return failed_try(finish, &facts, &route, &failed, progress.as_deref(), unread),
    };
    let Sent {
        mut head,
        mut lease,
        tries,
        ..
    } = sent;
    finish.endpoint = finish.log.is_some().then(|| Arc::clone(lease.endpoint()));
    finish.tries = tries;
    let follows = reply::pass(&mut head, &route, &facts, cookie, key.as_ref());
    finish.status = head.status;
    match (follows, opening) {
        (Follows::Stream, Some(opening)) => {
            websocket::carry(opening, lease, finish);
            return Response::from_parts(head, ResponseBody::nothing());
        }
        (Follows::Stream | Follows::Nonsense, _) => {
            return refuse(finish, &facts, Reject::UpstreamMalformed, unread);
        }
        (Follows::Tunnel, _) => return Response::from_parts(head, ResponseBody::tunnel(lease, finish)),
        (Follows::Nothing, _) => {
            lease.keep();
            return Response::from_parts(head, ResponseBody::own(Bytes::new(), finish));
        }
        (Follows::Body, _) => {}
    }
    let mut front = None;
    if let Some(whole) = &route.whole {
        whole.unsaid(&facts.exchange, &mut head);
        if whole.wants(&facts.exchange, &head) {
            let pause = limits.body_progress;
            let (exchange, path) = (&mut facts.exchange, &route.model.path);
            let shaped = Box::pin(whole.response(&mut head, &mut lease, pause, by, exchange, path)).await;
            finish.observed(&std::mem::take(&mut facts.exchange.observed));
            match shaped {
                shape::Answer::Untouched => {}
                shape::Answer::Begun(read) => front = Some(read),
                shape::Answer::Refused(reject) => return refuse(finish, &facts, reject, unread),
                shape::Answer::Whole(body) => {
                    lease.keep();
                    return match reply::coded(&route, accepted, &mut head, body) {
                        Ok(body) => Response::from_parts(head, ResponseBody::own(body, finish)),
                        Err(reject) => refuse(finish, &facts, reject, unread),
                    };
                }
            }
        }
    }
    let Ok(encoder) = reply::encoder(&route, accepted, &mut head) else {
        return refuse(finish, &facts, Reject::Internal, unread);
    };
    let share = conn.budget.as_ref().map(Budget::share);
    let pause = if headers::is_stream(&head.headers) {
        route.tunnel_idle
    } else {
        limits.body_progress
    };
    let mut body = ResponseBody::upstream(lease, pause, by, encoder, share, finish);
    if let Some(read) = front {
        body = body.behind(read);
    }
    Response::from_parts(head, body)
}

/// What will be counted and logged of a request, whatever becomes of it from here on.
fn record(conn: &Rc<Conn>, facts: &mut Facts, log: Option<Box<Line>>) -> Finish {
    let mut finish = Finish {
        conn: Rc::clone(conn),
        client: facts.exchange.client,
        route: facts.route.clone(),
        status: unanswered(),
        started: facts.exchange.started,
        bytes: 0,
        complete: false,
        reject: None,
        progress: None,
        endpoint: None,
        tries: 0,
        log,
        id: facts.id.clone(),
        held: std::mem::take(&mut facts.exchange.held),
    };
    if let Some(line) = &mut finish.log {
        if let Some(path) = facts.path.take() {
            line.path = path;
        }
        line.caller = facts.exchange.identity.as_ref().map(|who| Arc::clone(&who.name));
    }
    finish
}

/// A request that no endpoint has answered.
fn failed_try(
    mut finish: Finish,
    facts: &Facts,
    route: &Route,
    failed: &Failed,
    progress: Option<&Progress>,
    unread: bool,
) -> Response<ResponseBody> {
    finish.endpoint.clone_from(&failed.endpoint);
    finish.tries = failed.tries;
    if let Some(reason) = failed.failure.reason() {
        finish.because(reason);
    }
    match progress.and_then(Progress::fault) {
        Some(Fault::Gone) => gone(finish, facts, unread),
        Some(Fault::Reject(reject)) => refuse(finish, facts, reject, unread),
        None => refuse(finish, facts, reject_of(failed, route), unread),
    }
}

/// What is done with a body, until a time.
async fn within(
    by: Option<Instant>,
    work: impl Future<Output = Result<RequestBody, Ended>>,
) -> Result<RequestBody, Ended> {
    match by {
        None => work.await,
        Some(by) => timeout_at(by, work)
            .await
            .unwrap_or(Err(Ended::Reject(Reject::DeadlineExceeded))),
    }
}

/// The end of a request whose body goes no further.
fn ended_early(
    finish: Finish,
    facts: &Facts,
    ended: Ended,
    progress: Option<&Progress>,
    unread: bool,
) -> Response<ResponseBody> {
    match ended {
        Ended::Gone => gone(finish, facts, unread),
        Ended::Reject(reject) => {
            // A body that was read to its end leaves the connection as it should be.
            let unread = unread && !progress.is_some_and(Progress::is_over);
            refuse(finish, facts, reject, unread)
        }
    }
}

/// What becomes of a request.
enum Turn {
    Forward(Admitted, Arc<Upstream>, Arc<Route>),
    /// The route's own.
    Answer(Response<Bytes>),
    /// With whether the connection is at its end.
    Refusal(Reject, bool),
}

/// Runs a request through its route's policy, and makes it what the upstream is to get. `None`: a step has answered it.
async fn admit(
    worker: &Worker,
    found: &Found,
    paths: Paths,
    facts: &mut Facts,
    head: &mut Parts,
    body: &Incoming,
) -> Result<Option<Admitted>, Reject> {
    let (chain, local) = (&found.route.chain, &worker.local);
    let mut from = At::default();
    let admitted = loop {
        match chain.admit(from, &mut facts.exchange, head, local)? {
            Step::Admitted(admitted) => break admitted,
            Step::Answered => return Ok(None),
            Step::Ask(at) => match chain.ask(at, &mut facts.exchange, head, local).await? {
                Some(at) => from = at,
                None => return Ok(None),
            },
        }
    };
    for reject in facts.exchange.observed.drain(..) {
        worker.observed(facts.exchange.client, &found.route, reject);
    }
    finish(found, paths, facts, head, body)?;
    Ok(Some(admitted))
}

/// What a step of the policy has answered.
fn answered(route: &Route, facts: &mut Facts) -> Turn {
    let Some(mut response) = facts.exchange.answer.take() else {
        return Turn::Refusal(Reject::Internal, false);
    };
    dress(route, facts, response.headers_mut());
    Turn::Answer(*response)
}

fn turn(worker: &Worker, admitted: Admitted, route: Arc<Route>, facts: &Facts, head: &Parts) -> Turn {
    // Of what the gateway answers itself no body is looked at.
    if let (Action::Answer(_), Some(expected)) = (&route.action, &facts.exchange.body)
        && let Err(reject) = expected.take_nonces(worker.local.now())
    {
        return Turn::Refusal(reject, false);
    }
    let answer = match &route.action {
        Action::Forward(upstream) => {
            let upstream = Arc::clone(upstream);
            return Turn::Forward(admitted, upstream, route);
        }
        Action::Answer(answer) => answer.to(head),
    };
    let Some(mut response) = answer else {
        return Turn::Refusal(Reject::Internal, false);
    };
    route.chain.respond(&facts.exchange, response.headers_mut());
    dress(&route, facts, response.headers_mut());
    Turn::Answer(response)
}

fn preflight(route: &Route, facts: &Facts) -> Turn {
    let (Some(cors), Some(granted)) = (&route.cors, &facts.granted) else {
        return Turn::Refusal(Reject::Internal, false);
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    cors.preflight(granted, response.headers_mut());
    Turn::Answer(response)
}

/// Header lines that an answer gets whoever gives it.
pub(super) fn dress(route: &Route, facts: &Facts, headers: &mut HeaderMap) {
    for (name, value) in &facts.exchange.lines {
        headers.append(name, value.clone());
    }
    if let (Some(cors), Some(granted)) = (&route.cors, &facts.granted) {
        cors.answer(granted, headers);
    }
}

/// An answer that a route gives itself.
fn tell(
    mut finish: Finish,
    facts: &Facts,
    head: &Parts,
    response: Response<Bytes>,
    close: bool,
) -> Response<ResponseBody> {
    let (mut answer, mut body) = response.into_parts();
    answer.headers.insert(headers::REQUEST_ID, facts.id.clone());
    if head.method == Method::HEAD {
        answer
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        body = Bytes::new();
    }
    if close {
        answer
            .headers
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    finish.status = answer.status;
    Response::from_parts(answer, ResponseBody::own(body, finish))
}

/// What a client reads that only stopped sending in the middle of a request. It is no refusal, and no strike.
fn gone(finish: Finish, facts: &Facts, close: bool) -> Response<ResponseBody> {
    let (head, body) = Reject::Malformed
        .answer(Telling {
            id: Some(&facts.id),
            close,
            ..Telling::default()
        })
        .into_parts();
    Response::from_parts(head, ResponseBody::to_nobody(body, finish))
}

/// The gateway's own refusal.
fn refuse(mut finish: Finish, facts: &Facts, reject: Reject, close: bool) -> Response<ResponseBody> {
    finish.broke(reject);
    let site = finish.conn.worker.site();
    let answer = match &facts.exchange.answer {
        Some(theirs) => of_service(theirs, &finish.id, close),
        None => reject.answer(Telling {
            id: Some(&facts.id),
            problem: facts.exchange.problem.as_deref(),
            form: facts.form,
            close,
            pages: (!site.errors.is_empty()).then_some(&site.errors),
            own: facts.route.as_ref().map(|route| &*route.model.errors),
        }),
    };
    drop(site);
    let (mut head, body) = answer.into_parts();
    finish.status = head.status;
    if let Some(route) = &facts.route {
        dress(route, facts, &mut head.headers);
    }
    if let Some(allow) = facts
        .allow
        .as_ref()
        .filter(|_| reject == Reject::MethodNotAllowed)
    {
        head.headers.insert(ALLOW, allow.clone());
    }
    Response::from_parts(head, ResponseBody::own(body, finish))
}

/// The refusal of a service that was asked, as the client gets it.
fn of_service(theirs: &Response<Bytes>, id: &HeaderValue, close: bool) -> Response<Bytes> {
    let mut answer = theirs.clone();
    answer.headers_mut().insert(headers::REQUEST_ID, id.clone());
    if close {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer
}
