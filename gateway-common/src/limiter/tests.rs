//! The limiter against its definition: exact rate, exact burst, and what collisions, full buckets, wrapped clocks
//! and hostile numbers of sources may and may not do.

extern crate std;

use core::hash::Hasher as _;
use core::net::IpAddr;
use std::vec::Vec;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A limit over one bucket, driven by a clock that the test moves.
struct Driven {
    words: [u64; WAYS],
    now: u64,
    interval: u64,
    tolerance: u64,
}

impl Driven {
    fn new(count: u32, per_ns: u64, burst: u32) -> Self {
        let (interval, tolerance) = cost(count, per_ns, burst);
        Self {
            words: [0; WAYS],
            now: 77 * SECOND,
            interval,
            tolerance,
        }
    }

    fn syn(&mut self, fingerprint: u16) -> bool {
        let limit = Limit::new((self.interval, self.tolerance), 32, 64);
        let step = step(&limit, fingerprint, self.now, |way| self.words[way]);
        assert_eq!(self.words[step.way], step.old);
        self.words[step.way] = step.new;
        step.within
    }

    fn allowed(&mut self, fingerprint: u16, tries: usize) -> usize {
        (0..tries).filter(|_| self.syn(fingerprint)).count()
    }
}

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().expect("a literal"))
}

#[test]
fn a_burst_is_exact() {
    for (count, per, burst) in [
        (1, SECOND, 1),
        (50, SECOND, 100),
        (100_000, SECOND, 1000),
        (3, 86_400 * SECOND, 7),
        (900_000, SECOND, 5),
    ] {
        let mut limit = Driven::new(count, per, burst);
        assert_eq!(
            limit.allowed(9, burst as usize + 50),
            burst as usize,
            "{count} in {per} ns, burst {burst}"
        );
    }
}

#[test]
fn a_rate_is_exact_over_time() {
    let mut limit = Driven::new(50, SECOND, 1);
    let mut allowed = 0;
    for _ in 0..100_000 {
        allowed += usize::from(limit.syn(9));
        limit.now += SECOND / 1000;
    }
    // 100 seconds at 50/s. The interval is 19,531 units where 19,531.25 would be exact.
    assert_eq!(allowed, 5_000);
}

#[test]
fn a_refused_syn_costs_nothing() {
    let mut limit = Driven::new(1, SECOND, 1);
    assert!(limit.syn(9));
    assert_eq!(limit.allowed(9, 1_000_000), 0);
    limit.now += SECOND + 1024;
    assert!(
        limit.syn(9),
        "a flood must not push the source's own time further out"
    );
}

#[test]
fn a_burst_returns_after_rest_and_never_grows() {
    let mut limit = Driven::new(10, SECOND, 5);
    assert_eq!(limit.allowed(9, 20), 5);
    limit.now += 3600 * SECOND;
    assert_eq!(limit.allowed(9, 20), 5);
}

#[test]
fn sources_do_not_touch_each_other_while_there_is_room() {
    let mut limit = Driven::new(1, SECOND, 2);
    for source in 1..=WAYS as u16 {
        assert_eq!(limit.allowed(source, 10), 2);
    }
    for source in 1..=WAYS as u16 {
        assert!(!limit.syn(source));
    }
}

#[test]
fn a_full_bucket_forgives_the_one_least_ahead_and_limits_on() {
    let mut limit = Driven::new(1, SECOND, 3);
    assert_eq!(limit.allowed(1, 1), 1);
    for source in 2..=WAYS as u16 {
        assert_eq!(limit.allowed(source, 9), 3);
    }
    // The ninth source takes the word of source 1, which was only one interval ahead.
    assert_eq!(limit.allowed(100, 9), 3);
    for source in 2..=WAYS as u16 {
        assert!(
            !limit.syn(source),
            "source {source} was far ahead and must still be limited"
        );
    }
    // Source 1 comes back as if it were new: generous, never stricter.
    assert!(limit.syn(1));
}

#[test]
fn spoofed_sources_are_gone_after_one_interval() {
    let mut limit = Driven::new(50, SECOND, 100);
    for source in 1..=WAYS as u16 {
        assert!(limit.syn(source));
    }
    limit.now += SECOND / 50 + 1024;
    let busy = limit.words;
    assert!(limit.syn(5000));
    let changed = busy.iter().zip(&limit.words).filter(|(a, b)| a != b).count();
    assert_eq!(changed, 1);
    assert_eq!(limit.allowed(5000, 200), 99);
}

#[test]
fn the_same_fingerprint_shares_one_limit() {
    let mut limit = Driven::new(1, SECOND, 2);
    assert!(limit.syn(7));
    assert!(limit.syn(7));
    assert!(!limit.syn(7));
    assert_eq!(limit.words.iter().filter(|w| **w != 0).count(), 1);
}

#[test]
fn the_limit_holds_across_the_wrap_of_the_clock() {
    let mut limit = Driven::new(1, SECOND, 2);
    limit.now = (1 << (TAT_BITS + UNIT_SHIFT)) - SECOND / 2;
    assert_eq!(limit.allowed(9, 10), 2);
    limit.now += SECOND * 3 / 4;
    assert!(!limit.syn(9), "one interval has not passed yet");
    limit.now += SECOND / 2;
    assert!(limit.syn(9));
    assert!(!limit.syn(9));
}

