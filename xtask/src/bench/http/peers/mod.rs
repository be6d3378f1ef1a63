//! The programs of the measurement, each configured as its makers advise for a plain proxy: one thread, kept
//! connections to the upstream, no log of requests. A file for each holds its words; what is asked of all is a `Setup`.

mod caddy;
mod gateway;
mod haproxy;
mod nginx;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;
pub use gateway::configure as configure_gateway;

const UPSTREAM: ([u8; 4], u16) = ([127, 0, 0, 1], 18090);
/// Where WebSockets end.
pub const WEBSOCKETS: ([u8; 4], u16) = ([127, 0, 0, 1], 18091);
/// The key that the full chain asks for.
const KEY: &str = "bench-key-0123456789abcdef";
/// What the gateway's configuration holds of it.
const KEY_SHA256: &str = "95ab1ab43a1c769ff93ba02eec3f4f81c077398c1691a00ae8628abd43901779";
/// A token that is good until 2100, by ES256; the key that signed it is no more. Not a secret: it opens a benchmark.
const BEARER: &str = "Bearer \
    eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoiYmVuY2g\
    iLCJzdWIiOiJwYXJ0bmVyIiwiZXhwIjo0MTAyNDQ0ODAwfQ.qet2kgrjmtgu-qe5IYzrAzeF9f5xRgNdNLG7SKdqbxcmQTWA\
    xuwPvG3awXh4PTPUb-Watld1P6P8fIvwURlk5g";
/// What the gateway verifies it by.
const TOKEN_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+OGxB4uYciFUA0pXM5GHil4osmxH\n\
    l/l1GZ92R0EnKk7FFZt2ylm/qYQGv94SUz3JMujx7f4r/8aXeahKAFsTkw==\n-----END PUBLIC KEY-----\n";
/// Idle connections to the upstream that may be kept: enough for every stream of every connection.
const POOL: u32 = 1_024;
/// The rate limit of the full chain, a second: looked at for each request, never reached.
const CHAIN_BURST: u32 = 1_000_000;

/// A program to start.
pub struct Peer {
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    pub command: Vec<OsString>,
    pub environment: Vec<(&'static str, OsString)>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Gateway,
    Nginx,
    Haproxy,
    Caddy,
}

pub const ALL: &[Program] = &[Program::Gateway, Program::Nginx, Program::Haproxy, Program::Caddy];

impl Program {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// Whether it can be started here. The gateway was built.
    pub fn is_here(self) -> bool {
        self == Self::Gateway || shell::find(self.name()).is_some()
    }

    /// Writes its configuration.
    pub fn peer(self, files: &Files<'_>, setup: &Setup) -> Result<Peer> {
        match self {
            Self::Gateway => gateway::proxy(files, setup),
            Self::Nginx => nginx::proxy(files, setup),
            Self::Haproxy => haproxy::proxy(files, setup),
            Self::Caddy => caddy::proxy(files, setup),
        }
    }
}

/// What a case asks of every program.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// TLS 1.2 and 1.3, ECDSA with P-256, HTTP/2 and HTTP/1.1 offered.
    pub tls: bool,
    pub routes: Routes,
    /// Upgrades are let through, where that needs to be said.
    pub websocket: bool,
    /// The upstream is told who asks, as the gateway always does: X-Forwarded-For, -Proto and -Host, X-Real-IP, Via, and an id of
    /// the request, which the client gets too.
    pub told: bool,
    /// Room for connections, both sides together.
    pub connections: u32,
}

/// One route of everything, or so many of `/svcN/`.
#[derive(Clone, Copy, Debug)]
pub enum Routes {
    One,
    Many(u32),
    /// With an API key, a rate limit, and edits of headers both ways.
    Chain(u32),
    /// One route that takes a token, with a rate limit by its subject and an edit of a header. The gateway alone.
    Token,
    /// One route that takes one of so many API keys. The gateway alone.
    Keys(u32),
}

impl Routes {
    /// The line that a good request has.
    pub const fn credentials(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::One | Self::Many(_) => None,
            Self::Chain(_) | Self::Keys(_) => Some(("x-api-key", KEY)),
            Self::Token => Some(("authorization", BEARER)),
        }
    }
}

impl Setup {
    pub const PLAIN: Self = Self {
        tls: false,
        routes: Routes::One,
        websocket: false,
        told: true,
        connections: 9_000,
    };
    pub const UNTOLD: Self = Self {
        told: false,
        ..Self::PLAIN
    };
    pub const TLS: Self = Self {
        tls: true,
        ..Self::PLAIN
    };

    pub const fn routes(routes: Routes) -> Self {
        Self {
            routes,
            ..Self::PLAIN
        }
    }

    fn upstream(&self) -> SocketAddr {
        SocketAddr::from(if self.websocket { WEBSOCKETS } else { UPSTREAM })
    }

    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// Where everything that a run needs lies.
#[derive(Debug)]
pub struct Files<'a> {
    pub dir: &'a Path,
    pub gateway: &'a Path,
    /// PEM.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub pair: PathBuf,
}

/// The answer of every route: 128 bytes.
pub fn answer() -> String {
    format!("{{\"id\":1,\"text\":\"{}\"}}", "x".repeat(110))
}

/// Files that the upstream sends, and that are sent to it: path below the directory and size.
pub const BODIES: &[(&str, usize)] = &[("files/64k", 64 << 10), ("files/1m", 1 << 20)];

impl<'a> Files<'a> {
    /// Makes the directory, a certificate and the bodies.
    pub fn make(dir: &'a Path, gateway: &'a Path) -> Result<Self> {
        fs::create_dir_all(dir.join("files")).with_context(|| format!("making {}", dir.display()))?;
        let files = Self {
            dir,
            gateway,
            certificate: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            pair: dir.join("pair.pem"),
        };
        let mut openssl = shell::command("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args(["-nodes", "-days", "30", "-subj", "/CN=localhost"]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"]);
        openssl.arg(&files.key).arg("-out").arg(&files.certificate);
        shell::output(&mut openssl).context("making a certificate")?;
        let read =
            |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
        let pair = format!("{}{}", read(&files.certificate)?, read(&files.key)?);
        files.write("pair.pem", &pair)?;
        for (name, size) in BODIES {
            // Not all the same byte: nothing may gain by noticing.
            let text: String = (0..*size)
                .map(|at| char::from(b'a' + (at * 7 % 23) as u8))
                .collect();
            files.write(name, &text)?;
        }
        Ok(files)
    }

    /// The upstream of all.
    pub fn upstream(&self) -> Result<Peer> {
        nginx::upstream(self, &answer())
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    fn peer(
        &self,
        name: &'static str,
        address: SocketAddr,
        program: impl AsRef<Path>,
        arguments: &[OsString],
    ) -> Peer {
        let program = program.as_ref();
        // The administrator's programs are often not on a user's PATH.
        let found = program
            .to_str()
            .and_then(shell::find)
            .unwrap_or_else(|| program.to_path_buf());
        let mut command = vec![found.into_os_string()];
        command.extend_from_slice(arguments);
        Peer {
            name,
            address,
            command,
            environment: Vec::new(),
            log: self.dir.join(format!("{name}.log")),
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_the_report_says() {
        assert_eq!(answer().len(), 128);
    }
}
