//! Reloads under load, bad ones, many of them, and those that a changed file makes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};
use rustix::process::Signal;

use super::{SHORT, Stage, everything_to, filler};

/// How long a reload of 5,000 routes may take to be in force, and how many routes the test of memory has. An unoptimised
/// gateway is given more and less; the figures that are published are of the other.
const LIVE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 50 });
const MANY: usize = if cfg!(debug_assertions) { 200 } else { 5_000 };

/// `/version` goes where the configuration says, `/same/**` to an upstream that never changes, and thousands of others.
fn routes(version: &Upstream, same: &Upstream, count: usize) -> String {
    let mut text = format!(
        "upstreams:\n  same: {{endpoints: [{{url: 'http://{}'}}]}}\nroutes:\n  - match: {{path: /version}}\n    upstream: \
         [{{url: 'http://{}'}}]\n  - match: {{path: /same/**}}\n    upstream: same\n",
        same.address(),
        version.address()
    );
    text.push_str(&filler(count, same.address()));
    text
}

/// One event every 20 ms, for as long as the client listens.
fn events() -> Upstream {
    Upstream::start(|request, wire| {
        wire.body(request);
        if request.target != "/same/events" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsame");
            return true;
        }
        wire.events(SHORT);
        false
    })
}

#[test]
fn t44_a_hundred_reloads_of_5000_routes_under_load_lose_nothing() -> Result<()> {
    let (one, two, same) = (Upstream::text("one"), Upstream::text("two"), events());
    let stage = Stage::new()?;
    let texts = [
        ("one", routes(&one, &same, 5_000)),
        ("two", routes(&two, &same, 5_000)),
    ];
    stage.write("", &texts[0].1)?;
    let gateway = stage.start()?;
    let address = stage.address;

    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let load = |fresh: bool| {
        let (done, served) = (Arc::clone(&done), Arc::clone(&served));
        std::thread::spawn(move || -> Result<(), String> {
            let mut client = Client::connect(address);
            while !done.load(Ordering::Relaxed) {
                if fresh {
                    client = Client::connect(address);
                }
                for path in ["/version", "/same/x"] {
                    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    let answer = client
                        .try_response()
                        .map_err(|error| format!("{path}: {error}"))?;
                    if answer.status != 200 {
                        return Err(format!("{path}: {} {}", answer.status, answer.text()));
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    };
    let loads: Vec<_> = [false, false, true].map(load).into();
    let mut stream = Client::connect(address);
    stream.send("GET /same/events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(stream.head()?.status, 200);
    let mut next = 0_u32;
    let mut probe = Client::connect(address);
    let mut times = vec![];
    for round in 1..=100 {
        let (text, configuration) = &texts[round % 2];
        stage.write("", configuration)?;
        let told = Instant::now();
        gateway.tell(Signal::HUP)?;
        while probe.get("/version").text() != *text {
            ensure!(
                told.elapsed() < Duration::from_secs(10),
                "not in force:\n{}",
                gateway.log()
            );
        }
        times.push(told.elapsed());
        // The stream goes on, without a gap.
        for _ in 0..2 {
            let event = stream.chunk()?.expect("the stream goes on");
            assert_eq!(String::from_utf8_lossy(&event), format!("data: {next}\n\n"));
            next += 1;
        }
    }
    done.store(true, Ordering::Relaxed);
    for load in loads {
        load.join().expect("no panic").map_err(anyhow::Error::msg)?;
    }
    times.sort();
    let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "5,000 routes in force after {middle:?}, at most {longest:?}; {} requests during 100 reloads, none failed",
        served.load(Ordering::Relaxed)
    );
    ensure!(served.load(Ordering::Relaxed) > 500, "there was load");
    ensure!(middle < LIVE, "the middle one took {middle:?}");
    // The load's kept connections and the events', at most: the pool of what is equal is kept. Others come while one is busy.
    let most = same
        .requests()
        .iter()
        .map(|request| request.connection)
        .max()
        .unwrap_or(0);
    ensure!(
        most < 20,
        "{most} connections to an upstream that has not changed"
    );
    Ok(())
}

#[test]
fn t45_a_bad_configuration_changes_nothing_and_is_told() -> Result<()> {
    let (one, same) = (Upstream::text("one"), Upstream::text("same"));
    let stage = Stage::new()?;
    stage.write("", &routes(&one, &same, 10))?;
    let gateway = stage.start()?;
    let mut client = Client::connect(stage.address);
    assert_eq!(client.get("/version").text(), "one");
    let bad = routes(&one, &same, 10).replace("/same/**", "same");
    stage.write("", &bad)?;
    let told = stage.expect(2, &["reload"])?;
    ensure!(told.contains("gateway.yaml:") && told.contains("path"), "{told}");
    gateway.tell(Signal::HUP)?;
    gateway.wait_for_log("the configuration was not taken over")?;
    let status = stage.expect(0, &["status"])?;
    ensure!(
        status.contains("CONFIGURATION NOT TAKEN OVER, as before: ") && status.contains("gateway.yaml:"),
        "{status}"
    );
    // A listener that can not be had is as bad as a fault in the text.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let listener = format!("\n  - address: {}", taken.local_addr()?);
    stage.write(&listener, &routes(&same, &same, 20))?;
    let told = stage.expect(1, &["reload"])?;
    ensure!(
        told.contains("another program listens there") && told.contains("nothing was changed"),
        "{told}"
    );
    assert_eq!(client.get("/version").text(), "one");
    assert_eq!(Client::connect(stage.address).get("/same/x").text(), "same");
    stage.write("", &routes(&one, &same, 10))?;
    stage.expect(0, &["reload"])?;
    let status = stage.expect(0, &["status"])?;
    ensure!(!status.contains("NOT TAKEN OVER"), "{status}");
    Ok(())
}

#[test]
fn t47_memory_is_flat_over_a_thousand_reloads() -> Result<()> {
    let (one, two, same) = (
        Upstream::text("one"),
        Upstream::text("two"),
        Upstream::text("same"),
    );
    let stage = Stage::new()?;
    // Another upstream and another set of listeners each time.
    let extra = super::free_port()?;
    let extra = format!("\n  - address: 127.0.0.1:{extra}");
    let texts = [
        ("", routes(&one, &same, MANY)),
        (extra.as_str(), routes(&two, &same, MANY)),
    ];
    stage.write(texts[0].0, &texts[0].1)?;
    let gateway = stage.start()?;
    let mut client = Client::connect(stage.address);
    let mut history = String::new();
    let mut sizes = vec![];
    for round in 0..1_000_usize {
        let (listeners, text) = &texts[round % 2];
        stage.write(listeners, text)?;
        stage.expect(0, &["reload"])?;
        assert_eq!(client.get("/version").status, 200);
        if round % 100 == 99 {
            sizes.push(gateway.resident()?);
            let _ = write!(history, " {}", gateway.resident()?);
        }
    }
    println!("{MANY} routes, resident KiB after each hundred reloads:{history}");
    let (early, late) = (sizes[2], sizes[9]);
    ensure!(late <= early + early / 10 + 1024, "memory grows:{history}");
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.pid()))?.count();
    let files = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))?.count();
    ensure!(threads < 20 && files < 100, "{threads} threads, {files} files");
    Ok(())
}

#[test]
fn a_watched_configuration_is_taken_up_and_a_bad_one_is_told() -> Result<()> {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let stage = Stage::new()?;
    let watched = |upstream| format!("watch_files: true\n{}", routes(upstream, &one, 3));
    stage.write("", &watched(&one))?;
    let gateway = stage.start()?;
    let mut client = Client::connect(stage.address);
    assert_eq!(client.get("/version").text(), "one");
    stage.write("", &watched(&two))?;
    wait_until("new version", || Ok(client.get("/version").text() == "two"))?;
    stage.write("", "routes: nonsense\n")?;
    gateway.wait_for_log("the configuration was not taken over")?;
    assert_eq!(client.get("/version").text(), "two");
    // Told once, not at every look.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(
        gateway
            .log()
            .matches("the configuration was not taken over")
            .count(),
        1
    );
    stage.write("", &watched(&one))?;
    wait_until("mended version", || Ok(client.get("/version").text() == "one"))
}

