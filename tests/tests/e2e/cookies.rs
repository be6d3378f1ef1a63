//! SYN cookies: real connections through them, floods of made-up SYNs and ACKs, and who is left alone.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use std::time::{Duration, Instant};

use gateway::config::model::{Capacity, XdpMode};
use gateway::dataplane::Kernel;
use gateway::dataplane::kernel::Options;
use gateway_tests::flood::{Flood, Sources};
use gateway_tests::packet::{ACK, SYN};

use super::*;

/// So seldom that every SYN of a test but the first is over the rate.
const ALWAYS: &str = "  syn_cookies: {above: 1/m, burst: 1}\n";
const OPEN: &str = "http://10.77.0.1:8080/open/x";
const OPEN6: &str = "http://[fd77::1]:8080/open/x";

/// A stage whose client takes what a program sends back, and whose gateway knows a way to every made-up source.
///
/// A veth hands over such frames only to an end that has a program itself: here the gateway's own, which passes everything
/// as long as nobody gives it settings.
struct Scene {
    stage: Stage,
    pins: Vec<PathBuf>,
}

impl std::ops::Deref for Scene {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for pins in &self.pins {
            if let Err(error) = Kernel::remove(pins) {
                eprintln!("{} is left behind: {error}", pins.display());
            }
        }
    }
}

fn stage(xdp: &str) -> Result<Scene> {
    let stage = Stage::new(&config(xdp, "1m", ""))?;
    let gateway = &stage.wire.gateway;
    gateway.run(&["ip", "route", "add", "default", "via", A])?;
    gateway.run(&["ip", "-6", "route", "add", "default", "via", A6])?;
    let pins = vec![take_answers(&stage, &stage.wire.client, "cl0")?];
    Ok(Scene { stage, pins })
}

/// Puts a program on a device in another namespace than the gateway's; it passes everything. Returns where it is pinned.
fn take_answers(stage: &Stage, namespace: &Namespace, device: &'static str) -> Result<PathBuf> {
    let pins = PathBuf::from(format!("{}-{device}", stage.home.pins().display()));
    let pinned = pins.clone();
    namespace.within(move || {
        let capacity = Capacity {
            deny_addresses: 64,
            deny_prefixes: 64,
            allow_addresses: 64,
            allow_prefixes: 64,
            blocks: 64,
        };
        Kernel::load(&Options {
            pin_dir: pins,
            capacity,
        })?
        .attach_to(device, XdpMode::Native)
    })??;
    Ok(pinned)
}

/// A namespace on a wire of its own to the gateway's `gw1`, which takes what is sent back, and all of whose packets go
/// there.
fn second_wire(scene: &mut Scene) -> Result<Namespace> {
    let (flooder, gateway) = (Namespace::new("fl")?, &scene.stage.wire.gateway);
    let peer = ["peer", "name", "fl0", "netns", flooder.name()];
    gateway.run(&[&["ip", "link", "add", "gw1", "type", "veth"][..], &peer[..]].concat())?;
    for (namespace, device, addr) in [
        (gateway, "gw1", "10.79.0.1/24"),
        (&flooder, "fl0", "10.79.0.2/24"),
    ] {
        namespace.run(&["ip", "addr", "add", addr, "dev", device])?;
        namespace.run(&["ip", "link", "set", device, "up"])?;
    }
    flooder.run(&["ip", "route", "add", "default", "via", "10.79.0.1"])?;
    scene.pins.push(take_answers(&scene.stage, &flooder, "fl0")?);
    Ok(flooder)
}

/// A counter of a device, of all its queues.
fn device_counter(namespace: &Namespace, device: &str, name: &str) -> Result<u64> {
    let text = String::from_utf8(namespace.run(&["ethtool", "-S", device])?.stdout)?;
    let counts = text.lines().filter_map(|line| {
        let (label, count) = line.trim().split_once(": ")?;
        label.ends_with(name).then(|| count.parse::<u64>())
    });
    Ok(counts.sum::<std::result::Result<u64, _>>()?)
}

