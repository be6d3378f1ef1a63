//! A client's byte stream as hyper sees it. Owns three things that hyper has no place for: bytes read ahead to tell the
//! protocol, a deadline on writing to a client that does not read, and the knowledge whether a header has begun.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Stall;
use crate::net::Transport;

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
}

/// Bytes read before the protocol was known: as many as the longest preface.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    bytes: [u8; 24],
    from: usize,
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
        &self.bytes[self.from..self.to]
    }
}

impl Wire {
    /// `pause` is the longest time that a write may make no progress.
    pub(super) fn new(inner: Transport, ahead: Ahead, seen: Rc<Seen>, pause: Duration) -> Self {
        Self {
            inner,
            ahead,
            seen,
            stall: Stall::new(pause),
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
        if this.ahead.from < this.ahead.to {
            let bytes = this.ahead.get();
            let taken = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..taken]);
            this.ahead.from += taken;
            this.seen.partial.set(true);
            return Poll::Ready(Ok(()));
        }
        let taken = {
            // SAFETY: the slice is only written through `ReadBuf`, which never un-initialises what it is given.
            let mut target = ReadBuf::uninit(unsafe { buf.as_mut() });
            match Pin::new(&mut this.inner).poll_read(cx, &mut target) {
                Poll::Ready(Ok(())) => target.filled().len(),
                other => return other,
            }
        };
        // SAFETY: `ReadBuf` counted exactly these bytes as filled, from the start of the same slice.
        unsafe { buf.advance(taken) };
        if taken > 0 {
            this.seen.partial.set(true);
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
