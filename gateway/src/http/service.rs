//! The walk of one request: facts, route, policy, upstream, and back.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::accept::Secure;
use super::body::{self, Fault, Incoming, RequestBody, ResponseBody};
use super::budget::Budget;
use super::client::Client;
use super::door::Door;
use super::forward::{forward, reject_of};
use super::prepare::{identify, prepare};
use super::record::{Finish, Line, unanswered};
use super::reject::Reject;
use super::worker::Worker;
use super::{headers, redirect};
use crate::telemetry::access_log;
use crate::upstream::Sent;

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
    /// Under HTTP/2, whether bytes have come since the last request ended.
    pub(super) partial: Rc<Cell<bool>>,
    /// What its answers may hold in memory; under HTTP/1 there is one at a time.
    pub(super) budget: Option<Rc<Budget>>,
    /// Requests under way, and since when there is none.
    pub(super) active: Cell<u32>,
    pub(super) quiet_since: Cell<Instant>,
}

/// How the gateway answers by itself.
enum Own {
    /// With `true`, nothing behind the request can be read.
    Refusal(Reject, bool),
    /// To this URL.
    Redirect(HeaderValue),
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
    let started = Instant::now();
    let (mut head, body) = request.into_parts();
    let site = conn.worker.site();
    let log = (site.access_log && access_log::wanted()).then(|| Box::new(Line::of(&head)));
    let mut facts = identify(&conn, &site, &head);
    let limits = site.limits;
    let prepared = match (doomed, conn.door.redirect_to_https) {
        (Some(reject), _) => Err(Own::Refusal(reject, true)),
        (None, Some(port)) => Err(match redirect::to_https(&head, port, &limits) {
            Ok(location) => Own::Redirect(location),
            Err(reject) => Own::Refusal(reject, false),
        }),
        (None, None) => {
            prepare(&conn, &site, &mut facts, &mut head, &body).map_err(|reject| Own::Refusal(reject, false))
        }
    };
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
        Err(own) => {
            if let Some(unread) = &unread_body {
                body::discard(body, unread);
            }
            return match own {
                Own::Refusal(reject, last) => {
                    refuse(finish, reject, last || unread || reject == Reject::Malformed)
                }
                Own::Redirect(location) => {
                    finish.status = StatusCode::PERMANENT_REDIRECT;
                    let (head, body) = redirect::answer(location, &finish.id, unread).into_parts();
                    Response::from_parts(head, ResponseBody::own(body, finish))
                }
            };
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
        Ok(Sent { mut head, lease }) => {
            finish.endpoint = finish.log.is_some().then(|| Arc::clone(lease.endpoint()));
            finish.status = head.status;
            let upgrade = headers::prepare_response(&mut head, &facts.id);
            route.chain.respond(&mut head.headers);
            if let Some(protocol) = upgrade {
                headers::switch(&mut head.headers, protocol);
                return Response::from_parts(head, ResponseBody::tunnel(lease, finish));
            }
            let share = conn.budget.as_ref().map(Budget::share);
            let body = ResponseBody::upstream(lease, limits.body_progress, share, finish);
            Response::from_parts(head, body)
        }
        Err(failure) => {
            let fault = progress.and_then(|progress| progress.fault());
            if fault == Some(Fault::Gone) {
                // A client that only stopped sending can still read this. It is no refusal, and no strike.
                let (head, body) = Reject::Malformed.answer(Some(&facts.id), unread).into_parts();
                return Response::from_parts(head, ResponseBody::to_nobody(body, finish));
            }
            let reject = match fault {
                Some(Fault::Reject(reject)) => reject,
                _ => reject_of(&failure, &route),
            };
            refuse(finish, reject, unread)
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
