//! The end of a request: what is counted and logged of it, however it ends.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::body::{Fault, Progress};
use super::client::Client;
use super::filter::limit::Permit;
use super::reject::Reject;
use super::service::Conn;
use super::site::Route;
use crate::telemetry::access_log;

/// What the record needs of the request. Made only if there will be a record.
#[derive(Debug)]
pub(super) struct Line {
    method: Method,
    host: String,
    pub(super) path: String,
    /// Whom authentication has found.
    pub(super) caller: Option<Arc<str>>,
    /// Why there is no answer, or not all of it.
    reason: Option<&'static str>,
}

impl Line {
    pub(super) fn of(head: &Parts) -> Self {
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => host_line(&head.headers),
        };
        Self {
            method: head.method.clone(),
            host,
            path: head.uri.path().to_owned(),
            caller: None,
            reason: None,
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
pub(super) fn unanswered() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// The end of a request, wherever it comes: when this is dropped, the request is counted and logged, once.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) conn: Rc<Conn>,
    pub(super) client: Client,
    pub(super) route: Option<Arc<Route>>,
    pub(super) status: StatusCode,
    pub(super) started: Instant,
    pub(super) bytes: u64,
    pub(super) complete: bool,
    pub(super) reject: Option<Reject>,
    pub(super) progress: Option<Rc<Progress>>,
    pub(super) endpoint: Option<Arc<str>>,
    /// Endpoints that were tried.
    pub(super) tries: u32,
    pub(super) log: Option<Box<Line>>,
    pub(super) id: HeaderValue,
    /// What limits count as under way.
    #[expect(dead_code, reason = "it is given back when this is dropped")]
    pub(super) held: Vec<Permit>,
}

impl Finish {
    /// Tells what steps would have refused if they did more than observe.
    pub(super) fn observed(&self, rejects: &[Reject]) {
        let Some(route) = &self.route else {
            return;
        };
        for reject in rejects {
            self.conn.worker.observed(self.client, route, *reject);
        }
    }

    /// Notes why the upstream gave no answer, or not all of it.
    pub(super) fn because(&mut self, reason: &'static str) {
        if let Some(line) = &mut self.log {
            line.reason.get_or_insert(reason);
        }
    }

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
        self.conn.partial.set(false);
        self.conn.worker.busy.set(true);
        self.conn.active.set(self.conn.active.get().saturating_sub(1));
        let now = Instant::now();
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
                caller: line.caller.as_deref(),
                socket: self.client.socket.ip(),
                method: line.method.as_str(),
                host: &line.host,
                path: &line.path,
                status: self.status.as_u16(),
                reject: self.reject.map(Reject::code),
                reason: line.reason,
                route: self.route.as_ref().map_or("-", |route| &route.name),
                endpoint: self.endpoint.as_deref(),
                tries: self.tries,
                bytes: self.bytes,
                duration,
                complete: self.complete,
            });
        }
    }
}
