//! Listening sockets: opened at the start, and added and removed while the gateway runs. Knows nothing of what is served.
//!
//! Each worker has a socket of its own on every address (SO_REUSEPORT). A listener that stays keeps its sockets, whatever
//! else about it changes. One whose address a service manager already listens on uses that socket, shared by all workers.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::door::{Door, Key, keys};
use super::site::Site;
use crate::config::model::Listener;

/// Connections the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 4096;

/// An address that can not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can not listen on {address}: {cause}{}", hint(.cause))]
pub struct Error {
    address: SocketAddr,
    cause: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: `ss -ltnp` names it)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (no interface has this address)",
        _ => "",
    }
}

/// One thing that a worker must do.
#[derive(Debug)]
pub(super) enum Change {
    Open(Arc<Door>, std::net::TcpListener),
    Close(Key),
}

/// Where to tell a worker.
pub(super) type Changes = mpsc::UnboundedSender<Change>;

/// A listener's sockets, one for each worker.
#[derive(Debug)]
struct Opened {
    key: Key,
    /// Where it really listens, if port 0 was asked for.
    address: SocketAddr,
    sockets: Vec<std::net::TcpListener>,
}

/// Sockets that listen already, and stay when this process ends. Kept, as a listener that a reload removed may come back.
#[derive(Clone, Debug, Default)]
pub struct Given(Arc<Vec<(SocketAddr, std::net::TcpListener)>>);

impl Given {
    /// Not blocking; each with an address.
    #[must_use]
    pub fn new(sockets: Vec<std::net::TcpListener>) -> Self {
        let with_address = |socket: std::net::TcpListener| Some((socket.local_addr().ok()?, socket));
        Self(Arc::new(sockets.into_iter().filter_map(with_address).collect()))
    }

    fn at(&self, address: SocketAddr) -> Option<&std::net::TcpListener> {
        let found = self.0.iter().find(|(at, _)| *at == address);
        found.map(|(_, socket)| socket)
    }
}

/// Addresses taken, and nobody served yet: clients wait in the kernel's queue.
#[derive(Debug)]
pub struct Bound {
    workers: NonZeroU32,
    opened: Vec<Opened>,
    given: Given,
}

impl Bound {
    /// Listens on all addresses, or on none. Port 0 takes a free port; [`Bound::addresses`] tells which.
    ///
    /// # Errors
    /// The first address that can not be listened on.
    pub fn bind(listeners: &[Listener], workers: NonZeroU32, given: Given) -> Result<Self, Error> {
        for (address, _) in given.0.iter() {
            if !listeners.iter().any(|listener| listener.address == *address) {
                tracing::warn!(%address, "the service manager listens here for us, and no listener has this address: clients wait for nothing");
            }
        }
        let opened = keys(listeners)
            .into_iter()
            .map(|key| open(key, workers.get() as usize, &[], &given))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            workers,
            opened,
            given,
        })
    }

    /// Where it listens, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.opened.iter().map(|opened| opened.address).collect()
    }

    pub(super) fn workers(&self) -> NonZeroU32 {
        self.workers
    }

    /// Hands each worker its sockets.
    pub(super) fn start(self, workers: Vec<Changes>, site: &Site) -> Listeners {
        let listeners = Listeners {
            open: Mutex::default(),
            workers,
            given: self.given,
        };
        let keys = self.opened.iter().map(|opened| opened.key).collect();
        let opened = Prepared {
            keys,
            added: self.opened,
        };
        listeners.apply(opened, site);
        listeners
    }
}

/// What is listened on now.
#[derive(Debug, Default)]
pub struct Listeners {
    /// In the order of the configuration.
    open: Mutex<Vec<(Key, SocketAddr)>>,
    workers: Vec<Changes>,
    given: Given,
}

/// Sockets of new listeners, that nobody accepts from yet. Dropping it takes them back.
#[derive(Debug)]
pub struct Prepared {
    keys: Vec<Key>,
    added: Vec<Opened>,
}

impl Listeners {
    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().iter().map(|(_, address)| *address).collect()
    }

    /// Listens on those addresses of `listeners` that are new: on all, or on none.
    ///
    /// # Errors
    /// The first address that can not be listened on; nothing has changed then.
    pub fn prepare(&self, listeners: &[Listener]) -> Result<Prepared, Error> {
        let keys = keys(listeners);
        let open_now = self.lock().clone();
        let ours: Vec<_> = open_now.iter().map(|(_, address)| *address).collect();
        let is_new = |key: &&Key| !open_now.iter().any(|(open, _)| open == *key);
        let added = keys
            .iter()
            .filter(is_new)
            .map(|key| open(*key, self.workers.len(), &ours, &self.given))
            .collect::<Result<_, _>>()?;
        Ok(Prepared { keys, added })
    }

    /// Accepts from what is new, and no more from what is not among the listeners any more. Connections go on.
    ///
    /// `site` has been compiled from the same listeners and is in force already.
    pub fn apply(&self, prepared: Prepared, site: &Site) {
        let Prepared { keys, added } = prepared;
        let mut open = self.lock();
        let (mut kept, gone): (Vec<_>, Vec<_>) = open.drain(..).partition(|(key, _)| keys.contains(key));
        for (key, address) in gone {
            tracing::info!(%address, "listening no more");
            self.tell(|| Some(Change::Close(key)));
        }
        for opened in added {
            tracing::info!(address = %opened.address, "listening");
            let Some(door) = site.door(opened.key) else {
                continue;
            };
            kept.push((opened.key, opened.address));
            let mut sockets = opened.sockets.into_iter();
            self.tell(|| Some(Change::Open(Arc::clone(door), sockets.next()?)));
        }
        kept.sort_by_key(|(key, _)| keys.iter().position(|one| one == key));
        *open = kept;
    }

    /// A worker that has ended hears nothing; its end is told elsewhere.
    fn tell(&self, mut change: impl FnMut() -> Option<Change>) {
        for worker in &self.workers {
            if let Some(change) = change() {
                let _ = worker.send(change);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Key, SocketAddr)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a listener's sockets; `ours` is where this gateway listens already.
fn open(key: Key, workers: usize, ours: &[SocketAddr], given: &Given) -> Result<Opened, Error> {
    let failed = |cause| Error {
        address: key.address,
        cause,
    };
    if let Some(socket) = given.at(key.address) {
        let sockets = (0..workers).map(|_| socket.try_clone());
        return Ok(Opened {
            key,
            address: key.address,
            sockets: sockets.collect::<Result<_, _>>().map_err(failed)?,
        });
    }
    let mut address = key.address;
    // One that overlaps with ours, such as 0.0.0.0 after 127.0.0.1, takes its place.
    if !ours.iter().any(|one| one.port() == address.port()) {
        probe(address).map_err(failed)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = listen(address).map_err(failed)?;
        address = socket.local_addr().map_err(failed)?;
        sockets.push(socket);
    }
    Ok(Opened {
        key,
        address,
        sockets,
    })
}

/// Fails if anybody else listens on the address. A socket with SO_REUSEPORT would not notice one of the same user.
fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// An IPv6 address takes IPv6 only: whoever wants both families lists both.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