/// 200 connections, one after the other, each with a request; returns the seconds that the slowest took to be there.
fn connect_200(stage: &Stage, from: [(&str, &str); 2]) -> Result<f64> {
    let mut slowest = 0.0_f64;
    for number in 0..200 {
        let (from, url) = from[number % 2];
        let args = ["-o", "/dev/null", "-w", "%{http_code} %{time_connect}", url];
        let (code, text) = stage.wire.curl(from, &args)?;
        let (status, time) = text
            .split_once(' ')
            .with_context(|| format!("{number}: curl ended with {code}"))?;
        assert_eq!((code, status), (0, "200"), "{number}");
        slowest = slowest.max(time.parse()?);
    }
    Ok(slowest)
}

fn sysctl(namespace: &Namespace, setting: &str) -> Result<()> {
    // `sysctl` reads a file system that shows the namespace of whoever reads it.
    namespace.run(&["sysctl", "-qw", setting]).map(drop)
}

/// Opens an idle connection from the client.
fn connect(stage: &Stage, to: &str) -> Result<TcpStream> {
    let to: SocketAddr = to.parse()?;
    let stream = stage
        .wire
        .client
        .within(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))??;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// A request on an open connection.
fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
    while !seen.ends_with(b"{\"ok\": true}\n") {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..read]);
    }
    Ok(())
}

/// What the gateway's kernel says of its connections to 8080.
fn sockets(stage: &Stage) -> Result<String> {
    let words = ["ss", "-Htino", "state", "established", "sport", "=", ":8080"];
    Ok(String::from_utf8(stage.wire.gateway.run(&words)?.stdout)?)
}

#[test]
fn connections_come_about_through_cookies_with_all_that_the_client_offers() -> Result<()> {
    let stage = stage(ALWAYS)?;
    let _gateway = stage.start()?;
    for (timestamps, options) in [("1", true), ("0", false)] {
        sysctl(
            &stage.wire.client,
            &format!("net.ipv4.tcp_timestamps={timestamps}"),
        )?;
        for to in ["10.77.0.1:8080", "[fd77::1]:8080"] {
            // The first few keep the listener fresh; at the latest then they are answered.
            let before = stage.packets("syn_cookie")?;
            let mut streams = Vec::new();
            for _ in 0..20 {
                let mut stream = connect(&stage, to)?;
                ask(&mut stream)?;
                streams.push(stream);
            }
            let answered = stage.packets("syn_cookie")? - before;
            assert!(answered >= 16, "{answered} of 20 to {to} by cookie");
            let sockets = sockets(&stage)?;
            let with = |what: &str| sockets.lines().filter(|line| line.contains(what)).count();
            if options {
                assert!(
                    with("wscale:") >= 20 && with(" sack") >= 20 && with("ts ") >= 20,
                    "{sockets}"
                );
            } else {
                assert_eq!((with("wscale:"), with("ts ")), (0, 0), "{sockets}");
            }
            drop(streams);
            wait_until("end of the connections", || Ok(self::sockets(&stage)?.is_empty()))?;
        }
    }
    Ok(())
}

#[test]
fn much_goes_through_a_connection_made_by_cookie() -> Result<()> {
    let stage = stage(ALWAYS)?;
    let _gateway = stage.start()?;
    let body = stage.home.path().join("body");
    std::fs::write(&body, vec![b'x'; 12 << 20])?;
    let body = format!("@{}", body.display());
    for url in [OPEN, OPEN6] {
        let from = if url == OPEN { A } else { A6 };
        for _ in 0..4 {
            let args = [
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--data-binary",
                &body,
                url,
            ];
            assert_eq!(stage.wire.curl(from, &args)?, (0, "200".to_owned()));
        }
    }
    assert!(stage.packets("syn_cookie")? >= 4);
    Ok(())
}

