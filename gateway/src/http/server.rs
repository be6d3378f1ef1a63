//! Worker threads. Owns the beginning and the end of serving, and accepting.
//!
//! Each worker has its own sockets on every address (SO_REUSEPORT), its own event loop and its own connections to
//! upstreams: nothing that a request touches is shared between threads but counters.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};

use super::body;
use super::client::{Client, ClientAddr, Watch};
use super::connection;
use super::connections::Connections;
use super::door::{Door, Key};
use super::listeners::{self, Bound, Change, Given, Listeners};
use super::reject::Reject;
use super::site::SiteHandle;
use super::surplus;
use super::worker::{Phase, Worker};
use crate::config::model::Listener;
use crate::telemetry::Metrics;

/// Pause after a failed accept: long enough for a descriptor to become free, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most one message about failed accepts in this time, for each listener of each worker.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bind(#[from] listeners::Error),
    #[error("can not start a worker: {0}")]
    Worker(std::io::Error),
}

/// A serving gateway. Dropping it without [`Server::shutdown`] cuts everything off.
#[derive(Debug)]
pub struct Server {
    listeners: Arc<Listeners>,
    phase: watch::Sender<Phase>,
    connections: Arc<Connections>,
    workers: Vec<(JoinHandle<()>, oneshot::Receiver<bool>)>,
    /// The first worker that ended without being told to.
    dead: watch::Receiver<Option<usize>>,
}

impl Bound {
    /// Starts the workers. The site must have been compiled from the same listeners.
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
        let (mut workers, mut changes) = (Vec::new(), Vec::new());
        for index in 0..self.workers().get() as usize {
            let (tell, told) = mpsc::unbounded_channel();
            changes.push(tell);
            let seed = [getrandom::u64(), getrandom::u64()].map(|word| word.unwrap_or(index as u64 + 1) | 1);
            let (done, finished) = oneshot::channel();
            let parts = (
                Arc::clone(site),
                Arc::clone(watch),
                Arc::clone(metrics),
                Arc::clone(&connections),
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
                let all = local.block_on(&runtime, work(Rc::new(worker), told, bodies));
                let _ = done.send(all);
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            workers.push((thread.spawn(run).map_err(Error::Worker)?, finished));
        }
        Ok(Server {
            listeners: Arc::new(self.start(changes, &site.load())),
            phase,
            connections,
            workers,
            dead,
        })
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
        Bound::bind(listeners, workers, Given::default())?.serve(
            &site,
            &watch,
            &metrics,
            &Arc::new(Connections::default()),
        )
    }

    /// Where it listens, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// What it listens on, to be changed while it serves.
    #[must_use]
    pub fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
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

    /// Goes on serving, and tells clients with each answer to go elsewhere: `Connection: close`, or GOAWAY. Whoever sends them
    /// has been told that the gateway is not ready any more, and needs a while to see it.
    pub fn leave(&self) {
        self.phase.send_replace(Phase::Leaving);
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
        if !self.phase.borrow().is_last() {
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

/// The life of a worker. Returns whether all its connections finished.
async fn work(
    worker: Rc<Worker>,
    mut changes: mpsc::UnboundedReceiver<Change>,
    unread: mpsc::UnboundedReceiver<hyper::body::Incoming>,
) -> bool {
    tokio::task::spawn_local(body::discard_all(unread));
    let pruner = tokio::task::spawn_local(prune(Rc::clone(&worker)));
    let mut accepting = Accepting {
        worker: Rc::clone(&worker),
        tasks: JoinSet::new(),
        open: HashMap::new(),
    };
    let mut phase = worker.phase.clone();
    let deadline = loop {
        match *phase.borrow_and_update() {
            Phase::Draining(deadline) => break deadline,
            Phase::Leaving => worker.leaving.set(true),
            Phase::Serving => {}
        }
        tokio::select! {
            biased;
            changed = phase.changed() => if changed.is_err() {
                break Instant::now();
            },
            // A listener that nobody accepts from ends the worker, which ends the gateway.
            Some(Err(error)) = accepting.tasks.join_next() => {
                tracing::error!(%error, "a worker accepts no more");
                return false;
            }
            Some(change) = changes.recv() => if let Err(error) = accepting.change(change) {
                tracing::error!(%error, "a listening socket can not be used");
                return false;
            }
        }
    };
    pruner.abort();
    // Clients may wait in the queue of a socket that has only just been handed over.
    while let Ok(change) = changes.try_recv() {
        let _ = accepting.change(change);
    }
    let finished = async {
        // Each takes in who is waiting already.
        while accepting.tasks.join_next().await.is_some() {}
        worker.empty().await;
    };
    timeout_at(deadline, finished).await.is_ok()
}

/// What a worker accepts from.
struct Accepting {
    worker: Rc<Worker>,
    tasks: JoinSet<()>,
    /// Dropping one of them ends the accepting.
    open: HashMap<Key, oneshot::Sender<()>>,
}

impl Accepting {
    fn change(&mut self, change: Change) -> std::io::Result<()> {
        match change {
            Change::Close(key) => drop(self.open.remove(&key)),
            Change::Open(door, socket) => {
                let (stop, stopped) = oneshot::channel();
                self.open.insert(door.key, stop);
                let listener = TcpListener::from_std(socket)?;
                self.tasks
                    .spawn_local(accept(Rc::clone(&self.worker), listener, door, stopped));
            }
        }
        Ok(())
    }
}

/// Accepts until the listener or the server is stopped.
async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    mut door: Arc<Door>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut phase = worker.phase.clone();
    let mut told: Option<Instant> = None;
    let mut met = |stream, peer: SocketAddr| {
        // The last one known, if a reload has just taken it away.
        if let Some(known) = worker.site().door(door.key) {
            door = Arc::clone(known);
        }
        welcome(
            &worker,
            stream,
            ClientAddr::of_socket(peer.ip()),
            Arc::clone(&door),
        );
    };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(Phase::is_last) => break,
            _ = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => met(stream, peer),
            Err(error) => {
                // Out of descriptors, or a client that was gone before it was accepted: never a reason to stop.
                worker.metrics.accept_errors.inc();
                if told.is_none_or(|told| told.elapsed() >= ACCEPT_LOG) {
                    told = Some(Instant::now());
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who has connected already is served: closing the socket would reset him.
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    met(stream, peer);
                }
            }
            // One that has gone already.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

/// Serves a connection that may be served.
fn welcome(worker: &Rc<Worker>, stream: TcpStream, client: ClientAddr, door: Arc<Door>) {
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
        let site = worker.site();
        let limits = &site.limits;
        // A load balancer's connections are those of all its clients; `connections` holds for it too.
        let one = if site.trusts(client.ip()) {
            u32::MAX
        } else {
            limits.connections_per_client
        };
        (limits.connections, one)
    };
    let Some(guest) = worker.connections.enter(client, most, most_per_client) else {
        worker.refused(caller, None, Reject::TooManyConnections);
        surplus::turn_away(worker, stream, &door);
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
        connection::serve(worker, stream, door, guest).await;
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

/// Closes upstream connections that have been idle for too long, and tells of the end of a busy time.
async fn prune(worker: Rc<Worker>) {
    let mut every = interval(Duration::from_secs(1));
    let mut was_busy = false;
    loop {
        every.tick().await;
        let idle = worker.site().limits.upstream_idle;
        worker.upstreams.prune(idle);
        let busy = worker.busy.take();
        if was_busy && !busy {
            worker.watch.quiet();
        }
        was_busy = busy;
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
            listeners: Arc::default(),
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
