//! A client's byte stream as hyper sees it. Owns what hyper has no place for: bytes read ahead to tell the protocol, a
//! strict look at HTTP/1 headers and a deadline on them, a deadline on writing to a client that does not read, and an end
//! of the connection that does not cut off the last answer.
//!
//! A header that is refused here is replaced by a request of our own, which [`Seen::doomed`] names; the service refuses
//! it as any other, with document, id, count and record. Nothing behind it is ever read.

use std::cell::Cell;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::body::Stall;
use super::head::{Fault, Scanner};
use super::reject::Reject;
use crate::config::model::Limits;
use crate::net::Transport;

/// Stands for a request that is refused before hyper has parsed it. No route and no policy ever sees it.
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\nConnection: close\r\n\r\n";
/// How often to look whether a client that has ended its side, as it may, has gone altogether.
const HALF_CLOSED_LOOK: Duration = Duration::from_millis(250);
/// What is still read of a client that has been answered early, in bytes and in time. Closing at once would reset the
/// connection, and the client's kernel would throw away the answer.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What the stream has seen, and what the service has done about it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Bytes have come that no finished request accounts for.
    pub partial: Cell<bool>,
    /// Requests that have ended, and when the last did.
    pub finished: Cell<u64>,
    pub idle_since: Cell<Option<Instant>>,
    /// The request, counted from one, that only stands for one that is refused, and why.
    pub doomed: Cell<Option<(u64, Reject)>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    inner: Transport,
    ahead: Ahead,
    seen: Rc<Seen>,
    stall: Stall,
    /// Absent where there are no HTTP/1 headers.
    http1: Option<Http1>,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

/// What is followed of an HTTP/1 connection.
#[derive(Debug)]
struct Http1 {
    scanner: Scanner,
    /// How long a header may take, from when, and the look after it: never set anew for a request, only when it fires.
    patience: Duration,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that hyper may see and had no room for.
    queue: Vec<u8>,
    /// Nothing more is read.
    over: bool,
    /// The client will send no more; when to look whether it is still there.
    ended: Option<Pin<Box<Sleep>>>,
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

impl Http1 {
    /// How many of these bytes hyper may see now; others are held, or queued.
    fn admit(&mut self, bytes: &[u8], seen: &Seen) -> usize {
        let held = self.scanner.held();
        let taken = self.scanner.take(bytes);
        let clean = match taken {
            Ok(clean) => clean,
            Err(ambiguous) => {
                let clean = ambiguous.before;
                let reject = match ambiguous.fault {
                    Fault::Malformed => Reject::Malformed,
                    Fault::TooLarge => Reject::HeaderTooLarge,
                };
                if held == 0 {
                    self.queue.extend_from_slice(&bytes[..clean]);
                } else {
                    self.complete(bytes, held, clean);
                }
                self.doom(seen, reject);
                return 0;
            }
        };
        if held == 0 {
            return clean;
        }
        self.complete(bytes, held, clean);
        0
    }

    /// Queues a header that was held, and what belongs to it and to requests behind it.
    fn complete(&mut self, bytes: &[u8], held: usize, clean: usize) {
        let header = self.scanner.completed();
        if !header.is_empty() {
            let rest = header.len() - held;
            self.queue.extend_from_slice(&header);
            self.queue
                .extend_from_slice(bytes.get(rest..clean).unwrap_or_default());
        }
    }

    /// Ends the connection with a refusal, behind the answers that are due.
    fn doom(&mut self, seen: &Seen, reject: Reject) {
        self.over = true;
        seen.doomed.set(Some((self.scanner.heads() + 1, reject)));
        self.queue.extend_from_slice(STAND_IN);
    }

    /// Whether a request is whole and not answered yet.
    fn owes(&self, seen: &Seen) -> bool {
        self.scanner.is_between() && self.scanner.heads() > seen.finished.get()
    }

    fn pour(&mut self, buf: &mut ReadBufCursor<'_>) {
        let now = self.queue.len().min(buf.remaining());
        buf.put_slice(&self.queue[..now]);
        if now == self.queue.len() {
            // What one slow header needed is not kept for the connection's life.
            self.queue = Vec::new();
        } else {
            self.queue.drain(..now);
        }
    }
}

impl Wire {
    /// `http2` is not looked into.
    pub(super) fn new(inner: Transport, ahead: Ahead, seen: Rc<Seen>, limits: &Limits, http2: bool) -> Self {
        let http1 = (!http2).then(|| Http1 {
            scanner: Scanner::new(limits.header_bytes as usize, limits.header_count as usize),
            patience: limits.request_header,
            since: Instant::now(),
            timer: None,
            queue: Vec::new(),
            over: false,
            ended: None,
        });
        Self {
            inner,
            ahead,
            seen,
            stall: Stall::new(limits.body_progress),
            http1,
            linger: None,
        }
    }

