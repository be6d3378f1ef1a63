//! Opening a connection to an endpoint: look-up, TCP, TLS. Deadlines are the caller's.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{Endpoint, Error};
use crate::net::Transport;

/// Connects. A name is looked up every time, so that a change of address is followed; its addresses are tried in turn.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> io::Result<Transport> {
    let stream = match endpoint.address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?,
    };
    stream.set_nodelay(true)?;
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

/// The one client configuration of the process: the system's roots, HTTP/1.1 only.
pub(super) fn tls_config(upstream: &str) -> Result<Arc<rustls::ClientConfig>, Error> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a root certificate could not be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Error::NoRoots {
            upstream: upstream.into(),
        });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::NoRoots {
            upstream: upstream.into(),
        })?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(config))))
}
