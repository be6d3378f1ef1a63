//! `gateway bypass`: everything passes for a time, and says so.

use super::args::{Args, BypassCommand};
use super::ask::{ask, unexpected};
use super::{Exit, Result, print, print_json, render};
use crate::admin::api::{Answer, Bypassed, Request};

pub fn run(args: &Args, command: &BypassCommand) -> Result<Exit> {
    let request = match command {
        BypassCommand::On { lasts, reason } => Request::BypassOn {
            lasts: *lasts,
            reason: reason.clone(),
        },
        BypassCommand::Off => Request::BypassOff,
        BypassCommand::Status => Request::BypassStatus,
    };
    let Answer::Bypassed(bypassed) = ask(args, request)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&bypassed)?;
    } else {
        print(&text(command, &bypassed, &args.same_gateway()))?;
    }
    Ok(Exit::Done)
}

fn text(command: &BypassCommand, bypassed: &Bypassed, same_gateway: &str) -> String {
    let mut out = match &bypassed.bypass {
        Some(bypass) => {
            let mut text = render::bypass(bypass);
            text.push_str(&format!("`gateway bypass off{same_gateway}` ends it\n"));
            text
        }
        None if matches!(command, BypassCommand::Off) && bypassed.was_on => {
            "bypass off: packets are filtered again\n".to_owned()
        }
        None => "no bypass is on\n".to_owned(),
    };
    if !bypassed.enforced {
        out.push_str("  note: no interface is filtered\n");
    }
    out
}
