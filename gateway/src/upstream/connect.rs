//! Opening a connection to an endpoint: socket, PROXY header, TLS. Deadlines are the caller's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, TlsStream};

use super::Endpoint;
use super::endpoint::Origin;
use crate::config::model::ProxyVersion;
use crate::net::Transport;
use crate::net::proxy_protocol::{Header, Version, encode};

/// What is told in front of everything else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preface {
    pub(super) version: ProxyVersion,
    /// The client; `None` for connections of the gateway's own. Of a client that a trusted proxy named, no port is
    /// known, so none is told of anyone.
    pub(super) source: Option<IpAddr>,
}

impl Preface {
    fn bytes(self) -> Vec<u8> {
        let header = match self.source {
            Some(client) => Header::Proxied {
                source: SocketAddr::new(client, 0),
                destination: match client {
                    IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                },
            },
            None => Header::Direct,
        };
        let version = match self.version {
            ProxyVersion::V1 => Version::V1,
            ProxyVersion::V2 => Version::V2,
        };
        encode(version, &header)
    }
}

/// Connects. `tls` is there if the upstream has endpoints that speak it.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Arc<rustls::ClientConfig>>,
    preface: Option<Preface>,
) -> io::Result<Transport> {
    let stream = socket(&endpoint.origin).await?;
    begin(stream, endpoint, tls, preface).await
}

/// What is said on a new connection to an endpoint before any request.
pub(super) async fn begin(
    mut stream: TcpStream,
    endpoint: &Endpoint,
    tls: Option<&Arc<rustls::ClientConfig>>,
    preface: Option<Preface>,
) -> io::Result<Transport> {
    if let Some(preface) = preface {
        stream.write_all(&preface.bytes()).await?;
    }
    match (&endpoint.server_name, tls) {
        (Some(name), Some(config)) => {
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), stream).await?;
            Ok(Transport::Tls(Box::new(TlsStream::Client(stream))))
        }
        (None, _) => Ok(Transport::Plain(stream)),
        (Some(_), None) => Err(io::Error::other("no TLS configuration for a TLS endpoint")),
    }
}

/// The bare connection.
pub(super) async fn socket(origin: &Origin) -> io::Result<TcpStream> {
    match origin {
        Origin::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        // To send, receive and shut down, the kernel's calls are the same for both kinds of socket. To hold it as the
        // other kind spares every connection of the proxy a case that only this one has.
        Origin::Unix(path) => {
            let stream = UnixStream::connect(path).await?.into_std()?;
            TcpStream::from_std(OwnedFd::from(stream).into())
        }
    }
}

/// Whether the other side agreed to HTTP/2. Without TLS it is taken at the operator's word (RFC 9113, 3.3).
pub(super) fn speaks_http2(transport: &Transport) -> bool {
    match transport {
        Transport::Plain(_) => true,
        Transport::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
    }
}
