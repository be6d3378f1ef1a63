//! Listening sockets and worker threads. Owns the beginning and the end of serving.
//!
//! Each worker has its own sockets on every address (SO_REUSEPORT), its own event loop and its own connections to
//! upstreams: nothing that a request touches is shared between threads but counters.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval, sleep, timeout_at};

use super::body;
use super::client::{Client, ClientAddr, Watch};
use super::connection;
use super::connections::Connections;
use super::reject::Reject;
use super::site::SiteHandle;
use super::worker::{Phase, Worker};
use crate::config::model::Listener;
use crate::telemetry::Metrics;

/// Connections the kernel keeps for us before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept: long enough for a descriptor to become free, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most one message about failed accepts in this time, for each listener of each worker.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can not listen on {address}: {cause}{}", hint(.cause))]
    Bind { address: SocketAddr, cause: io::Error },
    #[error("can not start a worker: {0}")]
    Worker(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: `ss -ltnp` names it)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (no interface has this address)",
        _ => "",
    }
}

/// A serving gateway. Dropping it without [`Server::shutdown`] cuts everything off.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    phase: watch::Sender<Phase>,
    connections: Arc<Connections>,
    workers: Vec<(JoinHandle<()>, oneshot::Receiver<bool>)>,
    /// The first worker that ended without being told to.
    dead: watch::Receiver<Option<usize>>,
}

/// Addresses taken, and nobody served yet: clients wait in the kernel's queue.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<SocketAddr>,
    /// For each worker, its sockets in the order of the listeners.
    sockets: Vec<Vec<std::net::TcpListener>>,
}

impl Bound {
    /// Listens on all addresses, or on none. Port 0 takes a free port; [`Bound::addresses`] tells which.
    pub fn bind(listeners: &[Listener], workers: NonZeroU32) -> Result<Self, Error> {
        let mut addresses = Vec::new();
        let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..workers.get()).map(|_| Vec::new()).collect();
        for listener in listeners {
            let bind = |cause| Error::Bind {
                address: listener.address,
                cause,
            };
            let mut address = listener.address;
            probe(address).map_err(bind)?;
            for sockets in &mut sockets {
                let socket = listen(address).map_err(bind)?;
                address = socket.local_addr().map_err(bind)?;
                sockets.push(socket);
            }
            addresses.push(address);
        }
        Ok(Self { addresses, sockets })
    }

    /// Where it listens, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Starts the workers.
    ///
    /// The listeners must be those that the site's TLS configurations were compiled from, in the same order.
    pub fn serve(
        self,
        site: &SiteHandle,
        watch: &Arc<dyn Watch>,
        metrics: &Arc<Metrics>,
        connections: &Arc<Connections>,
    ) -> Result<Server, Error> {
        let (phase, phases) = watch::channel(Phase::Serving);
        let connections = Arc::clone(connections);
        let (death, dead) = watch::channel(None);
        let mut server = Server {
            addresses: self.addresses,
            phase,
            connections,
            workers: Vec::new(),
            dead,
        };
        for (index, sockets) in self.sockets.into_iter().enumerate() {
            let seed = [getrandom::u64(), getrandom::u64()].map(|word| word.unwrap_or(index as u64 + 1) | 1);
            let (done, finished) = oneshot::channel();
            let parts = (
                Arc::clone(site),
                Arc::clone(watch),
                Arc::clone(metrics),
                Arc::clone(&server.connections),
                phases.clone(),
            );
            let alive = Alive {
                index,
                phase: phases.clone(),
                death: death.clone(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::Worker)?;
            let run = move || {
                let _alive = alive;
                let (site, watch, metrics, connections, phase) = parts;
                let local = tokio::task::LocalSet::new();
                let (unread, bodies) = mpsc::unbounded_channel();
                let worker = Worker::new(site, watch, metrics, connections, phase, unread, seed);
                let all = local.block_on(&runtime, work(Rc::new(worker), sockets, bodies));
                let _ = done.send(all);
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            server
                .workers
                .push((thread.spawn(run).map_err(Error::Worker)?, finished));
        }
        Ok(server)
    }
}

impl Server {
    /// Binds and serves at once, with a registry of its own.
    pub fn start(
        listeners: &[Listener],
        workers: NonZeroU32,
        site: SiteHandle,
        watch: Arc<dyn Watch>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        Bound::bind(listeners, workers)?.serve(&site, &watch, &metrics, &Arc::new(Connections::default()))
    }

    /// Where it listens, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Who is connected.
    #[must_use]
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Resolves with a worker's name when it ended, by a panic for example, without being told to.
    pub async fn died(&self) -> String {
        let mut dead = self.dead.clone();
        let first = dead.wait_for(Option::is_some).await.map(|dead| *dead);
        match first {
            Ok(Some(index)) => format!("worker-{index}"),
            // The last of them was dropped: none is left.
            _ => std::future::pending().await,
        }
    }

    /// Stops accepting at once, lets what is under way finish, and cuts off what has not after `limit`. Returns whether
    /// everything finished.
    pub async fn shutdown(mut self, limit: Duration) -> bool {
        self.phase.send_replace(Phase::Draining(Instant::now() + limit));
        let mut all = true;
        for (thread, finished) in std::mem::take(&mut self.workers) {
            all &= finished.await.unwrap_or(false);
            // It has said its last word; nothing is waited for.
            all &= thread.join().is_ok();
        }
        all
    }
}

/// Tells of a worker's end, however it comes, unless the server is stopping.
struct Alive {
    index: usize,
    phase: watch::Receiver<Phase>,
    death: watch::Sender<Option<usize>>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if *self.phase.borrow() == Phase::Serving {
            self.death
                .send_if_modified(|dead| dead.replace(self.index).is_none());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Draining(Instant::now()));
    }
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

/// The life of a worker. Returns whether all its connections finished.
async fn work(
    worker: Rc<Worker>,
    sockets: Vec<std::net::TcpListener>,
    unread: mpsc::UnboundedReceiver<hyper::body::Incoming>,
) -> bool {
    tokio::task::spawn_local(body::discard_all(unread));
    let mut accepting = tokio::task::JoinSet::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        match TcpListener::from_std(socket) {
            Ok(listener) => drop(accepting.spawn_local(accept(Rc::clone(&worker), listener, index))),
            Err(error) => {
                tracing::error!(%error, "a listening socket can not be used");
                return false;
            }
        }
    }
    let pruner = tokio::task::spawn_local(prune(Rc::clone(&worker)));
    let mut phase = worker.phase.clone();
    let deadline = loop {
        match *phase.borrow_and_update() {
            Phase::Draining(deadline) => break deadline,
            Phase::Serving => {}
        }
        tokio::select! {
            biased;
            changed = phase.changed() => if changed.is_err() {
                break Instant::now();
            },
            // A listener that nobody accepts from ends the worker, which ends the gateway.
            Some(Err(error)) = accepting.join_next() => {
                tracing::error!(%error, "a worker accepts no more");
                return false;
            }
        }
    };
    pruner.abort();
    timeout_at(deadline, worker.empty()).await.is_ok()
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, index: usize) {
    let mut phase = worker.phase.clone();
    let mut told: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that was gone before it was accepted: never a reason to stop.
                worker.metrics.accept_errors.inc();
                if told.is_none_or(|told| told.elapsed() >= ACCEPT_LOG) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        welcome(&worker, stream, ClientAddr::of_socket(peer.ip()), index);
    }
}

