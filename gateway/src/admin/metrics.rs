//! The plain HTTP endpoint for collectors and probes: `/metrics`, `/healthz`, `/readyz`. Nothing else is served.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::reserve;

/// Connections served at one time. Collectors and probes need a few; whoever opens more and is silent must not keep them out.
const CONNECTIONS: usize = 512;
/// Deadline of a request's header.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the endpoint asks the gateway.
pub trait Facts: 'static {
    /// The exposition in OpenMetrics text form.
    fn metrics(&self) -> impl Future<Output = String>;
    /// Whether every part still runs.
    fn alive(&self) -> bool;
    /// What is worth knowing of a gateway that is ready, one line each; `Err` says what is missing.
    fn ready(&self) -> Result<Vec<String>, String>;
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, facts: Rc<impl Facts>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match reserve::accept(|cx| listener.poll_accept(cx)).await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the metrics endpoint can not accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let facts = Rc::clone(&facts);
        tokio::task::spawn_local(async move {
            let _slot = slot;
            let service = service_fn(|request| {
                let facts = Rc::clone(&facts);
                async move { Ok::<_, Infallible>(answer(&request, &*facts).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the metrics endpoint ended early");
            }
        });
    }
}

async fn answer(request: &Request<Incoming>, facts: &impl Facts) -> Response<Full<Bytes>> {
    let plain = |status, text: String| build(status, "text/plain; charset=utf-8", text);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            build(StatusCode::OK, kind, facts.metrics().await)
        }
        "/healthz" if facts.alive() => plain(StatusCode::OK, "alive\n".to_owned()),
        "/healthz" => plain(StatusCode::SERVICE_UNAVAILABLE, "a worker has ended\n".to_owned()),
        "/readyz" => match facts.ready() {
            Ok(notes) => {
                let notes: String = notes.iter().map(|note| format!("{note}\n")).collect();
                plain(StatusCode::OK, format!("ready\n{notes}"))
            }
            Err(missing) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn build(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
