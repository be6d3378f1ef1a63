use super::*;
use crate::http::client::ClientAddr;

const CONFIG: &str = "
listen: [{address: '127.0.0.1:0'}]
xdp: {mode: none}
trusted_proxies: [172.16.0.0/12]
strikes: {block: {after: 2, within: 1m, for: 10m}, scores: {no_route: 1}}
routes: [{match: {path: /**}, upstream: [{url: 'http://127.0.0.1:1'}]}]
";

fn strikes() -> Strikes {
    let config = Config::parse(CONFIG, "test.yaml", std::path::Path::new("/"))
        .expect("a good configuration")
        .0;
    Strikes::new(&config)
}

fn client(socket: &str, forwarded: Option<&str>) -> Client {
    let ip = |text: &str| text.parse::<IpAddr>().expect("a literal");
    Client {
        socket: ClientAddr::of_socket(ip(socket)),
        forwarded: forwarded.map(|text| ForwardedAddr::of_header(ip(text))),
    }
}

#[test]
fn a_socket_address_goes_to_the_kernel() {
    let (strikes, now) = (strikes(), Instant::now());
    let who = client("192.0.2.7", None);
    assert_eq!(strikes.record(who, Reject::CredentialsInvalid, now), None);
    assert_eq!(strikes.standing(who.socket.ip(), now), Some((1, 2)));
    let Some(Sentence::Kernel(order)) = strikes.record(who, Reject::CredentialsInvalid, now) else {
        panic!("two strikes are enough");
    };
    assert_eq!(
        (order.addr, order.lasts),
        (who.socket.ip(), Duration::from_secs(600))
    );
    assert_eq!(
        Reject::from_number(order.detail),
        Some(Reject::CredentialsInvalid)
    );
}

#[test]
fn a_forwarded_address_never_goes_to_the_kernel_and_neither_does_its_proxy() {
    let (strikes, now) = (strikes(), Instant::now());
    let who = client("172.16.0.1", Some("192.0.2.7"));
    strikes.record(who, Reject::CredentialsInvalid, now);
    let addr = ForwardedAddr::of_header("192.0.2.7".parse().expect("a literal"));
    let sentence = strikes.record(who, Reject::CredentialsInvalid, now);
    assert_eq!(
        sentence,
        Some(Sentence::Layer7 {
            addr,
            lasts: Duration::from_secs(600)
        })
    );
    assert!(strikes.blocks_forwarded(addr, now));
    assert!(!strikes.blocks_forwarded(addr, now + Duration::from_secs(600)));
    for _ in 0..9 {
        assert_eq!(
            strikes.record(client("172.16.0.1", None), Reject::Malformed, now),
            None
        );
    }
    strikes.pardon(addr.ip());
    assert!(!strikes.blocks_forwarded(addr, now));
}

#[test]
fn only_what_is_scored_counts() {
    let (strikes, now) = (strikes(), Instant::now());
    let who = client("192.0.2.7", None);
    for _ in 0..9 {
        assert_eq!(strikes.record(who, Reject::UpstreamTimeout, now), None);
        assert_eq!(strikes.record(who, Reject::CredentialsMissing, now), None);
    }
    assert_eq!(strikes.record(who, Reject::NoRoute, now), None);
    assert!(
        strikes.record(who, Reject::NoRoute, now).is_some(),
        "the configuration scores it"
    );
}

#[test]
fn a_forwarded_client_is_not_refused_while_blocks_are_only_observed() {
    let parsed = Config::parse(CONFIG, "test.yaml", std::path::Path::new("/"));
    let mut config = parsed.expect("a good configuration").0;
    config.xdp.observe = observe::BLOCK;
    let strikes = Strikes::new(&config);
    let (addr, now) = (
        ForwardedAddr::of_header("203.0.113.5".parse().expect("an address")),
        Instant::now(),
    );
    strikes.block_forwarded(addr, now + Duration::from_secs(60), now);
    assert!(strikes.observes() && strikes.blocks_forwarded(addr, now));
    assert!(!strikes.refuses_forwarded(addr, now));
    config.xdp.observe = 0;
    strikes.reconfigure(&config);
    assert!(strikes.refuses_forwarded(addr, now));
}
