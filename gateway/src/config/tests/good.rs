//! What must load, and into what.

use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{SMALL, etc, load, load_in};
use crate::config::decode::Walk;
use crate::config::model::{
    Action, Balance, HostMatch, KeyPart, LimitKey, LogFormat, PacketLimit, Place, Segment, Shape, UpstreamId,
    Way, XdpMode,
};
use crate::config::{defaults, walk_text};

const MINIMAL: &str = include_str!("../../../../config/minimal.yaml");
const EVERYTHING: &str = include_str!("../../../../config/gateway.yaml");

/// The form that the design aims at, letter by letter.
const DESIGN: &str = r"
listen:
  - address: 0.0.0.0:443
    tls: {certificates: [{cert: /etc/gateway/tls/api.crt, key: /etc/gateway/tls/api.key}]}
  - address: 0.0.0.0:8080
admin: {socket: /run/gateway/admin.sock, metrics: 127.0.0.1:9901}
trusted_proxies: []
xdp:
  interfaces: [eth0]
  mode: auto                      # auto | native | generic | none; which one it got is reported
  allow: [10.0.0.0/8]
  deny: [198.51.100.0/24, {file: /etc/gateway/drop.txt}]
  syn_limit: {rate: 50/s, burst: 100}
strikes:
  block: {after: 20, within: 1m, for: 10m, escalate: 4x, at_most: 24h}
