//! The real server, started in this process.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::http::Server;
use gateway::http::client::{Client, ClientAddr, ForwardedAddr, Watch};
use gateway::http::reject::Reject;
use gateway::runtime::{Runtime, RuntimeHandle};
use gateway::telemetry::Metrics;

use super::Site;
use super::raw::{self, Response};

/// Remembers rejects, and refuses whom it is told to refuse.
#[derive(Debug, Default)]
pub struct Recorder {
    rejects: Mutex<Vec<(Client, Reject)>>,
    pub refused: Mutex<HashSet<IpAddr>>,
}

impl Watch for Recorder {
    fn admits_connection(&self, client: ClientAddr) -> bool {
        !self.refused.lock().unwrap().contains(&client.ip())
    }

    fn admits_forwarded(&self, client: ForwardedAddr) -> bool {
        !self.refused.lock().unwrap().contains(&client.ip())
    }

    fn rejected(&self, client: Client, reject: Reject) {
        self.rejects.lock().unwrap().push((client, reject));
    }
}

/// A gateway that serves until it is dropped.
#[derive(Debug)]
pub struct Gateway {
    server: Option<Server>,
    pub handle: RuntimeHandle,
    pub metrics: Arc<Metrics>,
    pub recorder: Arc<Recorder>,
    address: SocketAddr,
}

impl Gateway {
    /// Compiles and starts.
    #[must_use]
    pub fn start(site: &Site) -> Self {
        let metrics = Arc::new(Metrics::new());
        let recorder = Arc::new(Recorder::default());
        let runtime = Runtime::compile(&site.config, None, &metrics).expect("the configuration compiles");
        let handle = RuntimeHandle::new(runtime);
        handle.load().limits().tick(super::NOON);
        metrics.with_registry(|registry| registry.register_collector(Box::new(handle.states())));
        let (listen, workers) = (&site.config.listen, site.config.workers);
        let server = Server::start(listen, workers, handle.site(), recorder.clone(), metrics.clone())
            .expect("the server starts");
        let address = server.addresses()[0];
        Self {
            server: Some(server),
            handle,
            metrics,
            recorder,
            address,
        }
    }

    /// The first listener's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks on a new connection: `line` as `GET /`, and more lines.
    #[must_use]
    pub fn ask(&self, line: &str, lines: &str) -> Response {
        let request = format!("{line} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n");
        raw::Client::connect(self.address).send(request).response()
    }

    /// Puts another configuration in force, as a reload does.
    ///
    /// # Panics
    /// If it can not be; [`Gateway::try_reload`] returns the reason.
    pub fn reload(&self, site: &Site) {
        self.try_reload(site).expect("the configuration compiles");
    }

    /// As [`Gateway::reload`]; after an error nothing has changed.
    pub fn try_reload(&self, site: &Site) -> anyhow::Result<()> {
        let before = self.handle.load();
        let runtime = Runtime::compile(&site.config, Some(&before), &self.metrics)?;
        let listeners = self.server().listeners();
        let prepared = listeners.prepare(&site.config.listen)?;
        self.handle.replace(runtime);
        listeners.apply(prepared, &self.handle.site().load());
        Ok(())
    }

    /// The running server.
    #[must_use]
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("not shut down yet")
    }

    /// Every reject so far.
    #[must_use]
    pub fn rejects(&self) -> Vec<Reject> {
        self.recorder
            .rejects
            .lock()
            .unwrap()
            .iter()
            .map(|(_, reject)| *reject)
            .collect()
    }

    /// Every reject so far, with its client.
    #[must_use]
    pub fn refusals(&self) -> Vec<(Client, Reject)> {
        self.recorder.rejects.lock().unwrap().clone()
    }

    /// Waits for a reject that is told after the client has its answer, or has none.
    #[must_use]
    pub fn told(&self, reject: Reject) -> bool {
        eventually(|| self.rejects().contains(&reject))
    }

    /// Graceful stop.
    #[must_use]
    pub fn shutdown(mut self, limit: Duration) -> bool {
        let server = self.server.take().expect("not shut down yet");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(server.shutdown(limit))
    }
}

/// Polls a condition of another thread for up to ten seconds.
#[must_use]
pub fn eventually(condition: impl Fn() -> bool) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if condition() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}
