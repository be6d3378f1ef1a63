//! An admitted request on its way to the upstream, and what comes of it.

use std::sync::Arc;

use http::Request;
use http_body::Body;

use super::body::{Progress, RequestBody};
use super::filter::Admitted;
use super::reject::Reject;
use super::site::Route;
use super::worker::Worker;
use crate::config::model::Limits;
use crate::upstream::{Deadlines, Failure, Sent, Upstream};

/// Sends an admitted request to its route's upstream.
pub(super) async fn forward(
    _admitted: Admitted,
    worker: &Worker,
    route: &Route,
    upstream: &Arc<Upstream>,
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
        .send(upstream, request, &deadlines, respond_by, || spare)
        .await
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    copy
}

pub(super) fn reject_of(failure: &Failure, route: &Route) -> Reject {
    tracing::debug!(route = &*route.name, ?failure, "no response");
    match failure {
        Failure::Connect(_) => Reject::UpstreamUnreachable,
        Failure::ConnectTimeout | Failure::ResponseTimeout => Reject::UpstreamTimeout,
        Failure::Exchange(_) => Reject::UpstreamMalformed,
    }
}
