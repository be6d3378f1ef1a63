//! `gateway verify`: what differs between kernel and intent, as text and exit code.

use std::fmt::Write as _;

use super::args::Args;
use super::ask::{ask, unexpected};
use super::{Exit, Result, print, print_json, render};
use crate::admin::api::{Answer, Request, Verified};

pub fn run(args: &Args) -> Result<Exit> {
    let Answer::Verified(verified) = ask(args, Request::Verify)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&verified)?;
    } else {
        print(&text(&verified))?;
    }
    Ok(if !verified.compared {
        Exit::NotEnforced
    } else if verified.drift > 0 {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn text(verified: &Verified) -> String {
    let mut out = String::new();
    if let Some(bypass) = &verified.bypass {
        out.push_str(&render::bypass(bypass));
    }
    if !verified.compared {
        out.push_str("NOT FILTERED: no gateway is attached, and there is nothing to compare with\n");
        return out;
    }
    let Verified {
        drift,
        repaired,
        entries,
        differences,
        failures,
        ..
    } = verified;
    if *drift == 0 {
        let _ = writeln!(
            out,
            "no drift: the kernel holds what it should, {entries} entries"
        );
        return out;
    }
    let _ = writeln!(out, "drift: {drift} found, {repaired} repaired");
    for row in differences {
        let state = if row.repaired { "repaired" } else { "NOT repaired" };
        let _ = writeln!(out, "  {state}: {}", render::clean(&row.what));
    }
    if *drift > differences.len() {
        let _ = writeln!(out, "  and {} more", drift - differences.len());
    }
    if repaired < drift {
        out.push_str(&render::failures(failures));
    }
    out
}
