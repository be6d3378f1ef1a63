//! Bodies on their way through: never buffered, always with a cap on size and on the pause between two pieces.
//!
//! A timer exists only while a body is being waited for, so a body that is there costs none.

mod response;

pub use response::ResponseBody;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, Sleep, sleep};

use super::budget::Charged;
use super::coding::decode::{Broken, Decoder};
use super::coding::stream::{Failed, Recoder};
use super::headers;
use super::mirror::Tee;
use super::reject::Reject;
use crate::http1;
use crate::net::fields::has_outer_blanks;

/// Why a request's body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// By the gateway's rules.
    Reject(Reject),
    /// The client went away.
    Gone,
}

/// How far a request's body got; read by the service while the body travels with the upstream connection.
#[derive(Debug)]
pub struct Progress {
    fault: Cell<Option<Fault>>,
    moved: Cell<Instant>,
    over: Cell<bool>,
}

impl Progress {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            fault: Cell::new(None),
            moved: Cell::new(Instant::now()),
            over: Cell::new(false),
        })
    }

    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// Whether all of it has been read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// When the last piece passed, or the body ended.
    #[must_use]
    pub fn moved(&self) -> Instant {
        self.moved.get()
    }
}

/// A request's body, as its connection brings it.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    Empty,
    Http1(http1::incoming::Incoming<Charged>),
    Http2(hyper::body::Incoming),
}

impl Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| fault_of_http1(&error))))
            }
            Self::Http2(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) if frame.trailers_ref().is_some_and(has_outer_blanks) => {
                        Err(Fault::Reject(Reject::Malformed))
                    }
                    Ok(frame) => Ok(frame),
                    Err(error) => Err(fault_of_http2(&error)),
                }))
            }
        }
    }

    /// Bytes that are certain to come, unless the client breaks off: those of a chunk that has begun.
    fn announced(&self) -> u64 {
        match self {
            Self::Http1(body) => body.announced(),
            Self::Empty | Self::Http2(_) => 0,
        }
    }

    /// Whether there is nothing more to come.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    /// What is known of the length of what is to come.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// A request's body, towards the upstream.
#[derive(Debug, Default)]
pub enum RequestBody {
    #[default]
    Empty,
    /// One that is all there.
    Whole(Option<Bytes>),
    Stream {
        /// Present until it is dropped.
        incoming: Option<Incoming>,
        unread: Option<Unread>,
        left: Option<u64>,
        stall: Stall,
        progress: Rc<Progress>,
        /// Takes a copy for the route's mirror.
        tee: Option<Box<Tee>>,
        /// Whether what of a trailer may go on does so.
        trailer: bool,
    },
    /// A [`RequestBody::Stream`] that is made plain on its way.
    Decoded {
        coded: Box<Self>,
        recoder: Box<Recoder>,
        progress: Rc<Progress>,
        /// As of a stream, of what is plain.
        tee: Option<Box<Tee>>,
    },
}

/// The body of a request was cut off; the reason is in its [`Progress`].
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off")]
pub struct BrokeOff;

impl RequestBody {
    /// `cap` in bytes. The progress is there only if there is a body.
    /// Under HTTP/2, what is not read of it goes to `unread`. Without `trailer` the lines behind it are left out.
    pub fn new(
        incoming: Incoming,
        cap: Option<u64>,
        pause: Duration,
        unread: Option<Unread>,
        trailer: bool,
    ) -> (Self, Option<Rc<Progress>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Progress::new();
        let body = Self::Stream {
            incoming: Some(incoming),
            unread,
            left: cap,
            stall: Stall::new(pause),
            progress: Rc::clone(&progress),
            tee: None,
            trailer,
        };
        (body, Some(progress))
    }

    /// Has copied what the upstream gets.
    pub(super) fn tee(&mut self, copier: Tee) {
        match self {
            Self::Stream { tee, .. } | Self::Decoded { tee, .. } => *tee = Some(Box::new(copier)),
            Self::Whole(Some(bytes)) => copier.take_whole(bytes.clone()),
            Self::Whole(None) | Self::Empty => copier.end(),
        }
    }

    /// The same body, made plain. `progress` is the one that came with it.
    #[must_use]
    pub fn decoded(self, decoder: Decoder, progress: &Rc<Progress>) -> Self {
        Self::Decoded {
            coded: Box::new(self),
            recoder: Box::new(Recoder::decode(decoder)),
            progress: Rc::clone(progress),
            tee: None,
        }
    }
}

