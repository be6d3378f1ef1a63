//! A configuration compiled for serving: immutable, swapped whole.
//!
//! Compiling can fail, swapping can not: what does not compile never comes near a request. Parts whose model is equal are
//! taken over from the runtime before, with their state.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::model::UpstreamId;
use crate::config::{Config, model};
use crate::http::answer::Answer;
use crate::http::cors::Cors;
use crate::http::door::Door;
use crate::http::filter::Chain;
use crate::http::filter::auth::Auth;
use crate::http::filter::auth::jwt::{KeyKeeper, KeySet, KeySets};
use crate::http::filter::limit::Registry;
use crate::http::rewrite::Rewriter;
use crate::http::router::Router;
use crate::http::shape::Whole;
use crate::http::site::{Action, Mirror, Route, Site, SiteHandle, Split};
use crate::http::tls;
use crate::telemetry::Metrics;
use crate::upstream::{self, Keeper, States, Upstream};

/// A configuration and what was made of it.
#[derive(Debug)]
pub struct Runtime {
    pub config: Config,
    site: Arc<Site>,
    upstreams: Vec<Arc<Upstream>>,
    /// In the order of the configuration.
    routes: Vec<Arc<Route>>,
    limits: Registry,
}

/// Why a configuration can not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("TLS of {address}: {cause}")]
    Tls {
        address: std::net::SocketAddr,
        cause: Box<tls::Error>,
    },
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    #[error("route {route}: there is no upstream number {index}")]
    NoUpstream { route: String, index: usize },
}

