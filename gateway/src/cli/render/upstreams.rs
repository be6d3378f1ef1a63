//! How upstreams and their endpoints stand, as text.

use std::fmt::Write as _;

use super::lines;
use crate::admin::api::{EndpointRow, UpstreamRow};

/// The upstreams: those with an endpoint that is not up one by one, the others counted.
pub(super) fn status(out: &mut String, rows: &[UpstreamRow]) {
    let is_up = |endpoint: &&EndpointRow| endpoint.state == "up";
    let endpoints: usize = rows.iter().map(|row| row.endpoints.len()).sum();
    let up: usize = rows
        .iter()
        .map(|row| row.endpoints.iter().filter(is_up).count())
        .sum();
    let _ = writeln!(out, "upstreams: {}, {up} of {endpoints} endpoints up", rows.len());
    let ailing = |row: &&UpstreamRow| row.endpoints.is_empty() || !row.endpoints.iter().all(|e| is_up(&e));
    let mut shown = Vec::new();
    for row in rows.iter().filter(ailing) {
        let name = &row.name;
        if row.endpoints.is_empty() {
            shown.push(format!("{name}: no address is known"));
        }
        if row.panics {
            shown.push(format!("{name}: too few endpoints are up, so all are used"));
        }
        for endpoint in row.endpoints.iter().filter(|endpoint| !is_up(endpoint)) {
            let EndpointRow {
                address,
                state,
                requests,
                connections,
            } = endpoint;
            shown.push(format!(
                "{name}: {address} is {state}, {requests} requests under way, {connections} connections"
            ));
        }
    }
    lines(out, "  ", &shown);
}
