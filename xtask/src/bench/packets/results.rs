//! What was measured, as data: passed from the privileged half to the reporting one, and to whoever wants JSON.

use serde::{Deserialize, Serialize};

use super::cases::{Case, Than};
use super::tools::Tool;

/// One run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub seconds: f64,
    pub rounds: u32,
    pub cases: Vec<CaseResult>,
    pub runs: Vec<Run>,
    pub loads: Vec<Load>,
    #[serde(default)]
    pub cookies: Option<Cookies>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct CaseResult {
    pub id: String,
    pub title: String,
    pub what: String,
    pub rows: Vec<Row>,
    pub targets: Vec<TargetResult>,
    pub notes: Vec<String>,
}

/// One program in one case.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub tool: String,
    /// Millions of packets a second that reached it: the median of the rounds.
    pub mpps: f64,
    /// Each round.
    pub rounds: Vec<f64>,
    /// Part of the packets that did not get into the stack.
    pub dropped: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TargetResult {
    pub than: String,
    pub ratio: f64,
    pub at_least: f64,
    pub met: bool,
}

/// A program run over one frame again and again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub name: String,
    pub ns: f64,
    /// Beyond the empty program of the same run.
    pub over_empty: f64,
}

/// A list put in force.
#[derive(Debug, Serialize, Deserialize)]
pub struct Load {
    pub list: String,
    pub with: String,
    pub seconds: f64,
    /// Of the gateway alone.
    #[serde(default)]
    pub in_the_gateway: Option<InTheGateway>,
}

/// What a list took of the gateway: time to write the kernel's tables, and the most memory, of all rounds, that command
/// and daemon had resident.
#[derive(Debug, Serialize, Deserialize)]
pub struct InTheGateway {
    pub tables_seconds: f64,
    pub command_mib: f64,
    pub gateway_mib: f64,
}

impl Load {
    /// What is aimed at, what came of it, and whether that is met; nothing for others than the gateway.
    pub fn aims(&self) -> Vec<(String, bool)> {
        let Some(inside) = &self.in_the_gateway else {
            return Vec::new();
        };
        let seconds = |what: &str, is: f64, aim: f64| (format!("{what} {is:.2} s, aim {aim} s"), is < aim);
        let mib = |what: &str, is: f64| (format!("{what} {is:.0} MiB at most, aim 400 MiB"), is < 400.0);
        vec![
            seconds("in all", self.seconds, 2.0),
            seconds("writing the tables", inside.tables_seconds, 1.0),
            mib("the gateway", inside.gateway_mib),
            mib("the command", inside.command_mib),
        ]
    }
}

/// Real connections beside a flood that is answered by cookies.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cookies {
    pub tried: usize,
    pub completed: usize,
    /// Milliseconds until a connection was there.
    pub median_ms: f64,
    pub slowest_ms: f64,
    /// Millions of SYNs a second that reached the gateway while they were made.
    pub flood_mpps: f64,
    /// SYNs of the flood, those answered by the program, and answers that came out at the other end of the wire.
    pub syns: u64,
    pub answered: u64,
    pub returned: u64,
    /// Answers that the device could not send.
    pub lost: u64,
}

impl Cookies {
    pub const SLOWEST_MS: f64 = 100.0;

    pub fn met(&self) -> bool {
        self.completed == self.tried && self.slowest_ms < Self::SLOWEST_MS
    }

    /// What came of it, in a line.
    pub fn sentence(&self) -> String {
        format!(
            "{}: {} of {} curl connections complete, the slowest to connect in {:.1} ms, aim all and {} ms",
            if self.met() { "ok" } else { "SHORT" },
            self.completed,
            self.tried,
            self.slowest_ms,
            Self::SLOWEST_MS
        )
    }
}