#[test]
fn t50_who_is_ready_serves() -> Result<()> {
    let same = Upstream::text("same");
    let stage = Stage::new()?;
    stage.write("", &routes(&same, &same, 5_000))?;
    let _gateway = stage.start()?;
    // The first request of all, for the last route.
    let mut client = Client::connect(stage.address);
    client.send("GET /v1/x4999/y HTTP/1.1\r\nHost: h4999.example\r\n\r\n");
    assert_eq!(client.response().text(), "same");
    Ok(())
}

#[test]
fn a_reload_of_a_file_that_can_not_be_read_finds_the_gateway_and_says_what_to_do() -> Result<()> {
    let upstream = Upstream::text("same");
    let stage = Stage::new()?;
    let routes = everything_to(&upstream);
    stage.write("", &routes)?;
    let _gateway = stage.start()?;
    let good = std::fs::read(stage.home.config())?;
    let socket = stage.file("admin.sock").display().to_string();
    let not_text = [b"# caf\xe9\n".to_vec(), good.clone()].concat();
    let cut = [good.clone(), b"  - match: {path: /x\n".to_vec()].concat();
    for (case, bytes) in [("not UTF-8", not_text), ("broken off", cut)] {
        std::fs::write(stage.home.config(), bytes)?;
        let text = stage.expect(2, &["reload"])?;
        ensure!(
            text.contains(&format!("going on with its socket {socket}")) && text.contains("gateway check"),
            "{case}: {text}"
        );
        assert_eq!(Client::connect(stage.address).get("/").text(), "same", "{case}");
    }
    // Without a word of the socket only its place can be guessed.
    std::fs::write(stage.home.config(), "admin: {socket: [\n")?;
    let text = stage.expect(1, &["reload"])?;
    for said in [
        "the default socket /run/gateway/admin.sock",
        "nothing to reload",
        "put ",
        " right (`gateway check",
        "--socket PATH",
    ] {
        ensure!(text.contains(said), "{said:?} in {text}");
    }
    std::fs::write(stage.home.config(), good)?;
    stage.expect(0, &["reload"])?;
    Ok(())
}