fn poll_decoded(
    coded: &mut RequestBody,
    recoder: &mut Recoder,
    progress: &Progress,
    tee: &mut Option<Box<Tee>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
    let frame = ready!(recoder.poll(cx, |cx| Pin::new(&mut *coded).poll_frame(cx)));
    match &frame {
        Some(Ok(frame)) => copy(tee, frame, recoder.is_done()),
        Some(Err(_)) => {}
        None => end(tee),
    }
    Poll::Ready(frame.map(|frame| {
        frame.map_err(|failed| {
            let reject = match failed {
                Failed::Body(broke_off) => return broke_off,
                Failed::Coding(Broken::TooLarge) => Reject::BodyTooLarge,
                Failed::Coding(Broken::Damaged) => Reject::BadBody,
            };
            progress.fault.set(Some(Fault::Reject(reject)));
            BrokeOff
        })
    }))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let (incoming, left, stall, progress, tee, trailer) = match self.get_mut() {
            Self::Stream {
                incoming: Some(incoming),
                left,
                stall,
                progress,
                tee,
                trailer,
                ..
            } => (incoming, left, stall, progress, tee, *trailer),
            Self::Decoded {
                coded,
                recoder,
                progress,
                tee,
            } => return poll_decoded(coded, recoder, progress, tee, cx),
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Empty | Self::Stream { incoming: None, .. } => return Poll::Ready(None),
        };
        let fault = match incoming.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(lines) = frame.trailers_mut() {
                    if trailer {
                        headers::prepare_trailer(lines);
                    } else {
                        lines.clear();
                    }
                }
                stall.moved();
                progress.moved.set(Instant::now());
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match left.map(|left| left.checked_sub(length)) {
                    Some(None) => Fault::Reject(Reject::BodyTooLarge),
                    after => {
                        *left = after.flatten();
                        progress.over.set(incoming.is_end_stream());
                        copy(tee, &frame, incoming.is_end_stream());
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
            }
            Poll::Ready(Some(Err(fault))) => fault,
            Poll::Ready(None) => {
                progress.moved.set(Instant::now());
                progress.over.set(true);
                end(tee);
                return Poll::Ready(None);
            }
            // Too much is too much before it has come.
            Poll::Pending if left.is_some_and(|left| incoming.announced() > left) => {
                Fault::Reject(Reject::BodyTooLarge)
            }
            Poll::Pending => {
                ready!(stall.poll(cx));
                Fault::Reject(Reject::BodyTimeout)
            }
        };
        progress.fault.set(Some(fault));
        Poll::Ready(Some(Err(BrokeOff)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream { incoming, .. } => incoming.as_ref().is_none_or(Incoming::is_end_stream),
            Self::Decoded { recoder, .. } => recoder.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream { incoming, .. } => incoming
                .as_ref()
                .map_or_else(SizeHint::default, Incoming::size_hint),
            Self::Decoded { .. } => SizeHint::default(),
        }
    }
}

fn copy(tee: &mut Option<Box<Tee>>, frame: &Frame<Bytes>, is_last: bool) {
    let Some(copier) = tee.take() else { return };
    *tee = match frame.data_ref() {
        Some(piece) => copier.take(piece),
        None => Some(copier),
    };
    if is_last {
        end(tee);
    }
}

fn end(tee: &mut Option<Box<Tee>>) {
    if let Some(copier) = tee.take() {
        copier.end();
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Self::Stream {
            incoming,
            unread: Some(unread),
            progress,
            ..
        } = self
            && progress.fault() != Some(Fault::Gone)
            && let Some(incoming) = incoming.take()
        {
            discard(incoming, unread);
        }
    }
}

/// Where HTTP/2 bodies go that nobody wants to read to their end, each worker's to its own [`discard_all`].
pub type Unread = UnboundedSender<hyper::body::Incoming>;

/// Most that is read of such a body, in bytes and in time.
const DISCARD_BYTES: usize = 1 << 20;
const DISCARD: Duration = Duration::from_secs(1);

/// Lets the client finish what it is sending, within bounds. A stream that is reset while its client still sends is an
/// error to many clients, though the answer was there before.
pub(super) fn discard(incoming: Incoming, unread: &Unread) {
    if let Incoming::Http2(incoming) = incoming
        && !incoming.is_end_stream()
    {
        // Without a receiver the worker is ending.
        let _ = unread.send(incoming);
    }
}

/// Reads bodies and throws them away.
pub(super) async fn discard_all(mut unread: UnboundedReceiver<hyper::body::Incoming>) {
    while let Some(mut incoming) = unread.recv().await {
        tokio::task::spawn_local(async move {
            let mut left = DISCARD_BYTES;
            let read = async {
                while let Some(Ok(frame)) = incoming.frame().await {
                    match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                        Some(rest) => left = rest,
                        None => return,
                    }
                }
            };
            let _ = tokio::time::timeout(DISCARD, read).await;
        });
    }
}

/// Tells bytes that lie (a bad chunk) from bytes that stopped coming.
fn fault_of_http1(error: &http1::Error) -> Fault {
    match error {
        http1::Error::Malformed | http1::Error::TooLarge => Fault::Reject(Reject::Malformed),
        _ => Fault::Gone,
    }
}

/// As [`fault_of_http1`].
fn fault_of_http2(error: &hyper::Error) -> Fault {
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        if let Some(h2) = source.downcast_ref::<h2::Error>() {
            let lies = h2.is_library() && h2.reason() == Some(h2::Reason::PROTOCOL_ERROR);
            return if lies {
                Fault::Reject(Reject::Malformed)
            } else {
                Fault::Gone
            };
        }
        cause = source.source();
    }
    Fault::Gone
}

/// A deadline on waiting. Poll it while nothing comes; tell it when something did.
#[derive(Debug)]
pub struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Stall {
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            timer: None,
            waiting: false,
        }
    }

    /// Something came.
    pub fn moved(&mut self) {
        self.waiting = false;
    }

    /// Ready when nothing has come for the limit, counted from the first poll of this wait.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stall_counts_from_the_last_movement() {
        let start = Instant::now();
        let mut stall = Stall::new(Duration::from_secs(10));
        let first = tokio::time::timeout(Duration::from_secs(6), poll_fn(|cx| stall.poll(cx))).await;
        assert!(first.is_err());
        stall.moved();
        poll_fn(|cx| stall.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 16);
    }
}
