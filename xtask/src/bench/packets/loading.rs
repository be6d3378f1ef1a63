//! How long a million addresses take from a file into force.

use anyhow::Result;

use super::Plan;
use super::cases::ADDRESSES;
use super::results::{Load, median};
use super::rig::Lane;
use super::tools::{Gateway, Home, Rules, nft_load_seconds};
use crate::shell;

pub const ID: &str = "loading";

/// Each round begins with a fresh gateway and a fresh namespace.
pub fn measure(plan: &Plan, home: &Home) -> Result<Vec<Load>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds() {
        shell::step(format!("Loading: round {round} of {}", plan.rounds()));
        let lane = Lane::new("load-gateway")?;
        let gateway = Gateway::start_empty(&lane, false, home)?;
        ours.push(gateway.deny(&lane, home, ADDRESSES)?.as_secs_f64());
        drop(gateway);
        drop(lane);
        let lane = Lane::new("load-nft")?;
        let rules = Rules {
            deny: &[ADDRESSES],
            syn_limit: false,
        };
        theirs.push(nft_load_seconds(&lane, &rules, home)?.as_secs_f64());
    }
    let load = |with: &str, seconds: &[f64]| Load {
        list: "1,000,000 addresses".to_owned(),
        with: with.to_owned(),
        seconds: median(seconds).unwrap_or(0.0),
    };
    Ok(vec![load("gateway deny import", &ours), load("nft -f", &theirs)])
}
