//! The program over one frame again and again (`BPF_PROG_TEST_RUN`): its own time, without a network and with warm
//! caches.

use anyhow::{Result, ensure};

use super::cases::{ADDRESSES, DENIED, PREFIXES, UNLISTED};
use super::results::{Run, median};
use super::rig::Lane;
use super::sys::{Program, XDP_DROP, XDP_PASS};
use super::tools::{Home, Rules, Tool};
use super::traffic::{self, Segment, Sources};
use super::{Plan, insn};
use crate::shell;

pub const ID: &str = "test-run";
const REPEAT: u32 = 1_000_000;
const NONE: Rules = Rules {
    deny: &[],
    syn_limit: false,
};
const ALL: Rules = Rules {
    deny: &[DENIED, ADDRESSES, PREFIXES],
    syn_limit: true,
};

struct Row<'a> {
    name: &'static str,
    program: &'a Program,
    frame: Vec<u8>,
    action: u32,
    times: Vec<f64>,
}

/// Measures every row in turn, round after round.
pub fn measure(plan: &Plan, home: &Home) -> Result<Vec<Run>> {
    shell::step("Test runs: loading");
    let start = |name: &str, tool: Tool, rules: &Rules| -> Result<_> {
        let lane = Lane::new(name)?;
        let running = tool.start(&lane, rules, home)?;
        let program = Program::by_id(lane.program()?)?;
        Ok((lane, running, program))
    };
    let (_lane, _bare, bare) = start("run-bare", Tool::Gateway, &NONE)?;
    let (_lane, _full, full) = start("run-full", Tool::Gateway, &ALL)?;
    let denied = Rules {
        deny: &[DENIED],
        syn_limit: false,
    };
    let (_lane, _peer, peer) = start("run-peer", Tool::XdpFilter, &denied)?;
    let empty = Program::load("bench_pass", &insn::constant(XDP_PASS))?;
    let row = |name, program, sources, segment, action| -> Result<Row<'_>> {
        Ok(Row {
            name,
            program,
            frame: one(sources, segment)?,
            action,
            times: Vec::new(),
        })
    };
    let mut rows = [
        row(
            "empty program that passes",
            &empty,
            UNLISTED,
            Segment::Ack,
            XDP_PASS,
        )?,
        row(
            "gateway, no lists: ACK passed",
            &bare,
            UNLISTED,
            Segment::Ack,
            XDP_PASS,
        )?,
        row(
            "gateway, everything on: ACK passed",
            &full,
            UNLISTED,
            Segment::Ack,
            XDP_PASS,
        )?,
        row(
            "gateway, everything on: denied address",
            &full,
            DENIED,
            Segment::Syn,
            XDP_DROP,
        )?,
        row(
            "gateway, everything on: denied prefix",
            &full,
            PREFIXES,
            Segment::Syn,
            XDP_DROP,
        )?,
        row(
            "gateway, everything on: SYN over its limit",
            &full,
            UNLISTED,
            Segment::Syn,
            XDP_DROP,
        )?,
        row(
            "xdp-filter, IPv4 only: ACK passed",
            &peer,
            UNLISTED,
            Segment::Ack,
            XDP_PASS,
        )?,
        row(
            "xdp-filter, IPv4 only: denied address",
            &peer,
            DENIED,
            Segment::Syn,
            XDP_DROP,
        )?,
    ];
    for round in 1..=plan.rounds() {
        shell::step(format!("Test runs: round {round} of {}", plan.rounds()));
        for row in &mut rows {
            let (action, time) = row.program.test_run(&row.frame, REPEAT)?;
            ensure!(action == row.action, "{}: the answer was {action}", row.name);
            row.times.push(time.as_nanos() as f64);
        }
    }
    let empty = median(&rows[0].times).unwrap_or(0.0);
    let results = rows.iter().map(|row| {
        let ns = median(&row.times).unwrap_or(0.0);
        Run {
            name: row.name.to_owned(),
            ns,
            over_empty: ns - empty,
        }
    });
    Ok(results.collect())
}

/// One frame from one of the sources.
fn one(sources: Sources, segment: Segment) -> Result<Vec<u8>> {
    let frame = traffic::frame(segment);
    Ok(traffic::program(sources, &frame)?.rewrite(&frame)?.1)
}
