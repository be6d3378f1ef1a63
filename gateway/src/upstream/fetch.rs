//! Requests of the gateway's own, to services that it asks: for keys, for a verdict, about a token. Owns one exchange from
//! address to whole answer, with its bounds; knows nothing of what is asked.
//!
//! No endpoints, no balance, no retries but one: what is asked here is one address, and who asks has a better answer for a
//! failure than to wait longer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::Full;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::tls::plain_config;
use crate::config::model::Url;
use crate::http1::outgoing::{Connection, Head};
use crate::net::Transport;

/// Kept connections to one service.
const MOST_IDLE: usize = 64;
/// A service may close a connection sooner; it is then asked again on a new one.
const LONGEST: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no answer in time")]
    Late,
    #[error("can not connect: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Exchange(#[from] crate::http1::Error),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    #[error("this can not be asked for")]
    Request,
}

/// A service, ready to be asked.
#[derive(Debug)]
pub struct Service {
    /// Distinguishes it from every other of this process.
    id: u64,
    url: Url,
    host: HeaderValue,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From asking to the last byte.
    pub time: Duration,
    /// Of the answer's body.
    pub bytes: usize,
}

/// A connection, and since when nobody uses it.
type Idle = (Connection<Full<Bytes>>, Instant);

/// Kept connections. For one thread.
#[derive(Debug, Default)]
pub struct Kept {
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
}

impl Service {
    /// # Errors
    /// The file `ca` or the system's certificates can not be used.
    pub fn new(url: &Url, ca: Option<&Path>) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tls = if url.tls {
            let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
            Some((plain_config(ca)?, name))
        } else {
            None
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            host: HeaderValue::try_from(url.authority()).map_err(|error| error.to_string())?,
            url: url.clone(),
            tls,
        })
    }

    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A request for it, without a body.
    #[must_use]
    pub fn request(&self) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.url.target.parse().unwrap_or_else(|_| Uri::from_static("/"));
        request
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// There is none, or it breaks the bounds. A connection that was kept and has been closed is tried once more.
    pub async fn ask(
        &self,
        request: Request<Bytes>,
        kept: &Kept,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, Error> {
        let asking = pin!(self.exchange(request, kept, bounds.bytes));
        timeout(bounds.time, asking).await.unwrap_or(Err(Error::Late))
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        kept: &Kept,
        most: usize,
    ) -> Result<Response<Bytes>, Error> {
        let (mut head, body) = request.into_parts();
        head.version = Version::HTTP_11;
        head.headers.insert(HOST, self.host.clone());
        head.headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static("gateway"));
        if let Some(mut connection) = kept.take(self.id) {
            match self.over(&mut connection, &head, &body, most).await {
                Ok(answer) => {
                    kept.put(self.id, connection);
                    return Ok(answer);
                }
                // It may have been closed as we began to speak; only then it is sure that nothing came of it.
                Err(Error::Exchange(_)) if !connection.has_answered() => {}
                Err(error) => return Err(error),
            }
        }
        let mut connection = Connection::new(self.connect().await.map_err(Error::Connect)?);
        let answer = self.over(&mut connection, &head, &body, most).await?;
        kept.put(self.id, connection);
        Ok(answer)
    }

    async fn over(
        &self,
        connection: &mut Connection<Full<Bytes>>,
        head: &http::request::Parts,
        body: &Bytes,
        most: usize,
    ) -> Result<Response<Bytes>, Error> {
        let mut body = Some(Full::new(body.clone()));
        let mut wanted = connection.begin(head, &mut body);
        let answer = loop {
            match poll_fn(|cx| connection.poll_head(cx, &mut wanted)).await? {
                Head::Interim(_) => {}
                Head::Answer(answer) => break answer,
            }
        };
        let mut whole = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| connection.poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data() {
                if whole.len() + data.len() > most {
                    return Err(Error::TooLarge(most));
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok(Response::from_parts(answer, whole.freeze()))
    }

    async fn connect(&self) -> io::Result<Transport> {
        let mut last = io::Error::other("the name has no address");
        for address in tokio::net::lookup_host((self.url.host.as_str(), self.url.port)).await? {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            stream.set_nodelay(true)?;
            let Some((config, name)) = &self.tls else {
                return Ok(Transport::Plain(stream));
            };
            let stream = TlsConnector::from(Arc::clone(config))
                .connect(name.clone(), stream)
                .await?;
            return Ok(Transport::Tls(Box::new(TlsStream::Client(stream))));
        }
        Err(last)
    }
}

impl Kept {
    /// The one that was used last and is still open.
    fn take(&self, service: u64) -> Option<Connection<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        let mine = idle.get_mut(&service)?;
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while let Some((mut connection, since)) = mine.pop() {
            if since.elapsed() < LONGEST && !connection.is_stale(&mut cx) {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, service: u64, mut connection: Connection<Full<Bytes>>) {
        if !connection.is_reusable() {
            return;
        }
        connection.rest();
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        // Services that are configured no more have nothing but old ones.
        idle.retain(|_, kept| {
            kept.retain(|(_, since)| now - *since < LONGEST);
            !kept.is_empty()
        });
        let mine = idle.entry(service).or_default();
        if mine.len() < MOST_IDLE {
            mine.push((connection, now));
        }
    }
}
