//! What the program costs: the verifier's work and nanoseconds for a packet.

use super::*;

/// Half of what the verifier allows: room to grow, and for kernels that follow more paths than this one.
const VERIFIER_BUDGET: u32 = 500_000;

#[test]
fn the_verifier_s_work_is_within_its_budget() {
    let pins = Pins::new("verifier");
    let mut kernel = pins.load();
    let ability = kernel.cookies(&with_cookies());
    // The machine's own sysctls may be in the way, which is found out after loading.
    let loaded = match &ability {
        Ability::Able(_) => true,
        Ability::Unable { why } => why.contains("net.ipv4.tcp_syncookies is"),
        _ => false,
    };
    assert!(loaded, "{ability:?}");
    let mut counts = Vec::new();
    for program in [names::PROGRAM, names::COOKIE_PROGRAM] {
        let count = kernel.verified_instructions(program).expect("a loaded program");
        let count = count.expect("kernel 5.16 or later tells");
        println!("the verifier looked at {count} instructions of {program}");
        counts.push(count);
    }
    assert!(counts.iter().all(|count| *count <= VERIFIER_BUDGET), "{counts:?}");
}

#[test]
fn nanoseconds_per_packet() {
    let pins = Pins::new("speed");
    let mut kernel = pins.load();
    let ready = Settings {
        ready: 1,
        ..Settings::default()
    };
    let mut limited = Settings {
        features: feature::SYN_LIMIT,
        malformed: u32::MAX,
        ..ready
    };
    limited.limits[limit::SYN as usize] = Limit::new(hourly(1), 32, 64);
    let (ack, syn) = (
        Frame::v4("192.0.2.1").tcp(ACK).bytes(),
        Frame::v4("192.0.2.1").tcp(SYN).bytes(),
    );
    let ack6 = Frame::v6("2001:db8::1").tcp(ACK).bytes();
    let rows: [(&str, &[u8], Vec<Change>); 8] = [
        ("not ready", &ack, vec![Change::settings(Settings::default())]),
        ("empty lists, ipv4 passes", &ack, vec![Change::settings(ready)]),
        ("empty lists, ipv6 passes", &ack6, vec![Change::settings(ready)]),
        (
            "one unrelated address denied",
            &ack,
            vec![Change::settings(ready), put(List::Deny, "192.0.2.2/32")],
        ),
        (
            "address denied",
            &ack,
            vec![Change::settings(ready), put(List::Deny, "192.0.2.1/32")],
        ),
        (
            "prefix denied",
            &ack,
            vec![Change::settings(ready), put(List::Deny, "192.0.2.0/24")],
        ),
        (
            "ipv6 address denied",
            &ack6,
            vec![Change::settings(ready), put(List::Deny, "2001:db8::1/128")],
        ),
        ("syn over its limit", &syn, vec![Change::settings(limited)]),
    ];
    for (name, frame, changes) in rows {
        clear(&mut kernel);
        apply(&mut kernel, &changes);
        let best = (0..5)
            .map(|_| kernel.test_run(frame, 1_000_000).expect("a test run").1)
            .min();
        println!("{:>4} ns  {name}", best.expect("five runs").as_nanos());
    }
}
