//! The two verbs: from a file to an order, from an answer to text and exit code.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;

use super::{ImportArgs, Imported, Progress, aggregate, line, read};
use ipnet::IpNet;

use crate::admin::api::{Answer, ImportRules, ProtectedRow, Request, RuleList};
use crate::cli::args::Args;
use crate::cli::ask::{ask, unexpected};
use crate::cli::render::clean;
use crate::cli::{Exit, Failed, Result, operator, rules};
use crate::config::units::plain;
use crate::dataplane::clock::Now;
use crate::dataplane::lines::{self, Reasons};

/// Places named for one network that was refused.
const PLACES: usize = 5;

/// Reads a list, and has it enforced.
pub fn import(args: &Args, list: RuleList, order: &ImportArgs) -> Result<Exit> {
    let mut progress = Progress::new();
    let now = Now::read();
    let shown = order.file.display();
    let mut imported = open(order, now, &mut progress)?;
    let bad = imported.bad_count;
    tell(&imported, &order.file, &mut progress);
    if bad > 0 && !order.lenient && (order.strict || order.replace) {
        let lines = counted(bad, "bad line", "bad lines");
        let why = if order.strict {
            "--strict is given; nothing was changed"
        } else {
            "--replace takes a list whole; nothing was changed: mend it, or have bad lines left out with --lenient"
        };
        return Err(Failed::new(
            Exit::BadInput,
            format!("{shown}: {lines}, and {why}"),
        ));
    }
    let end = order.how.ttl.map(|ttl| now.wall_of_boot(now.after(ttl)));
    let reason = order.how.reason.as_deref().map(std::sync::Arc::from);
    for entry in &mut imported.entries {
        entry.until_ms = end.or(entry.until_ms);
        if let Some(reason) = &reason {
            entry.reason = Some(std::sync::Arc::clone(reason));
        }
    }
    let mut notes = notes(&imported);
    let mut entries = std::mem::take(&mut imported.entries);
    if entries.is_empty() {
        return Err(Failed::new(
            Exit::BadInput,
            format!("{shown}: no network in it; nothing was changed"),
        ));
    }
    if !order.no_aggregate {
        let before = entries.len();
        entries = aggregate::aggregate(entries);
        if entries.len() < before {
            notes.push(format!(
                "{before} networks became {}, which cover the same addresses",
                entries.len()
            ));
        }
    }
    progress.say(&format!("{} networks go to the gateway", entries.len()));
    let mut text = Vec::with_capacity(entries.len() * 20);
    for entry in &entries {
        lines::put(
            &mut text,
            &entry.net,
            entry.until_ms,
            false,
            entry.reason.as_deref(),
        );
    }
    drop(entries);
    let request = Request::ImportRules(ImportRules {
        list,
        replace: order.replace,
        force: order.how.force,
        operators: operator::addresses(),
        bytes: text.len() as u64,
        text,
    });
    let answer = ask(args, request);
    drop(progress);
    let answer = answer.map_err(|failed| placed(failed, &imported, &order.file))?;
    let Answer::Added(mut added) = answer else {
        return Err(unexpected());
    };
    added.notes.extend(notes);
    let exit = rules::report_added(args, &added)?;
    Ok(if bad > 0 && exit == Exit::Done {
        Exit::Failed
    } else {
        exit
    })
}

fn open(order: &ImportArgs, now: Now, progress: &mut Progress) -> Result<Imported> {
    let (file, name) = (&order.file, order.file.to_string_lossy());
    let imported = if file.as_os_str() == "-" {
        read(std::io::stdin().lock(), order.format, "", now.wall_ms, progress)
    } else {
        let open = |file| {
            read(
                BufReader::with_capacity(1 << 16, file),
                order.format,
                &name,
                now.wall_ms,
                progress,
            )
        };
        File::open(file).and_then(open)
    };
    imported.map_err(|error| Failed::new(Exit::BadInput, format!("{name}: {error}; nothing was changed")))
}

