//! Limits that gateways share through a real redis-server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway::http::reject::Reject;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::redis::Redis;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// A site whose limits are counted at `redis`; `limit` are the settings of its route.
fn site(redis: &Redis, limit: &str, upstream: &Upstream) -> (tempfile::TempDir, Site) {
    site_at(redis.address(), "100ms", limit, upstream)
}

fn site_at(redis: SocketAddr, timeout: &str, limit: &str, upstream: &Upstream) -> (tempfile::TempDir, Site) {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let text = format!(
        "redis: {{url: \"redis://{redis}\", password_file: {}, timeout: {timeout}}}\n\
         routes: [{{name: r, match: {{path: /**}}, upstream: UP, rate_limit: {limit}}}]",
        password.display(),
    );
    let site = Site::written(&text, upstream);
    (directory, site)
}

fn ask(gateway: &Gateway) -> u16 {
    Client::connect(gateway.address()).get("/").status
}

#[test]
fn t39_two_gateways_and_a_thousand_requests_at_once_are_counted_to_the_last_one_in_one_question_each() {
    let (redis, upstream) = (Redis::start(), Upstream::text("ok"));
    let limit = "{rate: 1/h, burst: 300, by: route, shared: true, when_away: closed, headers: false}";
    let (_files, mut site) = site(&redis, limit, &upstream);
    site.config.workers = 2.try_into().unwrap();
    // Not a matter of this test: a machine that is busy elsewhere.
    let server = site.config.redis.clone().unwrap();
    let patient = std::sync::Arc::new(gateway::config::model::Redis {
        timeout: Duration::from_secs(5),
        ..(*server).clone()
    });
    site = site.with(|route| {
        for rate in &mut route.throttle.rates {
            if let Some(shared) = &mut std::sync::Arc::make_mut(rate).shared {
                shared.server = patient.clone();
            }
        }
    });
    let gateways = [Gateway::start(&site), Gateway::start(&site)];
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|number| {
                let gateway = &gateways[number % 2];
                scope.spawn(move || {
                    let mut client = Client::connect(gateway.address());
                    (0..50).filter(|_| client.get("/").status == 200).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((admitted, upstream.requests().len()), (300, 300));
    // Who asks before the server has the script asks once more: the first request of each client at most.
    let asked = redis.calls("evalsha");
    assert!((1000..=1020).contains(&asked), "one question each: {asked}");
}

#[test]
fn t38_redis_killed_and_back_is_never_a_500_and_never_a_stall() {
    let (mut redis, upstream) = (Redis::start(), Upstream::text("ok"));
    let limit =
        "[{rate: 1000/s, by: route, shared: true, when_away: open}, {rate: 1/h, burst: 400, shared: true}]";
    let (_files, site) = site(&redis, limit, &upstream);
    let gateway = Gateway::start(&site);
    assert_eq!(ask(&gateway), 200);
    let evaluated = || redis.calls("evalsha");
    assert!(evaluated() >= 1, "it was asked");
    let deadline = Duration::from_millis(100);
    let mut slowest = Duration::ZERO;
    let mut look = |count: usize| {
        let mut client = Client::connect(gateway.address());
        for _ in 0..count {
            let begun = Instant::now();
            assert_eq!(client.get("/").status, 200);
            slowest = slowest.max(begun.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    redis.kill();
    look(50);
    redis.resume();
    assert!(
        eventually(|| {
            ask(&gateway);
            redis.calls("evalsha") > 0
        }),
        "it is asked again by itself"
    );
    redis.freeze(true);
    look(50);
    redis.freeze(false);
    let before = redis.calls("evalsha");
    assert!(eventually(|| {
        ask(&gateway);
        redis.calls("evalsha") > before
    }));
    assert!(
        gateway
            .rejects()
            .iter()
            .all(|reject| *reject == Reject::RateLimited),
        "{:?}",
        gateway.rejects()
    );
    // The machine may be busy; a stall would be seconds.
    assert!(slowest < deadline + Duration::from_millis(400), "{slowest:?}");
}

#[test]
fn t38_each_limit_says_what_holds_while_redis_is_away() {
    let (mut redis, upstream) = (Redis::start(), Upstream::text("ok"));
    redis.kill();
    for (away, expected) in [
        ("local", [200, 200, 429]),
        ("open", [200, 200, 200]),
        ("closed", [503, 503, 503]),
    ] {
        let limit = format!("{{rate: 1/h, burst: 2, shared: true, when_away: {away}}}");
        let (_files, site) = site(&redis, &limit, &upstream);
        let gateway = Gateway::start(&site);
        let mut client = Client::connect(gateway.address());
        let answers = [client.get("/"), client.get("/"), client.get("/")];
        assert_eq!(answers.each_ref().map(|answer| answer.status), expected, "{away}");
        if away == "closed" {
            assert_eq!(answers[0].code().as_deref(), Some("limit_unavailable"));
        }
    }
}

#[test]
fn the_limits_of_a_request_lie_in_one_slot_of_a_cluster_unless_the_prefix_parts_them() {
    let files = tempfile::tempdir().unwrap();
    let (redis, upstream) = (Redis::start_cluster(files.path()), Upstream::text("ok"));
    let limit = "[{rate: 1/h, burst: 3, by: route, shared: true, when_away: closed}, {rate: 1/h, burst: 5, shared: true}]";
    let (_files, good) = site(&redis, limit, &upstream);
    let gateway = Gateway::start(&good);
    assert_eq!([(); 4].map(|()| ask(&gateway)), [200, 200, 200, 429]);

    let server = good.config.redis.clone().unwrap();
    let parted = Arc::new(gateway::config::model::Redis {
        prefix: "gateway:".to_owned(),
        ..(*server).clone()
    });
    let bad = good.with(|route| {
        for rate in &mut route.throttle.rates {
            if let Some(shared) = &mut Arc::make_mut(rate).shared {
                shared.server = parted.clone();
            }
        }
    });
    let gateway = Gateway::start(&bad);
    let refused = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (503, Some("limit_unavailable"))
    );
}

#[test]
fn a_shared_limit_tells_what_a_local_one_would_and_charges_all_or_none() {
    let (redis, upstream) = (Redis::start(), Upstream::text("ok"));
    let limit = "[{rate: 6/m, burst: 3, by: \"header:X-A\", shared: true}, {rate: 1/h, burst: 4, by: route, shared: true, headers: false}]";
    let (_files, site) = site(&redis, limit, &upstream);
    let gateway = Gateway::start(&site);
    let of = |name: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {name}\r\n\r\n");
        Client::connect(gateway.address()).send(request).response()
    };
    let first = of("a");
    assert_eq!(first.header("ratelimit-policy"), Some("\"1\";q=3;w=30"));
    assert_eq!(first.header("ratelimit"), Some("\"1\";r=2;t=10"));
    assert_eq!([of("a").status, of("a").status], [200, 200]);
    let refused = of("a");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert_eq!(
        [of("a").status, of("b").status, of("b").status],
        [429, 200, 429],
        "three refusals cost the route nothing"
    );
}

/// A CA, and what it has issued to a server and a client; and another CA that has issued nothing.
fn certificates() -> tempfile::TempDir {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    let ca = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        write(&format!("{name}.crt"), params.self_signed(&key).unwrap().pem());
        Issuer::new(params, key)
    };
    let (issuer, _) = (ca("ca"), ca("other"));
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["redis.internal".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::IpAddress([127, 0, 0, 1].into()));
        write(
            &format!("{name}.crt"),
            params.signed_by(&key, &issuer).unwrap().pem(),
        );
        write(&format!("{name}.key"), key.serialize_pem());
    }
    dir
}

#[test]
fn limits_are_shared_over_tls_and_only_with_the_right_server() {
    let files = certificates();
    let mut redis = Redis::start_tls(files.path());
    let upstream = Upstream::text("ok");
    let at = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(at("password"), "secret\n").unwrap();
    let gateway = |tls: &str| {
        let text = format!(
            "redis: {{url: \"rediss://{}\", password_file: {}, timeout: 2s, tls: {{{tls}}}}}\nroutes: [{{name: r, match: {{path: /**}}, \
             upstream: UP, rate_limit: {{rate: 1/h, burst: 3, by: route, shared: true, when_away: closed}}}}]",
            redis.address(),
            at("password"),
        );
        Gateway::start(&Site::written(&text, &upstream))
    };
    let own = format!(
        "certificate: {{cert: {}, key: {}}}",
        at("client.crt"),
        at("client.key")
    );
    let good = format!("ca: {}, {own}", at("ca.crt"));
    let (one, two) = (
        gateway(&good),
        gateway(&format!("{good}, server_name: redis.internal")),
    );
    assert_eq!(
        [ask(&one), ask(&two), ask(&one), ask(&two), ask(&one)],
        [200, 200, 200, 429, 429]
    );
    for bad in [
        // Another issuer, another name, and nothing to show.
        format!("ca: {}, {own}", at("other.crt")),
        format!("{good}, server_name: other.internal"),
        format!("ca: {}", at("ca.crt")),
    ] {
        assert_eq!(ask(&gateway(&bad)), 503, "{bad}");
    }
    let address = redis.address();
    redis.kill();
    assert!(eventually(|| ask(&one) == 503), "it is away");
    redis.resume();
    assert_eq!(redis.address(), address);
    assert!(eventually(|| ask(&one) == 200), "and is found again, empty");
}

#[test]
fn a_connection_that_redis_closes_while_idle_refuses_nobody_and_admits_nobody_uncounted() {
    for away in ["closed", "local"] {
        let (redis, upstream) = (Redis::start_impatient(1), Upstream::text("ok"));
        let limit = format!("{{rate: 1/h, burst: 6, by: route, shared: true, when_away: {away}}}");
        let (_files, site) = site_at(redis.address(), "2s", &limit, &upstream);
        let gateway = Gateway::start(&site);
        assert_eq!([ask(&gateway), ask(&gateway)], [200, 200]);
        // It looks for idle clients once a second.
        std::thread::sleep(Duration::from_millis(3500));
        assert_eq!(redis.hang_up(), 0, "it has closed what was idle");
        assert_eq!([ask(&gateway), ask(&gateway)], [200, 200], "{away}");
        let mut client = Client::connect(gateway.address());
        let mut admitted = 4;
        for _ in 0..10 {
            assert_eq!(redis.hang_up(), 1);
            match client.get("/").status {
                200 => admitted += 1,
                status => assert_eq!(status, 429, "{away}"),
            }
        }
        assert_eq!(admitted, 6, "{away}");
    }
}

/// What a server of the tests does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Closes on the second question of its first connection, having read it.
    ClosesOnce,
    /// Closes on every question.
    Closes,
    /// Greets with an answer that has no end.
    Floods,
    /// Lets in, and answers a question without end.
    FloodsLater,
}

/// What has become of it.
#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    questions: AtomicU64,
    /// Most bytes that one connection took.
    most: AtomicU64,
}

