//! Which routes only observe, as text.

use std::fmt::Write as _;

use super::clean;
use crate::admin::api::ObservingRow;

/// One line for each route; routes are the operator's, and so many.
pub(super) fn status(out: &mut String, rows: &[ObservingRow]) {
    for row in rows {
        let (route, policies) = (clean(&row.route), clean(&row.policies.join(", ")));
        let _ = write!(
            out,
            "  OBSERVING on route {route}: {policies}; nobody is refused by that, "
        );
        if row.would_refuse.is_empty() {
            out.push_str("and nobody would have been so far\n");
            continue;
        }
        let counts = row
            .would_refuse
            .iter()
            .map(|(code, count)| format!("{count} {code}"));
        let _ = writeln!(
            out,
            "so far would have been: {}",
            clean(&counts.collect::<Vec<_>>().join(", "))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_observes_and_what_it_would_have_refused() {
        let row = |counts: &[(&str, u64)]| ObservingRow {
            route: "orders".into(),
            policies: vec!["auth".into(), "rate_limit partner".into()],
            would_refuse: counts
                .iter()
                .map(|(code, count)| ((*code).to_owned(), *count))
                .collect(),
        };
        let mut out = String::new();
        status(
            &mut out,
            &[row(&[]), row(&[("rate_limited", 3), ("forbidden", 1)])],
        );
        assert_eq!(
            out.lines().collect::<Vec<_>>(),
            [
                "  OBSERVING on route orders: auth, rate_limit partner; nobody is refused by that, and nobody would have been so far",
                "  OBSERVING on route orders: auth, rate_limit partner; nobody is refused by that, so far would have been: 1 forbidden, \
                 3 rate_limited",
            ]
        );
    }
}
