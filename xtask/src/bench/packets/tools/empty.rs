//! The two ends of the scale: a program that drops all, and no program.

use anyhow::Result;

use super::Running;
use crate::bench::packets::insn;
use crate::bench::packets::rig::Lane;
use crate::bench::packets::sys::{Link, Program, XDP_DROP};

#[derive(Debug)]
struct DropsAll {
    _link: Link,
}

pub fn start(lane: &Lane) -> Result<impl Running + use<>> {
    let program = Program::load("bench_drop", &insn::constant(XDP_DROP))?;
    let link = lane.within(|ifindex| program.attach(ifindex))?;
    Ok(DropsAll { _link: link })
}

impl Running for DropsAll {
    fn dropped(&self, _: &Lane) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// No program.
#[derive(Debug)]
pub struct Nothing;

impl Running for Nothing {
    fn dropped(&self, _: &Lane) -> Result<Option<u64>> {
        Ok(None)
    }
}
