//! What was measured, as data: for the terminal, docs/benchmarks.md and whoever wants JSON.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub rounds: u32,
    pub seconds: f64,
    pub cases: Vec<CaseResult>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct CaseResult {
    pub id: String,
    pub title: String,
    pub what: String,
    /// What each value of a row is. The first is what programs are compared by: less is better.
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    pub targets: Vec<TargetResult>,
    pub notes: Vec<String>,
    /// Who could not take part, and why.
    pub skipped: Vec<String>,
    /// Who gave a wrong answer or broke: the run is not good.
    pub failed: Vec<String>,
}

/// A name with its unit, and the digits behind the point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub digits: usize,
}

/// One program in one case.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub program: String,
    /// For each round a value for each column.
    pub rounds: Vec<Vec<f64>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TargetResult {
    /// What is aimed at: `µs a request`.
    pub what: String,
    /// With whom it is compared; nobody if the aim is a value of its own.
    pub than: Option<String>,
    pub value: f64,
    pub at_most: f64,
    pub met: bool,
}

impl Row {
    /// The median of the rounds.
    pub fn value(&self, column: usize) -> f64 {
        median(&self.column(column)).unwrap_or(f64::NAN)
    }

    /// The part of another's value that this is: the median of the rounds' ratios, since what disturbs a round mostly
    /// disturbs both.
    pub fn ratio(&self, other: &Self, column: usize) -> f64 {
        let ratios: Vec<f64> = self
            .column(column)
            .iter()
            .zip(&other.column(column))
            .map(|(a, b)| a / b)
            .collect();
        median(&ratios).unwrap_or(f64::NAN)
    }

    fn column(&self, column: usize) -> Vec<f64> {
        self.rounds
            .iter()
            .filter_map(|round| round.get(column).copied())
            .collect()
    }
}

impl CaseResult {
    pub fn row(&self, program: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.program == program)
    }

    /// A row's share of the gateway's in words, for the last column; `-` if one of them is not there.
    pub fn gateway_is(&self, row: &Row) -> String {
        match self.row("gateway").map(|ours| ours.ratio(row, 0)) {
            Some(ratio) if ratio.is_finite() => format!("{ratio:.2}x"),
            _ => "-".to_owned(),
        }
    }

    pub fn spread(&self, row: &Row) -> String {
        let digits = self.columns.first().map_or(2, |column| column.digits);
        let values = row.column(0);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("{least:.digits$} to {most:.digits$}")
    }
}

impl TargetResult {
    /// `ok: µs a request, 0.96x nginx, aim 1.00x`.
    pub fn sentence(&self) -> String {
        format!(
            "{}: {}, {}, aim {}",
            if self.met { "ok" } else { "SHORT" },
            self.what,
            self.shown(),
            self.aim()
        )
    }

    pub fn shown(&self) -> String {
        match &self.than {
            Some(than) => format!("{:.2}x {than}", self.value),
            None => format!("{:.1}", self.value),
        }
    }

    pub fn aim(&self) -> String {
        match &self.than {
            Some(_) => format!("{:.2}x", self.at_most),
            None => format!("{}", self.at_most),
        }
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

    fn row(program: &str, values: &[f64]) -> Row {
        Row {
            program: program.to_owned(),
            rounds: values.iter().map(|value| vec![*value]).collect(),
        }
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        let (a, b) = (row("a", &[1.0, 20.0, 3.0]), row("b", &[2.0, 40.0, 6.0]));
        assert_eq!(a.ratio(&b, 0), 0.5);
        assert_eq!(a.value(0), 3.0);
        assert!(a.value(1).is_nan());
    }

    #[test]
    fn a_missing_peer_has_no_ratio() {
        let case = CaseResult {
            id: String::new(),
            title: String::new(),
            what: String::new(),
            columns: Vec::new(),
            rows: vec![row("nginx", &[1.0])],
            targets: Vec::new(),
            notes: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
        };
        assert_eq!(case.gateway_is(&case.rows[0]), "-");
    }
}
