//! `xdp`: interfaces, lists, the SYN limit and the sizes of the kernel tables.

use std::time::Duration;

use ipnet::IpNet;

use super::files;
use super::lists::{Listed, listed};
use super::packets;
use crate::config::decode::{Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Capacity, Xdp, XdpMode};
use crate::config::scalar::{choice, number, or_off, within};
use crate::config::units;

const MODES: [(&str, XdpMode); 4] = [
    ("auto", XdpMode::Auto),
    ("native", XdpMode::Native),
    ("generic", XdpMode::Generic),
    ("none", XdpMode::None),
];

/// Most entries of one kernel table. More is memory that the machine is unlikely to have.
const MOST_ENTRIES: u32 = 1 << 24;
const NO_INTERFACES: &str =
    "name them, such as interfaces: [eth0], or set mode: none to run without the kernel";

const NO_XDP: &str = "such as xdp: {interfaces: [eth0]}, or xdp: {mode: none} to run without the kernel";

pub(super) fn xdp(walk: &mut Walk, top: &mut Table<'_>) -> Xdp {
    let off = defaults::xdp();
    if !top.has("xdp") {
        walk.fault(&top.field, Wrong::new("key \"xdp\" is missing").hint(NO_XDP));
    }
    let Some(field) = top.get(walk, "xdp") else {
        return off;
    };
    let read = walk.table(&field, |walk, table| {
        let mode = table.value_or(walk, "mode", off.mode, choice(&MODES));
        let interfaces = interfaces(walk, table, mode);
        let allow = listed(walk, table, "allow");
        let deny = listed(walk, table, "deny");
        let capacity = table
            .get(walk, "capacity")
            .and_then(|field| walk.table(&field, sizes))
            .unwrap_or(off.capacity);
        fits(
            walk,
            &allow,
            "allow",
            capacity.allow_addresses,
            capacity.allow_prefixes,
        );
        fits(
            walk,
            &deny,
            "deny",
            capacity.deny_addresses,
            capacity.deny_prefixes,
        );
        warn_of_everything(
            walk,
            &allow,
            "their packets pass unseen, and none of them is ever denied or blocked",
        );
        warn_of_everything(walk, &deny, "nothing gets through but what is allowed");
        warn_without_effect(walk, &deny, &allow);
        let every = || {
            let range = Duration::from_millis(1)..=Duration::from_secs(3600);
            within(range, units::duration, units::show_duration)
        };
        let syn = packets::syn_limits(walk, table);
        let malformed = packets::malformed(walk, table, &interfaces);
        Xdp {
            mode,
            interfaces,
            allow: allow.nets,
            deny: deny.nets,
            allow_sources: allow.sources,
            deny_sources: deny.sources,
            syn_limit: syn.source,
            syn_aggregate: syn.aggregate,
            syn_total: syn.total,
            syn_cookies: packets::syn_cookies(walk, table),
            icmp_limit: packets::limit(walk, table, "icmp_limit"),
            udp_limit: packets::limit(walk, table, "udp_limit"),
            observe: packets::observe(walk, table),
            malformed,
            capacity,
            pin_dir: table.value_or(walk, "pin_dir", off.pin_dir.clone(), files::absolute),
            log_drops_every: table.value_or(walk, "log_drops_every", off.log_drops_every, or_off(every())),
            events_every: table.value_or(walk, "events_every", off.events_every, every()),
        }
    });
    read.unwrap_or(off)
}

fn interfaces(walk: &mut Walk, table: &mut Table<'_>, mode: XdpMode) -> Vec<String> {
    let Some(field) = table.get(walk, "interfaces") else {
        if mode != XdpMode::None && !table.has("interfaces") {
            walk.fault(
                &table.field,
                Wrong::new("key \"interfaces\" is missing").hint(NO_INTERFACES),
            );
        }
        return Vec::new();
    };
    let mut names = Vec::new();
    for item in walk.list(&field) {
        let Some(name) = walk.value(&item, interface) else {
            continue;
        };
        if names.contains(&name) {
            walk.fault(
                &item,
                Wrong::new(format!("interface {} is given twice", quote(&name))),
            );
        }
        names.push(name);
    }
    let given = matches!(&field.node.value, crate::config::raw::Value::List(items) if !items.is_empty());
    if mode == XdpMode::None && given {
        walk.warn(
            &field,
            Wrong::new("mode is none: no program is attached to these interfaces"),
        );
    } else if mode != XdpMode::None && !given {
        walk.fault(
            &field,
            Wrong::new("there are no interfaces to filter").hint(NO_INTERFACES),
        );
    }
    names
}

