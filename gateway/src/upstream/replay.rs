//! A request's body on its way to HTTP/2, of which so much is kept that it can be sent once more.
//!
//! An endpoint may say that it has not begun with a request (RFC 9113, 8.7): when it goes away, or has too many streams.
//! By then some of the body, or all of it, is with the connection. Such a request is safe to send again, a POST too, and
//! an endpoint that closes connections now and then would otherwise lose some of them each time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Bytes that are kept of one body until its answer begins. Of a longer one nothing is kept: no longer than its beginning is
/// it known that it is longer.
const MOST: usize = 32 << 10;

/// One sending of a body. Clones are the same one: the connection takes the body from it, and who waits for the answer may
/// take it back.
#[derive(Debug)]
pub(super) struct Replay<B>(Rc<RefCell<Inner<B>>>);

#[derive(Debug)]
struct Inner<B> {
    /// Gone when it was taken back.
    body: Option<B>,
    /// What earlier sendings took, to be sent before the rest.
    again: VecDeque<Bytes>,
    /// What this sending took; `None` once that is too much, or more than bytes.
    kept: Option<Vec<Bytes>>,
    size: usize,
    /// Whether it ended before its end.
    broke_off: bool,
}

impl<B> Clone for Replay<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B> Replay<B> {
    /// `sent` was taken of `body` by an earlier sending.
    pub(super) fn new(body: B, sent: Vec<Bytes>) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            body: Some(body),
            again: sent.into(),
            kept: Some(Vec::new()),
            size: 0,
            broke_off: false,
        })))
    }

    /// The answer has begun: nothing needs to be kept any more.
    pub(super) fn settle(&self) {
        self.0.borrow_mut().kept = None;
    }

    /// Whether the body itself ended before its end, as its sender went away.
    pub(super) fn broke_off(&self) -> bool {
        self.0.borrow().broke_off
    }

    /// The body, with what was taken of it, if that is known; nothing of it goes to this sending's connection any more.
    pub(super) fn take_back(&self) -> Option<(B, Vec<Bytes>)> {
        let mut inner = self.0.borrow_mut();
        let mut sent = inner.kept.take()?;
        sent.extend(mem::take(&mut inner.again));
        Some((inner.body.take()?, sent))
    }
}

impl<B> Inner<B> {
    fn keep(&mut self, piece: &Bytes) {
        self.size = self.size.saturating_add(piece.len());
        if self.size > MOST {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(piece.clone());
        }
    }
}

/// Somebody else sends the body now.
#[derive(Debug, thiserror::Error)]
#[error("the body was taken back")]
struct TakenBack;

impl<B> Body for Replay<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let inner = &mut *self.0.borrow_mut();
        let Some(body) = &mut inner.body else {
            return Poll::Ready(Some(Err(TakenBack.into())));
        };
        if let Some(piece) = inner.again.pop_front() {
            inner.keep(&piece);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) if let Some(piece) = frame.data_ref() => inner.keep(piece),
            Some(frame) => {
                inner.kept = None;
                inner.broke_off |= frame.is_err();
            }
            None => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.0.borrow();
        inner.again.is_empty() && inner.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.0.borrow();
        let before: u64 = inner.again.iter().map(|piece| piece.len() as u64).sum();
        let rest = inner
            .body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(before.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(before.saturating_add(upper));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Waker;

    use http::HeaderMap;

    use super::*;

    /// Pieces, then the end.
    #[derive(Debug)]
    struct Pieces(VecDeque<Frame<Bytes>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(
                self.0
                    .iter()
                    .filter_map(Frame::data_ref)
                    .map(|p| p.len() as u64)
                    .sum(),
            )
        }
    }

    fn pieces(texts: &[&'static str]) -> Pieces {
        Pieces(texts.iter().map(|text| Frame::data(Bytes::from(*text))).collect())
    }

    fn next(replay: &mut Replay<Pieces>) -> Option<String> {
        let polled = Pin::new(replay).poll_frame(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(frame) = polled else {
            panic!("pending")
        };
        let piece = frame?.unwrap().into_data().unwrap();
        Some(String::from_utf8(piece.to_vec()).unwrap())
    }

    fn rest(mut replay: Replay<Pieces>) -> String {
        std::iter::from_fn(|| next(&mut replay)).collect()
    }

    #[test]
    fn what_was_taken_is_sent_again_and_again_before_the_rest() {
        let mut first = Replay::new(pieces(&["a", "b", "c"]), Vec::new());
        assert_eq!(next(&mut first).unwrap(), "a");
        let (body, sent) = first.take_back().unwrap();
        let mut second = Replay::new(body, sent);
        assert_eq!(second.size_hint().exact(), Some(3));
        assert_eq!(
            (next(&mut second).unwrap(), next(&mut second).unwrap()),
            ("a".into(), "b".into())
        );
        assert!(!second.is_end_stream());
        let (body, sent) = second.take_back().unwrap();
        // Of the third nothing is taken, and nothing is lost by that.
        let (body, sent) = Replay::new(body, sent).take_back().unwrap();
        assert_eq!(rest(Replay::new(body, sent)), "abc");
    }

    #[test]
    fn a_body_that_was_taken_back_goes_nowhere_else() {
        let mut first = Replay::new(pieces(&["a"]), Vec::new());
        let held = first.take_back().unwrap();
        assert!(!first.is_end_stream());
        let polled = Pin::new(&mut first).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Some(Err(_)))));
        assert!(first.take_back().is_none());
        drop(held);
    }

    #[test]
    fn a_long_one_one_with_a_trailer_and_one_that_is_answered_are_not_kept() {
        let long: &'static str = String::leak("x".repeat(MOST));
        let mut body = Replay::new(pieces(&[long, "y"]), Vec::new());
        next(&mut body);
        assert_eq!(body.0.borrow().kept.as_ref().unwrap().len(), 1);
        next(&mut body);
        assert!(body.take_back().is_none());

        let mut body = Replay::new(Pieces([Frame::trailers(HeaderMap::new())].into()), Vec::new());
        let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(body.take_back().is_none());

        let mut body = Replay::new(pieces(&["a"]), Vec::new());
        next(&mut body);
        body.settle();
        assert!(body.take_back().is_none());
    }
}
