//! Bodies gathered from their pieces, each up to a bound. Owns reading them to their end and making them plain; knows nothing of
//! what is done with them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use super::Ended;
use crate::http::body::{Fault, Progress, RequestBody};
use crate::http::coding;
use crate::http::coding::decode::{Broken, Decoder};
use crate::http::reject::Reject;
use crate::upstream::Lease;

/// Most bytes of requests' bodies that the process holds to have them whole: each is bounded, and so is what all of them take.
const MOST_HELD: usize = 256 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// A part of the memory for bodies, given back when dropped.
#[derive(Default)]
struct Held(usize);

impl Held {
    /// Takes more; `false` if there is none left.
    fn take(&mut self, more: usize) -> bool {
        self.0 += more;
        HELD.fetch_add(more, Ordering::Relaxed) + more <= MOST_HELD
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// A whole body with its part of the memory.
struct Whole {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A request's body, whole.
pub(in crate::http) async fn collect(
    mut body: RequestBody,
    progress: Option<&Progress>,
    most: u64,
) -> Result<Bytes, Ended> {
    if body.size_hint().lower() > most {
        return Err(Ended::Reject(Reject::BodyTooLarge));
    }
    let (mut gathered, mut held) = (Gathered::default(), Held::default());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else {
            return Err(match progress.and_then(Progress::fault) {
                Some(Fault::Gone) => Ended::Gone,
                Some(Fault::Reject(reject)) => Ended::Reject(reject),
                None => Ended::Reject(Reject::Internal),
            });
        };
        if let Ok(piece) = frame.into_data() {
            if !held.take(piece.len()) {
                return Err(Ended::Reject(Reject::Overloaded));
            }
            gathered.push(piece);
            if gathered.length() > most {
                return Err(Ended::Reject(Reject::BodyTooLarge));
            }
        }
    }
    Ok(Bytes::from_owner(Whole {
        bytes: gathered.whole(),
        _held: held,
    }))
}

/// Why an answer is not whole.
pub(super) enum Unread {
    Broke(Reject),
    TooLong(Bytes),
}

/// An answer's body, whole, as it is sent.
pub(super) async fn read(
    lease: &mut Lease<RequestBody>,
    most: u64,
    pause: Duration,
    by: Option<Instant>,
) -> Result<Bytes, Unread> {
    let mut gathered = Gathered::default();
    while !lease.is_read() {
        let until = Instant::now() + pause;
        let until = by.map_or(until, |by| by.min(until));
        let frame = match timeout_at(until, poll_fn(|cx| lease.poll_frame(cx))).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "response broke off");
                return Err(Unread::Broke(Reject::UpstreamMalformed));
            }
            Err(_) if by.is_some_and(|by| Instant::now() >= by) => {
                return Err(Unread::Broke(Reject::DeadlineExceeded));
            }
            Err(_) => return Err(Unread::Broke(Reject::UpstreamTimeout)),
        };
        if let Ok(piece) = frame.into_data() {
            gathered.push(piece);
            if gathered.length() > most {
                return Err(Unread::TooLong(gathered.whole()));
            }
        }
    }
    Ok(gathered.whole())
}

/// Pieces of a body; one alone is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: BytesMut,
}

impl Gathered {
    fn length(&self) -> u64 {
        (self.first.len() + self.more.len()) as u64
    }

    fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = piece;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&piece);
    }

    fn whole(self) -> Bytes {
        if self.more.is_empty() {
            self.first
        } else {
            self.more.freeze()
        }
    }
}

/// A body without its content coding; `None` if it can not be made plain, or is too long.
pub(super) fn plain(headers: &HeaderMap, raw: &Bytes, most: u64) -> Option<Bytes> {
    let Some(coding) = coding::of_request(headers).ok()? else {
        return Some(raw.clone());
    };
    let decode = || -> Result<Bytes, Broken> {
        let mut decoder = Decoder::new(coding, most).map_err(|_| Broken::Damaged)?;
        let mut out = BytesMut::from(&decoder.push(raw)?[..]);
        out.extend_from_slice(&decoder.finish()?);
        Ok(out.freeze())
    };
    decode().ok()
}
