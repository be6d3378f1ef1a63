//! Fewer networks that cover the same addresses, at every moment and for the same reasons.

use ipnet::IpNet;

use crate::dataplane::lines::Line;

/// Single addresses are joined from so many on: a table of addresses answers faster than one of networks, and one
/// network in the latter has every packet looked up there.
const JOINED_BITS: u8 = 3;

struct Node {
    line: Line,
    /// Whether nothing but single addresses is in it.
    singles: bool,
}

/// Joins entries, which are sorted and name each network once, in two ways:
///
/// * an entry inside another one that lasts at least as long goes, unless it has a reason of its own;
/// * two halves of a network with the same end and reason become that network.
#[must_use]
pub fn aggregate(entries: Vec<Line>) -> Vec<Line> {
    let mut nodes: Vec<Node> = Vec::with_capacity(entries.len());
    // Networks around the entry at hand, each within the one before.
    let mut around: Vec<Line> = Vec::new();
    for line in entries {
        while around.last().is_some_and(|cover| !cover.net.contains(&line.net)) {
            around.pop();
        }
        if around.iter().any(|cover| makes_void(cover, &line)) {
            continue;
        }
        let full = is_full(&line.net);
        if !full {
            around.push(line.clone());
        }
        nodes.push(Node { line, singles: full });
        while join_last(&mut nodes) {}
    }
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        let net = node.line.net;
        if node.singles && !is_full(&net) && net.max_prefix_len() - net.prefix_len() < JOINED_BITS {
            let apart = net.subnets(net.max_prefix_len()).into_iter().flatten();
            entries.extend(apart.map(|net| Line {
                net,
                ..node.line.clone()
            }));
        } else {
            entries.push(node.line);
        }
    }
    entries
}

fn is_full(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn makes_void(cover: &Line, line: &Line) -> bool {
    let outlasts = match (cover.until_ms, line.until_ms) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(cover), Some(line)) => cover >= line,
    };
    outlasts && (line.reason.is_none() || line.reason == cover.reason)
}

/// Joins the last two if they are halves of one network. Whether they were.
fn join_last(nodes: &mut Vec<Node>) -> bool {
    let [before @ .., a, b] = nodes.as_mut_slice() else {
        return false;
    };
    if a.line.net.prefix_len() != b.line.net.prefix_len() || a.line.net == b.line.net {
        return false;
    }
    let (Some(whole), Some(other)) = (a.line.net.supernet(), b.line.net.supernet()) else {
        return false;
    };
    let alike = (a.line.until_ms, &a.line.reason) == (b.line.until_ms, &b.line.reason);
    // If the whole itself is listed, with another end or reason, it stands right before its first half.
    let listed = before.last().is_some_and(|node| node.line.net == whole);
    if whole != other || !alike || listed {
        return false;
    }
    a.singles &= b.singles;
    a.line.net = whole;
    nodes.pop();
    true
}