/// A server that speaks as Redis does and is none.
fn liar(does: Does) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
    let of = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let of = Arc::clone(&of);
            std::thread::spawn(move || lie(does, stream, &of));
        }
    });
    (address, seen)
}

fn lie(does: Does, mut stream: TcpStream, seen: &Seen) -> Option<()> {
    let number = seen.connections.fetch_add(1, Ordering::SeqCst);
    let mut asked = BufReader::new(stream.try_clone().ok()?);
    let mut questions = 0;
    loop {
        let command = command(&mut asked)?;
        let question = command == b"EVALSHA";
        if question {
            seen.questions.fetch_add(1, Ordering::SeqCst);
            questions += 1;
        }
        match (does, question) {
            (Does::Closes, true) => return None,
            (Does::ClosesOnce, true) if number == 0 && questions == 2 => return None,
            (Does::Floods, _) | (Does::FloodsLater, true) => {
                let (mut sent, piece, begun) = (1, [b'x'; 65536], Instant::now());
                stream.write_all(b"+").ok()?;
                while begun.elapsed() < Duration::from_secs(5) && stream.write_all(&piece).is_ok() {
                    sent += piece.len() as u64;
                    seen.most.fetch_max(sent, Ordering::SeqCst);
                }
                return None;
            }
            (_, true) => stream.write_all(b"*1\r\n:1000\r\n").ok()?,
            (_, false) if command == b"PING" => stream.write_all(b"+PONG\r\n").ok()?,
            (_, false) => stream.write_all(b"+OK\r\n").ok()?,
        }
    }
}