/// Held by whoever floods while it measures clients: two floods at a time are no matter of either.
static FLOODS: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn under_a_flood_of_made_up_syns_every_client_connects_at_once() -> Result<()> {
    /// SYNs a second of each family. Beyond this the pair of veth devices, which the flood and the clients share, loses
    /// packets before the program sees them, and a client's SYN among them.
    const EACH: u32 = 20_000;
    let _alone = FLOODS.lock();
    let stage = stage("  syn_cookies: {above: 500/s}\n")?;
    let _gateway = stage.start()?;
    let floods = [
        Flood::paced(
            &stage.wire.client,
            "10.77.0.1:8080".parse()?,
            SYN,
            Sources::MadeUp,
            EACH,
        )?,
        Flood::paced(
            &stage.wire.client,
            "[fd77::1]:8080".parse()?,
            SYN,
            Sources::MadeUp,
            EACH,
        )?,
    ];
    wait_until("flood", || Ok(stage.packets("syn_cookie")? > 50_000))?;
    let status = stage.json(&["status"])?;
    assert_eq!(status["cookies"]["enabled"], true, "{status}");
    assert_eq!(status["cookies"]["answering"], true, "{status}");
    let started = Instant::now();
    let slowest = connect_200(&stage, [(A, OPEN), (A6, OPEN6)])?;
    let took = started.elapsed();
    let mut sent = 0;
    for flood in floods {
        sent += flood.stop()?;
    }
    let answered = stage.packets("syn_cookie")?;
    println!(
        "200 of 200 connected in {took:.1?}, the slowest in {:.1} ms; {sent} SYNs sent, {answered} answered",
        slowest * 1e3
    );
    assert!(slowest < 0.1, "the slowest took {slowest} s");
    assert!(answered > sent / 2, "{answered} of {sent} were answered");
    Ok(())
}

/// Without a pause, on a wire of its own: whatever the clients lose then, the gateway has lost.
#[test]
fn under_a_flood_on_another_wire_every_client_connects_at_once_and_every_syn_is_answered() -> Result<()> {
    /// SYNs a second, and as many at once, that go to the listener.
    const ABOVE: u32 = 500;
    let _alone = FLOODS.lock();
    let mut scene = stage(&format!("  syn_cookies: {{above: {ABOVE}/s}}\n"))?;
    let flooder = second_wire(&mut scene)?;
    let text = std::fs::read_to_string(scene.home.config())?;
    std::fs::write(
        scene.home.config(),
        text.replace("interfaces: [gw0]", "interfaces: [gw0, gw1]"),
    )?;
    let _gateway = scene.start()?;
    let started = Instant::now();
    let flood = Flood::start(&flooder, "10.77.0.1:8080".parse()?, SYN, Sources::MadeUp)?;
    wait_until("flood", || Ok(scene.packets("syn_cookie")? > 50_000))?;
    let slowest = connect_200(&scene, [(A, OPEN), (B, OPEN)])?;
    let sent = flood.stop()?;
    let took = started.elapsed();

    let answered = scene.packets("syn_cookie")?;
    let gateway = &scene.wire.gateway;
    let seen = device_counter(gateway, "gw1", "xdp_packets")?;
    let [lost, back] = [
        (gateway, "gw1", "xdp_tx_errors"),
        (&flooder, "fl0", "xdp_packets"),
    ]
    .map(|(namespace, device, name)| device_counter(namespace, device, name));
    let (lost, back) = (lost?, back?);
    // Both wires' SYNs are charged to the port: the flood's and the clients'.
    let within = u64::from(ABOVE) + (f64::from(ABOVE) * took.as_secs_f64()) as u64;
    let over = (seen + 200).saturating_sub(within);
    println!(
        "the slowest of 200 in {:.1} ms; {sent} SYNs sent, {seen} seen by the program in {took:.1?}, {over} over the rate, \
         {answered} answered, {lost} answers lost by the device, {back} packets back",
        slowest * 1e3
    );
    assert!(slowest < 0.1, "the slowest took {slowest} s");
    assert!(over > 50_000, "no flood: {over} of {seen} over the rate");
    assert!(answered * 100 >= over * 99, "{answered} of {over} were answered");
    assert!(lost * 1_000 < answered, "{lost} of {answered} answers were lost");
    Ok(())
}

