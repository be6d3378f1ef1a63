//! Bodies gathered from their pieces, each up to a bound and all within the memory that there is for them. Owns reading them to
//! their end and making them plain; knows nothing of what is done with them.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};

use super::Ended;
use crate::http::body::{Fault, Progress, RequestBody};
use crate::http::coding;
use crate::http::coding::decode::{Broken, Decoder};
use crate::http::held::{Held, HeldBytes};
use crate::http::reject::Reject;
use crate::upstream::Lease;

/// A request's body, whole; `held` is what is counted for it already.
pub(in crate::http) async fn collect(
    mut body: RequestBody,
    progress: Option<&Progress>,
    most: u64,
    mut held: Held,
) -> Result<HeldBytes, Ended> {
    if body.size_hint().lower() > most {
        return Err(Ended::Reject(Reject::BodyTooLarge));
    }
    let mut gathered = Gathered::default();
    // One that is there already brings its count along.
    if let RequestBody::Whole(whole) = &mut body {
        return Ok(HeldBytes::new(whole.take().unwrap_or_default(), held));
    }
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else {
            return Err(match progress.and_then(Progress::fault) {
                Some(Fault::Gone) => Ended::Gone,
                Some(Fault::Reject(reject)) => Ended::Reject(reject),
                None => Ended::Reject(Reject::Internal),
            });
        };
        if let Ok(piece) = frame.into_data() {
            gathered.push(piece);
            if gathered.length() as u64 > most {
                return Err(Ended::Reject(Reject::BodyTooLarge));
            }
            if !held.reach(gathered.length()) {
                return Err(Ended::Reject(Reject::Overloaded));
            }
        }
    }
    Ok(HeldBytes::new(gathered.whole(), held))
}

/// Why an answer is not whole.
pub(super) enum Unread {
    Broke(Reject),
    /// It is too long, or there is no room for it: what was read, and which of the two.
    Part(HeldBytes, Reject),
}

/// An answer's body, whole, as it is sent.
pub(super) async fn read(
    lease: &mut Lease<RequestBody>,
    most: u64,
    pause: Duration,
    by: Option<Instant>,
    client: IpAddr,
) -> Result<HeldBytes, Unread> {
    let (mut gathered, mut held) = (Gathered::default(), Held::of(client));
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
            let has_room = held.reach(gathered.length());
            let why = if gathered.length() as u64 > most {
                Reject::ResponseInvalid
            } else if !has_room {
                Reject::Overloaded
            } else {
                continue;
            };
            return Err(Unread::Part(HeldBytes::new(gathered.whole(), held), why));
        }
    }
    Ok(HeldBytes::new(gathered.whole(), held))
}

/// Pieces of a body; one alone is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: Vec<u8>,
}

impl Gathered {
    fn length(&self) -> usize {
        self.first.len() + self.more.len()
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
            // No larger than it is counted.
            Bytes::from(self.more.into_boxed_slice())
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
