//! Models built by hand, as `config` would build them from a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gateway::config::model::*;
use sha2::{Digest, Sha256};

/// A configuration in the making. Deadlines are long; tests of deadlines shorten their own.
#[derive(Clone, Debug)]
pub struct Site {
    pub config: Config,
}

const fn nonzero(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// One cleartext listener on a free port, one worker, no routes.
    #[must_use]
    pub fn new() -> Self {
        let long = Duration::from_secs(20);
        let limits = Limits {
            tls_handshake: long,
            request_header: long,
            body_progress: long,
            connect: long,
            response_header: long,
            drain: long,
            tunnel_idle: long,
            tunnel_life: None,
            drain_delay: Duration::ZERO,
            upstream_idle: long,
            header_bytes: 16 << 10,
            header_count: 100,
            uri_bytes: 8 << 10,
            body_bytes: Some(1 << 20),
            streams: 100,
            connections: 1000,
            connections_per_client: 1000,
            upstream_idle_connections: 16,
        };
        let capacity = Capacity {
            deny_addresses: 16,
            deny_prefixes: 16,
            allow_addresses: 16,
            allow_prefixes: 16,
            blocks: 16,
        };
        let xdp = Xdp {
            mode: XdpMode::None,
            capacity,
            pin_dir: "/nonexistent".into(),
            ..gateway::config::defaults::xdp()
        };
        let config = Config {
            listen: vec![Listener::plain(SocketAddr::from(([127, 0, 0, 1], 0)))],
            admin: Admin {
                socket: "/nonexistent".into(),
                metrics: None,
            },
            trusted_proxies: vec![],
            forwarding_header: ForwardingHeader::default(),
            paths: Paths::default(),
            errors: ErrorPages::default(),
            xdp,
            strikes: Strikes {
                block: None,
                scores: BTreeMap::new(),
            },
            limits,
            redis: None,
            upstreams: vec![],
            routes: vec![],
            log: Log {
                level: "info".into(),
                format: LogFormat::Text,
                access: true,
            },
            state_dir: "/nonexistent".into(),
            workers: nonzero(1),
            watch_files: false,
            sources: vec![],
        };
        Self { config }
    }

    /// Settings as an operator writes them, from `routes` on; `UP` in them stands for the upstream's address. All else is
    /// as in [`Site::new`].
    ///
    /// # Panics
    /// If the text is no good configuration; with the report.
    #[must_use]
    pub fn written(text: &str, upstream: &super::Upstream) -> Self {
        let mut site = Self::new();
        // With the colon: a hash may have the two letters in it.
        let text = text.replace(": UP", &format!(": [{{url: \"http://{}\"}}]", upstream.address()));
        let text = format!("listen: [{{address: 127.0.0.1:1}}]\nxdp: {{mode: none}}\n{text}");
        let parsed = Config::parse(&text, "test.yaml", std::path::Path::new("/nonexistent"));
        let (config, _) = parsed.unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        site.config.trusted_proxies = config.trusted_proxies;
        site.config.forwarding_header = config.forwarding_header;
        site.config.paths = config.paths;
        site.config.errors = config.errors;
        site.config.upstreams = config.upstreams;
        site.config.routes = config.routes;
        site.config.redis = config.redis;
        site
    }

    /// One route to `upstream` for everything, with this `auth`.
    #[must_use]
    pub fn guarded(auth: &str, upstream: &super::Upstream) -> Self {
        let route = format!("routes: [{{name: r, match: {{path: /**}}, auth: {auth}, upstream: UP}}]\n");
        Self::written(&route, upstream)
    }

    /// Adds a route to endpoints with weights.
    #[must_use]
    pub fn route(mut self, host: &str, pattern: &str, endpoints: &[(SocketAddr, u32)]) -> Self {
        let endpoint = |(address, weight): &(SocketAddr, u32)| Endpoint {
            address: Address::Ip(*address),
            tls: false,
            weight: nonzero(*weight),
        };
        let name = format!("{host}{pattern}");
        let endpoints = endpoints.iter().map(endpoint).collect();
        self.config
            .upstreams
            .push(Arc::new(gateway::config::model::Upstream::new(
                name.clone(),
                endpoints,
            )));
        let (body, prefix) = match pattern.strip_suffix("/**") {
            Some(body) => (body, true),
            None => (pattern, false),
        };
        let segment = |s: &str| match s.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => Segment::Capture(name.into()),
            None => Segment::Literal(s.into()),
        };
        self.config.routes.push(Arc::new(Route {
            name,
            host: match host.strip_prefix("*.") {
                Some(suffix) => HostMatch::Suffix(suffix.into()),
                None if host == "*" => HostMatch::Any,
                None => HostMatch::Exact(host.into()),
            },
            path: PathMatch {
                pattern: pattern.into(),
                shape: Shape::Segments {
                    segments: body.split('/').skip(1).map(segment).collect(),
                    prefix,
                },
            },
            when: Conditions::default(),
            cors: None,
            throttle: Rare::default(),
            auth: None,
            request: Rare::default(),
            response: Rare::default(),
            rewrite: Rare::default(),
            query: Rare::default(),
            status: StatusMap::default(),
            errors: Rare::default(),
            request_body: None,
            response_body: None,
            validate: None,
            action: Action::Forward(UpstreamId(self.config.upstreams.len() - 1)),
            compress: None,
            decompress: None,
            split: None,
            mirror: None,
            body_bytes: None,
            response_header: None,
            total: None,
            tunnel_idle: None,
            tunnel_life: None,
            source: "test:1".into(),
        }));
        self
    }

    /// Everything to several upstreams of equal weight.
    #[must_use]
    pub fn among(upstreams: &[&super::Upstream]) -> Self {
        let endpoints: Vec<_> = upstreams.iter().map(|upstream| (upstream.address(), 1)).collect();
        Self::new().route("*", "/**", &endpoints)
    }

    /// Everything to one upstream.
    #[must_use]
    pub fn to(upstream: &super::Upstream) -> Self {
        Self::new().route("*", "/**", &[(upstream.address(), 1)])
    }

    /// Changes the last route.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Route)) -> Self {
        if let Some(route) = self.config.routes.last_mut() {
            change(Arc::make_mut(route));
        }
        self
    }

    /// Changes the last upstream.
    #[must_use]
    pub fn upstream(mut self, change: impl FnOnce(&mut gateway::config::model::Upstream)) -> Self {
        if let Some(upstream) = self.config.upstreams.last_mut() {
            change(Arc::make_mut(upstream));
        }
        self
    }

    /// Changes the limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.config.limits);
        self
    }

    /// Asks for a key in `X-API-Key` on the last route.
    #[must_use]
    pub fn api_key(self, keys: &[(&str, &str)]) -> Self {
        let key = |holder: &str| Key {
            name: holder.to_owned(),
            ..Key::default()
        };
        let keys = keys
            .iter()
            .map(|(secret, holder)| (Sha256::digest(secret).into(), key(holder)))
            .collect();
        let header = http::HeaderName::from_static("x-api-key");
        self.with(|route| {
            route.auth = Some(Arc::new(Auth::by(Way::ApiKey(ApiKeyAuth {
                place: Place::Header(header),
                keep: false,
                keys: Arc::new(keys),
                file: None,
            }))));
        })
    }

    /// Trusts forwarding headers from these networks.
    #[must_use]
    pub fn trusting(mut self, networks: &[&str]) -> Self {
        self.config.trusted_proxies = networks
            .iter()
            .filter_map(|network| network.parse().ok())
            .collect();
        self
    }
}
