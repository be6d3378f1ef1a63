//! The verbs around the whole gateway: run, check, detach.

use super::args::Args;
use super::ask::load;
use super::{Exit, Failed, Result, print, print_json, render};
use crate::app;
use crate::config::Config;

pub fn check(args: &Args) -> Result<Exit> {
    match Config::load(&args.config) {
        Ok((config, warnings)) => {
            let skipped = app::offline::skipped(&config)
                .map_err(|error| Failed::new(Exit::Failed, format!("{error:#}")))?;
            if args.json {
                print_json(&serde_json::json!({
                    "ok": true, "warnings": warnings, "skipped": skipped
                }))?;
            } else {
                for warning in &warnings {
                    print(&format!("{warning}\n"))?;
                }
                print(&render::warnings(&skipped))?;
                let (routes, upstreams) = (config.routes.len(), config.upstreams.len());
                print(&format!(
                    "{}: good: {routes} routes, {upstreams} upstreams\n",
                    args.config.display()
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

pub fn run(args: &Args, ephemeral: bool) -> Result<Exit> {
    app::run(&args.config, ephemeral).map_err(|error| match error {
        app::StartError::Config(faults) => Failed::new(Exit::BadInput, faults.to_string()),
        app::StartError::Dataplane(error @ crate::dataplane::Error::Foreign { .. }) => {
            Failed::new(Exit::Foreign, error.to_string())
        }
        other => Failed::new(Exit::Failed, other.to_string()),
    })?;
    Ok(Exit::Done)
}

pub fn detach(args: &Args) -> Result<Exit> {
    let config = load(args)?;
    let detached =
        app::offline::detach(&config).map_err(|error| Failed::new(Exit::Failed, format!("{error:#}")))?;
    let text = if detached {
        "detached: no program and no pin is left\n"
    } else {
        "nothing was attached\n"
    };
    if args.json {
        print_json(&serde_json::json!({"detached": detached}))?
    } else {
        print(text)?
    }
    Ok(Exit::Done)
}
