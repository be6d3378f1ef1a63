//! The verbs on lists, blocks and status: from what was typed to a request, from an answer to text and exit code.

use std::net::IpAddr;

use ipnet::IpNet;

use super::args::{AddArgs, AllowCommand, Args, BlockCommand, DenyArgs, DenyCommand, HowArgs, RuleCommand};
use super::ask::{ask, unexpected};
use super::{Exit, Result, import, list, operator, print, print_json, render};
use crate::admin::api::{AddRules, Added, Answer, By, Removed, Request, RuleList};
use crate::config::units::show_duration;

pub fn deny(args: &Args, command: &DenyCommand) -> Result<Exit> {
    match command {
        DenyCommand::Add(DenyArgs {
            add: AddArgs { nets, how },
            confirm,
        }) => {
            let order = order(RuleList::Deny, nets.clone(), how);
            let request = match *confirm {
                Some(within) => Request::AddUnconfirmed { order, within },
                None => Request::AddRules(order),
            };
            let mut added = add(args, request)?;
            if let Some(within) = confirm {
                added.notes.push(format!(
                    "undone in {} unless you say `gateway deny confirm{}`",
                    show_duration(*within),
                    args.same_gateway()
                ));
            }
            report_added(args, &added)
        }
        DenyCommand::Confirm { nets } => confirm(args, nets),
        DenyCommand::Rule(command) => rule(args, RuleList::Deny, command),
    }
}

pub fn allow(args: &Args, command: &AllowCommand) -> Result<Exit> {
    match command {
        AllowCommand::Add(AddArgs { nets, how }) => {
            let order = order(RuleList::Allow, nets.clone(), how);
            report_added(args, &add(args, Request::AddRules(order))?)
        }
        AllowCommand::Rule(command) => rule(args, RuleList::Allow, command),
    }
}

fn rule(args: &Args, list: RuleList, command: &RuleCommand) -> Result<Exit> {
    match command {
        RuleCommand::Del { nets, force } => removed(
            args,
            Request::RemoveRules {
                list,
                nets: nets.clone(),
                by: by(*force),
            },
        ),
        RuleCommand::Flush { force } => removed(args, Request::FlushRules { list, by: by(*force) }),
        RuleCommand::List => list::print(args, list),
        RuleCommand::Export => import::export(args, list),
        RuleCommand::Import(order) => import::import(args, list, order),
    }
}

fn by(force: bool) -> By {
    By {
        operators: operator::addresses(),
        force,
    }
}

fn confirm(args: &Args, nets: &[IpNet]) -> Result<Exit> {
    let Answer::Confirmed(confirmed) = ask(args, Request::Confirm { nets: nets.to_vec() })? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&confirmed)?
    } else {
        print(&render::confirmed(&confirmed))?
    }
    Ok(
        if confirmed.confirmed.is_empty() || !confirmed.missing.is_empty() || !confirmed.failures.is_empty() {
            Exit::Failed
        } else if !confirmed.enforced {
            Exit::NotEnforced
        } else {
            Exit::Done
        },
    )
}

fn order(list: RuleList, nets: Vec<IpNet>, how: &HowArgs) -> AddRules {
    AddRules {
        list,
        nets,
        ttl: how.ttl,
        reason: how.reason.clone(),
        force: how.force,
        operators: operator::addresses(),
    }
}

fn add(args: &Args, request: Request) -> Result<Added> {
    match ask(args, request)? {
        Answer::Added(added) => Ok(added),
        _ => Err(unexpected()),
    }
}

/// Prints what came of adding rules; the exit code says how much of it.
pub fn report_added(args: &Args, added: &Added) -> Result<Exit> {
    if args.json {
        print_json(added)?
    } else {
        print(&render::added(added))?
    }
    Ok(if !added.failures.is_empty() {
        Exit::Failed
    } else if !added.enforced {
        Exit::NotEnforced
    } else {
        Exit::Done
    })
}

fn removed(args: &Args, request: Request) -> Result<Exit> {
    let Answer::Removed(removed) = ask(args, request)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&removed)?
    } else {
        print(&render::removed(&removed))?
    }
    let Removed {
        missing, failures, ..
    } = removed;
    Ok(if missing.is_empty() && failures.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

pub fn blocks(args: &Args, command: &BlockCommand) -> Result<Exit> {
    match command {
        BlockCommand::List => {
            let Answer::Entries {
                entries,
                forwarded,
                unfiltered,
            } = ask(args, Request::ListBlocks)?
            else {
                return Err(unexpected());
            };
            if args.json {
                print_json(&serde_json::json!({
                    "blocks": entries, "forwarded": forwarded, "unfiltered": unfiltered
                }))?;
            } else {
                print(&render::blocks(&entries, &forwarded, &unfiltered))?;
            }
            Ok(Exit::Done)
        }
        BlockCommand::Del { addrs } => lift(args, addrs),
    }
}

fn lift(args: &Args, addrs: &[IpAddr]) -> Result<Exit> {
    let Answer::Unblocked(outcome) = ask(
        args,
        Request::Unblock {
            addrs: addrs.to_vec(),
        },
    )?
    else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&outcome)?
    } else {
        print(&render::unblocked(&outcome, &args.same_gateway()))?
    }
    Ok(if outcome.missing.is_empty() && outcome.failures.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

pub fn status(args: &Args) -> Result<Exit> {
    let Answer::Status(status) = ask(args, Request::Status)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&status)?
    } else {
        print(&render::status(&status))?
    }
    Ok(if status.packets.enforced {
        Exit::Done
    } else {
        Exit::NotEnforced
    })
}

pub fn reload(args: &Args, force: bool) -> Result<Exit> {
    let Answer::Reloaded {
        changed,
        warnings,
        enforced,
        unfiltered,
    } = ask(args, Request::Reload { by: by(force) })?
    else {
        return Err(unexpected());
    };
    let text = if changed {
        "the new configuration is in force\n"
    } else {
        "nothing has changed\n"
    };
    if args.json {
        print_json(&serde_json::json!({
            "changed": changed, "warnings": warnings, "enforced": enforced, "unfiltered": unfiltered
        }))?
    } else {
        print(&render::warnings(&warnings))?;
        print(text)?;
        print(&render::unfiltered(enforced, &unfiltered))?
    }
    Ok(if enforced { Exit::Done } else { Exit::NotEnforced })
}