upstreams:                        # only for what several routes share
  orders:
    balance: least_requests
    endpoints: [{url: http://10.0.0.1, weight: 3}, {url: http://10.0.0.2, weight: 1}]
routes:
  - match: {host: api.example.com, path: /v1/orders/**}
    auth: {jwt: {issuer: https://idp.example.com, audience: orders}}
    rate_limit: {rate: 100/s, burst: 50, by: client_ip}
    request:  {headers: {set: {X-Gateway: edge}}}
    response: {headers: {remove: [Server]}}
    upstream: orders
  - match: {path: /status/**}
    auth: {api_key: {header: X-API-Key, keys: {file: /etc/gateway/keys.yaml}}}
    upstream: [{url: http://127.0.0.1:9000}]
";

#[test]
fn the_form_of_the_design_loads_as_written() {
    let dir = etc();
    let (config, warnings) = load_in(dir.path(), DESIGN).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(
        config.listen[0].tls.as_ref().map(|tls| tls.certificates.len()),
        Some(1)
    );
    assert_eq!(config.admin, defaults::admin());
    assert_eq!(
        (config.xdp.mode, config.xdp.interfaces.as_slice()),
        (XdpMode::Auto, &["eth0".to_owned()][..])
    );
    let deny: Vec<_> = config.xdp.deny.iter().map(ToString::to_string).collect();
    assert_eq!(
        deny,
        [
            "198.51.100.0/24",
            "203.0.113.0/24",
            "2001:db8:1::/48",
            "192.0.2.66/32"
        ]
    );
    let syn_limit = config.xdp.syn_limit.expect("a limit");
    assert_eq!(
        PacketLimit {
            ipv6_prefix: 64,
            ..syn_limit
        },
        syn_limit
    );
    assert_eq!(
        (
            syn_limit.rate.count.get(),
            syn_limit.rate.per,
            syn_limit.burst.get()
        ),
        (50, Duration::from_secs(1), 100)
    );
    let block = config.strikes.block.expect("a policy");
    assert_eq!(
        (block.after.get(), block.escalate_percent, block.at_most),
        (20, 400, Duration::from_secs(86_400))
    );
    assert_eq!(config.upstreams[0].balance, Balance::LeastRequests);
    assert_eq!(config.upstreams[0].endpoints[0].weight.get(), 3);
    assert_eq!(
        config.upstreams[0].endpoints[0].address.to_string(),
        "10.0.0.1:80"
    );

    let orders = &config.routes[0];
    assert_eq!(orders.name, "api.example.com/v1/orders/**");
    assert_eq!(orders.host, HostMatch::Exact("api.example.com".into()));
    assert_eq!(
        orders.path.shape,
        Shape::Segments {
            segments: vec![Segment::Literal("v1".into()), Segment::Literal("orders".into())],
            prefix: true
        }
    );
    let Some([Way::Jwt(jwt)]) = orders.auth.as_ref().map(|auth| auth.ways()) else {
        panic!("a token is needed")
    };
    assert_eq!(jwt.issuers, ["https://idp.example.com"]);
    let source = jwt.published.as_ref().expect("its keys are published");
    assert_eq!(
        source.url.to_string(),
        "https://idp.example.com/.well-known/openid-configuration"
    );
    assert_eq!(
        orders
            .throttle
            .rates
            .iter()
            .map(|limit| (limit.burst.get(), &limit.by))
            .collect::<Vec<_>>(),
        [(
            50,
            &LimitKey {
                parts: vec![KeyPart::ClientIp],
                ipv4_prefix: 32,
                ipv6_prefix: 64
            }
        )]
    );
    assert_eq!(
        orders.request.set,
        [(
            "x-gateway".parse().expect("a name"),
            "edge".parse().expect("a value")
        )]
    );
    assert_eq!(orders.response.remove, ["server"]);
    assert_eq!(
        (&orders.action, &config.routes[1].action),
        (&Action::Forward(UpstreamId(0)), &Action::Forward(UpstreamId(1)))
    );
    let Some([Way::ApiKey(keys)]) = config.routes[1].auth.as_ref().map(|auth| auth.ways()) else {
        panic!("a key is needed")
    };
    let names: Vec<_> = keys.keys.values().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["partner-a"]);
    assert_eq!(config.upstreams[1].name, "/status/**");

    let told: Vec<_> = warnings.iter().map(|warning| warning.0.path.as_str()).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn the_demonstration_loads_without_a_warning() {
    let (config, warnings) = load(MINIMAL).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    assert_eq!(
        (config.xdp.mode, config.xdp.pin_dir.as_path()),
        (XdpMode::Generic, Path::new("/sys/fs/bpf/gateway-demo"))
    );
    // It detaches when it ends, so it must share nothing with a gateway that serves on the same machine.
    assert_ne!(config.xdp.pin_dir, Path::new(defaults::PIN_DIR));
    assert_ne!(config.admin.socket, Path::new(defaults::ADMIN_SOCKET));
    assert_ne!(config.state_dir, Path::new(defaults::STATE_DIR));
    let block = config.strikes.block.expect("a policy");
    assert_eq!((block.after.get(), block.lasts), (3, Duration::from_secs(120)));
    assert_eq!(config.routes[0].auth, None);
    let auth = config.routes[1].auth.as_ref().expect("a key is needed");
    assert!(matches!(auth.ways(), [Way::ApiKey(_)]));
}

#[test]
fn the_documented_file_loads_and_names_every_key() {
    let dir = etc();
    let text = EVERYTHING.replace("/etc/gateway", &dir.path().display().to_string());
    let mut walk = Walk::new(dir.path());
    let (config, _) = walk_text(&mut walk, &text, "gateway.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    assert!(walk.known.len() > 80, "the walk went everywhere");
    let absent: Vec<_> = walk
        .known
        .iter()
        .filter(|(_, present)| !**present)
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        absent,
        Vec::<&String>::new(),
        "config/gateway.yaml leaves these out"
    );

    assert_eq!(config.limits, defaults::limits());
    assert_eq!(config.xdp.capacity, defaults::capacity());
    assert_eq!(config.strikes.block, Some(defaults::block()));
    assert_eq!(config.admin, defaults::admin());
    assert_eq!(config.log, defaults::log());
    assert_eq!(config.state_dir, Path::new(defaults::STATE_DIR));
    assert_eq!(config.xdp.log_drops_every, Some(defaults::LOG_DROPS_EVERY));
    assert_eq!(config.xdp.events_every, defaults::EVENTS_EVERY);
}

#[test]
fn cookies_that_can_not_work_are_told() {
    let of = |xdp: &str, listen: &str| {
        let text = format!("{listen}xdp: {{{xdp}, syn_cookies: {{above: 200/s}}}}\n");
        let (config, warnings) = load(&text).unwrap_or_else(|faults| panic!("{faults}"));
        let cookies = config.xdp.syn_cookies.expect("configured");
        assert_eq!((cookies.burst.get(), cookies.set_sysctls), (200, true));
        warnings.iter().map(ToString::to_string).collect::<String>()
    };
    let listen = "listen: [{address: 127.0.0.1:8080}]\nroutes: []\n";
    let on = "interfaces: [eth0]";
    assert!(!of(on, listen).contains("cookies"));
    assert!(of(on, "").contains("no listeners"));
    assert!(of("mode: none", listen).contains("mode is none"));
    assert!(of("interfaces: [eth0], observe: [all]", listen).contains("nothing is answered"));
    let many: Vec<_> = (1..=17)
        .map(|port| format!("{{address: 127.0.0.1:{port}}}"))
        .collect();
    let many = format!("listen: [{}]\nroutes: []\n", many.join(", "));
    assert!(of(on, &many).contains("only the first 16"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let (config, warnings) = load(SMALL).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(warnings, []);
    assert_eq!(config.limits, defaults::limits());
    assert_eq!(config.admin, defaults::admin());
    assert_eq!(config.strikes.block, None);
    assert_eq!(config.xdp.syn_limit, None);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.workers, defaults::workers());
    assert_eq!(config.routes[0].source, "g.yaml:4");
    assert_eq!(
        load(SMALL).map(|(again, _)| again),
        Ok(config),
        "equal texts are equal models"
    );
}

#[test]
fn a_file_from_another_system_is_the_same_file() {
    let config = load(SMALL).map(|(config, _)| config);
    assert!(config.is_ok());
    for text in [
        SMALL.replace('\n', "\r\n"),
        format!("\u{feff}{SMALL}"),
        format!("---\n{SMALL}...\n"),
    ] {
        let mut other = load(&text).map(|(config, _)| config);
        if let Ok(other) = &mut other {
            std::sync::Arc::make_mut(&mut other.routes[0]).source = "g.yaml:4".into();
        }
        assert_eq!(other, config, "{text:?}");
    }
}

#[test]
fn headers_and_keys_arrive_as_written() {
    let dir = etc();
    let (config, _) = load_in(dir.path(), EVERYTHING).unwrap_or_else(|faults| panic!("{faults}"));
    let lines = |lines: &[(http::HeaderName, http::HeaderValue)]| -> Vec<String> {
        lines
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
            .collect()
    };
    let route = &config.routes[0];
    assert_eq!(
        route.request.remove,
        ["x-debug", "true-client-ip", "x-original-url"]
    );
    assert_eq!(lines(&route.request.set), ["x-gateway: edge"]);
    assert_eq!(
        lines(&route.response.add),
        ["vary: Origin", "vary: Accept-Encoding"]
    );
    assert_eq!(
        (route.body_bytes, route.response_header),
        (Some(1 << 20), Some(Duration::from_secs(5)))
    );
    assert_eq!(route.total, Some(Duration::from_secs(30)));
    assert_eq!(
        (route.tunnel_idle, route.tunnel_life),
        (
            Some(Duration::from_secs(600)),
            Some(Some(Duration::from_secs(8 * 3600)))
        )
    );
    let status = config
        .routes
        .iter()
        .find(|route| route.path.pattern == "/status/**");
    let auth = status.and_then(|route| route.auth.as_ref());
    let Some([Way::ApiKey(auth)]) = auth.map(|auth| auth.ways()) else {
        panic!("a key is needed")
    };
    let standard = http::HeaderName::from_static(defaults::API_KEY_HEADER);
    assert_eq!(auth.place, Place::Header(standard));
    assert_eq!(
        auth.keys.keys().copied().collect::<Vec<_>>(),
        [<[u8; 32]>::from(Sha256::digest("demo-key"))]
    );
}
