//! The verbs on lists, blocks and status: from what was typed to a request, from an answer to text and exit code.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;

use super::args::{AddArgs, Args, BlockCommand, DenyArgs, HowArgs, RuleCommand};
use super::ask::{ask, unexpected};
use super::import::{self, Imported};
use super::{Exit, Failed, Result, operator, print, print_json, render};
use crate::admin::api::{AddRules, Added, Answer, EntryRow, ForwardedBlock, Removed, Request, RuleList};
use crate::config::units::show_duration;
use crate::dataplane::clock::Now;

pub fn run(args: &Args, list: RuleList, command: &RuleCommand) -> Result<Exit> {
    match command {
        RuleCommand::Add(DenyArgs {
            add: AddArgs { nets, how },
            confirm,
        }) => {
            let order = order(list, nets.clone(), how);
            let request = match *confirm {
                Some(within) => Request::AddUnconfirmed { order, within },
                None => Request::AddRules(order),
            };
            let Answer::Added(mut added) = ask(args, request)? else {
                return Err(unexpected());
            };
            if let Some(within) = confirm {
                added.notes.push(format!(
                    "undone in {} unless you say `gateway deny confirm{}`",
                    show_duration(*within),
                    args.same_gateway()
                ));
            }
            report_added(args, &added)
        }
        RuleCommand::Confirm { nets } => confirm(args, nets),
        RuleCommand::Del { nets } => removed(
            args,
            Request::RemoveRules {
                list,
                nets: nets.clone(),
            },
        ),
        RuleCommand::Flush => removed(args, Request::FlushRules { list }),
        RuleCommand::List => {
            let Entries {
                entries, unfiltered, ..
            } = entries(args, Request::ListRules { list })?;
            if args.json {
                print_json(&entries)?
            } else {
                print(&render::entries(&entries, &unfiltered))?
            }
            Ok(Exit::Done)
        }
        RuleCommand::Export => {
            let Entries { entries, .. } = entries(args, Request::ListRules { list })?;
            let commanded = entries.iter().filter(|row| row.origin == "command");
            print(&commanded.map(import::line).collect::<String>())?;
            Ok(Exit::Done)
        }
        RuleCommand::Import { file, how } => import_list(args, list, file, how),
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

fn add(args: &Args, order: AddRules) -> Result<Added> {
    match ask(args, Request::AddRules(order))? {
        Answer::Added(added) => Ok(added),
        _ => Err(unexpected()),
    }
}

fn report_added(args: &Args, added: &Added) -> Result<Exit> {
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

struct Entries {
    entries: Vec<EntryRow>,
    forwarded: Vec<ForwardedBlock>,
    unfiltered: Vec<String>,
}

fn entries(args: &Args, request: Request) -> Result<Entries> {
    match ask(args, request)? {
        Answer::Entries {
            entries,
            forwarded,
            unfiltered,
        } => Ok(Entries {
            entries,
            forwarded,
            unfiltered,
        }),
        _ => Err(unexpected()),
    }
}

/// Entries with the same end and reason go in one order; a list has few of those.
fn import_list(args: &Args, list: RuleList, file: &std::path::Path, how: &HowArgs) -> Result<Exit> {
    let Imported {
        entries,
        repeated,
        bad,
        bad_count,
    } = read(file)?;
    let mut told = std::io::stderr();
    for line in &bad {
        let _ = writeln!(told, "gateway: {}: {line}", file.display());
    }
    if bad_count > bad.len() {
        let _ = writeln!(
            told,
            "gateway: {}: and {} more bad lines",
            file.display(),
            bad_count - bad.len()
        );
    }
    if entries.is_empty() {
        return Err(Failed::new(
            Exit::BadInput,
            format!("{}: no network in it; nothing was changed", file.display()),
        ));
    }
    let now = Now::read();
    let mut ended = 0;
    let mut orders: BTreeMap<(Option<u64>, Option<String>), Vec<IpNet>> = BTreeMap::new();
    for (net, until, reason) in entries {
        match import::left(until, now.wall_ms) {
            Ok(_) => orders
                .entry((until, how.reason.clone().or(reason)))
                .or_default()
                .push(net),
            Err(()) => ended += 1,
        }
    }
    let mut total = Added {
        enforced: true,
        ..Added::default()
    };
    for ((until, reason), nets) in orders {
        let left = import::left(until, now.wall_ms).unwrap_or(None);
        let order = AddRules {
            reason,
            ttl: how.ttl.or(left),
            ..order(list, nets, how)
        };
        let added = add(args, order)?;
        total.added += added.added;
        total.already += added.already;
        total.enforced &= added.enforced;
        total.unfiltered = added.unfiltered;
        total.failures.extend(added.failures);
        total.notes.extend(added.notes);
    }
    if repeated > 0 {
        total.notes.push(format!(
            "{} an earlier line; the last holds",
            counted(repeated, "line repeats", "lines repeat")
        ));
    }
    if ended > 0 {
        total.notes.push(format!(
            "{} ended already; left out",
            counted(ended, "entry had", "entries had")
        ));
    }
    if bad_count > 0 {
        total.notes.push(format!(
            "{} left out",
            counted(bad_count, "bad line was", "bad lines were")
        ));
    }
    let exit = report_added(args, &total)?;
    Ok(if bad_count > 0 && exit == Exit::Done {
        Exit::Failed
    } else {
        exit
    })
}

fn counted(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

fn read(file: &std::path::Path) -> Result<Imported> {
    let imported = if file.as_os_str() == "-" {
        import::read(std::io::stdin().lock())
    } else {
        File::open(file).and_then(|file| import::read(BufReader::new(file)))
    };
    imported.map_err(|error| Failed::new(Exit::BadInput, format!("{}: {error}", file.display())))
}

pub fn blocks(args: &Args, command: &BlockCommand) -> Result<Exit> {
    match command {
        BlockCommand::List => {
            let Entries {
                entries,
                forwarded,
                unfiltered,
            } = entries(args, Request::ListBlocks)?;
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
    Ok(Exit::Done)
}

pub fn reload(args: &Args) -> Result<Exit> {
    let Answer::Reloaded { changed, warnings } = ask(args, Request::Reload)? else {
        return Err(unexpected());
    };
    let text = if changed {
        "the new configuration is in force\n"
    } else {
        "nothing has changed\n"
    };
    if args.json {
        print_json(&serde_json::json!({"changed": changed, "warnings": warnings}))?
    } else {
        print(&render::warnings(&warnings))?;
        print(text)?
    }
    Ok(Exit::Done)
}
