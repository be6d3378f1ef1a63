//! From an accepted socket to a stream of a known protocol: PROXY header, TLS, a look for the HTTP/2 preface.
//!
//! Owns what of this has a deadline and who is to blame when it fails. Nothing here has seen a request.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::client::{Client, ClientAddr, ForwardedAddr};
use super::door::Door;
use super::reject::Reject;
use super::tls::{Certified, Identity, ServerTls};
use super::wire::Ahead;
use super::worker::{Phase, Worker};
use crate::config::model::Limits;
use crate::net::Transport;
use crate::net::proxy_protocol::{self, Header, Parsed};

/// What a client sends first to speak HTTP/2 without asking (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection that was accepted in the last moment may take to say something, once the gateway stops.
const LAST_MOMENT: Duration = Duration::from_millis(50);

/// A connection on which requests can be read.
pub(super) struct Arrival {
    pub(super) transport: Transport,
    pub(super) http2: bool,
    /// What was read to tell the protocol.
    pub(super) ahead: Ahead,
    pub(super) caller: Client,
    pub(super) secure: Option<Box<Secure>>,
    /// Since when it may send a header.
    pub(super) since: Instant,
}

/// What a handshake has shown.
#[derive(Debug)]
pub(super) struct Secure {
    /// The name that the client asked for and its certificate, if there is one for this name.
    asked: Option<(String, Arc<Certified>)>,
    /// Whom the client's certificate names.
    pub(super) identity: Option<Identity>,
}

impl Secure {
    /// Whether a request for this host, a canonical name, belongs on the connection (RFC 9110, 15.5.20).
    ///
    /// A client may ask for every host that the certificate covers (RFC 9113, 9.1.1). One that named none, or none that is
    /// known here, was given the first certificate; what it made of that is its own matter.
    pub(super) fn covers(&self, host: &str) -> bool {
        match &self.asked {
            Some((name, certified)) => name == host || certified.covers(host),
            None => true,
        }
    }
}

/// `None` if the connection is over; whatever there is to tell of it has been told.
pub(super) async fn arrive(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    door: &Door,
    client: ClientAddr,
) -> Option<Arrival> {
    let limits = worker.site().limits;
    let mut caller = Client {
        socket: client,
        forwarded: None,
    };
    if door.proxy_protocol {
        match proxied(worker, &mut stream, client, &limits).await {
            Ok(forwarded) => caller.forwarded = forwarded,
            Err(blame) => {
                if let Some(reject) = blame {
                    worker.refused(caller, None, reject);
                }
                return None;
            }
        }
        // What follows is the client's; who is refused is not listened to.
        if caller
            .forwarded
            .is_some_and(|who| !worker.watch.admits_forwarded(who))
        {
            worker.refused(caller, None, Reject::Blocked);
            return None;
        }
    }
    let mut ahead = Ahead::default();
    let since = Instant::now();
    let Some(tls) = &door.tls else {
        let http2 = plain(worker, &mut stream, &mut ahead, caller, &limits).await?;
        return Some(Arrival {
            transport: Transport::Plain(stream),
            http2,
            ahead,
            caller,
            secure: None,
            since,
        });
    };
    match handshake(stream, tls, limits.tls_handshake).await {
        Ok((stream, http2, secure)) => Some(Arrival {
            transport: Transport::Tls(Box::new(TlsStream::Server(stream))),
            http2,
            ahead,
            caller,
            secure: Some(Box::new(secure)),
            since: Instant::now(),
        }),
        Err(blame) => {
            worker.metrics.tls_failures.inc();
            if blame {
                worker.refused(caller, None, Reject::TlsHandshake);
            }
            None
        }
    }
}

/// Reads the header that a trusted proxy sends first. `Err(None)` for one that only knocked, as health checks do.
async fn proxied(
    worker: &Worker,
    stream: &mut TcpStream,
    client: ClientAddr,
    limits: &Limits,
) -> Result<Option<ForwardedAddr>, Option<Reject>> {
    if !worker.site().trusts(client.ip()) {
        return Err(Some(Reject::ProxyProtocol));
    }
    let read = timeout(limits.request_header, proxy_header(stream)).await;
    match read {
        Ok(Ok(Some(Header::Proxied { source, .. }))) => Ok(Some(ForwardedAddr::of_header(source.ip()))),
        Ok(Ok(Some(Header::Direct))) => Ok(None),
        Ok(Ok(None)) => Err(None),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::debug!(client = %client.ip(), %error, "connection closed");
            Err(Some(Reject::ProxyProtocol))
        }
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some(Reject::ProxyProtocol)),
    }
}

