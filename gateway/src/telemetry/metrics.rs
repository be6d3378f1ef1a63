//! Every number the gateway exports: names, help and labels in one list.
//!
//! Built once by `app` and handed down. Labels come from configured names and closed enums only, so a client can not
//! make series. Whatever the request path counts is resolved when a route or an upstream is compiled: a request
//! touches counters, never a table of labels.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::series::{Families, Held, Series};
use crate::http::reject::Reject;

/// Classes of status, from that of 100 on.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Route label of what was refused before a route was known.
pub const NO_ROUTE: &str = "-";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectLabels {
    route: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: String,
}

/// What seldom happens to an upstream. Its counters are there from the first time on: with thousands of upstreams, most
/// of them never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rare {
    /// A retry that the budget did not cover.
    Unpaid,
    /// A request refused for the upstream's caps.
    Overload,
    /// An endpoint set aside for its failures.
    Ejection,
    ProbeFailure,
    LookupFailure,
    /// A copy of a request sent here.
    Mirrored,
    /// One that was not sent, as its body is too long or too many are under way.
    MirrorSkipped,
}

/// Name and help, in the order of [`Rare`].
const RARE: [(&str, &str); 7] = [
    ("upstream_retries_unpaid", "Retries that the budget did not cover"),
    (
        "upstream_overloads",
        "Requests refused for the caps of an upstream",
    ),
    ("upstream_ejections", "Endpoints set aside for failures in a row"),
    ("upstream_health_check_failures", "Health checks that failed"),
    ("upstream_lookup_failures", "Look-ups of names that failed"),
    ("upstream_mirrored", "Copies of requests sent to an upstream"),
    (
        "upstream_mirror_skipped",
        "Copies not sent, as the body was too long or too many were under way",
    ),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    file: String,
}

type Histograms = Family<RouteLabel, Histogram, fn() -> Histogram>;

/// What is counted of routes.
#[derive(Debug)]
struct OfRoutes {
    requests: Family<RequestLabels, Counter>,
    rejects: Family<RejectLabels, Counter>,
    /// Refusals that policies which only observe would have made.
    observed: Family<RejectLabels, Counter>,
    duration: Histograms,
}

/// What is counted of upstreams.
#[derive(Debug, Default)]
struct OfUpstreams {
    connects: Family<UpstreamLabel, Counter>,
    reuses: Family<UpstreamLabel, Counter>,
    failures: Family<UpstreamLabel, Counter>,
    retries: Family<UpstreamLabel, Counter>,
    /// Counters that seldom move, in the order of [`RARE`].
    rare: [Family<UpstreamLabel, Counter>; RARE.len()],
}

impl Families for OfRoutes {
    fn forget(&self, route: &str) {
        // Counted as long as there is a gateway.
        if route == NO_ROUTE {
            return;
        }
        let route = || route.to_owned();
        for status in CLASSES {
            self.requests.remove(&RequestLabels {
                route: route(),
                status,
            });
        }
        for reject in Reject::ALL {
            let label = RejectLabels {
                route: route(),
                code: reject.code(),
            };
            self.rejects.remove(&label);
            self.observed.remove(&label);
        }
        self.duration.remove(&RouteLabel { route: route() });
    }
}

impl Families for OfUpstreams {
    fn forget(&self, upstream: &str) {
        let label = UpstreamLabel {
            upstream: upstream.into(),
        };
        let plain = [&self.connects, &self.reuses, &self.failures, &self.retries];
        for family in plain.into_iter().chain(&self.rare) {
            family.remove(&label);
        }
    }
}

/// The registry and the handles into it.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    routes: Arc<Series<OfRoutes>>,
    upstreams: Arc<Series<OfUpstreams>>,
    /// Client connections open now.
    pub connections: Gauge,
    /// Client connections accepted.
    pub connections_total: Counter,
    /// Failed calls of accept, such as for want of file descriptors.
    pub accept_errors: Counter,
    /// TLS handshakes with clients that did not complete.
    pub tls_failures: Counter,
    /// Certificates that were to be read again and could not be used.
    pub certificate_failures: Counter,
    certificates: Family<CertificateLabel, Gauge>,
    /// Log lines that could not be written.
    pub log_lines_lost: Counter,
}

/// The counters of one route, resolved. Its series are there while one of these is.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    _held: Arc<Held<OfRoutes>>,
    by_class: [Counter; 5],
    duration: Histogram,
}

