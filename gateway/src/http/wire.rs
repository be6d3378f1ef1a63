//! A client's byte stream as hyper sees it. Owns what hyper has no place for: bytes read ahead to tell the protocol, a
//! strict look at HTTP/1 headers, a deadline on writing to a client that does not read, and the knowledge whether a
//! header has begun.
//!
//! A header that the scanner refuses is replaced by bytes that hyper refuses too: so there is one way in which a
//! malformed request is answered and counted, and nothing behind it is ever read.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Stall;
use super::head::Scanner;
use crate::net::Transport;

/// Malformed wherever in a header it stands, and the end of any header.
const POISON: &[u8] = b"\0\r\n\r\n";

/// What the stream has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bytes have come that no finished request accounts for.
    pub partial: Cell<bool>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    inner: Transport,
    ahead: Ahead,
    seen: Rc<Seen>,
    stall: Stall,
    /// Absent where there are no HTTP/1 headers.
    scanner: Option<Scanner>,
    /// Once present, what is still to be read; nothing else will be.
    poison: Option<&'static [u8]>,
}

/// Bytes read before the protocol was known: as many as the longest preface.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    bytes: [u8; 24],
    to: usize,
}

impl Ahead {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.len() - self.to;
        let bytes = &bytes[..bytes.len().min(room)];
        self.bytes[self.to..self.to + bytes.len()].copy_from_slice(bytes);
        self.to += bytes.len();
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..self.to]
    }
}

impl Wire {
    /// `pause` is the longest time that a write may make no progress; `scan` is for HTTP/1.
    pub(super) fn new(inner: Transport, ahead: Ahead, seen: Rc<Seen>, pause: Duration, scan: bool) -> Self {
        let scanner = scan.then(Scanner::default);
        Self {
            inner,
            ahead,
            seen,
            stall: Stall::new(pause),
            scanner,
            poison: None,
        }
    }

    /// How many of these bytes hyper may see.
    fn admit(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        self.seen.partial.set(true);
        match self.scanner.as_mut().map(|scanner| scanner.take(bytes)) {
            Some(Err(ambiguous)) => {
                self.poison = Some(POISON);
                ambiguous.before
            }
            _ => bytes.len(),
        }
    }

    /// Gives up on a client that takes nothing.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(done) => {
                self.stall.moved();
                Poll::Ready(done)
            }
            Poll::Pending => self.stall.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.poison.is_none() && !this.ahead.get().is_empty() {
            let ahead = std::mem::take(&mut this.ahead);
            let bytes = ahead.get();
            let admitted = this.admit(bytes);
            // hyper reads with room for far more than a preface.
            buf.put_slice(&bytes[..admitted.min(buf.remaining())]);
            if admitted > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        if this.poison.is_none() {
            let (taken, admitted) = {
                // SAFETY: the slice is only written through `ReadBuf`, which never un-initialises what it is given.
                let mut target = ReadBuf::uninit(unsafe { buf.as_mut() });
                match Pin::new(&mut this.inner).poll_read(cx, &mut target) {
                    Poll::Ready(Ok(())) => (target.filled().len(), this.admit(target.filled())),
                    other => return other,
                }
            };
            // SAFETY: `ReadBuf` counted `taken` bytes as filled, from the start of the same slice, and `admitted` is
            // at most that.
            unsafe { buf.advance(admitted) };
            if admitted > 0 || taken == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        if let Some(poison) = &mut this.poison {
            let (now, later) = poison.split_at(poison.len().min(buf.remaining()));
            buf.put_slice(now);
            *poison = later;
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }
}