/// A refusal for the sake of who is protected, with the places in the file that it is about.
fn placed(failed: Failed, imported: &Imported, file: &Path) -> Failed {
    if failed.protected.is_empty() {
        return failed;
    }
    let (file, unit) = (file.display(), imported.unit);
    let mut lines = vec!["refused, and nothing was changed:".to_owned()];
    let mut told = 0;
    for ProtectedRow { net, shield, why } in &failed.protected {
        // The network may be several lines joined: those that someone protected is in are meant.
        let meant = |(mention, _): &&(IpNet, u32)| {
            (net.contains(mention) || mention.contains(net))
                && (shield.contains(mention) || mention.contains(shield))
        };
        for (mention, number) in imported.mentions.iter().filter(meant).take(PLACES) {
            lines.push(format!(
                "{file}: {unit} {number}: {} would cut off {why}",
                plain(*mention)
            ));
        }
        told += 1;
    }
    if failed.protected_in_all > told {
        lines.push(format!("and {} more", failed.protected_in_all - told));
    }
    lines.push("take them out, allow those addresses, or use --force if you mean it".to_owned());
    Failed {
        message: lines.join("\ngateway: "),
        ..failed
    }
}

/// Names the bad lines on standard error.
fn tell(imported: &Imported, file: &Path, progress: &mut Progress) {
    if imported.bad_count == 0 {
        return;
    }
    progress.say("");
    let mut out = std::io::stderr().lock();
    let shown = clean(&file.to_string_lossy());
    for line in &imported.bad {
        let _ = writeln!(out, "gateway: {shown}: {}", clean(line));
    }
    let more = imported.bad_count - imported.bad.len();
    if more > 0 {
        let _ = writeln!(out, "gateway: {shown}: and {more} more bad lines");
    }
}

fn notes(imported: &Imported) -> Vec<String> {
    let mut notes = Vec::new();
    if imported.repeated > 0 {
        let lines = counted(imported.repeated, "line repeats", "lines repeat");
        notes.push(format!("{lines} an earlier line; the last holds"));
    }
    if imported.ended > 0 {
        let entries = counted(imported.ended, "entry had", "entries had");
        notes.push(format!("{entries} ended already; left out"));
    }
    if imported.bad_count > 0 {
        let lines = counted(imported.bad_count, "bad line was", "bad lines were");
        notes.push(format!("{lines} left out"));
    }
    notes
}

fn counted(n: usize, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// Prints the commanded entries as `import` reads them again.
pub fn export(args: &Args, list: RuleList) -> Result<Exit> {
    let Answer::Exported { text, .. } = ask(args, Request::ExportRules { list })? else {
        return Err(unexpected());
    };
    let text = String::from_utf8(text).map_err(|_| unexpected())?;
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = write(&mut out, &text, args.json).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Failed, format!("standard output: {error}")))
        }
        _ => Ok(Exit::Done),
    }
}

fn write(out: &mut impl std::io::Write, text: &str, json: bool) -> std::io::Result<()> {
    let mut reasons = Reasons::default();
    if json {
        out.write_all(b"[")?;
    }
    for (number, text) in text.lines().enumerate() {
        let entry = lines::read(text, &mut reasons).map_err(std::io::Error::other)?;
        if json {
            out.write_all(if number == 0 { b"\n  " } else { b",\n  " })?;
            let mut object = serde_json::json!({"cidr": entry.net.to_string()});
            if let Some(until) = entry.until_ms {
                object["expires"] = super::text::seconds(until).into();
            }
            if let Some(reason) = &entry.reason {
                object["reason"] = (**reason).into();
            }
            out.write_all(object.to_string().as_bytes())?;
        } else {
            out.write_all(line(&entry).as_bytes())?;
        }
    }
    if json {
        out.write_all(b"\n]\n")?;
    }
    Ok(())
}