impl Row {
    pub fn lowest(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn highest(&self) -> f64 {
        self.rounds.iter().copied().fold(0.0, f64::max)
    }

    /// Nanoseconds of the core for each packet, with all that the rig needs for it.
    pub fn ns(&self) -> f64 {
        1000.0 / self.mpps
    }

    /// How many times as fast as another program of the same case: the median of the rounds' ratios, since what disturbs
    /// a round mostly disturbs both.
    pub fn times(&self, other: &Self) -> f64 {
        let ratios: Vec<f64> = self
            .rounds
            .iter()
            .zip(&other.rounds)
            .map(|(a, b)| a / b)
            .collect();
        median(&ratios).unwrap_or(f64::NAN)
    }
}

impl CaseResult {
    pub fn row(&self, tool: Tool) -> Option<&Row> {
        self.rows.iter().find(|row| row.tool == tool.name())
    }

    /// The row that the gateway's is compared with in the last column: itself if it is not there.
    pub fn ours<'a>(&'a self, or: &'a Row) -> &'a Row {
        self.row(Tool::Gateway).unwrap_or(or)
    }

    /// What a packet costs where the program under test costs nothing: dropped at once, or passed without a filter.
    pub fn floor(&self) -> Option<f64> {
        let row = self.row(Tool::Nothing).or_else(|| self.row(Tool::Ceiling))?;
        Some(row.ns())
    }
}

impl Results {
    /// The targets of a case, from its own rows and from those of the cases before it. One whose peer was not measured
    /// is left out: with `--only` that is what was asked for.
    pub fn targets(&self, case: &Case, result: &CaseResult) -> Vec<TargetResult> {
        let Some(ours) = result.row(Tool::Gateway) else {
            return Vec::new();
        };
        let ratio = |than: &Than| match than {
            Than::XdpFilter => Some(("xdp-filter".to_owned(), ours.times(result.row(Tool::XdpFilter)?))),
            Than::Nftables => {
                let (raw, ingress) = (result.row(Tool::NftRaw)?, result.row(Tool::NftIngress)?);
                let best = if raw.mpps > ingress.mpps { raw } else { ingress };
                Some(("the better nftables hook".to_owned(), ours.times(best)))
            }
            Than::Case(id) => {
                let other = self.cases.iter().find(|case| case.id == *id)?;
                let rate = other.row(Tool::Gateway)?.mpps;
                Some((format!("the gateway in `{id}`"), ours.mpps / rate))
            }
        };
        let targets = case.targets.iter().filter_map(|target| {
            let (than, ratio) = ratio(&target.than)?;
            Some(TargetResult {
                than,
                ratio,
                at_least: target.at_least,
                met: ratio >= target.at_least,
            })
        });
        targets.collect()
    }
}

/// The median; of an even number the lower one of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::packets::cases;

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn targets_compare_with_the_better_hook_and_with_other_cases() {
        let result = |id: &str, rates: &[(Tool, f64)]| CaseResult {
            id: id.to_owned(),
            title: String::new(),
            what: String::new(),
            rows: rates
                .iter()
                .map(|(tool, mpps)| Row {
                    tool: tool.name().to_owned(),
                    mpps: *mpps,
                    rounds: vec![*mpps],
                    dropped: 1.0,
                })
                .collect(),
            targets: Vec::new(),
            notes: Vec::new(),
        };
        let mut results = Results::default();
        results.cases.push(result("syn-one", &[(Tool::Gateway, 5.0)]));
        let spoofed = result(
            "syn-spoofed",
            &[(Tool::Gateway, 4.0), (Tool::NftRaw, 1.0), (Tool::NftIngress, 2.0)],
        );
        let case = cases::ALL
            .iter()
            .find(|case| case.id == "syn-spoofed")
            .expect("a case");
        let targets = results.targets(case, &spoofed);
        assert_eq!(targets.len(), 2);
        assert_eq!((targets[0].ratio, targets[0].met), (2.0, false));
        assert_eq!((targets[1].ratio, targets[1].met), (0.8, true));
    }
}
