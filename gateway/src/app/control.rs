//! What an operator or collector asks of the running gateway, answered from all its parts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::watch::{Place, Watchers};
use crate::admin::answer::answer;
use crate::admin::api::{
    Answer, Bypass, Certificate, EndpointRow, Explained, Failure, FailureKind, ForwardedBlock, ObservingRow,
    Outcome, ProxyStatus, Request, Standing, UpstreamRow,
};
use crate::admin::metrics::Facts;
use crate::admin::server::Reply;
use crate::config::Config;
use crate::config::model::Route;
use crate::dataplane::clock::Now;
use crate::dataplane::engine::{By, Refusal};
use crate::dataplane::handle::Stopped;
use crate::dataplane::{Engine, Error, Handle, List};
use crate::http::client::ForwardedAddr;
use crate::http::{Connections, Listeners};
use crate::runtime::{self, Runtime, RuntimeHandle};
use crate::strikes::Strikes;
use crate::telemetry::Metrics;
use crate::telemetry::packets::{Interface, Packets, Snapshot};
use crate::upstream::{Endpoint, Upstream};

/// The handles of a running gateway.
#[derive(Debug)]
pub struct Control {
    pub path: PathBuf,
    pub started: Instant,
    pub listeners: Arc<Listeners>,
    pub site: RuntimeHandle,
    pub strikes: Arc<Strikes>,
    pub connections: Arc<Connections>,
    pub metrics: Arc<Metrics>,
    pub packets: Packets,
    pub dataplane: Handle,
    /// Interfaces that are not filtered, each with the reason.
    pub unfiltered: Arc<ArcSwap<Vec<String>>>,
    /// The bypass that is on.
    pub bypass: Arc<ArcSwap<Option<Bypass>>>,
    /// Held by whoever changes what is in force.
    pub changing: tokio::sync::Mutex<()>,
    /// List files that have changed and were not taken over, each with the reason.
    pub stale_lists: RefCell<Vec<(PathBuf, String)>>,
    /// Files of callers that have changed and were not taken over, each with the reason.
    pub stale_callers: RefCell<BTreeMap<PathBuf, String>>,
    /// Why the last reload left the configuration of before in force.
    pub stale_config: RefCell<Option<String>>,
    /// Why changed certificates are not in use.
    pub stale_certificates: RefCell<Option<String>>,
    pub draining: Cell<bool>,
    /// Much memory has been freed.
    pub freed: Notify,
    pub watchers: Rc<Watchers>,
    /// A part that can not be started again has ended.
    pub dead: Cell<bool>,
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, message.into())
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        failed(stopped.to_string())
    }
}

impl Control {
    /// Answers a request: once, or until the asker goes away.
    pub async fn reply(&self, request: Request) -> Reply<Place> {
        match request {
            Request::Watch(order) => match self.watchers.join(order) {
                Ok(place) => Reply::Many(place),
                Err(failure) => Reply::One(Err(failure)),
            },
            request => Reply::One(self.answer(request).await),
        }
    }

    /// Answers a request, with what only a running gateway knows.
    pub async fn answer(&self, request: Request) -> Outcome {
        if let Request::Reload { by } = request {
            let reloaded = self.reload(by).await?;
            return Ok(Answer::Reloaded {
                changed: reloaded.changed,
                warnings: reloaded.warnings,
                enforced: reloaded.enforced,
                unfiltered: reloaded.unfiltered,
            });
        }
        let answered = self
            .dataplane
            .with(move |engine| answer(engine, request))
            .await??;
        Ok(match answered {
            Answer::Explained(explained) => Answer::Explained(self.with_strikes(explained)),
            Answer::Status(status) => Answer::Status(crate::admin::api::FullStatus {
                proxy: Some(Box::new(self.status())),
                ..status
            }),
            Answer::Entries {
                entries, unfiltered, ..
            } => {
                let blocks = self.strikes.forwarded_blocks(Instant::now());
                let forwarded = blocks.into_iter().map(|(addr, left)| ForwardedBlock {
                    addr: addr.ip(),
                    left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                });
                Answer::Entries {
                    entries,
                    forwarded: forwarded.collect(),
                    unfiltered,
                }
            }
            Answer::Unblocked(mut outcome) => {
                // A client that is only refused at layer 7 has no entry in the tables.
                let now = Instant::now();
                outcome.missing.retain(|addr| {
                    let refused = self
                        .strikes
                        .blocks_forwarded(ForwardedAddr::of_header(*addr), now);
                    self.strikes.pardon(*addr);
                    if refused {
                        outcome.lifted.push(*addr);
                    }
                    !refused
                });
                Answer::Unblocked(outcome)
            }
            other => other,
        })
    }

    fn with_strikes(&self, explained: Explained) -> Explained {
        let (addr, now) = (explained.packets.addr, Instant::now());
        let exempt = explained.packets.protected.is_some() || !explained.packets.allow.is_empty();
        let standing = if exempt {
            None
        } else {
            self.strikes.standing(addr, now)
        };
        Explained {
            strikes: standing.map(|(strikes, block_after)| Standing { strikes, block_after }),
            refused_when_forwarded: self
                .strikes
                .refuses_forwarded(ForwardedAddr::of_header(addr), now),
            ..explained
        }
    }