#[test]
fn a_clock_that_jumps_back_or_a_smaller_limit_forgives() {
    let mut limit = Driven::new(1, SECOND, 2);
    assert_eq!(limit.allowed(9, 10), 2);
    limit.now -= 60 * SECOND;
    assert_eq!(
        limit.allowed(9, 10),
        2,
        "a TAT a minute ahead can not be this limit's work"
    );

    let mut limit = Driven::new(1, 3600 * SECOND, 10);
    assert_eq!(limit.allowed(9, 20), 10);
    (limit.interval, limit.tolerance) = cost(50, SECOND, 5);
    assert_eq!(limit.allowed(9, 20), 5);
}

/// Each processor reads the clock once a tick, so one may be up to a tick behind another that charges the same source.
#[test]
fn a_processor_whose_clock_is_behind_forgives_nothing() {
    const TICK: u64 = 10_000_000;
    // A burst must be at least what the rate gives in a tick, as the configuration makes it.
    for (count, burst) in [(1, 1), (50, 100), (500, 500), (1_000, 10), (100_000, 1_000)] {
        let mut limit = Driven::new(count, SECOND, burst);
        let start = limit.now;
        let mut allowed = 0_u64;
        for tick in 0..100 {
            let now = start + tick * TICK;
            // Behind by most of a tick, up to date, and behind again.
            for now in [now - TICK * 9 / 10, now, now - TICK * 9 / 10] {
                limit.now = now;
                allowed += limit.allowed(9, burst as usize + 1_000) as u64;
            }
        }
        let due = u64::from(burst) + u64::from(count) * 99 * TICK / SECOND;
        // The interval is rounded to whole units.
        let rounding = due / 50 + 1;
        assert!(
            (due - rounding..=due + rounding).contains(&allowed),
            "{count}/s, burst {burst}: {allowed} where {due} are due"
        );
    }
}

#[test]
fn any_words_and_numbers_are_survived() {
    // A small generator, so that the case is the same on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let words: [u64; WAYS] = core::array::from_fn(|_| next() >> (next() % 64));
        let fingerprint = next() as u16 | 1;
        let cost = (next() >> (next() % 64), next() >> (next() % 64));
        let step = step(&Limit::new(cost, 32, 64), fingerprint, next(), |way| words[way]);
        assert!(step.way < WAYS);
        assert_eq!(step.old, words[step.way]);
        assert!(step.within || step.new == step.old);
        assert!(!step.within || (step.new >> TAT_BITS) as u16 == fingerprint);
    }
}

#[test]
fn cost_never_leaves_the_range_that_a_tat_can_tell() {
    for (count, per, burst) in [
        (0, 0, 0),
        (1, u64::MAX, u32::MAX),
        (u32::MAX, 1, 1),
        (1, 86_400 * SECOND, 1000),
    ] {
        let (interval, tolerance) = cost(count, per, burst);
        assert!(interval >= 1 << UNIT_SHIFT);
        assert!((interval + tolerance) >> UNIT_SHIFT <= LEAD_MAX);
    }
    assert_eq!(
        cost(1, 86_400 * SECOND, 1000).1 / cost(1, 86_400 * SECOND, 1000).0,
        999
    );
}

#[test]
fn the_hash_is_siphash_1_3() {
    // The standard library's hasher is SipHash-1-3 with a zero key.
    for text in ["::", "2001:db8::1", "192.0.2.1", "ff02:1:2:3:4:5:6:7"] {
        let octets = addr(text).octets();
        let mut reference = std::hash::DefaultHasher::new();
        reference.write(&octets);
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&octets[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        assert_eq!(siphash13(&[0, 0], half(0), half(8)), reference.finish(), "{text}");
    }
}

#[test]
fn a_source_is_as_many_bits_of_its_address_as_the_limit_says() {
    let key = [3, 4];
    let at = |text, v4_bits, v6_bits| place(&addr(text), &Limit::new((1, 1), v4_bits, v6_bits), &key);
    let six = |text, bits| at(text, 32, bits);
    assert_eq!(six("2001:db8:0:1::1", 64), six("2001:db8:0:1:ffff::2", 64));
    assert_ne!(six("2001:db8:0:1::1", 64), six("2001:db8:0:2::1", 64));
    assert_eq!(six("2001:db8:0:1::1", 56), six("2001:db8:0:ff::1", 56));
    assert_ne!(six("2001:db8::1", 128), six("2001:db8::2", 128));
    assert_eq!(six("2001:db8::8000:0", 96), six("2001:db8::1", 96));
    assert_eq!(six("2001:db8::1", 0), six("fe80::1", 0));
    let four = |text, bits| at(text, bits, 64);
    assert_ne!(four("192.0.2.1", 32), four("192.0.2.2", 32));
    assert_eq!(four("192.0.2.1", 24), four("192.0.2.255", 24));
    assert_ne!(four("192.0.2.1", 24), four("192.0.3.1", 24));
    assert_eq!(four("192.0.2.1", 0), four("10.0.0.1", 0));
    let limit = Limit::new((1, 1), 32, 64);
    assert_ne!(
        place(&addr("192.0.2.1"), &limit, &[3, 5]),
        place(&addr("192.0.2.1"), &limit, &key)
    );
}

#[test]
fn many_sources_spread_evenly_over_the_buckets() {
    let mut load: Vec<u32> = std::vec![0; BUCKETS as usize];
    for number in 0..(BUCKETS * 8) {
        let place = place(
            &Addr::v4(number.to_be_bytes()),
            &Limit::new((1, 1), 32, 64),
            &[11, 12],
        );
        assert_ne!(place.fingerprint, 0);
        load[place.bucket as usize] += 1;
    }
    // Poisson with mean 8: above 30 in any of 65,536 buckets is less than one chance in ten million.
    assert!(
        load.iter().all(|n| *n <= 30),
        "the fullest bucket has {:?}",
        load.iter().max()
    );
}