    /// How many of these bytes hyper may see now.
    fn admit(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        self.seen.partial.set(true);
        match &mut self.http1 {
            Some(http1) => http1.admit(bytes, &self.seen),
            None => bytes.len(),
        }
    }

    /// The end of what the client sends. One that waits for an answer gets it; hyper would take the end for a departure.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(http1) = &mut self.http1 else {
            return Poll::Ready(Ok(()));
        };
        let timer = http1
            .ended
            .get_or_insert_with(|| Box::pin(sleep(HALF_CLOSED_LOOK)));
        if !(http1.scanner.is_between() && http1.scanner.heads() > self.seen.finished.get()) {
            return Poll::Ready(Ok(()));
        }
        while timer.as_mut().poll(cx).is_ready() {
            if let Some(error) = self.inner.tcp().take_error()? {
                return Poll::Ready(Err(error));
            }
            timer.as_mut().reset(Instant::now() + HALF_CLOSED_LOOK);
        }
        Poll::Pending
    }

    /// Reads and throws away what a client sends that has been told already that it is not wanted.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let needed = self.http1.as_ref().is_some_and(|http1| {
            http1.ended.is_none() && (http1.over || !http1.scanner.is_between() || http1.owes(&self.seen))
        });
        if !needed {
            return Poll::Ready(());
        }
        let (timer, left) = self
            .linger
            .get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let tcp = self.inner.tcp();
        let mut scratch = [std::mem::MaybeUninit::uninit(); 8 << 10];
        while *left > 0 && timer.as_mut().poll(cx).is_pending() {
            let mut target = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut *tcp).poll_read(cx, &mut target)) {
                Ok(()) if !target.filled().is_empty() => *left = left.saturating_sub(target.filled().len()),
                _ => break,
            }
        }
        *left = 0;
        Poll::Ready(())
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
            let bytes = ahead.get();
            let admitted = this.admit(bytes);
            if admitted > 0 {
                // hyper reads with room for far more than a preface.
                buf.put_slice(&bytes[..admitted.min(buf.remaining())]);
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            if let Some(http1) = &mut this.http1 {
                if !http1.queue.is_empty() {
                    http1.pour(&mut buf);
                    return Poll::Ready(Ok(()));
                }
                if http1.over {
                    // The answer is under way and the connection ends behind it.
                    return Poll::Pending;
                }
                if http1.ended.is_some() {
                    return this.poll_ended(cx);
                }
            }
            let (taken, admitted) = {
                // SAFETY: the slice is only written through `ReadBuf`, which never un-initialises what it is given.
                let mut target = ReadBuf::uninit(unsafe { buf.as_mut() });
                match Pin::new(&mut this.inner).poll_read(cx, &mut target) {
                    Poll::Ready(Ok(())) => (target.filled().len(), this.admit(target.filled())),
                    Poll::Pending => {
                        ready!(this.poll_header_deadline(cx));
                        continue;
                    }
                    other => return other,
                }
            };
            if taken == 0 {
                return this.poll_ended(cx);
            }
            // SAFETY: `ReadBuf` counted `taken` bytes as filled, from the start of the same slice, and `admitted` is
            // at most that.
            unsafe { buf.advance(admitted) };
            if admitted > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Wire {
    /// Ready when a header has been waited for too long. Half of one is answered; silence is how an honest client keeps
    /// a spare connection, and is only ended.
    fn poll_header_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(http1) = &mut self.http1 else {
            return Poll::Pending;
        };
        let patience = http1.patience;
        loop {
            let timer = http1.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let busy = !http1.scanner.is_between() || http1.scanner.heads() > self.seen.finished.get();
            let since = self.seen.idle_since.get().unwrap_or(http1.since);
            let until = if busy { now } else { since } + patience;
            if !busy && until <= now {
                break;
            }
            timer.as_mut().reset(until);
        }
        if http1.scanner.held() > 0 {
            http1.doom(&self.seen, Reject::HeaderTimeout);
        } else {
            http1.ended = Some(Box::pin(sleep(HALF_CLOSED_LOOK)));
        }
        Poll::Ready(())
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
        if self.linger.is_none() {
            let done = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.watch(cx, done))?;
        }
        self.poll_linger(cx).map(Ok)
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
