//! One established connection to an endpoint, and one exchange on it. Knows nothing of pools, retries or deadlines.

use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::Failure;
use crate::net::Transport;

/// Most bytes that are read from an upstream at a time, and the most that a response's header can have. It is what a
/// client that does not read makes us hold, several times over.
const BUFFER: usize = 32 << 10;

/// A connection that takes one request at a time.
#[derive(Debug)]
pub(super) struct Link<B>(SendRequest<B>);

/// An exchange without a response.
pub(super) struct Broken<B> {
    pub(super) failure: Failure,
    /// The request, if no byte of it was taken.
    pub(super) request: Option<Box<Request<B>>>,
    /// Whether the connection closed without a byte of a response.
    pub(super) silent: bool,
}

impl<B> Link<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Begins to speak HTTP on an open connection. `endpoint` is for the log.
    pub(super) async fn open(transport: Transport, endpoint: &Arc<str>) -> std::io::Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake::<_, B>(TokioIo::new(transport))
            .await
            .map_err(std::io::Error::other)?;
        let name = Arc::clone(endpoint);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(endpoint = %name, %error, "upstream connection ended");
            }
        });
        Ok(Self(sender))
    }

    /// Sends a request and waits for the response's header.
    pub(super) async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, Broken<B>> {
        self.0.try_send_request(request).await.map_err(|mut error| {
            let request = error.take_message().map(Box::new);
            let error = error.into_error();
            let silent = error.is_incomplete_message() || error.is_canceled() || reset(&error);
            Broken {
                failure: Failure::Exchange(error),
                request,
                silent,
            }
        })
    }
}

impl<B> Link<B> {
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Whether a request can be sent at once.
    pub(super) fn is_ready(&self) -> bool {
        self.0.is_ready()
    }
}

/// Whether the other side reset the connection, which is how a close meets bytes that were under way.
fn reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<std::io::Error>());
    source.is_some_and(|e| matches!(e.kind(), BrokenPipe | ConnectionReset))
}
