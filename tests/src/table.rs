//! THE TABLE: every packet the gateway has an opinion about, once, for every engine.
//!
//! Each case has a name, a frame, what the tables hold, and the verdict. `packets.rs` runs it over memory,
//! `kernel.rs` over the real maps and the loaded program. Who teaches the program something adds a row here.

mod checks;
mod lies;
mod limits;
mod link;
mod lists;

use gateway::dataplane::{Change, List};
use gateway_common::limiter;
use gateway_common::outcome::{DropReason, PassReason, Verdict};
use gateway_common::tables::{Limit, NEVER, Rule, Settings, feature, limit};

use crate::packet::{ACK, Frame, PSH, SYN, protocol};

/// Cost of a packet of which a source may send one an hour, or `burst` at once. With the slack that the gateway gives to
/// the ticks of the program's clock: on one processor it may be behind another.
#[must_use]
pub fn hourly(burst: u32) -> (u64, u64) {
    let (interval_ns, tolerance_ns) = limiter::cost(1, 3600 * 1_000_000_000, burst);
    (interval_ns, tolerance_ns + 10_000_000)
}

/// How long an entry is in force.
#[derive(Clone, Copy, Debug)]
pub enum Life {
    Forever,
    /// Ends far in the future.
    Long,
    /// Ended long ago.
    Ended,
}

/// What the tables hold.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub rules: Vec<(List, &'static str, Life)>,
    /// SYNs that one source may send in an hour, all at once.
    pub syn_burst: Option<u32>,
    /// Other limits, by their index: packets in an hour, all at once, and bits of either family that make a source.
    pub limits: Vec<(u32, u32, (u32, u32))>,
    /// Bits of `tables::observe`.
    pub observe: u32,
    /// Checks for malformed packets that are off.
    pub unchecked: Vec<DropReason>,
    pub not_ready: bool,
    /// When a bypass ends, by the clock that starts at boot.
    pub bypass: Option<u64>,
}

impl Setup {
    fn rule(mut self, list: List, net: &'static str, life: Life) -> Self {
        self.rules.push((list, net, life));
        self
    }

    fn allow(self, net: &'static str) -> Self {
        self.rule(List::Allow, net, Life::Forever)
    }

    fn deny(self, net: &'static str) -> Self {
        self.rule(List::Deny, net, Life::Forever)
    }

    fn block(self, net: &'static str) -> Self {
        self.rule(List::Block, net, Life::Long)
    }

    /// What brings empty tables here.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::settings(self.settings())];
        changes.extend(self.rules.iter().map(|(list, net, life)| {
            let deadline_ns = match life {
                Life::Forever => NEVER,
                Life::Long => u64::MAX,
                Life::Ended => 1,
            };
            let net = net.parse().expect("a network literal");
            Change::Put {
                list: *list,
                net,
                rule: Rule {
                    deadline_ns,
                    origin: 1,
                    ..Rule::default()
                },
            }
        }));
        changes
    }

    /// The settings of the case; an hour's interval makes the limiter independent of how fast the test runs.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let cost = hourly(self.syn_burst.unwrap_or(1));
        let mut settings = Settings {
            features: if self.syn_burst.is_some() {
                feature::SYN_LIMIT
            } else {
                0
            },
            ready: u32::from(!self.not_ready),
            malformed: u32::MAX,
            ..Settings::default()
        };
        settings.limits[limit::SYN as usize] = Limit::new(cost, 32, 64);
        for (limit, burst, (v4_bits, v6_bits)) in &self.limits {
            settings.features |= feature::SYN_LIMIT << limit;
            let cost = hourly(*burst);
            let rate = Limit::new(cost, *v4_bits, *v6_bits);
            settings.limits[*limit as usize] = if *limit == limit::SYN_GLOBAL {
                rate.of_all()
            } else {
                rate
            };
        }
        settings.observe = self.observe;
        for reason in &self.unchecked {
            settings.malformed &= !reason.malformed_bit();
        }
        if let Some(until_ns) = self.bypass {
            settings.features |= feature::BYPASS;
            settings.bypass_until_ns = until_ns;
        }
        settings
    }
}

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub setup: Setup,
    /// Frames that go before, in order, whatever becomes of them.
    pub before: Vec<Vec<u8>>,
    pub verdict: Verdict,
    /// Why it would have been dropped, if that is only observed.
    pub observed: Option<DropReason>,
}

fn case(name: &'static str, frame: &Frame, setup: Setup, verdict: Verdict) -> Case {
    Case {
        name,
        frame: frame.bytes(),
        setup,
        before: Vec::new(),
        verdict,
        observed: None,
    }
}

fn after(mut case: Case, before: &[Frame]) -> Case {
    case.before = before.iter().map(Frame::bytes).collect();
    case
}

/// A case that passes and is told of as if dropped.
fn observing(mut case: Case, reason: DropReason) -> Case {
    case.observed = Some(reason);
    case
}

const CLEAN: Verdict = Verdict::Pass(PassReason::Clean);
const ALLOWED: Verdict = Verdict::Pass(PassReason::Allowed);
const NOT_IP: Verdict = Verdict::Pass(PassReason::NotIp);
const BYPASS: Verdict = Verdict::Pass(PassReason::Bypass);
const DENIED: Verdict = Verdict::Drop(DropReason::Denied);
const BLOCKED: Verdict = Verdict::Drop(DropReason::Blocked);
const SYN_LIMIT: Verdict = Verdict::Drop(DropReason::SynLimit);
const TRUNCATED: Verdict = Verdict::Drop(DropReason::Truncated);
const BAD_HEADER: Verdict = Verdict::Drop(DropReason::BadHeader);
const MAPPED: Verdict = Verdict::Drop(DropReason::MappedSource);
const TOO_MANY: Verdict = Verdict::Drop(DropReason::TooManyHeaders);

fn none() -> Setup {
    Setup::default()
}

fn deny_both() -> Setup {
    none().deny("192.0.2.1/32").deny("2001:db8::1/128")
}

fn four() -> Frame {
    Frame::v4("192.0.2.1")
}

fn six() -> Frame {
    Frame::v6("2001:db8::1")
}

fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

/// Every row.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        link::link(),
        lists::lists(),
        lists::deadlines(),
        link::protocols(),
        lies::lies(),
        limits::syn_limit(),
        checks::sources(),
        checks::flags(),
        limits::limits(),
        checks::observed(),
    ]
    .concat()
}

fn everything_else() -> Setup {
    let addresses = none()
        .allow("203.0.113.1/32")
        .deny("203.0.113.2/32")
        .block("203.0.113.3/32");
    addresses
        .allow("203.0.113.64/28")
        .deny("203.0.113.128/28")
        .allow("2001:db9::/48")
        .deny("2001:dba::/48")
}

fn eight() -> Frame {
    (0..8).fold(six(), |frame, _| frame.destination(0))
}

/// The counter slots of all verdicts that packets alone lead to; the others need sockets to ask about
/// (`e2e/cookies.rs`).
pub fn slots() -> impl Iterator<Item = u32> {
    let passes = PassReason::ALL.iter().map(|reason| reason.slot());
    let drops = DropReason::ALL
        .iter()
        .filter(|reason| !matches!(reason, DropReason::InvalidCookie | DropReason::UnanswerableSyn));
    passes.chain(drops.map(|reason| reason.slot()))
}