#[test]
fn acks_without_a_cookie_are_dropped_and_connections_live_on() -> Result<()> {
    let stage = stage(ALWAYS)?;
    let _gateway = stage.start()?;
    let (mut old, mut old6) = (
        connect(&stage, "10.77.0.1:8080")?,
        connect(&stage, "[fd77::1]:8080")?,
    );
    // While no SYN is answered, an ACK of nobody is the stack's.
    let quiet = Flood::start(
        &stage.wire.client,
        "10.77.0.1:8080".parse()?,
        ACK,
        Sources::MadeUp,
    )?;
    wait_until("ACKs", || Ok(quiet.sent() > 1000))?;
    quiet.stop()?;
    let before = stage.packets("invalid_cookie")?;
    for _ in 0..6 {
        ask(&mut connect(&stage, "10.77.0.1:8080")?)?;
        ask(&mut connect(&stage, "[fd77::1]:8080")?)?;
    }
    assert!(stage.packets("syn_cookie")? >= 6);
    assert_eq!(stage.packets("invalid_cookie")?, before);
    let floods = [
        Flood::start(
            &stage.wire.client,
            "10.77.0.1:8080".parse()?,
            ACK,
            Sources::MadeUp,
        )?,
        Flood::start(
            &stage.wire.client,
            "[fd77::1]:8080".parse()?,
            ACK,
            Sources::MadeUp,
        )?,
        // Another port of the same address as the connections that must live.
        Flood::start(
            &stage.wire.client,
            "10.77.0.1:8080".parse()?,
            ACK,
            Sources::One(A.parse()?),
        )?,
    ];
    let started = Instant::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_secs(3) {
        ask(&mut old)?;
        ask(&mut old6)?;
        ask(&mut connect(&stage, "10.77.0.1:8080")?)?;
        asked += 1;
    }
    let mut sent = 0;
    for flood in floods {
        sent += flood.stop()?;
    }
    let dropped = stage.packets("invalid_cookie")?;
    println!("{asked} rounds on two old connections and a new one; {dropped} of {sent} ACKs were dropped");
    assert!(dropped > sent / 2 && asked > 20, "{dropped} of {sent}, {asked}");
    Ok(())
}

#[test]
fn lists_come_before_cookies() -> Result<()> {
    let xdp = format!("{ALWAYS}  allow: [{A}]\n  deny: [{B}]\n");
    let stage = stage(&xdp)?;
    let _gateway = stage.start()?;
    for _ in 0..8 {
        assert_eq!(stage.wire.status(A, OPEN, &[])?, Ok(200));
    }
    assert_eq!(stage.wire.status(B, OPEN, &[])?, Err(28));
    assert_eq!(stage.packets("syn_cookie")?, 0, "neither had one");
    assert!(stage.packets("denied")? > 0);
    Ok(())
}

/// A port that this host does not listen on itself, although one behind it may: the gateway listens on every address.
#[test]
fn packets_for_hosts_behind_this_one_are_left_alone() -> Result<()> {
    let stage = stage(ALWAYS)?;
    let gateway = &stage.wire.gateway;
    let behind = Namespace::new("in")?;
    let peer = ["peer", "name", "in0", "netns", behind.name()];
    gateway.run(&[&["ip", "link", "add", "gw1", "type", "veth"][..], &peer[..]].concat())?;
    for (namespace, device, addr) in [(gateway, "gw1", "10.78.0.1/24"), (&behind, "in0", "10.78.0.2/24")] {
        namespace.run(&["ip", "addr", "add", addr, "dev", device])?;
        namespace.run(&["ip", "link", "set", device, "up"])?;
    }
    behind.run(&["ip", "route", "add", "default", "via", "10.78.0.1"])?;
    stage
        .wire
        .client
        .run(&["ip", "route", "add", "10.78.0.0/24", "via", GATEWAY])?;
    sysctl(gateway, "net.ipv4.ip_forward=1")?;
    let _origin = Origin::start(&behind, "0.0.0.0:8080")?;
    let _running = stage.start()?;
    for _ in 0..6 {
        assert_eq!(stage.wire.status(A, "http://10.78.0.2:8080/", &[])?, Ok(200));
    }
    assert_eq!(stage.packets("syn_cookie")?, 0);
    // And this host's own is still answered for.
    for _ in 0..6 {
        assert_eq!(stage.wire.status(A, OPEN, &[])?, Ok(200));
    }
    assert!(stage.packets("syn_cookie")? >= 3);
    Ok(())
}

