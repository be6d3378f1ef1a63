//! Which route takes a request. Owns the order of specificity; knows nothing of what a route does.
//!
//! The order, most specific first:
//! 1. An exact host before a suffix, a longer suffix before a shorter, any host last.
//! 2. Within a host: a path that is literal throughout, then regular expressions, then patterns, segment by segment from
//!    the left: a literal before a capture before `**` in the middle before the rest (`/**`). A `**` takes as few segments
//!    as will do.
//! 3. Within a path, by [`Conditions::rank`]. Two routes of one rank never fit one request: the configuration's check
//!    refuses such pairs.
//!
//! What fits in host and path and not in its conditions is passed over, and so is a host none of whose paths fit:
//! `/status/**` for any host is meant for any host. The cost depends on the length of the path and on the routes that
//! share host and path (or have a regular expression for the host), which are bounded, not on the number of routes.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, Method};

use super::query;
use crate::config::model::{Conditions, HostMatch, PathMatch, Pattern, Rank, Segment, Shape, ValueMatch};

/// Routes by host, path and conditions; `T` is what is found.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<Box<str>, Paths<T>>,
    suffix: HashMap<Box<str>, Paths<T>>,
    any: Paths<T>,
}

/// What a request is, as far as routes ask for it besides host and path.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'r> {
    pub method: &'r Method,
    pub headers: &'r HeaderMap,
    pub query: Option<&'r str>,
    /// The request asks whether another may be sent, whose header lines are not known: those conditions count as met.
    pub preflight: bool,
}

#[derive(Debug)]
struct Paths<T> {
    root: Node<T>,
    /// Highest rank first.
    regexes: Vec<(Pattern, Entry<T>)>,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<Box<str>, Self>,
    capture: Option<Box<Self>>,
    /// After any number of segments.
    glob: Option<Box<Self>>,
    /// The path ends here. Highest rank first.
    end: Vec<Entry<T>>,
    /// Whatever follows. Highest rank first.
    rest: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    when: Option<Box<Conditions>>,
    route: T,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::new(),
            capture: None,
            glob: None,
            end: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            regexes: Vec::new(),
        }
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            suffix: HashMap::new(),
            any: Paths::default(),
        }
    }
}

impl<T> Router<T> {
    /// Adds a route.
    pub fn insert(&mut self, host: &HostMatch, path: &PathMatch, when: &Conditions, route: T) {
        let paths = match host {
            HostMatch::Exact(host) => self.exact.entry(host.as_str().into()).or_default(),
            HostMatch::Suffix(host) => self.suffix.entry(host.as_str().into()).or_default(),
            HostMatch::Any => &mut self.any,
        };
        let entry = Entry {
            when: (!when.is_empty()).then(|| Box::new(when.clone())),
            route,
        };
        let (segments, prefix) = match &path.shape {
            Shape::Segments { segments, prefix } => (segments, *prefix),
            Shape::Regex(pattern) => {
                let at = paths
                    .regexes
                    .partition_point(|(_, other)| other.rank() >= entry.rank());
                paths.regexes.insert(at, (pattern.clone(), entry));
                return;
            }
        };
        let mut node = &mut paths.root;
        for segment in plain(segments) {
            node = match segment {
                Segment::Literal(literal) => node.literals.entry(literal.as_str().into()).or_default(),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
                Segment::Glob => node.glob.get_or_insert_default(),
            };
        }
        let place = if prefix { &mut node.rest } else { &mut node.end };
        let at = place.partition_point(|other| other.rank() >= entry.rank());
        place.insert(at, entry);
        place.shrink_to_fit();
    }

    /// The most specific route for a host (lower case, no port), a canonical path and whatever else is asked.
    #[must_use]
    pub fn find(&self, host: &str, path: &str, ask: &Ask<'_>) -> Option<&T> {
        self.visit(host, path, &mut |entry| entry.fits(ask).then_some(&entry.route))
    }

    /// The methods with which some route would take the request; empty if none would.
    #[must_use]
    pub fn methods(&self, host: &str, path: &str, ask: &Ask<'_>) -> Vec<&Method> {
        let mut methods = Vec::new();
        let none: Option<()> = self.visit(host, path, &mut |entry| {
            if let Some(when) = &entry.when
                && let Some(method) = when.methods.first()
                && entry.fits(&Ask { method, ..*ask })
            {
                methods.extend(&when.methods);
            }
            None
        });
        debug_assert!(none.is_none());
        methods.sort_by_key(|method| method.as_str());
        methods.dedup();
        methods
    }

    /// Shows all that fits in host and path, in order, until `look` has found what it wants.
    fn visit<'s, R>(
        &'s self,
        host: &str,
        path: &str,
        look: &mut impl FnMut(&'s Entry<T>) -> Option<R>,
    ) -> Option<R> {
        if let Some(paths) = self.exact.get(host)
            && let Some(found) = paths.visit(path, look)
        {
            return Some(found);
        }
        if !self.suffix.is_empty() {
            for (dot, _) in host.match_indices('.') {
                if let Some(paths) = self.suffix.get(&host[dot + 1..])
                    && let Some(found) = paths.visit(path, look)
                {
                    return Some(found);
                }
            }
        }
        self.any.visit(path, look)
    }
}

