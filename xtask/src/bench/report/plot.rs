//! The plot: horizontal bars, one group for each case, drawn by hand as SVG.

use std::fmt::Write as _;

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

/// One case.
#[derive(Debug)]
pub struct Group {
    /// With the unit.
    pub title: String,
    pub bars: Vec<Bar>,
}

#[derive(Debug)]
pub struct Bar {
    pub name: String,
    pub value: f64,
    /// Digits behind the point.
    pub digits: usize,
    /// Stands out.
    pub ours: bool,
}

/// What the longest bar is the longest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// All groups: they have one unit.
    Shared,
    /// Its own group.
    Group,
}

/// Bars of all groups.
pub fn svg(title: &str, groups: &[Group], scale: Scale) -> String {
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = 20.0 + groups.len() as f64 * TITLE + rows as f64 * STEP;
    let most = |groups: &[Group]| {
        let values = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value);
        values.fold(f64::MIN_POSITIVE, f64::max)
    };
    let shared = most(groups);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escape(title)
    );
    let mut top = 0.0;
    for group in groups {
        let most = match scale {
            Scale::Shared => shared,
            Scale::Group => most(std::slice::from_ref(group)),
        };
        top += TITLE;
        let _ = writeln!(
            svg,
            "<text x=\"12\" y=\"{:.0}\" font-weight=\"bold\" fill=\"#0f172a\">{}</text>",
            top - 8.0,
            escape(&group.title)
        );
        for bar in &group.bars {
            let width = (bar.value.max(0.0) / most) * (WIDTH - LEFT - RIGHT);
            let text = top + 13.0;
            let colour = if bar.ours { OURS } else { THEIRS };
            let digits = bar.digits;
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\" fill=\"#334155\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{text:.0}\" fill=\"#0f172a\">{:.digits$}</text>",
                LEFT - 8.0,
                escape(&bar.name),
                LEFT + width + 6.0,
                bar.value
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

    fn group(title: &str, values: [f64; 2]) -> Group {
        let bar = |value| Bar {
            name: "x".to_owned(),
            value,
            digits: 2,
            ours: false,
        };
        Group {
            title: title.to_owned(),
            bars: values.map(bar).into(),
        }
    }

    #[test]
    fn every_row_is_a_bar_within_the_picture() {
        let groups = [group("a < b, Mpps", [8.0, 4.0]), group("c", [2.0, 1.0])];
        let shared = svg("t", &groups, Scale::Shared);
        assert_eq!(shared.matches("rx=\"2\"").count(), 4);
        assert!(shared.contains("a &lt; b, Mpps"));
        assert!(shared.contains("width=\"570.0\"") && shared.contains("width=\"142.5\""));
        let own = svg("t", &groups, Scale::Group);
        assert_eq!(own.matches("width=\"570.0\"").count(), 2);
    }
}
