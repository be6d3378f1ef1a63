//! The tables when they are full, and the limiter when two processors are at it.

use std::collections::BTreeSet;

use super::random::Random;
use super::*;

/// Fills the address tables to their capacity, empties them in part and fills them again, so that walks grow long and
/// places are used anew; what the program finds is what a plain set would.
#[test]
fn crowded_tables_hold_what_they_were_given() {
    const ADDRESSES: usize = 4096;
    let pins = Pins::new("crowded");
    let mut kernel = pins.load();
    let mut random = Random(0x5eed_0000_0000_0002);
    let mut denied: BTreeSet<IpAddr> = BTreeSet::new();
    apply(
        &mut kernel,
        &[Change::settings(Settings {
            ready: 1,
            ..Settings::default()
        })],
    );
    let verdict_of = |kernel: &mut Kernel, addr: &IpAddr| {
        let frame = match addr {
            IpAddr::V4(_) => Frame::v4(&addr.to_string()),
            IpAddr::V6(_) => Frame::v6(&addr.to_string()),
        };
        kernel.test_run(&frame.tcp(ACK).bytes(), 1).expect("a test run").0
    };
    for round in 0..4 {
        let mut changes = Vec::new();
        // A batch of more than 64 goes to the idle half, a smaller one into the live tables.
        let gone: Vec<IpAddr> = denied.iter().copied().filter(|_| random.below(3) == 0).collect();
        for addr in &gone {
            denied.remove(addr);
            changes.push(Change::Remove {
                list: List::Deny,
                net: (*addr).into(),
            });
        }
        let v6 = |denied: &BTreeSet<IpAddr>| denied.iter().filter(|addr| addr.is_ipv6()).count();
        while denied.len() - v6(&denied) < ADDRESSES || v6(&denied) < ADDRESSES / 4 {
            let word = random.next();
            let addr = if denied.len() - v6(&denied) < ADDRESSES {
                IpAddr::from((0x0a00_0000 | word as u32 & 0x00ff_ffff).to_be_bytes())
            } else {
                IpAddr::from([0x2001, 0xdb8, 0, word as u16, 0, 0, 0, (word >> 16) as u16 | 1])
            };
            if denied.insert(addr) {
                changes.push(put(List::Deny, &IpNet::from(addr).to_string()));
            }
        }
        for batch in changes.chunks(if round % 2 == 0 { 64 } else { 10_000 }) {
            apply(&mut kernel, batch);
        }
        let there: BTreeSet<IpAddr> = kernel
            .enforced()
            .expect("reading")
            .deny
            .keys()
            .map(IpNet::addr)
            .collect();
        assert_eq!(there, denied, "round {round}");
        for addr in denied.iter().filter(|_| random.below(8) == 0) {
            assert_eq!(verdict_of(&mut kernel, addr), XDP_DROP, "{addr} in round {round}");
        }
        for addr in gone.iter().filter(|addr| !denied.contains(addr)) {
            assert_eq!(verdict_of(&mut kernel, addr), XDP_PASS, "{addr} in round {round}");
        }
    }
    let one_more = kernel.apply(&[
        put(List::Deny, "192.0.2.1/32"),
        put(List::Deny, "2001:db8:1::1/128"),
    ]);
    assert_eq!(one_more.len(), 2, "{one_more:?}");
}

/// What a race can give away: two processors that charge one source at the same moment count one packet for both, so a
/// burst may be passed as often as there are processors at work on it, and never more.
#[test]
fn a_race_between_processors_gives_a_source_at_most_a_burst_for_each() {
    const BURST: u32 = 20_000;
    const THREADS: u64 = 2;
    let pins = Pins::new("race");
    let mut kernel = pins.load();
    let (interval_ns, tolerance_ns) = gateway_common::limiter::cost(1, HOUR_NS / u64::from(BURST), BURST);
    let cost = (interval_ns, tolerance_ns + 10_000_000);
    let mut settings = Settings {
        features: feature::SYN_LIMIT,
        ready: 1,
        ..Settings::default()
    };
    settings.limits[limit::SYN as usize] = Limit::new(cost, 32, 64);
    apply(&mut kernel, &[Change::settings(settings)]);
    let frame = Frame::v4("198.51.100.77").tcp(SYN).bytes();
    let mut kernels: Vec<Kernel> = (0..THREADS).map(|_| pins.load()).collect();
    let together = std::sync::Barrier::new(kernels.len());
    std::thread::scope(|scope| {
        for kernel in &mut kernels {
            scope.spawn(|| {
                together.wait();
                kernel.test_run(&frame, 3 * BURST).expect("a test run");
            });
        }
    });
    let counters = kernel.counters().expect("counters");
    let passed = counters.get(PassReason::Clean.slot()).packets;
    let limited = counters.get(DropReason::SynLimit.slot()).packets;
    assert_eq!(
        passed + limited,
        THREADS * 3 * u64::from(BURST),
        "every packet is counted"
    );
    // The hour's rate gives a source a packet each 180 ms.
    let most = THREADS * u64::from(BURST) + 100;
    assert!((u64::from(BURST)..=most).contains(&passed), "{passed} passed");
    println!("{passed} of a burst of {BURST} passed, by {THREADS} processors at once");
}
