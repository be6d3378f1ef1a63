//! Asking one endpoint whether it is well. Owns the three kinds of probe and what counts as a good answer; when to ask, and
//! what follows, is the keeper's matter.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, Version, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{Preface, connect};
use super::{Endpoint, Upstream};
use crate::config::model::{Health, Probe};
use crate::net::Transport;

/// Most bytes of an answer that are read.
const MOST: usize = 8 << 10;
/// `SERVING` in a `HealthCheckResponse`.
const SERVING: &[u8] = &[0x08, 0x01];

/// Asks once. The caller limits the time.
pub(super) async fn probe(upstream: &Upstream, endpoint: &Endpoint, health: &Health) -> io::Result<()> {
    // Told as from the gateway itself, where a client's address would be told.
    let preface = upstream.model.proxy_protocol.map(|version| Preface {
        version,
        source: None,
    });
    let tls = upstream.tls.as_ref().map(|configs| match health.probe {
        Probe::Grpc { .. } => &configs.http2,
        Probe::Tcp | Probe::Http { .. } => &configs.http1,
    });
    let transport = connect(endpoint, tls, preface).await?;
    match &health.probe {
        Probe::Tcp => Ok(()),
        Probe::Http { path, host, status } => {
            let host = host.as_deref().unwrap_or(&host_of(upstream, endpoint)).to_owned();
            ask_http(transport, path, &host, *status).await
        }
        Probe::Grpc { service } => ask_grpc(transport, service, &host_of(upstream, endpoint)).await,
    }
}

/// What the endpoint goes by where nothing else is said.
fn host_of(upstream: &Upstream, endpoint: &Endpoint) -> String {
    use crate::config::model::Address::{Ip, Name, Service, Unix};
    match upstream
        .model
        .endpoints
        .get(endpoint.member())
        .map(|member| &member.address)
    {
        Some(Name { host, .. }) => host.clone(),
        Some(Unix(_)) => "localhost".to_owned(),
        Some(Ip(_) | Service(_)) | None => endpoint.name().to_string(),
    }
}

async fn ask_http(mut transport: Transport, path: &str, host: &str, good: (u16, u16)) -> io::Result<()> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gateway-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    transport.write_all(request.as_bytes()).await?;
    transport.flush().await?;
    let mut seen = BytesMut::with_capacity(512);
    let line = loop {
        if let Some(end) = seen.iter().position(|b| *b == b'\n') {
            break seen.split_to(end);
        }
        if seen.len() >= MOST || transport.read_buf(&mut seen).await? == 0 {
            return Err(io::Error::other("what came is not HTTP"));
        }
    };
    let status = std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.get(2..5))
        .and_then(|status| status.parse::<u16>().ok())
        .ok_or_else(|| io::Error::other("what came is not HTTP"))?;
    if (good.0..=good.1).contains(&status) {
        return Ok(());
    }
    Err(io::Error::other(format!("status {status}")))
}

/// One call of `grpc.health.v1.Health/Check`.
async fn ask_grpc(transport: Transport, service: &str, host: &str) -> io::Result<()> {
    let (mut client, connection) = h2::client::Builder::new()
        .max_header_list_size(16 << 10)
        .handshake::<_, Bytes>(transport)
        .await
        .map_err(io::Error::other)?;
    let call = async {
        let request = Request::post(format!("http://{host}/grpc.health.v1.Health/Check"))
            .version(Version::HTTP_2)
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .map_err(io::Error::other)?;
        let (answer, mut body) = client.send_request(request, false).map_err(io::Error::other)?;
        body.send_data(check_request(service), true)
            .map_err(io::Error::other)?;
        let answer = answer.await.map_err(io::Error::other)?;
        if answer.status() != StatusCode::OK {
            return Err(io::Error::other(format!("status {}", answer.status())));
        }
        if let Some(status) = answer.headers().get("grpc-status") {
            grpc_ok(Some(status))?;
        }
        let mut body = answer.into_body();
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(io::Error::other)?;
            let _ = body.flow_control().release_capacity(data.len());
            message.extend_from_slice(&data);
            if message.len() > MOST {
                return Err(io::Error::other("the answer is too long"));
            }
        }
        let trailers = body.trailers().await.map_err(io::Error::other)?;
        grpc_ok(trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")))?;
        match message.get(5..) {
            Some(SERVING) => Ok(()),
            _ => Err(io::Error::other("it is not serving")),
        }
    };
    tokio::select! {
        answer = call => answer,
        ended = connection => match ended {
            Ok(()) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

fn grpc_ok(status: Option<&HeaderValue>) -> io::Result<()> {
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(status) => Err(io::Error::other(format!(
            "grpc-status {}",
            String::from_utf8_lossy(status)
        ))),
        None => Err(io::Error::other("no grpc-status")),
    }
}

/// A `HealthCheckRequest` in its frame. The name has at most 128 bytes, so every length is one byte.
fn check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if let (false, Ok(length)) = (service.is_empty(), u8::try_from(service.len())) {
        // Field 1; from 128 on a length takes two bytes.
        message.put_u8(0x0a);
        if length >= 0x80 {
            message.put_u8(length | 0x80);
            message.put_u8(1);
        } else {
            message.put_u8(length);
        }
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or_default());
    frame.put_slice(&message);
    frame.freeze()
}

/// What is known of an endpoint's answers in a row.
#[derive(Debug, Default)]
pub(super) struct Row {
    good: u32,
    bad: u32,
}

impl Row {
    /// Takes one answer in; `Some` if the endpoint now counts as well, or as down.
    pub(super) fn take(&mut self, good: bool, health: &Health) -> Option<bool> {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            (self.good >= health.healthy).then_some(true)
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            (self.bad >= health.unhealthy).then_some(false)
        }
    }
}

/// The endpoint under its upstream, while there are both.
pub(super) type Pair = (Arc<Upstream>, Arc<Endpoint>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;

    #[test]
    fn a_row_of_answers_decides_and_one_does_not() {
        let health = defaults::health();
        let mut row = Row::default();
        let seen: Vec<_> = [true, true, false, false, true, false, false, false, true, true]
            .map(|good| row.take(good, &health))
            .into();
        let (up, down) = (Some(true), Some(false));
        assert_eq!(seen, [None, up, None, None, None, None, None, down, None, up]);
    }
}