/// Serves a connection that may be served.
fn welcome(worker: &Rc<Worker>, stream: tokio::net::TcpStream, client: ClientAddr, index: usize) {
    worker.metrics.connections_total.inc();
    let caller = Client {
        socket: client,
        forwarded: None,
    };
    if !worker.watch.admits_connection(client) {
        worker.refused(caller, None, Reject::Blocked);
        return;
    }
    let (most, most_per_client) = {
        let limits = &worker.site().limits;
        (limits.connections, limits.connections_per_client)
    };
    let Some(guest) = worker.connections.enter(client, most, most_per_client) else {
        worker.refused(caller, None, Reject::TooManyConnections);
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    worker.opened();
    worker.metrics.connections.inc();
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let open = Open(Rc::clone(&worker));
        connection::serve(worker, stream, index, guest).await;
        drop(open);
    });
}

/// Counts a connection down however it ends.
struct Open(Rc<Worker>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
        self.0.ended();
    }
}

/// Closes upstream connections that have been idle for too long.
async fn prune(worker: Rc<Worker>) {
    let mut every = interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let idle = worker.site().limits.upstream_idle;
        worker.upstreams.prune(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_told_and_one_that_is_stopped_is_not() {
        let (death, dead) = watch::channel(None);
        let (phase, phases) = watch::channel(Phase::Serving);
        let server = Server {
            addresses: Vec::new(),
            phase,
            connections: Arc::default(),
            workers: Vec::new(),
            dead,
        };
        let alive = |index| Alive {
            index,
            phase: phases.clone(),
            death: death.clone(),
        };
        let (one, stopped) = (alive(1), alive(2));
        let thread = std::thread::spawn(move || {
            let _one = one;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(server.died().await, "worker-1");
        server.phase.send_replace(Phase::Draining(Instant::now()));
        drop(stopped);
        assert_eq!(server.died().await, "worker-1");
    }
}
