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
    pub lowest: f64,
    pub highest: f64,
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
}

impl CaseResult {
    pub fn rate(&self, tool: Tool) -> Option<f64> {
        self.rows
            .iter()
            .find(|row| row.tool == tool.name())
            .map(|row| row.mpps)
    }
}

impl Results {
    /// The targets of a case, from its own rows and from those of the cases before it. One whose peer was not measured
    /// is left out: with `--only` that is what was asked for.
    pub fn targets(&self, case: &Case, result: &CaseResult) -> Vec<TargetResult> {
        let Some(ours) = result.rate(Tool::Gateway) else {
            return Vec::new();
        };
        let other = |than: &Than| match than {
            Than::XdpFilter => Some(("xdp-filter".to_owned(), result.rate(Tool::XdpFilter)?)),
            Than::Nftables => {
                let best = result
                    .rate(Tool::NftRaw)?
                    .max(result.rate(Tool::NftIngress)?);
                Some(("the better nftables hook".to_owned(), best))
            }
            Than::Case(id) => {
                let of = self.cases.iter().find(|case| case.id == *id)?;
                Some((format!("the gateway in `{id}`"), of.rate(Tool::Gateway)?))
            }
        };
        let targets = case.targets.iter().filter_map(|target| {
            let (than, rate) = other(&target.than)?;
            let ratio = ours / rate;
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
                    lowest: *mpps,
                    highest: *mpps,
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
        let case = cases::ALL.iter().find(|case| case.id == "syn-spoofed").expect("a case");
        let targets = results.targets(case, &spoofed);
        assert_eq!(targets.len(), 2);
        assert_eq!((targets[0].ratio, targets[0].met), (2.0, false));
        assert_eq!((targets[1].ratio, targets[1].met), (0.8, true));
    }
}
