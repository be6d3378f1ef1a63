//! The limiter when processors do not agree on the time: each reads the clock once a tick of the kernel's timer, so that of
//! two that charge one source, one may be up to a tick behind the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

const RATE: u32 = 500;
const BURST: u32 = 500;

/// Keeps this thread on one processor.
fn stay_on(processor: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).expect("a processor of this machine");
}

/// One processor has a flood from a source, and another now and then a packet of the same source: as a listener's port has,
/// whose SYNs are charged to it whoever sends them.
#[test]
fn a_packet_on_another_processor_gives_nobody_another_burst() {
    const LASTING: Duration = Duration::from_secs(2);
    let pins = Pins::new("clocks");
    let mut kernel = pins.load();
    let (interval_ns, tolerance_ns) = gateway_common::limiter::cost(RATE, 1_000_000_000, BURST);
    let mut settings = Settings {
        features: feature::SYN_LIMIT,
        ready: 1,
        ..Settings::default()
    };
    settings.limits[limit::SYN as usize] = Limit::new((interval_ns, tolerance_ns), 32, 64);
    apply(&mut kernel, &[Change::settings(settings)]);
    let frame = Frame::v4("198.51.100.78").tcp(SYN).bytes();
    let (mut flooding, mut seldom) = (pins.load(), pins.load());
    let other = thread::available_parallelism().map_or(1, usize::from) - 1;
    let done = AtomicBool::new(false);
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(other);
            while !done.load(Ordering::Relaxed) {
                // The kernel takes 10 ms and more to begin and end a run.
                seldom.test_run(&frame, 1).expect("a test run");
            }
        });
        scope.spawn(|| {
            stay_on(0);
            while started.elapsed() < LASTING {
                flooding.test_run(&frame, 1_000_000).expect("a test run");
            }
            done.store(true, Ordering::Relaxed);
        });
    });
    let took = started.elapsed().as_secs_f64();
    let counters = kernel.counters().expect("counters");
    let passed = counters.get(PassReason::Clean.slot()).packets;
    let limited = counters.get(DropReason::SynLimit.slot()).packets;
    let due = f64::from(BURST) + f64::from(RATE) * took;
    println!("{passed} passed in {took:.2} s, {due:.0} were due, {limited} were over the limit");
    assert!(limited > 1_000_000, "no flood: {limited}");
    // Two processors that charge it at the same moment count one packet for both: seldom.
    assert!((passed as f64) < due * 1.05, "{passed} passed, {due:.0} were due");
    assert!(passed as f64 > due * 0.9, "{passed} passed, {due:.0} were due");
}
