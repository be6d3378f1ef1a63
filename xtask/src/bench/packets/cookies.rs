//! Real connections while SYNs from 16 million made-up sources arrive as fast as they can be made.
//!
//! The clients have a wire of their own: what the flood's wire loses is then no matter of theirs, and each connection that
//! fails or is slow is one that the gateway failed.
//!
//! Both far ends have a program that passes everything. A veth device that is handed frames by `XDP_TX` at its other end
//! is only woken for them if it has a program itself (`veth_xdp_flush`); without one its ring of 256 fills, and then all
//! answers are lost.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::inside::MEASURED;
use super::insn;
use super::results::{Cookies, median};
use super::rig::{self, DEVICE, Lane};
use super::sender::Sender;
use super::sys::{Program, XDP_PASS};
use super::tools::{Gateway, Home};
use super::traffic::{self, Segment, Sources};
use crate::shell;

pub const ID: &str = "cookies";

const SPOOFED: Sources = Sources::Spread(16_000_000);
const CONNECTIONS: usize = 200;
/// The port that the flood's frames are for.
const PORT: u16 = 443;
const CLIENT: &str = "cookies-client";
const CLIENT_DEVICE: &str = "gw1";
const SERVER: &str = "10.78.0.1";
const WARM_UP: Duration = Duration::from_secs(1);

pub fn measure(home: &Home) -> Result<Cookies> {
    shell::step("Cookies: setting up");
    let lane = Lane::new(ID)?;
    let taker = Program::load("bench_taker", &insn::constant(XDP_PASS))?;
    let _taken = taker.attach(lane.ifindex)?;
    // Answers of the stack itself have a way, too.
    let gw = |words: &[&str]| shell::run(lane.command("ip").args(words));
    gw(&[
        "neigh",
        "add",
        "10.77.0.2",
        "lladdr",
        "02:00:00:00:00:02",
        "dev",
        DEVICE,
    ])?;
    gw(&["route", "add", "default", "via", "10.77.0.2"])?;
    let _client = client(&lane)?;
    let _taken_too = rig::within(CLIENT, "cl0", |ifindex| taker.attach(ifindex))?;
    let gateway = Gateway::start_as(
        &lane,
        &[DEVICE, CLIENT_DEVICE],
        "  syn_cookies: {above: 1000/s}\n",
        &format!("listen: [{{address: '0.0.0.0:{PORT}'}}]\n"),
        home,
    )?;
    let frame = traffic::frame(Segment::Syn).to_vec();
    let program = Arc::new(traffic::flawless(SPOOFED, &frame)?);
    let counts = || -> Result<[u64; 4]> {
        Ok([
            lane.received()?,
            gateway.packets(&lane, "syn_cookie")?,
            lane.answers()?,
            lane.lost_answers()?,
        ])
    };

    shell::step("Cookies: 200 connections under a flood");
    let before = counts()?;
    let sender = Sender::start(program, frame, lane.ifindex, MEASURED)?;
    std::thread::sleep(WARM_UP);
    let (started, received) = (Instant::now(), lane.received()?);
    let times: Vec<Option<f64>> = (0..CONNECTIONS).map(|_| connect()).collect::<Result<_>>()?;
    let flood_mpps = (lane.received()? - received) as f64 / started.elapsed().as_secs_f64() / 1e6;
    sender.stop()?;
    let after = counts()?;

    let [syns, answered, returned, lost] = std::array::from_fn(|of| after[of] - before[of]);
    ensure!(
        syns > 0 && answered > 0,
        "no flood: {syns} SYNs, {answered} answered"
    );
    let done: Vec<f64> = times.iter().copied().flatten().collect();
    Ok(Cookies {
        tried: CONNECTIONS,
        completed: done.len(),
        median_ms: median(&done).unwrap_or(0.0),
        slowest_ms: done.iter().copied().fold(0.0, f64::max),
        flood_mpps,
        syns,
        answered,
        returned,
        lost,
    })
}

/// A namespace, gone when this is dropped.
struct Client;

impl Drop for Client {
    fn drop(&mut self) {
        // What is left on an error goes with this process.
        let _ = rig::ip(&["netns", "del", CLIENT]);
    }
}

/// The clients' host, on a wire of its own to the gateway's.
fn client(lane: &Lane) -> Result<Client> {
    rig::ip(&["netns", "add", CLIENT])?;
    let client = Client;
    rig::ip(&[
        "-n",
        lane.name(),
        "link",
        "add",
        CLIENT_DEVICE,
        "type",
        "veth",
        "peer",
        "name",
        "cl0",
        "netns",
        CLIENT,
    ])?;
    for (namespace, device, address) in [
        (lane.name(), CLIENT_DEVICE, "10.78.0.1/24"),
        (CLIENT, "cl0", "10.78.0.2/24"),
    ] {
        rig::ip(&["-n", namespace, "addr", "add", address, "dev", device])?;
        rig::ip(&["-n", namespace, "link", "set", device, "up"])?;
    }
    Ok(client)
}

/// A command on the clients' host.
fn within(program: &str) -> Command {
    let mut command = shell::command("nsenter");
    command
        .arg(format!("--net=/run/netns/{CLIENT}"))
        .arg("--")
        .arg(program);
    command
}

/// One connection with a request and its answer: milliseconds until the connection was there, or `None` if any of it failed.
/// The gateway has no route, and says so by itself.
fn connect() -> Result<Option<f64>> {
    let mut curl = within("curl");
    curl.args(["-s", "--max-time", "5", "--noproxy", "*", "-o", "/dev/null"]);
    curl.args(["-w", "%{http_code} %{time_connect}"]);
    let output = curl.arg(format!("http://{SERVER}:{PORT}/")).output();
    let output = output.context("starting curl")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text
        .strip_prefix("404 ")
        .and_then(|time| time.parse::<f64>().ok());
    Ok(seconds
        .filter(|_| output.status.success())
        .map(|seconds| seconds * 1e3))
}