impl Runtime {
    /// Compiles. Certificates are read from their files again, so that compiling an unchanged configuration renews them.
    pub fn compile(config: &Config, previous: Option<&Self>, metrics: &Metrics) -> Result<Self, Error> {
        // By name first: thousands are compared with thousands.
        let mut before: HashMap<&str, Vec<&Arc<Upstream>>> = HashMap::new();
        for upstream in previous.map_or(&[][..], |previous| &previous.upstreams) {
            before.entry(&upstream.model.name).or_default().push(upstream);
        }
        let known = |model: &Arc<model::Upstream>| {
            let mut named = before.get(model.name.as_str())?.iter();
            named
                .find(|upstream| upstream.model == *model)
                .map(|upstream| Arc::clone(upstream))
        };
        let upstreams = config
            .upstreams
            .iter()
            .map(|model| known(model).map_or_else(|| Upstream::compile(model, metrics).map(Arc::new), Ok))
            .collect::<Result<Vec<_>, _>>()?;
        // A route is made of its model, the upstreams with the numbers in it, the limits, and the cookies of log-ins on other
        // routes: with the same of all, it stays what it is.
        let sessions = sessions(config);
        let same = previous.is_some_and(|previous| {
            let mut pairs = previous.upstreams.iter().zip(&upstreams);
            previous.config.limits == config.limits
                && self::sessions(&previous.config) == sessions
                && pairs.all(|(old, new)| Arc::ptr_eq(old, new))
        });
        let known_routes: HashMap<&str, &Arc<Route>> = previous
            .map_or(&[][..], |previous| &previous.routes)
            .iter()
            .map(|route| (&*route.name, route))
            .collect();
        // An `auth` that several routes name is made once, and one that is what it was goes on with what it knows.
        let mut sets = KeySets::default();
        for set in previous.into_iter().flat_map(Self::key_sets) {
            sets.add(set);
        }
        let mut auths: HashMap<*const model::Auth, Arc<Auth>> = HashMap::new();
        let mut kept = config.clone();
        let mut router = Router::default();
        let mut limits = Registry::after(previous.map(|previous| &previous.limits));
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &mut kept.routes {
            let before = known_routes.get(route.name.as_str()).copied();
            if let Some(before) = before.filter(|before| same && before.model == *route) {
                *route = Arc::clone(&before.model);
                limits.keep(route);
                router.insert(&route.host, &route.path, &route.when, Arc::clone(before));
                routes.push(Arc::clone(before));
                continue;
            }
            let numbered = |id: UpstreamId| {
                upstreams.get(id.0).ok_or_else(|| Error::NoUpstream {
                    route: route.name.clone(),
                    index: id.0,
                })
            };
            let action = match &route.action {
                model::Action::Redirect(redirect) => {
                    Action::Answer(Box::new(Answer::redirect(redirect, &route.path)))
                }
                model::Action::Respond(respond) => Action::Answer(Box::new(Answer::respond(respond))),
                model::Action::Forward(id) => Action::Forward(Arc::clone(numbered(*id)?)),
            };
            let whole = Whole::compile(route);
            let auth = route.auth.as_ref().map(|model| {
                let made = auths.entry(Arc::as_ptr(model)).or_insert_with(|| {
                    let before = before.and_then(|before| before.auth.clone());
                    before
                        .filter(|before| before.model() == model)
                        .unwrap_or_else(|| Arc::new(Auth::compile(model, &mut sets)))
                });
                Arc::clone(made)
            });
            let compiled = Route {
                model: Arc::clone(route),
                name: route.name.as_str().into(),
                chain: Chain::compile(route, auth.clone(), &sessions, &mut limits),
                auth,
                cors: route.cors.as_deref().map(|cors| Box::new(Cors::compile(cors))),
                rewrite: route
                    .rewrite
                    .path
                    .as_ref()
                    .map(|rule| Box::new(Rewriter::compile(rule, &route.path))),
                action,
                split: route
                    .split
                    .as_ref()
                    .map(|split| compile_split(split, numbered).map(Box::new))
                    .transpose()?,
                mirror: match &route.mirror {
                    None => None,
                    Some(mirror) => Some(Mirror {
                        upstream: Arc::clone(numbered(mirror.upstream)?),
                        share: mirror.share,
                        body_bytes: mirror.body_bytes as usize,
                    }),
                },
                compress: route.compress.clone(),
                decompress: route
                    .decompress
                    .or(whole.as_ref().and_then(|whole| whole.decodes())),
                whole,
                metrics: before.map_or_else(|| metrics.route(&route.name), |before| before.metrics.clone()),
                body_bytes: route.body_bytes.or(config.limits.body_bytes),
                response_header: route.response_header.unwrap_or(config.limits.response_header),
                total: route.total,
                tunnel_idle: route.tunnel_idle.unwrap_or(config.limits.tunnel_idle),
                tunnel_life: route.tunnel_life.unwrap_or(config.limits.tunnel_life),
            };
            let compiled = Arc::new(compiled);
            router.insert(&route.host, &route.path, &route.when, Arc::clone(&compiled));
            routes.push(compiled);
        }
        let doors = previous.map_or(&[][..], |previous| &previous.site.doors);
        let doors =
            Door::compile(&config.listen, doors).map_err(|(address, cause)| Error::Tls { address, cause })?;
        let site = Site {
            router,
            limits: config.limits,
            trusted_proxies: config.trusted_proxies.clone(),
            forwarding_header: config.forwarding_header,
            paths: config.paths,
            own_paths: config.listen.iter().any(|listener| listener.paths.is_some()),
            errors: config.errors.clone(),
            cors: config.routes.iter().any(|route| route.cors.is_some()),
            doors,
            access_log: config.log.access,
        };
        limits.settle();
        Ok(Self {
            config: kept,
            site: Arc::new(site),
            upstreams,
            routes,
            limits,
        })
    }

    /// The upstreams, in the order of the configuration.
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// What limits have counted.
    #[must_use]
    pub fn limits(&self) -> &Registry {
        &self.limits
    }

    /// What a worker serves from; also answers "which route?" offline.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Published keys in use; one that several routes share comes several times.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        let auths = self.routes.iter().filter_map(|route| route.auth.as_ref());
        auths.flat_map(|auth| auth.key_sets())
    }
}

/// The names of the cookies that log-ins set.
fn sessions(config: &Config) -> BTreeSet<&str> {
    let auths = config.routes.iter().filter_map(|route| route.auth.as_deref());
    let ways = auths.flat_map(model::Auth::ways);
    ways.filter_map(|way| match way {
        model::Way::Oidc(oidc) => Some(oidc.session.cookie.as_str()),
        _ => None,
    })
    .collect()
}

