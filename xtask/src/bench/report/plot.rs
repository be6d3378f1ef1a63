//! The plot: horizontal bars, one group for each case, drawn by hand as SVG.

use std::fmt::Write as _;

use crate::bench::packets::results::CaseResult;

const WIDTH: f64 = 860.0;
/// Where bars begin: names stand to the left.
const LEFT: f64 = 220.0;
/// Room for a figure behind the longest bar.
const RIGHT: f64 = 70.0;
const BAR: f64 = 18.0;
const STEP: f64 = 24.0;
const TITLE: f64 = 34.0;
const OURS: &str = "#2563eb";
const THEIRS: &str = "#94a3b8";

/// Bars of all cases on one scale; the gateway, first in each, stands out.
pub fn svg(cases: &[CaseResult]) -> String {
    let rows: usize = cases.iter().map(|case| case.rows.len()).sum();
    let height = 20.0 + cases.len() as f64 * TITLE + rows as f64 * STEP;
    let most = cases
        .iter()
        .flat_map(|case| &case.rows)
        .map(|row| row.mpps)
        .fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Packets a second, in millions</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 0.0;
    for case in cases {
        top += TITLE;
        let _ = writeln!(
            svg,
            "<text x=\"12\" y=\"{:.0}\" font-weight=\"bold\" fill=\"#0f172a\">{}, Mpps</text>",
            top - 8.0,
            escape(&case.title)
        );
        for (number, row) in case.rows.iter().enumerate() {
            let (width, text) = (row.mpps * scale, top + 13.0);
            let colour = if number == 0 { OURS } else { THEIRS };
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\" fill=\"#334155\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{text:.0}\" fill=\"#0f172a\">{:.2}</text>",
                LEFT - 8.0,
                escape(&row.tool),
                LEFT + width + 6.0,
                row.mpps
            );
            top += STEP;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::packets::results::Row;

    #[test]
    fn every_row_is_a_bar_within_the_picture() {
        let row = |tool: &str, mpps| Row {
            tool: tool.to_owned(),
            mpps,
            rounds: vec![mpps],
            dropped: 1.0,
        };
        let case = CaseResult {
            id: "a".to_owned(),
            title: "a < b".to_owned(),
            what: String::new(),
            rows: vec![row("x", 8.0), row("y", 4.0)],
            targets: Vec::new(),
            notes: Vec::new(),
        };
        let svg = svg(&[case]);
        assert_eq!(svg.matches("rx=\"2\"").count(), 2);
        assert!(svg.contains("a &lt; b, Mpps"));
        assert!(svg.contains("width=\"570.0\"") && svg.contains("width=\"285.0\""));
    }
}