/// The first word of the next one.
fn command(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let number = |from: &mut BufReader<TcpStream>| -> Option<usize> {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse().ok()
    };
    let mut first = None;
    for _ in 0..number(from)? {
        let mut word = vec![0; number(from)? + 2];
        from.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        first.get_or_insert(word);
    }
    first
}

const CLOSED: &str = "{rate: 1000/s, by: route, shared: true, when_away: closed, headers: false}";

#[test]
fn a_question_whose_kept_connection_breaks_is_asked_once_more() {
    let ((address, seen), upstream) = (liar(Does::ClosesOnce), Upstream::text("ok"));
    let (_files, site) = site_at(address, "2s", CLOSED, &upstream);
    let gateway = Gateway::start(&site);
    assert_eq!([ask(&gateway), ask(&gateway), ask(&gateway)], [200; 3]);
    let counts = [&seen.connections, &seen.questions].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [2, 4]);
}

#[test]
fn a_server_that_closes_on_every_question_is_away_and_is_not_connected_to_for_each() {
    let ((address, seen), upstream) = (liar(Does::Closes), Upstream::text("ok"));
    let (_files, site) = site_at(address, "100ms", CLOSED, &upstream);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for _ in 0..100 {
        let begun = Instant::now();
        assert_eq!(client.get("/").status, 503);
        assert!(begun.elapsed() < Duration::from_millis(500), "no stall");
        std::thread::sleep(Duration::from_millis(5));
    }
    let connections = seen.connections.load(Ordering::SeqCst);
    assert!((2..=10).contains(&connections), "{connections}");
}

#[test]
fn an_answer_of_redis_without_end_is_read_to_a_bound() {
    for does in [Does::Floods, Does::FloodsLater] {
        let ((address, seen), upstream) = (liar(does), Upstream::text("ok"));
        let (_files, site) = site_at(address, "100ms", CLOSED, &upstream);
        let gateway = Gateway::start(&site);
        let mut client = Client::connect(gateway.address());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            assert_eq!(client.get("/").status, 503);
            assert!(asked.elapsed() < Duration::from_millis(500), "no stall");
            std::thread::sleep(Duration::from_millis(5));
        }
        let [connections, most] = [&seen.connections, &seen.most].map(|count| count.load(Ordering::SeqCst));
        assert!((2..=10).contains(&connections), "{connections}");
        // What the gateway reads, and what sockets hold.
        assert!((1..16 << 20).contains(&most), "{most}");
    }
}
