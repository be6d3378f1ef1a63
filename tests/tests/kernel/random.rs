//! The loaded program against the host's on random packets and random lists.

use gateway_tests::table::slots;

use super::*;

/// Small, fast and the same on every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }

    /// Networks around the addresses that the frames use, of any length and life.
    fn rules(&mut self, sources: &[IpAddr]) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..self.below(24) {
            let ip = sources[self.below(sources.len())];
            let full = if ip.is_ipv4() { 32 } else { 128 };
            let list = [List::Allow, List::Deny, List::Deny, List::Block][self.below(4)];
            let length = if list == List::Block || self.below(2) == 0 {
                full
            } else {
                self.below(full + 1)
            };
            let deadline_ns = [0, 0, 1, 2, u64::MAX][self.below(5)];
            let net = IpNet::new(ip, length as u8).expect("a length in range");
            changes.push(Change::Put {
                list,
                net,
                rule: Rule {
                    deadline_ns,
                    ..Rule::default()
                },
            });
        }
        changes
    }

    /// Random bytes, or a frame of the table with some bytes, its length or its EtherType changed.
    fn frame(&mut self, models: &[Vec<u8>]) -> Vec<u8> {
        if self.below(4) == 0 {
            let length = SHORTEST + self.below(120);
            let mut frame: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
            let kinds = [[8, 0], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [8, 6]];
            frame[12..14].copy_from_slice(&kinds[self.below(kinds.len())]);
            if length > 14 && self.below(2) == 0 {
                frame[14] = [0x45, 0x46, 0x4f, 0x60][self.below(4)];
            }
            return frame;
        }
        let mut frame = models[self.below(models.len())].clone();
        for _ in 0..self.below(4) {
            let at = 12 + self.below(frame.len().min(90) - 12);
            frame[at] = if self.below(2) == 0 {
                self.next() as u8
            } else {
                frame[at] ^ 1 << self.below(8)
            };
        }
        if self.below(8) == 0 {
            frame.truncate(SHORTEST + self.below(frame.len() - SHORTEST + 1));
        }
        frame
    }
}

#[test]
fn a_million_random_frames_are_decided_as_on_the_host() {
    const ROUNDS: usize = 500;
    const FRAMES: usize = 2_000;
    let started = Instant::now();
    let pins = Pins::new("random");
    let mut kernel = pins.load();
    let mut memory = Memory::new(kernel.settings().expect("settings").hash_key);
    let models: Vec<Vec<u8>> = cases()
        .into_iter()
        .map(|case| case.frame)
        .filter(|frame| frame.len() > SHORTEST)
        .collect();
    let sources: Vec<IpAddr> = [
        "192.0.2.1",
        "192.0.2.3",
        "198.51.100.1",
        "198.51.100.9",
        "2001:db8::1",
        "2001:db8:1::1",
        "2001:db8::3",
    ]
    .iter()
    .map(|text| text.parse().expect("a literal"))
    .collect();
    let mut random = Random(0x5eed_0000_0000_0001);
    for round in 0..ROUNDS {
        clear(&mut kernel);
        clear(&mut memory);
        let mut settings = Settings {
            features: random.next() as u32 & (feature::LIMITS | feature::SYN_COOKIES)
                | [0, 0, 0, feature::BYPASS][random.below(4)],
            ready: u32::from(random.below(20) > 0),
            malformed: [0, u32::MAX, u32::MAX, random.next() as u32][random.below(4)],
            observe: [0, 0, random.next() as u32 & observe::ALL][random.below(3)],
            bypass_until_ns: [0, 1, u64::MAX][random.below(3)],
            ..Settings::default()
        };
        // Nothing listens there, so nothing is answered; but the limit is charged, and ends the limits behind it.
        let port = 443;
        settings.cookies.listen(
            0,
            Listener {
                port,
                ..Listener::default()
            },
        );
        for limit in &mut settings.limits {
            let cost = hourly(1 + random.below(3) as u32);
            *limit = Limit::new(cost, random.below(33) as u32, random.below(129) as u32);
        }
        let mut changes = random.rules(&sources);
        changes.push(Change::settings(settings));
        apply(&mut kernel, &changes);
        apply(&mut memory, &changes);
        assert_eq!(image(&mut kernel), image(&mut memory), "round {round}");

        let mut frames = Vec::with_capacity(FRAMES);
        memory.now_ns = boottime_ns();
        for _ in 0..FRAMES {
            let frame = random.frame(&models);
            let decision = decide(&parse(Cursor::new(&frame)), &memory);
            let verdict = memory.leave(decision, frame.len() as u64);
            let (action, _) = kernel.test_run(&frame, 1).expect("a test run");
            assert_eq!(
                action,
                action_of(verdict),
                "round {round}: {verdict:?} for {frame:02x?} in {changes:?}"
            );
            frames.push((verdict, frame));
        }
        let (host, real) = (
            memory.counters().expect("memory"),
            kernel.counters().expect("counters"),
        );
        if host != real {
            panic!(
                "round {round}: the counters differ: {}",
                differences(&host, &real)
            );
        }
    }
    let seen = kernel.counters().expect("counters");
    let unseen: Vec<u32> = slots().filter(|slot| seen.get(*slot).packets < 100).collect();
    assert!(
        unseen.is_empty(),
        "these outcomes were hardly put to the test: {unseen:?}"
    );
    println!("{} frames in {:.1?}", ROUNDS * FRAMES, started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(300));
}

fn differences(host: &Counters, kernel: &Counters) -> String {
    let differing = (0..SLOTS).filter(|slot| host.get(*slot) != kernel.get(*slot));
    differing
        .map(|slot| {
            format!(
                "slot {slot}: {:?} on the host, {:?} ",
                host.get(slot),
                kernel.get(slot)
            )
        })
        .collect()
}