/// The root alone has no segments, however it was split.
fn plain(segments: &[Segment]) -> &[Segment] {
    match segments {
        [Segment::Literal(only)] if only.is_empty() => &[],
        segments => segments,
    }
}

/// A path cut off after its next segment. `None` stands for the end.
fn cut(left: &str) -> (&str, Option<&str>) {
    match left.split_once('/') {
        Some((segment, after)) => (segment, Some(after)),
        None => (left, None),
    }
}

impl<T> Paths<T> {
    fn visit<'s, R>(&'s self, path: &str, look: &mut impl FnMut(&'s Entry<T>) -> Option<R>) -> Option<R> {
        let inner = path.strip_prefix('/')?;
        let left = (!inner.is_empty()).then_some(inner);
        if !self.regexes.is_empty() {
            if let Some(found) = self.root.literally(left).iter().find_map(&mut *look) {
                return Some(found);
            }
            for (pattern, entry) in &self.regexes {
                if pattern.is_match(path.as_bytes())
                    && let Some(found) = look(entry)
                {
                    return Some(found);
                }
            }
        }
        self.root.walk(left, look)
    }
}

impl<T> Node<T> {
    /// What ends where literals alone lead.
    fn literally(&self, mut left: Option<&str>) -> &[Entry<T>] {
        let mut node = self;
        while let Some(path) = left {
            let (segment, after) = cut(path);
            let Some(next) = node.literals.get(segment) else {
                return &[];
            };
            (node, left) = (next, after);
        }
        &node.end
    }

    /// `left` is what follows the last slash taken; `None` if the path has ended. The depth is that of the routes.
    fn walk<'s, R>(
        &'s self,
        left: Option<&str>,
        look: &mut impl FnMut(&'s Entry<T>) -> Option<R>,
    ) -> Option<R> {
        if let Some(path) = left {
            let (segment, after) = cut(path);
            if let Some(node) = self.literals.get(segment)
                && let Some(found) = node.walk(after, look)
            {
                return Some(found);
            }
            if let Some(node) = &self.capture
                && !segment.is_empty()
                && let Some(found) = node.walk(after, look)
            {
                return Some(found);
            }
            if let Some(node) = &self.glob
                && let Some(found) = node.walk_from_any(path, look)
            {
                return Some(found);
            }
        } else if let Some(found) = self.end.iter().find_map(&mut *look) {
            return Some(found);
        }
        self.rest.iter().find_map(look)
    }

    /// The walk after `**`, which is followed by a literal: begun at every segment in turn.
    fn walk_from_any<'s, R>(
        &'s self,
        path: &str,
        look: &mut impl FnMut(&'s Entry<T>) -> Option<R>,
    ) -> Option<R> {
        let mut left = Some(path);
        while let Some(path) = left {
            let (segment, after) = cut(path);
            if let Some(node) = self.literals.get(segment)
                && let Some(found) = node.walk(after, look)
            {
                return Some(found);
            }
            left = after;
        }
        None
    }
}

impl<T> Entry<T> {
    fn rank(&self) -> Option<Rank> {
        self.when.as_deref().map(Conditions::rank)
    }

    fn fits(&self, ask: &Ask<'_>) -> bool {
        self.when.as_deref().is_none_or(|when| fits(when, ask))
    }
}

fn fits(when: &Conditions, ask: &Ask<'_>) -> bool {
    let header = |(name, value): &(HeaderName, ValueMatch)| {
        let mut lines = ask.headers.get_all(name).iter();
        is_met(
            value,
            lines.next().map(http::HeaderValue::as_bytes),
            lines.next().is_some(),
        )
    };
    let parameter = |(name, value): &(String, ValueMatch)| {
        let mut values = query::values(ask.query.unwrap_or_default(), name);
        let first = values.next();
        is_met(value, first.as_deref(), values.next().is_some())
    };
    (when.methods.is_empty() || when.methods.contains(ask.method))
        && (ask.preflight || when.headers.iter().all(header))
        && when.query.iter().all(parameter)
}

/// `several`: there is a second value, so there is none that could be relied on.
fn is_met(condition: &ValueMatch, value: Option<&[u8]>, several: bool) -> bool {
    match (condition, value) {
        (ValueMatch::Absent, value) => value.is_none(),
        (_, None) => false,
        (ValueMatch::Present, Some(_)) => true,
        (_, Some(_)) if several => false,
        (ValueMatch::Exact(text), Some(value)) => value == text.as_bytes(),
        (ValueMatch::Prefix(text), Some(value)) => value.starts_with(text.as_bytes()),
        (ValueMatch::Regex(pattern), Some(value)) => pattern.is_match(value),
    }
}

#[cfg(test)]
mod tests;
