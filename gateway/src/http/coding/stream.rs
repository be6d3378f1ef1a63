//! A coding step put between a body and whoever reads it.
//!
//! Owns when the step is fed, flushed and ended: whenever the body pauses, all that went in is brought out, so that nobody
//! waits for a piece that is here already.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::decode::{Broken, Decoder};
use super::encode::Encoder;

/// A body on its way through a step.
#[derive(Debug)]
pub struct Recoder {
    /// Present until the body has ended.
    step: Option<Step>,
    /// Comes after what the step still holds.
    trailers: Option<Frame<Bytes>>,
}

#[derive(Debug)]
enum Step {
    Encode(Encoder),
    Decode(Decoder),
}

/// Why a body ended early.
#[derive(Debug)]
pub enum Failed<E> {
    /// It did.
    Body(E),
    Coding(Broken),
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

impl Recoder {
    #[must_use]
    pub fn encode(encoder: Encoder) -> Self {
        Self::with(Step::Encode(encoder))
    }

    #[must_use]
    pub fn decode(decoder: Decoder) -> Self {
        Self::with(Step::Decode(decoder))
    }

    fn with(step: Step) -> Self {
        Self {
            step: Some(step),
            trailers: None,
        }
    }

    /// Whether all has come out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.step.is_none() && self.trailers.is_none()
    }

    /// The next piece, made of what `next` gives.
    pub fn poll<E>(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Polled<E>,
    ) -> Polled<Failed<E>> {
        loop {
            let Some(step) = &mut self.step else {
                return Poll::Ready(self.trailers.take().map(Ok));
            };
            let (made, pending) = match next(cx) {
                Poll::Pending => (step.pause(), true),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Failed::Body(error)))),
                Poll::Ready(None) => (self.end(), false),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => (step.push(&piece), false),
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        (self.end(), false)
                    }
                },
            };
            match made {
                Err(broken) => return Poll::Ready(Some(Err(Failed::Coding(broken)))),
                Ok(piece) if !piece.is_empty() => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(_) if pending => return Poll::Pending,
                Ok(_) => {}
            }
        }
    }

    fn end(&mut self) -> Result<Bytes, Broken> {
        match self.step.take() {
            Some(Step::Encode(encoder)) => encoder.finish().map_err(|_| Broken::Damaged),
            Some(Step::Decode(decoder)) => decoder.finish(),
            None => Ok(Bytes::new()),
        }
    }
}

impl Step {
    fn push(&mut self, piece: &[u8]) -> Result<Bytes, Broken> {
        match self {
            Self::Encode(encoder) => encoder.push(piece).map_err(|_| Broken::Damaged),
            Self::Decode(decoder) => decoder.push(piece),
        }
    }

    /// What a pause brings out.
    fn pause(&mut self) -> Result<Bytes, Broken> {
        match self {
            Self::Encode(encoder) if encoder.holds() => encoder.flush().map_err(|_| Broken::Damaged),
            // A decoder gives at once what it can.
            Self::Encode(_) | Self::Decode(_) => Ok(Bytes::new()),
        }
    }
}