#[test]
fn without_the_sysctl_there_are_no_cookies_and_everybody_is_told() -> Result<()> {
    let stage = stage("  syn_cookies: {above: 1/m, burst: 1, set_sysctls: false}\n")?;
    let gateway = stage.start()?;
    gateway.wait_for_log("net.ipv4.tcp_syncookies is")?;
    for _ in 0..4 {
        assert_eq!(stage.wire.status(A, OPEN, &[])?, Ok(200));
    }
    assert_eq!(stage.packets("syn_cookie")?, 0);
    let status = stage.json(&["status"])?;
    assert_eq!(status["cookies"]["enabled"], false, "{status}");
    let text = stage.expect(0, &["status"])?;
    assert!(
        text.contains("NOT available") && text.contains("sysctl -w net.ipv4.tcp_syncookies=2"),
        "{text}"
    );

    // Set by hand, and taken up by a reload; timestamps stay as they are, so there are no options.
    sysctl(&stage.wire.gateway, "net.ipv4.tcp_syncookies=2")?;
    stage.expect(0, &["reload"])?;
    for _ in 0..6 {
        assert_eq!(stage.wire.status(A, OPEN, &[])?, Ok(200));
    }
    assert!(stage.packets("syn_cookie")? >= 3);
    let status = stage.json(&["status"])?;
    assert_eq!(
        (&status["cookies"]["enabled"], &status["cookies"]["options"]),
        (&Value::Bool(true), &Value::Bool(false)),
        "{status}"
    );
    // A command without a daemon leaves it as it is.
    assert!(gateway.signal(Signal::TERM)?.is_some());
    stage.expect(0, &["deny", "add", "203.0.113.9"])?;
    let status = stage.json(&["status"])?;
    assert_eq!(status["cookies"]["enabled"], true, "{status}");
    Ok(())
}

#[test]
fn sysctls_are_set_back_when_cookies_are_no_longer_wanted() -> Result<()> {
    let scene = stage("  syn_cookies: {above: 500/s}\n")?;
    let values = || -> Result<String> {
        let names = [
            "/proc/sys/net/ipv4/tcp_syncookies",
            "/proc/sys/net/ipv4/tcp_timestamps",
        ];
        let out = scene.wire.gateway.run(&[&["cat"][..], &names].concat())?;
        Ok(String::from_utf8(out.stdout)?.split_whitespace().collect())
    };
    let with = std::fs::read_to_string(scene.home.config())?;
    let without = with.replace("  syn_cookies: {above: 500/s}\n", "");
    assert_ne!(with, without);
    let before = values()?;
    assert_ne!(before, "22");
    let gateway = scene.start()?;
    assert_eq!(values()?, "22");
    // Switched off while it runs, and on again.
    for (text, wanted) in [(&without, before.as_str()), (&with, "22")] {
        std::fs::write(scene.home.config(), text)?;
        scene.expect(0, &["reload"])?;
        assert_eq!(values()?, wanted);
    }
    // A stop and a death change nothing, as the filter goes on; nor is forgotten what there was.
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    assert_eq!(values()?, "22");
    let gateway = scene.start()?;
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    assert_eq!(values()?, "22");
    let text = scene.expect(0, &["detach"])?;
    assert!(
        text.contains("net.ipv4.tcp_syncookies is") && text.contains("tcp_timestamps"),
        "{text}"
    );
    assert_eq!(values()?, before);
    let gateway = Gateway::start(&scene.wire.gateway, &scene.home, &["--ephemeral"])?;
    assert_eq!(values()?, "22");
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    assert_eq!(values()?, before);
    Ok(())
}