fn compile_split<'u>(
    split: &model::Split,
    numbered: impl Fn(UpstreamId) -> Result<&'u Arc<Upstream>, Error>,
) -> Result<Split, Error> {
    let mut total = 0;
    let mut parts = Vec::with_capacity(split.parts.len());
    for (id, weight) in &split.parts {
        total += u64::from(*weight);
        parts.push((total, Arc::clone(numbered(*id)?)));
    }
    Ok(Split {
        parts,
        total,
        by: split.by.clone(),
    })
}

/// The runtime in force. Its upstreams are looked after from the moment they are in force.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    runtime: Arc<ArcSwap<Runtime>>,
    site: SiteHandle,
    keeper: Option<Arc<Keeper>>,
    keys: Arc<KeyKeeper>,
    states: States,
}

impl RuntimeHandle {
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        let site = Arc::new(ArcSwap::from(Arc::clone(&runtime.site)));
        let keeper = match Keeper::start() {
            Ok(keeper) => Some(Arc::new(keeper)),
            Err(error) => {
                tracing::error!(%error, "no thread for health checks and look-ups: there will be none");
                None
            }
        };
        let handle = Self {
            site,
            keeper,
            keys: Arc::default(),
            states: States::default(),
            runtime: Arc::new(ArcSwap::from_pointee(runtime)),
        };
        handle.look_after(&handle.load());
        handle
    }

    fn look_after(&self, runtime: &Runtime) {
        self.states.set(&runtime.upstreams);
        if let Some(keeper) = &self.keeper {
            for upstream in &runtime.upstreams {
                keeper.keep(upstream);
            }
        }
        for set in runtime.key_sets() {
            self.keys.keep(set);
        }
    }

    /// How endpoints stand, to be registered with the metrics.
    #[must_use]
    pub fn states(&self) -> States {
        self.states.clone()
    }

    /// The runtime in force.
    #[must_use]
    pub fn load(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// Puts another in force. Requests under way end with the one they began with.
    pub fn replace(&self, runtime: Runtime) {
        self.look_after(&runtime);
        self.site.store(Arc::clone(&runtime.site));
        self.runtime.store(Arc::new(runtime));
    }

    /// For [`crate::http::Server::start`].
    #[must_use]
    pub fn site(&self) -> SiteHandle {
        Arc::clone(&self.site)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(limits: &str, routes: &str) -> Config {
        let text = format!(
            "listen: [{{address: \"127.0.0.1:1\"}}]\nxdp: {{mode: none}}\nlimits: {{{limits}}}\n\
             upstreams: {{u: {{endpoints: [{{url: \"http://127.0.0.1:2\"}}]}}}}\nroutes:\n{routes}"
        );
        let parsed = Config::parse(&text, "test.yaml", Path::new("/nonexistent"));
        parsed.unwrap_or_else(|faults| panic!("{faults}")).0
    }

    #[test]
    fn a_route_is_kept_only_while_all_that_it_is_made_of_is_the_same() {
        let metrics = Metrics::new();
        let first = "  - {match: {path: /a}, upstream: u}\n  - {match: {path: /b}, upstream: u}\n";
        let old = Runtime::compile(&config("body_bytes: 1MiB", first), None, &metrics).unwrap();
        let kept = |limits, routes| {
            let new = Runtime::compile(&config(limits, routes), Some(&old), &metrics).unwrap();
            let same = |(old, new): (_, _)| Arc::ptr_eq(old, new);
            old.routes.iter().zip(&new.routes).map(same).collect::<Vec<_>>()
        };
        assert_eq!(kept("body_bytes: 1MiB", first), [true, true]);
        assert_eq!(kept("body_bytes: 2MiB", first), [false, false]);
        let changed = "  - {match: {path: /a}, upstream: u}\n  - {match: {path: /b}, upstream: u, rewrite: {path: /c}}\n";
        assert_eq!(kept("body_bytes: 1MiB", changed), [true, false]);
        let elsewhere = "  - {match: {path: /a}, upstream: [{url: \"http://127.0.0.1:3\"}]}\n  - {match: {path: /b}, upstream: u}\n";
        assert!(!kept("body_bytes: 1MiB", elsewhere)[0]);
    }
}
