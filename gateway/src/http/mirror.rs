//! Copies of requests for a second upstream, whose answers nobody sees. Owns how many there may be and what of a body is
//! copied; whatever becomes of a copy, the request itself does not notice.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::body::RequestBody;
use super::forward::Way;
use super::site::Mirror;
use super::worker::Worker;
use crate::upstream::{Deadlines, Outbound, Upstream, Wish};

/// Copies of one worker that are under way at once; more are not made.
const MOST: u32 = 128;
/// Most that is read of an answer, so that its connection can be used again.
const MOST_ANSWER: usize = 1 << 20;

/// Takes a copy of a body on its way, up to a length.
#[derive(Debug)]
pub struct Tee {
    seen: BytesMut,
    most: usize,
    whole: oneshot::Sender<Bytes>,
}

impl Tee {
    /// Takes the next piece. Gives itself up if it is too much.
    pub(super) fn take(mut self: Box<Self>, piece: &[u8]) -> Option<Box<Self>> {
        if self.seen.len() + piece.len() > self.most {
            return None;
        }
        self.seen.extend_from_slice(piece);
        Some(self)
    }

    /// Takes all of a body at once.
    pub(super) fn take_whole(self, body: Bytes) {
        if body.len() <= self.most {
            let _ = self.whole.send(body);
        }
    }

    /// The body has come to its end.
    pub(super) fn end(self) {
        let _ = self.whole.send(self.seen.freeze());
    }
}

/// A copy under way, counted for as long as it is.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Option<Self> {
        let count = worker.mirrors.get();
        (count < MOST).then(|| {
            worker.mirrors.set(count + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get().saturating_sub(1));
    }
}

/// Copies this request if the lot falls on it.
pub(super) fn begin(mirror: &Mirror, way: &Way<'_>, request: &mut Outbound<RequestBody>) {
    // Another protocol is not copied: nobody would speak its other half.
    let upgrades = request.parts.headers.contains_key(UPGRADE);
    if upgrades || way.worker.upstreams.draw() % 10_000 >= u64::from(mirror.share) {
        return;
    }
    let body = request.body.as_mut().filter(|body| !body.is_end_stream());
    let too_long = body.as_ref().is_some_and(|body| {
        let length = body.size_hint().exact();
        length.is_some_and(|length| length > mirror.body_bytes as u64)
    });
    let Some(counted) = Counted::new(way.worker).filter(|_| !too_long) else {
        mirror.upstream.mirror_skipped();
        return;
    };
    let mut twin = Outbound::new(request.parts.clone(), RequestBody::Empty);
    let whole = body.map(|body| {
        let (whole, is_whole) = oneshot::channel();
        let tee = Tee {
            seen: BytesMut::new(),
            most: mirror.body_bytes,
            whole,
        };
        body.tee(tee);
        is_whole
    });
    let (upstream, deadlines, limit) = (
        Arc::clone(&mirror.upstream),
        way.deadlines(),
        way.route.response_header,
    );
    let client = way.client.effective();
    tokio::task::spawn_local(async move {
        if let Some(whole) = whole {
            let Ok(bytes) = whole.await else {
                upstream.mirror_skipped();
                return;
            };
            twin.body = Some(RequestBody::Whole(Some(bytes)));
        }
        let wish = Wish {
            source: upstream.model.proxy_protocol.map(|_| client),
            ..Wish::default()
        };
        send(&counted.0, &upstream, &mut twin, &deadlines, &wish, limit).await;
    });
}

async fn send(
    worker: &Worker,
    upstream: &Arc<Upstream>,
    twin: &mut Outbound<RequestBody>,
    deadlines: &Deadlines,
    wish: &Wish<'_>,
    limit: Duration,
) {
    upstream.mirrored();
    let sending = worker
        .upstreams
        .send(upstream, twin, deadlines, wish, |_| sleep(limit));
    let Ok(sent) = sending.await else { return };
    let mut lease = sent.lease;
    let read = async {
        let mut left = MOST_ANSWER;
        while !lease.is_read() {
            let Some(Ok(frame)) = poll_fn(|cx| lease.poll_frame(cx)).await else {
                break;
            };
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
        lease.keep();
    };
    let _ = timeout(limit, read).await;
}
