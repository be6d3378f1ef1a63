//! The walk of one request: facts, route, policy, upstream, and back.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{self, Fault, RequestBody, ResponseBody};
use super::budget::Budget;
use super::client::ClientAddr;
use super::forward::{forward, is_honest, reject_of};
use super::headers;
use super::prepare::{identify, prepare};
use super::record::{Finish, Line, unanswered};
use super::reject::Reject;
use super::wire::Seen;
use super::worker::Worker;
use crate::telemetry::access_log;
use crate::upstream::Sent;

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

/// The gateway's own answer.
fn refuse(mut finish: Finish, reject: Reject, close: bool) -> Response<ResponseBody> {
    finish.broke(reject);
    finish.status = reject.status();
    let (head, body) = reject.answer(Some(&finish.id), close).into_parts();
    Response::from_parts(head, ResponseBody::own(body, finish))
}
