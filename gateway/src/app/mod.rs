//! Wires the parts and owns their life: start, reload, drain, stop. The only module that may know all others.
//!
//! The order of a start is chosen so that what fails early has changed nothing: configuration, state, certificates and
//! listening sockets first, the kernel last; and within the kernel the lists before the program that reads them.

mod activation;
mod asked;
mod callers;
mod control;
pub mod descriptors;
pub mod doctor;
mod files;
mod guard;
pub mod heap;
mod host;
mod lists;
pub mod offline;
mod quotas;
mod signals;
mod watch;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::admin::{metrics, server::AdminSocket};
use crate::config::fault::Faults;
use crate::config::model::XdpMode;
use crate::config::{Config, Warning};
use crate::dataplane::engine::World;
use crate::dataplane::kernel::{Kernel, KernelLog, Options};
use crate::dataplane::lock::Holder;
use crate::dataplane::shared::Shared;
use crate::dataplane::store::{Store, StoreError};
use crate::dataplane::{Backend, Engine, Error, Handle, clock::Now};
use crate::http::client::Watch;
use crate::http::listeners::Given;
use crate::http::{Bound, Connections, listeners, server};
use crate::runtime::{self, Runtime, RuntimeHandle};
use crate::strikes::Strikes;
use crate::telemetry::{Metrics, logs, packets::Packets};
use control::Control;
use guard::{Aftermath, Guard};
use signals::Event;
use watch::Watchers;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(Faults),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Listen(#[from] listeners::Error),
    #[error(transparent)]
    Serve(#[from] server::Error),
    #[error(transparent)]
    Dataplane(#[from] Error),
    #[error("can not {what}: {cause}")]
    Io { what: String, cause: std::io::Error },
    #[error("{0} has ended unexpectedly; the log says why")]
    Died(String),
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.into();
    move |cause| StartError::Io { what, cause }
}

/// Runs the gateway until it is told to stop. `ephemeral` takes the packet filter away at the end.
pub fn run(path: &Path, ephemeral: bool) -> Result<(), StartError> {
    let (config, warnings) = Config::load(path).map_err(StartError::Config)?;
    let metrics = Arc::new(Metrics::new());
    logs::start(&config.log, metrics.log_lines_lost.clone());
    tell(&warnings);
    let given = activation::take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(io("start the event loop"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, live(path.to_owned(), config, ephemeral, metrics, given))
}

/// Logs what a configuration's checker wants to be known.
fn tell(warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Says loudly what is only observed: somebody may have forgotten it.
fn tell_observing(names: &[&str]) {
    if !names.is_empty() {
        let names = names.join(", ");
        tracing::warn!("OBSERVING: {names} (counted, nothing dropped)");
    }
}

/// Tables to enforce with, and what the proxy needs of them.
struct Tables {
    backend: Box<dyn Backend>,
    memory: Option<Shared>,
    log: Option<KernelLog>,
}

fn tables(config: &Config) -> Result<Tables, Error> {
    if config.xdp.mode == XdpMode::None {
        let shared = Shared::new([getrandom::u64().unwrap_or(1), getrandom::u64().unwrap_or(2)]);
        return Ok(Tables {
            backend: Box::new(shared.clone()),
            memory: Some(shared),
            log: None,
        });
    }
    let options = Options {
        pin_dir: config.xdp.pin_dir.clone(),
        capacity: config.xdp.capacity,
    };
    let mut kernel = Kernel::load(&options)?;
    kernel.remember_sysctls(&config.state_dir);
    for warning in kernel.warnings() {
        tracing::warn!("{warning}");
    }
    let log = kernel.take_log();
    Ok(Tables {
        backend: Box::new(kernel),
        memory: None,
        log,
    })
}

/// What a signal means to a gateway that is stopping. What it would read again, it would not serve from any more.
fn stops(event: Event) -> bool {
    if event == Event::Reload {
        tracing::warn!("SIGHUP is ignored: the gateway is stopping; the next one reads the configuration");
    }
    event == Event::Stop
}

/// A holder that will let go.
fn command(holder: Option<&Holder>) -> Option<&Holder> {
    holder.filter(|holder| !holder.is_gateway())
}

/// From bound sockets to the last closed connection.
async fn live(
    path: PathBuf,
    config: Config,
    ephemeral: bool,
    metrics: Arc<Metrics>,
    given: Given,
) -> Result<(), StartError> {
    descriptors::raise();
    // A command may be at work there; another gateway stays.
    let lock = || Store::lock(&config.state_dir);
    let store = offline::patiently(lock, |error: &StoreError| command(error.holder()))?;
    let saved = store.load()?;
    let _pins = match config.xdp.mode {
        XdpMode::None => None,
        _ => {
            let lock = || Kernel::lock(&config.xdp.pin_dir);
            Some(offline::patiently(lock, |error: &Error| command(error.holder()))?)
        }
    };
    let site = RuntimeHandle::new(Runtime::compile(&config, None, &metrics)?);
    quotas::restore(&config.state_dir, site.load().limits());
    let bound = Bound::bind(&config.listen, config.workers, given)?;
    let socket = AdminSocket::bind(&config.admin.socket).map_err(io(format!(
        "listen on the admin socket {}",
        config.admin.socket.display()
    )))?;
    let endpoint = match config.admin.metrics {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(io(format!("listen on {address} (admin.metrics)")))?,
        ),
        None => None,
    };

    let strikes = Arc::new(Strikes::new(&config));
    let connections = Arc::new(Connections::default());
    let unfiltered = Arc::default();
    let bypass = Arc::default();
    let Tables { backend, memory, log } = tables(&config)?;
    let events = Aftermath {
        strikes: Arc::clone(&strikes),
        connections: Arc::clone(&connections),
        unfiltered: Arc::clone(&unfiltered),
        bypass: Arc::clone(&bypass),
    };
    let world = World {
        clock: Box::new(Now::read),
        host: Box::new(host::gather),
        events: Box::new(events),
    };
    let mut engine = Engine::open(Some(backend), &config, saved, Some(store), world)?;
    engine.begin();
    engine.attach()?;
    tell_observing(&engine.observing());
    let (dataplane, thread) = Handle::start(engine).map_err(io("start the dataplane's thread"))?;
    if let Some(log) = log {
        tokio::task::spawn_local(async {
            let error = log.run().await;
            tracing::warn!(%error, "the kernel program's log lines can not be read any more");
        });
    }

    let guard: Arc<dyn Watch> = Arc::new(Guard {
        strikes: Arc::clone(&strikes),
        dataplane: dataplane.clone(),
        memory,
    });
    let server = bound.serve(&site.site(), &guard, &metrics, &connections)?;
    let packets = Packets::default();
    metrics.with_registry(|registry| {
        registry.register_collector(Box::new(packets.clone()));
        registry.register_collector(Box::new(site.states()));
        registry.register_collector(Box::new(asked::Asked(site.clone())));
    });
    let control = Rc::new(Control {
        path,
        started: Instant::now(),
        listeners: Arc::clone(server.listeners()),
        site,
        strikes,
        connections,
        metrics,
        packets,
        dataplane,
        unfiltered,
        bypass,
        changing: tokio::sync::Mutex::default(),
        stale_lists: Default::default(),
        stale_callers: Default::default(),
        stale_config: Default::default(),
        stale_certificates: Default::default(),
        draining: false.into(),
        freed: Notify::new(),
        dead: false.into(),
        watchers: Rc::new(Watchers::default()),
    });
    control.show_certificates();
    let watching = tokio::task::spawn_local({
        let (watchers, dataplane) = (Rc::clone(&control.watchers), control.dataplane.clone());
        let pinned = config.xdp.mode != XdpMode::None;
        let pin_dir = pinned.then(|| config.xdp.pin_dir.clone());
        async move { watchers.serve(dataplane, pin_dir).await }
    });
    if let Some(listener) = endpoint {
        tokio::task::spawn_local(metrics::serve(listener, Rc::clone(&control)));
    }
    tokio::task::spawn_local(lists::follow(Rc::clone(&control)));
    let state_dir = config.state_dir.clone();
    let counting = tokio::task::spawn_local(quotas::keep(Rc::clone(&control), state_dir.clone()));
    tokio::task::spawn_local({
        let control = Rc::clone(&control);
        async move { heap::tidy(&control.freed).await }
    });
    // Reading the configuration took more than is kept of it.
    control.freed.notify_one();
    let answering = tokio::task::spawn_local({
        let control = Rc::clone(&control);
        async move {
            socket
                .serve(move |request| {
                    let control = Rc::clone(&control);
                    async move { control.reply(request).await }
                })
                .await;
        }
    });
    let files = tokio::task::spawn_local(files::watch(Rc::clone(&control), config));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "ready"
    );

    let told = signals::each(async |event| match event {
        Event::Reload => {
            control.reload_aloud().await;
            false
        }
        Event::Stop => true,
    });
    // Half a gateway is worse than none: whoever supervises it starts a whole one again.
    let died = tokio::select! {
        told = told => {
            told.map_err(io("wait for signals"))?;
            None
        }
        worker = server.died() => {
            tracing::error!(%worker, "a worker has ended unexpectedly; the gateway stops");
            control.dead.set(true);
            Some(worker)
        }
    };

    files.abort();
    control.draining.set(true);
    let limits = control.site.load().config.limits;
    if died.is_none() && !limits.drain_delay.is_zero() {
        let delay = limits.drain_delay;
        server.leave();
        tracing::info!(delay_s = delay.as_secs_f64(), "stopping soon: not ready any more");
        // Whoever asks a second time has waited long enough.
        let again = signals::each(async |event| stops(event));
        let _ = tokio::time::timeout(delay, again).await;
    }
    let drain = limits.drain;
    tracing::info!(
        limit_s = drain.as_secs(),
        connections = control.connections.len(),
        "stopping"
    );
    let unheard = tokio::task::spawn_local(signals::each(async |event| {
        stops(event);
        false
    }));
    let in_time = server.shutdown(drain).await;
    unheard.abort();
    if !in_time && died.is_none() {
        tracing::warn!("some requests had not ended in time and were cut off");
    }
    counting.abort();
    if let Err(error) = quotas::write(&state_dir, "last", control.site.load().limits()) {
        tracing::error!(%error, "the counts of quotas can not be written: they begin where they last were");
    }
    answering.abort();
    let _ = answering.await;
    control.watchers.close();
    let _ = watching.await;
    if ephemeral {
        let detached = control.dataplane.with(Engine::detach).await;
        match detached {
            Ok(Ok(())) => tracing::info!("detached: no program and no pin is left"),
            Ok(Err(error)) => return Err(error.into()),
            Err(stopped) => tracing::error!(%stopped, "the program could not be detached"),
        }
    }
    drop(guard);
    drop(thread);
    tracing::info!("stopped");
    died.map_or(Ok(()), |worker| Err(StartError::Died(worker)))
}