/// A name as the kernel takes it (`dev_valid_name`): up to 15 bytes, no slash, colon or blank.
fn interface(text: &str) -> Result<String, Wrong> {
    let bad = |b: u8| !b.is_ascii_graphic() || matches!(b, b'/' | b':');
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.bytes().any(bad) {
        let wrong = Wrong::new(format!("{} can not be the name of an interface", quote(text)));
        return Err(wrong.hint("`ip link` lists the names"));
    }
    Ok(text.to_owned())
}

fn sizes(walk: &mut Walk, table: &mut Table<'_>) -> Capacity {
    let standard = defaults::capacity();
    let mut size = |key, default| table.value_or(walk, key, default, number(1..=MOST_ENTRIES));
    Capacity {
        deny_addresses: size("deny_addresses", standard.deny_addresses),
        deny_prefixes: size("deny_prefixes", standard.deny_prefixes),
        allow_addresses: size("allow_addresses", standard.allow_addresses),
        allow_prefixes: size("allow_prefixes", standard.allow_prefixes),
        blocks: size("blocks", standard.blocks),
    }
}

fn fits(walk: &mut Walk, list: &Listed<'_>, name: &str, addresses: u32, prefixes: u32) {
    let Some(last) = list.parts.last() else { return };
    for wrong in too_many(&list.nets, name, addresses, prefixes) {
        walk.fault(&last.field, wrong);
    }
}

/// A list that can not be enforced whole is not enforced in part: it is a fault.
pub(super) fn too_many(
    nets: &[IpNet],
    name: &str,
    addresses: u32,
    prefixes: u32,
) -> impl Iterator<Item = Wrong> {
    let (mut single, mut v4, mut v6) = (0, 0, 0);
    for net in nets {
        match net {
            _ if net.prefix_len() == net.max_prefix_len() => single += 1,
            IpNet::V4(_) => v4 += 1,
            IpNet::V6(_) => v6 += 1,
        }
    }
    let counts = [
        ("addresses", single, addresses),
        ("prefixes", v4, prefixes),
        ("prefixes", v6, prefixes),
    ];
    counts
        .into_iter()
        .filter(|(_, count, room)| *count > *room as usize)
        .map(move |(what, count, room)| {
            let wrong = Wrong::new(format!("{count} {what} do not fit into a table of {room}"));
            wrong.hint(format!("raise xdp.capacity.{name}_{what}"))
        })
}

fn warn_of_everything(walk: &mut Walk, list: &Listed<'_>, so: &str) {
    for part in &list.parts {
        if let Some(net) = list.nets[part.range.clone()]
            .iter()
            .find(|net| units::is_everything(net))
        {
            walk.warn(
                &part.field,
                Wrong::new(format!("{net} is every {} address: {so}", family(net))),
            );
        }
    }
}

fn family(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

fn warn_without_effect(walk: &mut Walk, deny: &Listed<'_>, allow: &Listed<'_>) {
    let covered = deny.under(allow);
    for part in &deny.parts {
        let mut under = part.range.clone().filter(|index| covered(*index));
        let Some(first) = under.next() else { continue };
        let net = units::plain(deny.nets[first]);
        let message = match under.count() {
            0 => format!("{net} has no effect: it is under an allow entry, and allow comes first"),
            n => format!(
                "{net} and {n} more have no effect: they are under allow entries, and allow comes first"
            ),
        };
        walk.warn(&part.field, Wrong::new(message));
    }
}
