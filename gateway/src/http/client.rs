//! Who is calling. Owns the two kinds of client address, so that one can not be taken for the other.

use std::net::IpAddr;

/// The address of the other end of the socket, after a completed handshake: it can not be forged, so it may be
/// blocked in the kernel. Always canonical: an IPv4-mapped IPv6 peer is held as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// From the peer address of an accepted socket, and from nothing else.
    #[must_use]
    pub fn of_socket(peer: IpAddr) -> Self {
        Self(peer.to_canonical())
    }

    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

/// An address that a trusted proxy named in a header line or a PROXY header. Never to be blocked in the kernel: the packets are the proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ForwardedAddr(IpAddr);

impl ForwardedAddr {
    /// From the forwarding header, or the PROXY header, of a trusted proxy.
    #[must_use]
    pub fn of_header(named: IpAddr) -> Self {
        Self(named.to_canonical())
    }

    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

/// The caller of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub socket: ClientAddr,
    /// Present only if `socket` is a trusted proxy that named someone.
    pub forwarded: Option<ForwardedAddr>,
}

impl Client {
    /// The address that limits, logs and upstream headers speak of.
    #[must_use]
    pub fn effective(self) -> IpAddr {
        self.forwarded.map_or(self.socket.ip(), ForwardedAddr::ip)
    }
}

/// What the request path asks and tells about clients. `app` connects this to the strikes.
pub trait Watch: Send + Sync + 'static {
    /// Whether a new connection from `client` may be served. Asked once, right after accept.
    fn admits_connection(&self, client: ClientAddr) -> bool;

    /// Whether a request that a trusted proxy passes on for `client` may be served. Asked only for those.
    fn admits_forwarded(&self, client: ForwardedAddr) -> bool;

    /// The gateway refused something. Called once for each reject, after the answer is decided; must not block.
    fn rejected(&self, client: Client, reject: super::reject::Reject);

    /// The thread that calls this has had a second without the end of a request or a connection, and some before it.
    fn quiet(&self) {}
}
