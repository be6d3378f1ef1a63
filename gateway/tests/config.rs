//! What the configuration says about the rest of the gateway without being allowed to look at it.

use std::collections::BTreeSet;

use gateway::config::STRIKE_CODES;
use gateway::http::reject::{Blame, Reject};

#[test]
fn a_client_can_be_struck_for_exactly_what_is_its_doing() {
    let known: BTreeSet<_> = STRIKE_CODES.iter().copied().collect();
    let blamed = Reject::ALL
        .iter()
        .filter(|reject| reject.blame() == Blame::Client);
    assert_eq!(known, blamed.map(|reject| reject.code()).collect());
}
