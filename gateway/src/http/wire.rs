//! A client's HTTP/2 connection as hyper sees it. Owns what hyper has no place for: bytes read ahead to tell the protocol,
//! a deadline on writing to a client that does not read, and the end of a client that floods.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Stall;
use super::meter::Meter;
use crate::net::Transport;

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    inner: Transport,
    ahead: Ahead,
    /// Whether the client is in the middle of something.
    partial: Rc<Cell<bool>>,
    stall: Stall,
    meter: Meter,
    flood: Rc<Cell<bool>>,
    poisoned: bool,
}

/// What hyper reads behind a flood: a SETTINGS frame on a stream, which it answers with GOAWAY (RFC 9113, 6.5). It has no call to
/// end a connection in that way.
const POISON: &[u8; 9] = &[0, 0, 0, 4, 0, 0, 0, 0, 1];

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
    /// `pause` is how long a write may wait for a client that does not read; `flood` is set for one that floods.
    pub(super) fn new(
        inner: Transport,
        ahead: Ahead,
        partial: Rc<Cell<bool>>,
        flood: Rc<Cell<bool>>,
        pause: Duration,
    ) -> Self {
        Self {
            inner,
            ahead,
            partial,
            stall: Stall::new(pause),
            meter: Meter::new(),
            flood,
            poisoned: false,
        }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.meter.wrote(*count);
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
        if !this.ahead.get().is_empty() {
            let ahead = std::mem::take(&mut this.ahead);
            // hyper reads with room for far more than a preface.
            let bytes = ahead.get();
            let _ = this.meter.read(bytes);
            buf.put_slice(&bytes[..bytes.len().min(buf.remaining())]);
            this.partial.set(this.meter.is_partial());
            return Poll::Ready(Ok(()));
        }
        if this.flood.get() {
            // And then the end, if anybody asks.
            if !std::mem::replace(&mut this.poisoned, true) {
                buf.put_slice(&POISON[..POISON.len().min(buf.remaining())]);
            }
            return Poll::Ready(Ok(()));
        }
        let taken = {
            // SAFETY: the slice is only written through `ReadBuf`, which never un-initialises what it is given.
            let mut target = ReadBuf::uninit(unsafe { buf.as_mut() });
            match Pin::new(&mut this.inner).poll_read(cx, &mut target) {
                Poll::Ready(Ok(())) => match this.meter.read(target.filled()) {
                    Some(taken) => {
                        this.flood.set(true);
                        taken
                    }
                    None => target.filled().len(),
                },
                other => return other,
            }
        };
        if taken > 0 {
            this.partial.set(this.meter.is_partial());
        }
        // SAFETY: `ReadBuf` counted at least `taken` bytes as filled, from the start of the same slice.
        unsafe { buf.advance(taken) };
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&written);
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
        self.wrote(&written);
        self.watch(cx, written)
    }
}
