//! WebSocket over HTTP/2 (RFC 8441): a stream that asks for it is a request for a change of protocol to everyone behind, and
//! its bytes are carried as those of an HTTP/1 connection are. Owns what the two openings differ in; knows no frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, response};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

use super::body::RequestBody;
use super::budget::Cut;
use super::record::Finish;
use super::tunnel::{self, Side};
use crate::upstream::Lease;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Room made for what a client sends, which is mostly little.
const ROOM: usize = 8 << 10;

/// In the extensions of an HTTP/2 request: it opens a WebSocket, and this is where its bytes will be.
#[derive(Clone, Debug)]
pub(super) struct Opening(OnUpgrade);

/// Makes a stream that asks for WebSocket what such a request is in HTTP/1: a GET. Any other CONNECT stays one.
pub(super) fn recognise<B>(request: &mut Request<B>) {
    let asks = request.method() == Method::CONNECT
        && request
            .extensions()
            .get::<Protocol>()
            .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
    if asks && let Some(bytes) = request.extensions_mut().remove::<OnUpgrade>() {
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(Opening(bytes));
    }
}

/// Writes the line that only HTTP/1 has, and by which it is told whether the other side understood.
///
/// # Errors
/// Without randomness.
pub(super) fn ask(headers: &mut HeaderMap) -> io::Result<()> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let key = HeaderValue::try_from(STANDARD.encode(nonce)).map_err(io::Error::other)?;
    headers.insert(KEY, key);
    Ok(())
}

/// What an upstream that changes protocol must say to a key.
pub(super) fn accept(key: &HeaderValue) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    STANDARD.encode(context.finish())
}

/// The key that a request was sent on with.
pub(super) fn key(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(KEY).cloned()
}

/// Makes an upstream's 101 the answer that opens a stream; `false` if it does not answer the key.
pub(super) fn opens(head: &mut response::Parts, key: &HeaderValue) -> bool {
    let said = head.headers.remove(ACCEPT);
    head.status = http::StatusCode::OK;
    said.is_some_and(|said| said.as_bytes() == accept(key).as_bytes())
}

/// Carries a stream's bytes to the end, in a task of its own.
///
/// To be called by the stream's own task, at the end of what it serves: what hyper has it spawn next is what writes.
pub(super) fn carry(opening: Opening, mut lease: Lease<RequestBody>, mut finish: Finish) {
    let cut = finish.conn.budget.as_ref().map(|budget| budget.cut());
    tokio::task::spawn_local(async move {
        let ended = match opening.0.await {
            Ok(upgraded) => {
                let mut side = Stream::new(upgraded, cut);
                tunnel::carry(&mut side, &mut lease, &mut finish).await
            }
            Err(error) => {
                if let Some(upstream) = lease.tunnel() {
                    upstream.reset();
                }
                Err(io::Error::other(error))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a WebSocket broke off");
        }
    });
}

/// A client's side of a tunnel. Holds one piece on its way to the client at most.
struct Stream {
    io: TokioIo<Upgraded>,
    ahead: BytesMut,
    piece: Bytes,
    /// Nothing more comes.
    ended: bool,
    cut: Option<Cut>,
}

impl Stream {
    fn new(upgraded: Upgraded, cut: Option<Cut>) -> Self {
        Self {
            io: TokioIo::new(upgraded),
            ahead: BytesMut::new(),
            piece: Bytes::new(),
            ended: false,
            cut,
        }
    }

    /// Tells an end from a reset. hyper reads both as an end where the reset is a CANCEL, which a broken connection is to
    /// be told by (RFC 8441, 5); what writes hears of it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !std::mem::replace(&mut self.ended, true) {
            // Its task was woken by the same frame, and may not have run yet.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => Poll::Ready(Ok(None)),
        }
    }
}

impl Side for Stream {
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.ended {
            return self.poll_end(cx);
        }
        self.ahead.reserve(ROOM);
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.ahead) {
            Poll::Ready(Ok(0)) => self.poll_end(cx),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Some(self.ahead.split().freeze()))),
            // Whatever the library calls it: also the connection's end, of which the stream has not been told.
            Poll::Ready(Err(error)) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)))
            }
            Poll::Pending => {
                self.ahead = BytesMut::new();
                Poll::Pending
            }
        }
    }

    fn has_room(&self) -> bool {
        self.piece.is_empty()
    }

    fn pass(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.piece.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.piece))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.piece.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn reset(&mut self) {
        if let Some(cut) = self.cut.take() {
            let _ = cut.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_answer() {
        // RFC 6455, 1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut headers = HeaderMap::new();
        ask(&mut headers).unwrap();
        assert_eq!(STANDARD.decode(headers[KEY].as_bytes()).unwrap().len(), 16);
    }
}
