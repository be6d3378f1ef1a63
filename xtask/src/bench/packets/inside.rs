//! The privileged half: runs in mount and network namespaces of its own, measures, and prints the results as JSON.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::cases::{self, Case};
use super::results::{CaseResult, Results, Row, median};
use super::rig::{self, Lane};
use super::sender::{self, Sender};
use super::sys::Program;
use super::tools::{Home, Running};
use super::{Plan, cookies, loading, runs, traffic};
use crate::shell;

/// The core of the sender, and of the receiver's work.
pub const MEASURED: usize = 1;
/// The core of everything else.
const OTHER: usize = 0;
/// Caches, branch predictors and nftables' sets fill before anything counts.
const WARM_UP: Duration = Duration::from_millis(400);
/// How far the counters of device, program and stack may differ.
const TOLERANCE: f64 = 0.001;

/// Arguments of the hidden verb.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: Plan,
    /// The gateway's binary.
    #[arg(long)]
    gateway: PathBuf,
    /// A directory for lists and configurations.
    #[arg(long)]
    dir: PathBuf,
}

/// Measures; standard output gets the results.
pub fn main(args: &Args) -> Result<()> {
    end_with_parent()?;
    rig::prepare()?;
    sender::pin(OTHER)?;
    let home = Home::new(args.dir.clone(), args.gateway.clone(), OTHER)?;
    let plan = &args.plan;
    let mut results = Results {
        seconds: plan.seconds(),
        rounds: plan.rounds(),
        ..Results::default()
    };
    for case in cases::ALL.iter().filter(|case| plan.wants(case.id)) {
        let mut result = measure(case, plan, &home).with_context(|| format!("case {}", case.id))?;
        result.targets = results.targets(case, &result);
        results.cases.push(result);
    }
    if plan.wants(runs::ID) {
        results.runs = runs::measure(plan, &home).context("test runs")?;
    }
    if plan.wants(cookies::ID) {
        results.cookies = Some(cookies::measure(&home).context("cookies")?);
    }
    if plan.wants(loading::ID) {
        results.loads = loading::measure(plan, &home).context("loading lists")?;
    }
    serde_json::to_writer(std::io::stdout(), &results).context("handing over the results")
}

/// Ends this process, and with it all that it made, on a signal and when the other half is gone: that holds the other
/// end of standard input.
fn end_with_parent() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(signal, 130, always)
            .context("listening for signals")?;
    }
    let watch = || {
        // The end of the stream or an error: either way nobody is there any more.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(130);
    };
    std::thread::Builder::new()
        .spawn(watch)
        .context("watching the other half")?;
    Ok(())
}

/// A program at work in its lane, and what it and the others have counted before the first packet.
struct Contestant {
    name: &'static str,
    // Dropped before the lane that it is in.
    running: Box<dyn Running>,
    lane: Lane,
    before: Counts,
    rates: Vec<f64>,
}

struct Counts {
    received: u64,
    dropped: Option<u64>,
    let_through: u64,
}

impl Counts {
    fn read(lane: &Lane, running: &dyn Running) -> Result<Self> {
        Ok(Self {
            received: lane.received()?,
            dropped: running.dropped(lane)?,
            let_through: lane.let_through()?,
        })
    }
}

fn measure(case: &Case, plan: &Plan, home: &Home) -> Result<CaseResult> {
    shell::step(format!("{}: loading", case.title));
    let frame = traffic::frame(case.segment).to_vec();
    let program = Arc::new(traffic::program(case.sources, &frame)?);
    let mut contestants = Vec::new();
    for (number, tool) in case.tools.iter().enumerate() {
        let lane = Lane::new(&format!("{}-{number}", case.id))?;
        let running = tool
            .start(&lane, &case.rules, home)
            .with_context(|| format!("setting up {}", tool.name()))?;
        contestants.push(Contestant {
            name: tool.name(),
            before: Counts::read(&lane, running.as_ref())?,
            lane,
            running,
            rates: Vec::new(),
        });
    }
    if !case.soak.is_zero() {
        shell::step(format!("{}: filling tables", case.title));
        for contestant in &contestants {
            rate(&contestant.lane, &program, &frame, case.soak)?;
        }
    }
    let length = Duration::from_secs_f64(plan.seconds());
    for round in 1..=plan.rounds() {
        shell::step(format!("{}: round {round} of {}", case.title, plan.rounds()));
        for contestant in &mut contestants {
            let rate = rate(&contestant.lane, &program, &frame, length)?;
            contestant.rates.push(rate);
        }
    }
    let rows = contestants.iter().map(row).collect::<Result<_>>()?;
    Ok(CaseResult {
        id: case.id.to_owned(),
        title: case.title.to_owned(),
        what: case.what.to_owned(),
        rows,
        targets: Vec::new(),
        notes: contestants.iter().filter_map(|c| c.running.note()).collect(),
    })
}

/// Packets a second that the receiving end takes while the sender is at work.
fn rate(lane: &Lane, program: &Arc<Program>, frame: &[u8], length: Duration) -> Result<f64> {
    let sender = Sender::start(Arc::clone(program), frame.to_vec(), lane.ifindex, MEASURED)?;
    std::thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), lane.received()?);
    std::thread::sleep(length);
    let (took, after) = (start.elapsed(), lane.received()?);
    sender.stop()?;
    Ok((after - before) as f64 / took.as_secs_f64())
}

/// Judges what was counted, once all is quiet: every packet that the device took was dropped by the program or let
/// through to the stack, or the figure is worth nothing.
fn row(contestant: &Contestant) -> Result<Row> {
    let Contestant {
        name,
        lane,
        before,
        rates,
        ..
    } = contestant;
    let after = Counts::read(lane, contestant.running.as_ref())?;
    let received = (after.received - before.received) as f64;
    let let_through = (after.let_through - before.let_through) as f64;
    let dropped = match (after.dropped, before.dropped) {
        (Some(after), Some(before)) => (after - before) as f64,
        // It does not count: what did not come through.
        _ => received - let_through,
    };
    let lost = (received - dropped - let_through).abs();
    ensure!(
        received > 0.0 && lost <= received * TOLERANCE,
        "{name}: the device took {received} packets, the program says it dropped {dropped}, and the stack got {let_through}"
    );
    let mpps: Vec<f64> = rates.iter().map(|rate| rate / 1e6).collect();
    Ok(Row {
        tool: (*name).to_owned(),
        mpps: median(&mpps).context("at least one round")?,
        rounds: mpps,
        dropped: 1.0 - let_through / received,
    })
}