    /// Routes that let through what they would refuse, and how much that was.
    fn observing(&self) -> Vec<ObservingRow> {
        let site = self.site.load();
        let row = |route: &Arc<Route>| {
            let policies = route.observing();
            let counted = || self.metrics.observed_so_far(&route.name).into_iter();
            (!policies.is_empty()).then(|| ObservingRow {
                route: route.name.clone(),
                policies,
                would_refuse: counted().map(|(code, count)| (code.to_owned(), count)).collect(),
            })
        };
        site.config.routes.iter().filter_map(row).collect()
    }

    fn status(&self) -> ProxyStatus {
        ProxyStatus {
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config: self.path.display().to_string(),
            listeners: self
                .listeners
                .addresses()
                .iter()
                .map(ToString::to_string)
                .collect(),
            certificates: self.certificates(),
            routes: self.site.load().config.routes.len(),
            connections: self.connections.len(),
            draining: self.draining.get(),
            upstreams: self.site.load().upstreams().iter().map(upstream_row).collect(),
            observing: self.observing(),
            stale_lists: self
                .stale_lists
                .borrow()
                .iter()
                .map(|(_, why)| why.clone())
                .collect(),
            stale_callers: self.stale_callers.borrow().values().cloned().collect(),
            stale_config: self.stale_config.borrow().clone(),
            stale_certificates: self.stale_certificates.borrow().clone(),
        }
    }

    /// Reads the configuration again and puts it in force: all of it or nothing.
    ///
    /// What was attached or opened at the start can not change here; such a change is refused by name.
    pub async fn reload(&self, by: By) -> Result<Reloaded, Failure> {
        let _turn = self.changing.lock().await;
        let before = self.site.load();
        let reloaded = self.take_over(by).await;
        if let Err(failure) = &reloaded
            && Arc::ptr_eq(&before, &self.site.load())
        {
            let first = failure.message.lines().next();
            self.stale_config.replace(first.map(str::to_owned));
        }
        reloaded
    }

    async fn take_over(&self, by: By) -> Result<Reloaded, Failure> {
        let (config, warnings) = Config::load(&self.path)
            .map_err(|faults| Failure::new(FailureKind::BadInput, faults.to_string()))?;
        super::tell(&warnings);
        let old = self.site.load();
        if let Some(fixed) = fixed_change(&old.config, &config) {
            return Err(Failure::new(
                FailureKind::BadInput,
                format!("{fixed} can not change while the gateway runs: restart it; nothing was changed"),
            ));
        }
        // Compiled even if the text is the same: certificate files may have changed.
        let runtime = Runtime::compile(&config, Some(&old), &self.metrics).map_err(|error| {
            if matches!(error, runtime::Error::Tls { .. }) {
                self.metrics.certificate_failures.inc();
            }
            failed(error.to_string())
        })?;
        let listeners = self
            .listeners
            .prepare(&config.listen)
            .map_err(|error| failed(format!("{error}; nothing was changed")))?;
        let changed = old.config != config;
        let applied = self.dataplane.with({
            let config = config.clone();
            move |engine: &mut Engine| {
                let applied = engine.reconfigure(&config, &by)?;
                let filtered = engine.filtered()?;
                Ok::<_, Refusal>((applied, engine.skipped(), engine.observing(), filtered))
            }
        });
        let (applied, skipped, observing, (enforced, unfiltered)) = applied.await??;
        super::tell_observing(&observing);
        self.strikes.reconfigure(&config);
        self.site.replace(runtime);
        self.stale_callers.borrow_mut().clear();
        self.stale_config.take();
        self.stale_certificates.take();
        // After the site, which says what the new ones are for.
        self.listeners.apply(listeners, &self.site.site().load());
        self.show_certificates();
        self.freed.notify_one();
        for why in &unfiltered {
            tracing::warn!(%why, "NOT FILTERED, which a reload does not mend");
        }
        tracing::info!(changed, table_changes = applied.changes, "configuration reloaded");
        if !applied.failures.is_empty() {
            return Err(failed(format!(
                "{} changes of the tables failed: {}",
                applied.failures.len(),
                applied.failures[0]
            )));
        }
        let warnings = warnings.iter().map(ToString::to_string).chain(skipped);
        Ok(Reloaded {
            changed,
            warnings: warnings.collect(),
            enforced,
            unfiltered,
        })
    }
}

fn upstream_row(upstream: &Arc<Upstream>) -> UpstreamRow {
    let row = |endpoint: &Arc<Endpoint>| EndpointRow {
        address: endpoint.name().to_string(),
        state: endpoint.standing().name().to_owned(),
        requests: endpoint.in_flight(),
        connections: endpoint.connections(),
    };
    UpstreamRow {
        name: upstream.model.name.clone(),
        panics: upstream.panics(),
        endpoints: upstream.endpoints().iter().map(row).collect(),
    }
}