/// The counters of one upstream, resolved. Its series are there while one of these is.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    /// New connections.
    pub connects: Counter,
    /// Requests sent on a kept connection.
    pub reuses: Counter,
    /// Connections that could not be made, and requests without an answer.
    pub failures: Counter,
    /// Requests sent again.
    pub retries: Counter,
    held: Arc<Held<OfUpstreams>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("gateway")),
            routes: Series::new(OfRoutes {
                requests: Family::default(),
                rejects: Family::default(),
                observed: Family::default(),
                duration: Histograms::new_with_constructor(|| {
                    Histogram::new(exponential_buckets(0.0005, 2.5, 12))
                }),
            }),
            upstreams: Series::new(OfUpstreams::default()),
            connections: Gauge::default(),
            connections_total: Counter::default(),
            accept_errors: Counter::default(),
            tls_failures: Counter::default(),
            certificate_failures: Counter::default(),
            certificates: Family::default(),
            log_lines_lost: Counter::default(),
        };
        let (routes, upstreams) = (metrics.routes.families(), metrics.upstreams.families());
        metrics.with_registry(|r| {
            // The library appends `_total` to counters and the unit to the names of others.
            r.register(
                "requests",
                "Requests answered, by route and class of status",
                routes.requests.clone(),
            );
            r.register(
                "rejects",
                "Refusals by the gateway itself, by route and code",
                routes.rejects.clone(),
            );
            r.register(
                "observed_rejects",
                "Refusals that policies which only observe would have made, by route and code",
                routes.observed.clone(),
            );
            let help = "Seconds from a request's header to the end of its response";
            r.register("request_duration_seconds", help, routes.duration.clone());
            r.register(
                "connections",
                "Client connections open now",
                metrics.connections.clone(),
            );
            r.register(
                "connections_accepted",
                "Client connections accepted",
                metrics.connections_total.clone(),
            );
            r.register(
                "accept_errors",
                "Failed calls of accept",
                metrics.accept_errors.clone(),
            );
            r.register(
                "tls_handshake_failures",
                "Client handshakes not completed",
                metrics.tls_failures.clone(),
            );
            r.register(
                "certificate_reload_failures",
                "Times that changed certificates could not be used",
                metrics.certificate_failures.clone(),
            );
            r.register(
                "certificate_not_after_seconds",
                "End of a server certificate's life, in seconds since 1970, by the file it was read from",
                metrics.certificates.clone(),
            );
            r.register(
                "log_lines_lost",
                "Log lines that could not be written",
                metrics.log_lines_lost.clone(),
            );
            r.register(
                "upstream_connects",
                "New connections to an upstream",
                upstreams.connects.clone(),
            );
            r.register(
                "upstream_reuses",
                "Requests sent on a kept connection",
                upstreams.reuses.clone(),
            );
            let help = "Connections not made, and requests without an answer";
            r.register("upstream_failures", help, upstreams.failures.clone());
            r.register(
                "upstream_retries",
                "Requests sent a second time",
                upstreams.retries.clone(),
            );
            for ((name, help), family) in RARE.into_iter().zip(&upstreams.rare) {
                r.register(name, help, family.clone());
            }
        });
        metrics
    }

    /// For those who add their own, such as the collector of the kernel's counters.
    pub fn with_registry<T>(&self, f: impl FnOnce(&mut Registry) -> T) -> T {
        f(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The exposition in OpenMetrics text form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.with_registry(|registry| {
            if let Err(error) = prometheus_client::encoding::text::encode(&mut text, registry) {
                tracing::error!(%error, "metrics could not be written");
            }
        });
        text
    }

    /// Handles of a route. Two routes of one name share them.
    #[must_use]
    pub fn route(&self, name: &str) -> RouteMetrics {
        let held = self.routes.hold(name);
        let of = held.families();
        let class = |status| {
            of.requests.get_or_create_owned(&RequestLabels {
                route: name.into(),
                status,
            })
        };
        RouteMetrics {
            by_class: CLASSES.map(class),
            duration: of
                .duration
                .get_or_create_owned(&RouteLabel { route: name.into() }),
            _held: held,
        }
    }

    /// Handles of an upstream. Two of one name share them.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        let held = self.upstreams.hold(name);
        let of = held.families();
        let label = UpstreamLabel {
            upstream: name.into(),
        };
        UpstreamMetrics {
            connects: of.connects.get_or_create_owned(&label),
            reuses: of.reuses.get_or_create_owned(&label),
            failures: of.failures.get_or_create_owned(&label),
            retries: of.retries.get_or_create_owned(&label),
            held,
        }
    }

    /// Shows the certificates in use, each by its file, and no others.
    pub fn show_certificates<'a>(&self, certificates: impl Iterator<Item = (&'a str, i64)>) {
        self.certificates.clear();
        for (file, not_after) in certificates {
            let label = CertificateLabel { file: file.into() };
            self.certificates.get_or_create(&label).set(not_after);
        }
    }

    /// Counts one refusal, for a route that somebody holds; `code` is one of `Reject::code`.
    pub fn rejected(&self, route: &str, code: &'static str) {
        let rejects = &self.routes.families().rejects;
        rejects
            .get_or_create(&RejectLabels {
                route: route.into(),
                code,
            })
            .inc();
    }

    /// Counts what would have been a refusal.
    pub fn observed(&self, route: &str, code: &'static str) {
        let observed = &self.routes.families().observed;
        observed
            .get_or_create(&RejectLabels {
                route: route.into(),
                code,
            })
            .inc();
    }

    /// What would have been refused on a route so far: each code that was counted, and how often.
    #[must_use]
    pub fn observed_so_far(&self, route: &str) -> Vec<(&'static str, u64)> {
        let observed = &self.routes.families().observed;
        let count = |reject: &Reject| {
            let label = RejectLabels {
                route: route.into(),
                code: reject.code(),
            };
            Some((reject.code(), observed.get(&label)?.get()))
        };
        Reject::ALL.iter().filter_map(count).collect()
    }

    /// How often a code was counted for a route.
    #[must_use]
    pub fn rejects(&self, route: &str, code: &'static str) -> u64 {
        let rejects = &self.routes.families().rejects;
        rejects
            .get(&RejectLabels {
                route: route.into(),
                code,
            })
            .map_or(0, |counter| counter.get())
    }
}

