//! Routes between which nothing decides: same host, same path, same rank, and a request that both would take.
//!
//! Owns that question. Methods and values are compared; regular expressions are compared exactly, by walking the product
//! of their automata: a pair that has no text in common is no conflict.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};

use super::patterns;
use crate::config::decode::{Field, Walk};
use crate::config::fault::{Wrong, counted};
use crate::config::model::{Conditions, Pattern, Route, Shape, ValueMatch, anchored};

/// Most routes of one host and path, and most routes of one host by regular expression: both are asked in turn.
const MOST_OF_ONE_PATH: usize = 256;
const MOST_REGEXES: usize = 64;
/// Most memory of one automaton in bytes, and most pairs of states that are looked at, before two expressions count as
/// having a text in common.
const MOST_AUTOMATON: usize = 1 << 20;
const MOST_PAIRS: usize = 1 << 16;

const HINT: &str = "give one of them another condition, so that no request fits both";

/// Tells of every route that is in conflict with one above it.
pub(super) fn tell(walk: &mut Walk, routes: &[(Arc<Route>, Field<'_>)]) {
    // Most have a reach of their own, and there may be thousands. A group goes by its first route.
    let mut first = HashMap::with_capacity(routes.len());
    let mut same_path: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut regexes: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, (route, _)) in routes.iter().enumerate() {
        let first = *first
            .entry(patterns::reach(&route.host, &route.path))
            .or_insert(index);
        if first != index {
            let group = same_path.entry(first).or_insert_with(|| vec![first]);
            group.push(index);
        }
        if let Shape::Regex(_) = route.path.shape {
            regexes.entry(&route.host).or_default().push(index);
        }
    }
    for group in same_path.values() {
        let meet = |one: &Route, other: &Route| meet(&one.when, &other.when);
        pairs(
            walk,
            routes,
            group,
            MOST_OF_ONE_PATH,
            "of one host and path",
            meet,
        );
    }
    let mut automata = BTreeMap::new();
    for group in regexes.values() {
        pairs(
            walk,
            routes,
            group,
            MOST_REGEXES,
            "of one host with a regex",
            |one, other| {
                let (Shape::Regex(a), Shape::Regex(b)) = (&one.path.shape, &other.path.shape) else {
                    return false;
                };
                // The same expression twice has been told of.
                a != b && meet(&one.when, &other.when) && {
                    for pattern in [a, b] {
                        let key = pattern.source().to_owned();
                        automata.entry(key).or_insert_with(|| automaton(pattern.source()));
                    }
                    share_a_text(automata.get(a.source()), automata.get(b.source()))
                }
            },
        );
    }
}

fn pairs(
    walk: &mut Walk,
    routes: &[(Arc<Route>, Field<'_>)],
    group: &[usize],
    most: usize,
    of: &str,
    mut meet: impl FnMut(&Route, &Route) -> bool,
) {
    if let Some((_, field)) = group.get(most).and_then(|index| routes.get(*index)) {
        let wrong = Wrong::new(format!("{} {of}: at most {most}", counted(group.len(), "route")));
        walk.fault(field, wrong.hint("they are asked in turn for each request"));
        return;
    }
    let mut ranked: Vec<_> = group.iter().filter_map(|index| routes.get(*index)).collect();
    ranked.sort_by_key(|(route, _)| route.when.rank());
    for group in ranked.chunk_by(|(a, _), (b, _)| a.when.rank() == b.when.rank()) {
        for (at, (route, field)) in group.iter().enumerate() {
            let above = group.iter().take(at);
            if let Some((_, other)) = above.into_iter().find(|(other, _)| meet(other, route)) {
                let place = other.place();
                let wrong = if route.when.is_empty() && !matches!(route.path.shape, Shape::Regex(_)) {
                    Wrong::new(format!(
                        "this route matches the same requests as the one at {place}"
                    ))
                    .hint("names of captures make no difference; remove one")
                } else {
                    let message = "a request can match this route and the one at";
                    Wrong::new(format!("{message} {place}, and neither is more specific")).hint(HINT)
                };
                walk.fault(field, wrong);
            }
        }
    }
}

/// Whether one request can meet both.
fn meet(one: &Conditions, other: &Conditions) -> bool {
    let methods = one.methods.is_empty()
        || other.methods.is_empty()
        || one.methods.iter().any(|method| other.methods.contains(method));
    methods && values_meet(&one.headers, &other.headers) && values_meet(&one.query, &other.query)
}

fn values_meet<N: PartialEq>(one: &[(N, ValueMatch)], other: &[(N, ValueMatch)]) -> bool {
    let pair = |(name, value): &(N, ValueMatch)| {
        let twin = other.iter().find(|(other, _)| other == name);
        twin.is_none_or(|(_, other)| value_meets(value, other))
    };
    one.iter().all(pair)
}

fn value_meets(one: &ValueMatch, other: &ValueMatch) -> bool {
    use ValueMatch::{Absent, Exact, Prefix, Present, Regex};
    match (one, other) {
        (Absent, Absent) => true,
        (Absent, _) | (_, Absent) => false,
        (Present, _) | (_, Present) => true,
        (Exact(a), Exact(b)) => a == b,
        (Exact(text), Prefix(prefix)) | (Prefix(prefix), Exact(text)) => text.starts_with(prefix),
        (Prefix(a), Prefix(b)) => a.starts_with(b) || b.starts_with(a),
        (Exact(text), Regex(pattern)) | (Regex(pattern), Exact(text)) => pattern.is_match(text.as_bytes()),
        (Prefix(prefix), Regex(pattern)) | (Regex(pattern), Prefix(prefix)) => {
            let begins = format!("{}(?s-u:.*)", regex::escape(prefix));
            shares(pattern, &begins)
        }
        (Regex(a), Regex(b)) => a == b || shares(a, b.source()),
    }
}

fn shares(pattern: &Pattern, other: &str) -> bool {
    share_a_text(Some(&automaton(pattern.source())), Some(&automaton(other)))
}

type Dfa = dense::DFA<Vec<u32>>;

/// `None` if it is too large.
fn automaton(source: &str) -> Option<Dfa> {
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::All)
                .dfa_size_limit(Some(MOST_AUTOMATON))
                .determinize_size_limit(Some(MOST_AUTOMATON)),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
        .build(&anchored(source))
        .ok()
}

/// Whether some text matches both. What is too large to tell counts as yes.
fn share_a_text(one: Option<&Option<Dfa>>, other: Option<&Option<Dfa>>) -> bool {
    let (Some(Some(one)), Some(Some(other))) = (one, other) else {
        return true;
    };
    let start = |dfa: &Dfa| {
        dfa.universal_start_state(Anchored::Yes)
            .or_else(|| first_state(dfa))
    };
    let (Some(a), Some(b)) = (start(one), start(other)) else {
        return true;
    };
    let mut seen = HashSet::from([(a, b)]);
    let mut open: Vec<(StateID, StateID)> = vec![(a, b)];
    while let Some((a, b)) = open.pop() {
        if one.is_match_state(one.next_eoi_state(a)) && other.is_match_state(other.next_eoi_state(b)) {
            return true;
        }
        for byte in 0..=u8::MAX {
            let next = (one.next_state(a, byte), other.next_state(b, byte));
            if one.is_dead_state(next.0) || other.is_dead_state(next.1) || !seen.insert(next) {
                continue;
            }
            if seen.len() > MOST_PAIRS {
                return true;
            }
            open.push(next);
        }
    }
    false
}

fn first_state(dfa: &Dfa) -> Option<StateID> {
    let config = regex_automata::util::start::Config::new().anchored(Anchored::Yes);
    dfa.start_state(&config).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_share_a_text_or_not() {
        for (one, other, expected) in [
            ("/a/.*", "/b/.*", false),
            ("/a/.*", "/a/b", true),
            ("/[0-9]+", "/[a-z]+", false),
            ("/[0-9]+x?", "/[0-9]*x", true),
            ("/(a|b)+", "/(c|d)*", false),
            ("/(a|b)*", "/(c|d)*", true),
            ("/a.*z", "/a.*y", false),
            ("/x{2,}", "/x", false),
            ("(?i)/a", "/A", true),
            ("/a", "/ab", false),
        ] {
            let shared = share_a_text(Some(&automaton(one)), Some(&automaton(other)));
            assert_eq!(shared, expected, "{one} {other}");
        }
    }

    #[test]
    fn what_is_too_large_to_tell_counts_as_shared() {
        let large = automaton("/(a|b)*a(a|b){18}");
        assert!(large.is_none());
        assert!(share_a_text(Some(&large), Some(&automaton("/c"))));
    }

    #[test]
    fn values_meet_where_one_fits_both() {
        use ValueMatch::{Absent, Exact, Prefix, Present, Regex};
        let exact = |text: &str| Exact(text.into());
        let prefix = |text: &str| Prefix(text.into());
        let regex = |text: &str| Regex(Pattern::new(text).expect("an expression"));
        for (one, other, expected) in [
            (exact("a"), exact("a"), true),
            (exact("a"), exact("b"), false),
            (exact("ab"), prefix("a"), true),
            (exact("ba"), prefix("a"), false),
            (prefix("a"), prefix("ab"), true),
            (prefix("b"), prefix("ab"), false),
            (Present, exact("a"), true),
            (Absent, exact("a"), false),
            (Absent, Present, false),
            (regex("[0-9]+"), exact("7"), true),
            (regex("[0-9]+"), exact("x"), false),
            (regex("[0-9]+"), prefix("7"), true),
            (regex("[0-9]+"), prefix("x"), false),
            (regex("[0-9]+"), regex("[a-z]+"), false),
        ] {
            assert_eq!(value_meets(&one, &other), expected, "{one:?} {other:?}");
            assert_eq!(value_meets(&other, &one), expected, "{other:?} {one:?}");
        }
    }
}