impl Control {
    /// As [`Control::reload`]; what comes of it is only logged.
    pub async fn reload_aloud(&self) {
        if let Err(failure) = self.reload(By::default()).await {
            tracing::error!("the configuration was not taken over: {failure}");
        }
    }

    /// Reads the certificates of the configuration in force again. One that can not be used changes nothing.
    pub fn renew(&self) {
        let old = self.site.load();
        match Runtime::compile(&old.config, Some(&old), &self.metrics) {
            Ok(runtime) => {
                self.site.replace(runtime);
                self.stale_certificates.take();
                tracing::info!("certificates read again, as their files have changed");
                self.show_certificates();
            }
            Err(error) => {
                self.metrics.certificate_failures.inc();
                self.stale_certificates.replace(Some(error.to_string()));
                tracing::error!(%error, "CERTIFICATES NOT RENEWED; the old ones stay in use");
            }
        }
    }

    /// The certificates in use, each file once.
    fn certificates(&self) -> Vec<Certificate> {
        let runtime = self.site.load();
        let doors = runtime.site().doors.iter();
        let lifetimes = doors
            .filter_map(|door| door.tls.as_ref())
            .flat_map(|tls| tls.lifetimes());
        let by_file: BTreeMap<_, _> = lifetimes.map(|life| (&life.file, life.not_after)).collect();
        let shown = by_file.into_iter().map(|(file, not_after)| Certificate {
            file: file.display().to_string(),
            not_after,
        });
        shown.collect()
    }

    /// Puts the certificates in use into the metrics.
    pub fn show_certificates(&self) {
        let shown = self.certificates();
        self.metrics
            .show_certificates(shown.iter().map(|one| (one.file.as_str(), one.not_after)));
    }
}

/// What came of reading the configuration again.
#[derive(Debug)]
pub struct Reloaded {
    /// `false` if it is the same.
    pub changed: bool,
    pub warnings: Vec<String>,
    /// Whether an interface is filtered.
    pub enforced: bool,
    /// Those that are not, each with the reason.
    pub unfiltered: Vec<String>,
}

/// The first part that differs and is fixed for the life of the process.
fn fixed_change(old: &Config, new: &Config) -> Option<&'static str> {
    let xdp = |config: &Config| {
        let xdp = &config.xdp;
        (
            xdp.mode,
            xdp.interfaces.clone(),
            xdp.pin_dir.clone(),
            xdp.capacity,
        )
    };
    if xdp(old) != xdp(new) {
        Some("xdp.mode, xdp.interfaces, xdp.pin_dir or xdp.capacity")
    } else if old.admin != new.admin {
        Some("admin")
    } else if old.workers != new.workers {
        Some("workers")
    } else if old.state_dir != new.state_dir {
        Some("state_dir")
    } else if old.log != new.log {
        Some("log")
    } else {
        None
    }
}

impl Facts for Control {
    async fn metrics(&self) -> String {
        let snapshot = self.dataplane.with(|engine| {
            let counters = engine.counters()?;
            let lists = [List::Allow, List::Deny, List::Block].map(|list| {
                let (desired, enforced) = engine.sizes(list);
                (list.name(), desired as u64, enforced as u64)
            });
            Ok::<_, Error>(Snapshot {
                observing: engine.observing(),
                counters: counters
                    .0
                    .iter()
                    .map(|counter| (counter.packets, counter.bytes))
                    .collect(),
                lists: lists.to_vec(),
                skipped: engine.skipped_count() as u64,
                failures: engine.failures() as u64,
                dropped_orders: engine.dropped_orders(),
                drift_repaired: engine.repaired(),
                bypass_left_s: engine.bypass().map_or(0, |bypass| bypass.left_ms.div_ceil(1_000)),
                interfaces: engine
                    .interfaces()?
                    .into_iter()
                    .map(|row| Interface {
                        attached: row.unfiltered.is_none(),
                        name: row.interface,
                        mode: row.mode,
                    })
                    .collect(),
            })
        });
        match snapshot.await {
            Ok(Ok(snapshot)) => self.packets.set(snapshot),
            Ok(Err(error)) => tracing::error!(%error, "the kernel's counters could not be read"),
            Err(stopped) => tracing::error!(%stopped, "the kernel's counters could not be read"),
        }
        self.metrics.encode()
    }

    fn alive(&self) -> bool {
        !self.dead.get()
    }

    fn ready(&self) -> Result<Vec<String>, String> {
        if self.dead.get() {
            return Err("a worker has ended".to_owned());
        }
        if self.draining.get() {
            return Err("stopping".to_owned());
        }
        let unfiltered = self.unfiltered.load();
        if unfiltered.is_empty() {
            let wall_ms = Now::read().wall_ms;
            let bypass = self
                .bypass
                .load()
                .as_ref()
                .as_ref()
                .and_then(|bypass| bypass.at(wall_ms));
            Ok(bypass.iter().map(ToString::to_string).collect())
        } else {
            Err(format!("not filtered: {}", unfiltered.join("; ")))
        }
    }
}