/// Takes the header and not a byte more: what follows belongs to TLS or HTTP. `None` if nothing came at all.
async fn proxy_header(stream: &mut TcpStream) -> io::Result<Option<Header>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        let mut piece = [0; 512];
        let seen = stream.peek(&mut piece).await?;
        if seen == 0 {
            let cut = proxy_protocol::Malformed("the connection ended in it");
            return if before == 0 { Ok(None) } else { Err(invalid(cut)) };
        }
        bytes.extend_from_slice(&piece[..seen]);
        let parsed = proxy_protocol::parse(&bytes).map_err(invalid)?;
        // Of a beginning all bytes are the header's.
        let take = match parsed {
            Parsed::Partial => seen,
            Parsed::Whole { length, .. } => length.saturating_sub(before),
        };
        stream.read_exact(&mut piece[..take.min(seen)]).await?;
        if let Parsed::Whole { header, .. } = parsed {
            return Ok(Some(header));
        }
    }
}

/// Whether a cleartext connection speaks HTTP/2; `None` if it is over.
async fn plain(
    worker: &Worker,
    stream: &mut TcpStream,
    ahead: &mut Ahead,
    caller: Client,
    limits: &Limits,
) -> Option<bool> {
    let mut phase = worker.phase.clone();
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(limits.request_header, sniff(stream, ahead)) => sniffed,
        // A connection on which nothing has begun has nothing to finish.
        () = async {
            let _ = phase.wait_for(Phase::is_last).await;
            sleep(LAST_MOMENT).await;
        } => return None,
    };
    match sniffed {
        Ok(Ok(http2)) => Some(http2),
        Ok(Err(_)) => None,
        Err(_) => {
            // Silence is how an honest client keeps a spare connection; half a preface is not.
            if !ahead.get().is_empty() {
                worker.refused(caller, None, Reject::HeaderTimeout);
            }
            None
        }
    }
}

type Handshaken = (tokio_rustls::server::TlsStream<TcpStream>, bool, Secure);

/// `Err(true)` if the client is to blame; not for one that only knocked.
async fn handshake(stream: TcpStream, tls: &ServerTls, limit: Duration) -> Result<Handshaken, bool> {
    let accepting = TlsAcceptor::from(Arc::clone(tls.config())).accept(stream);
    match timeout(limit, accepting).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            let http2 = session.alpn_protocol() == Some(b"h2");
            let asked = session.server_name().and_then(|name| {
                let certified = tls.names().known(name)?;
                Some((name.to_ascii_lowercase(), Arc::clone(certified)))
            });
            let leaf = session.peer_certificates().and_then(<[_]>::first);
            let identity = match leaf.map(|leaf| Identity::of(leaf)) {
                // Verified, and not to be read all the same: nobody that could be passed on.
                Some(None) => return Err(true),
                identity => identity.flatten(),
            };
            let secure = Secure { asked, identity };
            Ok((stream, http2, secure))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            Err(error.kind() == io::ErrorKind::InvalidData)
        }
        Err(_) => Err(true),
    }
}

/// Reads until it is clear whether the client opens with the HTTP/2 preface. What was read stays in `ahead`.
async fn sniff(stream: &mut TcpStream, ahead: &mut Ahead) -> io::Result<bool> {
    loop {
        let mut bytes = [0; PREFACE.len()];
        let room = PREFACE.len() - ahead.get().len();
        let taken = stream.read(&mut bytes[..room]).await?;
        if taken == 0 && ahead.get().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        ahead.push(&bytes[..taken]);
        let so_far = ahead.get();
        if !PREFACE.starts_with(so_far) || taken == 0 {
            return Ok(false);
        }
        if so_far.len() == PREFACE.len() {
            return Ok(true);
        }
    }
}
