//! An answer's body on its way to the client: the gateway's own, the upstream's, or what follows a 101.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::super::budget::{Budget, Charged, Share};
use super::super::coding::encode::Encoder;
use super::super::coding::stream::{Failed, Recoder};
use super::super::record::Finish;
use super::super::reject::Reject;
use super::{BrokeOff, RequestBody, Stall};
use crate::upstream::Lease;

/// A response's body, towards the client. Dropping it ends the request's record.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// Codes what the upstream sends.
    recoder: Option<Box<Recoder>>,
    /// Under HTTP/2, what its pieces are charged to.
    share: Option<Rc<Share>>,
    /// Elsewhere, if what follows the header is.
    finish: Option<Finish>,
}

#[derive(Debug)]
enum Source {
    Own(Option<Bytes>),
    /// Behind a 101 there is no body: bytes go both ways until one side ends.
    Tunnel(Lease<RequestBody>),
    Upstream {
        /// What has been read of it already.
        front: Option<Bytes>,
        /// Present until the response has been read to its end.
        lease: Option<Lease<RequestBody>>,
        stall: Stall,
        /// When the exchange as a whole must be over.
        deadline: Option<Pin<Box<Sleep>>>,
    },
}

impl ResponseBody {
    /// The gateway's own answer.
    pub(in crate::http) fn own(bytes: Bytes, mut finish: Finish) -> Self {
        finish.bytes = bytes.len() as u64;
        finish.complete = true;
        Self::to_nobody(bytes, finish)
    }

    /// The gateway's own answer to a client that went away, which counts as none.
    pub(in crate::http) fn to_nobody(bytes: Bytes, finish: Finish) -> Self {
        Self {
            // Under HTTP/2 an answer without a body must end with its header: to gRPC only that is a status (trailers-only).
            source: Source::Own((!bytes.is_empty()).then_some(bytes)),
            recoder: None,
            share: finish.conn.budget.as_ref().map(Budget::share),
            finish: Some(finish),
        }
    }

    /// What the upstream sends, with at most `pause` between two pieces, to be over `by` then. Through `encoder`, unless
    /// it is empty.
    pub(in crate::http) fn upstream(
        lease: Lease<RequestBody>,
        pause: Duration,
        by: Option<Instant>,
        encoder: Option<Encoder>,
        share: Option<Rc<Share>>,
        finish: Finish,
    ) -> Self {
        let mut body = Self {
            source: Source::Upstream {
                front: None,
                lease: Some(lease),
                stall: Stall::new(pause),
                deadline: by.map(|by| Box::pin(sleep_until(by))),
            },
            recoder: None,
            share,
            finish: Some(finish),
        };
        // An empty one is never polled.
        body.settle();
        if !body.is_end_stream() {
            body.recoder = encoder.map(|encoder| Box::new(Recoder::encode(encoder)));
        }
        body
    }

    /// The same, behind what has been read of it already.
    pub(in crate::http) fn behind(mut self, read: Bytes) -> Self {
        if let Source::Upstream { front, .. } = &mut self.source {
            *front = Some(read).filter(|read| !read.is_empty());
        }
        self
    }

    /// What follows a 101.
    pub(in crate::http) fn tunnel(lease: Lease<RequestBody>, finish: Finish) -> Self {
        Self {
            source: Source::Tunnel(lease),
            recoder: None,
            share: None,
            finish: Some(finish),
        }
    }

    /// What follows is another's matter.
    pub(in crate::http) fn nothing() -> Self {
        Self {
            source: Source::Own(None),
            recoder: None,
            share: None,
            finish: None,
        }
    }

    /// The connection behind a 101, with the record of what goes through it.
    pub(in crate::http) fn as_tunnel(&mut self) -> Option<(&mut Lease<RequestBody>, &mut Finish)> {
        match &mut self.source {
            Source::Tunnel(lease) => Some((lease, self.finish.as_mut()?)),
            _ => None,
        }
    }

    /// Gives the connection back if the body has been read to its end.
    fn settle(&mut self) {
        if let Source::Upstream { lease: held, .. } = &mut self.source
            && let Some(lease) = held.take_if(|lease| lease.is_read())
        {
            if let Some(finish) = &mut self.finish {
                finish.complete = true;
            }
            lease.keep();
        }
    }

    /// The next piece from the upstream, as it is.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        if let Source::Upstream { front, .. } = &mut self.source
            && let Some(front) = front.take()
        {
            return Poll::Ready(Some(Ok(Frame::data(front))));
        }
        let Source::Upstream {
            lease: Some(lease),
            stall,
            deadline,
            ..
        } = &mut self.source
        else {
            return Poll::Ready(None);
        };
        let is_over = |deadline: &mut Pin<Box<Sleep>>| deadline.as_mut().poll(cx).is_ready();
        if deadline.as_mut().is_some_and(is_over) {
            return Poll::Ready(Some(Err(self.broke(Reject::DeadlineExceeded))));
        }
        match lease.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                stall.moved();
                self.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "response broke off");
                if let Some(finish) = &mut self.finish {
                    finish.because(error.reason());
                }
                let reject = if error.is_closed() {
                    Reject::UpstreamClosed
                } else {
                    Reject::UpstreamMalformed
                };
                Poll::Ready(Some(Err(self.broke(reject))))
            }
            Poll::Ready(None) => {
                self.settle();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(stall.poll(cx));
                Poll::Ready(Some(Err(self.broke(Reject::UpstreamTimeout))))
            }
        }
    }

    /// The next piece, as the client gets it.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        if let Source::Own(bytes) = &mut self.source {
            return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
        }
        let frame = match self.recoder.take() {
            None => ready!(self.poll_upstream(cx)),
            Some(mut recoder) => {
                let polled = recoder.poll(cx, |cx| self.poll_upstream(cx));
                self.recoder = Some(recoder);
                ready!(polled).map(|frame| {
                    frame.map_err(|failed| match failed {
                        Failed::Body(broke_off) => broke_off,
                        Failed::Coding(_) => self.broke(Reject::Internal),
                    })
                })
            }
        };
        if let (Some(Ok(frame)), Some(finish)) = (&frame, &mut self.finish) {
            finish.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn broke(&mut self, reject: Reject) -> BrokeOff {
        if let Source::Upstream { lease, .. } = &mut self.source {
            drop(lease.take());
        }
        if let Some(finish) = &mut self.finish {
            finish.broke(reject);
        }
        BrokeOff
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.leave();
        }
    }
}

impl Body for ResponseBody {
    type Data = Charged;
    type Error = BrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Charged>, BrokeOff>>> {
        let this = &mut *self;
        if let Some(share) = &this.share {
            ready!(share.poll_room(cx));
        }
        let frame = ready!(this.poll_piece(cx));
        if let Some(share) = &this.share {
            share.handed_out();
        }
        Poll::Ready(frame.map(|frame| {
            let share = this.share.clone();
            Ok(frame?.map_data(|bytes| Charged::new(bytes, share)))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Tunnel(_) => true,
            Source::Upstream { front, lease, .. } => {
                front.is_none()
                    && lease.is_none()
                    && self.recoder.as_ref().is_none_or(|recoder| recoder.is_done())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Tunnel(_) => SizeHint::with_exact(0),
            Source::Upstream { front, .. } if front.is_some() || self.recoder.is_some() => {
                SizeHint::default()
            }
            Source::Upstream { lease, .. } => lease
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), Lease::size_hint),
        }
    }
}
