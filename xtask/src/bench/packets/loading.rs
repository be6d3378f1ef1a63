//! How long a million addresses take from a file into force.

use anyhow::Result;

use super::Plan;
use super::cases::ADDRESSES;
use super::results::{InTheGateway, Load, median};
use super::rig::Lane;
use super::tools::{Gateway, Home, Imported, Rules, nft_load_seconds};
use crate::shell;

pub const ID: &str = "loading";

/// Each round begins with a fresh gateway and a fresh namespace.
pub fn measure(plan: &Plan, home: &Home) -> Result<Vec<Load>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds() {
        shell::step(format!("Loading: round {round} of {}", plan.rounds()));
        let lane = Lane::new("load-gateway")?;
        let gateway = Gateway::start_empty(&lane, false, home)?;
        ours.push(gateway.deny(&lane, home, ADDRESSES)?);
        drop(gateway);
        drop(lane);
        let lane = Lane::new("load-nft")?;
        let rules = Rules {
            deny: &[ADDRESSES],
            syn_limit: false,
        };
        theirs.push(nft_load_seconds(&lane, &rules, home)?.as_secs_f64());
    }
    let list = "1,000,000 addresses".to_owned();
    let seconds: Vec<f64> = ours.iter().map(|import| import.took.as_secs_f64()).collect();
    let tables: Vec<f64> = ours.iter().map(|import| import.tables.as_secs_f64()).collect();
    let most = |kib: fn(&Imported) -> u64| ours.iter().map(kib).max().unwrap_or(0) as f64 / 1024.0;
    Ok(vec![
        Load {
            list: list.clone(),
            with: "gateway deny import".to_owned(),
            seconds: median(&seconds).unwrap_or(0.0),
            in_the_gateway: Some(InTheGateway {
                tables_seconds: median(&tables).unwrap_or(0.0),
                command_mib: most(|import| import.command_kib),
                gateway_mib: most(|import| import.gateway_kib),
            }),
        },
        Load {
            list,
            with: "nft -f".to_owned(),
            seconds: median(&theirs).unwrap_or(0.0),
            in_the_gateway: None,
        },
    ])
}
