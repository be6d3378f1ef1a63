//! The verbs around the whole gateway: run, check, detach.

use std::path::Path;

use super::args::Args;
use super::ask::offline_failed;
use super::{Exit, Failed, Result, known, print, print_json, render};
use crate::admin::client::{self, Running};
use crate::app;
use crate::app::offline::{OfflineError, patiently};
use crate::config::model::XdpMode;
use crate::config::{Config, Fault, Warning};
use crate::dataplane::lock::{Holder, of_process};

pub fn check(args: &Args) -> Result<Exit> {
    match Config::load(args.config()) {
        Ok((config, mut warnings)) => {
            let skipped = app::offline::skipped(&config)
                .map_err(|error| Failed::new(Exit::Failed, error.to_string()))?;
            warnings.extend(
                config
                    .xdp
                    .interfaces
                    .iter()
                    .filter_map(|name| missing(args, &config, name)),
            );
            if args.json {
                print_json(&serde_json::json!({
                    "ok": true, "warnings": warnings, "skipped": skipped
                }))?;
            } else {
                for warning in &warnings {
                    print(&format!("{warning}\n"))?;
                }
                print(&render::warnings(&skipped))?;
                let routes = render::counted(config.routes.len(), "route");
                let upstreams = render::counted(config.upstreams.len(), "upstream");
                print(&format!(
                    "{}: good: {routes}, {upstreams}\n",
                    args.config().display()
                ))?;
            }
            Ok(Exit::Done)
        }
        Err(faults) if args.json => {
            print_json(&serde_json::json!({"ok": false, "faults": faults}))?;
            Ok(Exit::BadInput)
        }
        Err(faults) => Err(Failed::new(Exit::BadInput, faults.to_string())),
    }
}

/// A warning if no interface of this name is on this host. Not a fault: the file may be meant for another one.
fn missing(args: &Args, config: &Config, interface: &str) -> Option<Warning> {
    let there = nix::net::if_::if_nametoindex(interface) != Err(nix::errno::Errno::ENODEV);
    if config.xdp.mode == XdpMode::None || there {
        return None;
    }
    Some(Warning(Fault {
        file: args.config().display().to_string(),
        line: 0,
        column: 0,
        path: "xdp.interfaces".to_owned(),
        message: format!("there is no interface {interface} on this host"),
        hint: Some(
            "`ip link` lists those that there are; the gateway filters it as soon as it is there".to_owned(),
        ),
        excerpt: None,
    }))
}

pub fn run(args: &Args, ephemeral: bool) -> Result<Exit> {
    app::run(args.config(), ephemeral).map_err(|error| match error {
        app::StartError::Config(faults) => Failed::new(Exit::BadInput, faults.to_string()),
        app::StartError::Dataplane(error @ crate::dataplane::Error::Foreign { .. }) => {
            Failed::new(Exit::Foreign, error.to_string())
        }
        other => Failed::new(Exit::Failed, other.to_string()),
    })?;
    Ok(Exit::Done)
}

/// What to do if one is there.
const STOP_FIRST: &str = "stop the gateway first";

/// A gateway that runs would go on believing in its tables.
fn refuse_while_running(args: &Args, socket: &Path) -> Result<()> {
    match client::running(socket, args.timeout)? {
        Some(Running { pid }) => Err(Failed::new(
            Exit::Failed,
            format!(
                "{STOP_FIRST}: one{} answers on {}",
                of_process(pid),
                socket.display()
            ),
        )),
        None => Ok(()),
    }
}

pub fn detach(args: &Args) -> Result<Exit> {
    if let Some(socket) = &args.socket {
        refuse_while_running(args, socket)?;
    }
    let known = known::read(args)?;
    known.warn(None);
    let socket = &known.config.admin.socket;
    refuse_while_running(args, socket)?;
    let detach = || app::offline::detach(&known.config);
    let detached = patiently(detach, OfflineError::holder).map_err(|error| {
        let failed = offline_failed(&error, socket);
        if error.holder().is_some_and(Holder::is_gateway) {
            Failed::new(failed.exit, format!("{STOP_FIRST}: {}", failed.message))
        } else {
            failed
        }
    })?;
    let text = if detached.any {
        "detached: no program and no pin is left\n"
    } else {
        "nothing was attached\n"
    };
    if args.json {
        print_json(&serde_json::json!({"detached": detached.any, "sysctls": detached.sysctls}))?
    } else {
        print(text)?;
        print(&render::notes(&detached.sysctls))?
    }
    Ok(Exit::Done)
}
