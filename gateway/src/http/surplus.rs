//! Connections that are too many. Owns the answer to those that speak plain HTTP/1, and how few of them get one.
//!
//! A flood must not be dearer than closing it at once: what is held for a moment is a socket and a small task, for so many
//! connections and no more; the others are closed. To a client behind TLS or a PROXY header the answer would have to be
//! earned by the work that the cap is to spare.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::door::Door;
use super::reject::{Reject, Telling};
use super::worker::Worker;
use crate::http1::head::Framing;
use crate::http1::write::{self, Answer};

/// Connections of one worker that are answered at once.
const MOST: u32 = 64;
/// From the accept to the end: for the request to begin, and for the client to read and to close. Closing with bytes unread
/// would reset the connection, and the client's kernel would throw away the answer.
const WHILE: Duration = Duration::from_secs(1);
/// Bytes of the request that are read and thrown away.
const READ: usize = 64 << 10;

/// Answers a connection that will not be served, if that costs little; else closes it.
pub(super) fn turn_away(worker: &Rc<Worker>, stream: TcpStream, door: &Door) {
    if door.tls.is_some() || door.proxy_protocol || worker.surplus.get() >= MOST {
        return;
    }
    let held = Held::new(worker);
    tokio::task::spawn_local(async move {
        let answered = timeout(WHILE, answer(&held.0, stream)).await;
        if let Ok(Err(error)) = answered {
            tracing::debug!(%error, "a client over the cap has gone");
        }
    });
}

/// Counts a connection for as long as it is there.
struct Held(Rc<Worker>);

impl Held {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.surplus.set(worker.surplus.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.surplus.set(self.0.surplus.get().saturating_sub(1));
    }
}

async fn answer(worker: &Worker, mut stream: TcpStream) -> io::Result<()> {
    let (mut left, mut answered) = (READ, false);
    while left > 0 {
        // An answer that nobody has asked for yet confuses clients that keep connections in store.
        stream.readable().await?;
        let (taken, asked) = match read(&stream) {
            Ok((0, _)) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        left = left.saturating_sub(taken);
        if !std::mem::replace(&mut answered, true) {
            let text = match asked {
                Asked::Http2 => return Ok(()),
                Asked::Head => text(worker, false),
                Asked::Other => text(worker, true),
            };
            stream.write_all(&text).await?;
            stream.shutdown().await?;
        }
    }
    Ok(())
}

/// What the first bytes say, as far as the answer depends on it.
enum Asked {
    /// Which could make nothing of the answer.
    Http2,
    /// Which has no body (RFC 9110, 9.3.2).
    Head,
    Other,
}

/// Throws away what has come. How much that was, and what it begins.
fn read(stream: &TcpStream) -> io::Result<(usize, Asked)> {
    let mut scratch = [0; 8 << 10];
    let taken = stream.try_read(&mut scratch)?;
    let asked = match scratch {
        [b'P', b'R', b'I', ..] => Asked::Http2,
        [b'H', b'E', b'A', b'D', b' ', ..] => Asked::Head,
        _ => Asked::Other,
    };
    Ok((taken, asked))
}

fn text(worker: &Worker, with_body: bool) -> BytesMut {
    let (id, site) = (worker.request_id(), worker.site());
    let telling = Telling {
        id: Some(&id),
        close: true,
        pages: (!site.errors.is_empty()).then_some(&site.errors),
        ..Telling::default()
    };
    let (parts, body) = Reject::TooManyConnections.answer(telling).into_parts();
    let mut bytes = BytesMut::new();
    let answer = Answer {
        framing: Framing::Length(body.len() as u64),
        keep_length: false,
        connection: Some("close"),
        date: Some(&worker.date()),
    };
    write::response(&mut bytes, &parts, &answer);
    if with_body {
        bytes.extend_from_slice(&body);
    }
    bytes
}