impl UpstreamMetrics {
    /// Counts something that seldom happens.
    pub fn count(&self, what: Rare) {
        let label = UpstreamLabel {
            upstream: self.held.name().into(),
        };
        self.held.families().rare[what as usize]
            .get_or_create(&label)
            .inc();
    }
}

impl RouteMetrics {
    /// Counts one answer. `seconds` is the time from the request's header to the end of the response.
    pub fn answered(&self, status: http::StatusCode, seconds: f64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
        self.duration.observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_s_answers_and_rejects_show_under_its_name_only() {
        let metrics = Metrics::new();
        let orders = metrics.route("orders");
        orders.answered(http::StatusCode::NOT_FOUND, 0.01);
        metrics.rejected("orders", "no_route");
        let text = metrics.encode();
        assert!(
            text.contains(r#"gateway_requests_total{route="orders",status="4xx"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"gateway_rejects_total{route="orders",code="no_route"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"gateway_request_duration_seconds_count{route="orders"} 1"#),
            "{text}"
        );
        assert_eq!(metrics.rejects("other", "no_route"), 0);
    }

    #[test]
    fn series_go_with_the_last_who_counts_under_their_name() {
        let metrics = Metrics::new();
        let (old, kept) = (metrics.route("orders"), metrics.route("kept"));
        let upstream = metrics.upstream("pool");
        upstream.count(Rare::Ejection);
        metrics.rejected("orders", "no_route");
        // As in a reload: the new one is there before the old one goes, and both count the same.
        let new = metrics.route("orders");
        new.answered(http::StatusCode::OK, 0.01);
        drop(old);
        assert_eq!(metrics.rejects("orders", "no_route"), 1);
        assert!(
            metrics
                .encode()
                .contains(r#"gateway_requests_total{route="orders",status="2xx"} 1"#)
        );
        drop((new, upstream));
        let text = metrics.encode();
        assert!(!text.contains("orders") && !text.contains("pool"), "{text}");
        assert!(text.contains(r#"route="kept""#));
        // A name that comes back begins anew.
        let _again = metrics.route("orders");
        assert!(
            metrics
                .encode()
                .contains(r#"gateway_requests_total{route="orders",status="2xx"} 0"#)
        );
        drop(kept);
    }
}
