//! `routes`: what is matched, and what happens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::headers::{self, Message};
use super::upstreams::Upstreams;
use super::{auth, label, limits, patterns};
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{HostMatch, PathMatch, Route, Split, UpstreamId};

const MATCH_HINT: &str = "such as match: {path: /api/**}; /** is every path";

pub(super) fn routes(walk: &mut Walk, top: &mut Table<'_>, upstreams: &mut Upstreams<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut reaches = BTreeMap::new();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for item in top.list(walk, "routes") {
        let Some(route) = walk
            .table(&item, |walk, table| route(walk, table, upstreams))
            .flatten()
        else {
            continue;
        };
        let reach = patterns::reach(&route.host, &route.path);
        if let Some(place) = reaches.insert(reach, item.place()) {
            let wrong = Wrong::new(format!(
                "this route matches the same requests as the one at {place}"
            ));
            walk.fault(
                &item,
                wrong.hint("names of captures make no difference; remove one"),
            );
        } else if let Some(place) = names.insert(route.name.clone(), item.place()) {
            let wrong = Wrong::new(format!(
                "a route named {} stands at {place} already",
                quote(&route.name)
            ));
            walk.fault(&item, wrong.hint("give one of them another name"));
        }
        routes.push(route);
    }
    routes
}

/// `None` if it can not even be told what is matched.
fn route(walk: &mut Walk, table: &mut Table<'_>, upstreams: &mut Upstreams<'_>) -> Option<Route> {
    let name = table.value(walk, "name", label(128));
    let matched = table
        .require(walk, "match", MATCH_HINT)
        .and_then(|field| matched(walk, &field));
    let auth = auth::auth(walk, table);
    let rate_limit = auth::rate_limit(walk, table);
    let request = headers::edits(walk, table, "request", Message::Request);
    let response = headers::edits(walk, table, "response", Message::Response);
    let (body_bytes, response_header) = own_limits(walk, table);
    let source = table.field.place();
    let name = match (&name, &matched) {
        (Some(name), _) => name.clone(),
        (None, Some((host, path))) => described(host, path),
        (None, None) => source.clone(),
    };
    let split = upstreams.split(walk, table);
    let mirror = upstreams.mirror(walk, table);
    let upstream = target(walk, table, upstreams, &name, split.as_ref());
    let (host, path) = matched?;
    // Nothing is built from a route with a fault; it still takes part in the search for duplicates.
    let upstream = upstream.unwrap_or(UpstreamId(usize::MAX));
    Some(Route {
        name,
        host,
        path,
        auth,
        request,
        response,
        upstream,
        split,
        mirror,
        rate_limit,
        body_bytes,
        response_header,
        source,
    })
}

/// The one upstream, or the first of several.
fn target(
    walk: &mut Walk,
    table: &mut Table<'_>,
    upstreams: &mut Upstreams<'_>,
    name: &str,
    split: Option<&Split>,
) -> Option<UpstreamId> {
    const HINT: &str = "a name of upstreams, or [{url: \"http://127.0.0.1:9000\"}]";
    if !table.has("upstreams") {
        let field = table.require(walk, "upstream", HINT)?;
        return upstreams.of_route(walk, &field, name);
    }
    if let Some(field) = table.get(walk, "upstream") {
        let wrong = Wrong::new("a route has either upstream or upstreams");
        walk.fault(&field, wrong.hint("put it into the list of upstreams"));
    }
    Some(split?.parts.first()?.0)
}

fn matched(walk: &mut Walk, field: &Field<'_>) -> Option<(HostMatch, PathMatch)> {
    walk.table(field, |walk, table| {
        let host = table.get(walk, "host");
        let path = table.require(walk, "path", MATCH_HINT);
        let host = match host {
            None => Some(HostMatch::Any),
            Some(field) => walk.value(&field, patterns::host),
        };
        let path = path.and_then(|field| walk.value(&field, patterns::path));
        host.zip(path)
    })?
}

fn own_limits(walk: &mut Walk, table: &mut Table<'_>) -> (Option<u64>, Option<Duration>) {
    let read = table.get(walk, "limits").and_then(|field| {
        walk.table(&field, |walk, table| {
            let body = table
                .value(walk, "body_bytes", limits::body)
                .map(|cap| cap.unwrap_or(u64::MAX));
            (body, table.value(walk, "response_header", limits::time))
        })
    });
    read.unwrap_or_default()
}

/// The name of a route that was given none: what it matches, as written.
fn described(host: &HostMatch, path: &PathMatch) -> String {
    match host {
        HostMatch::Exact(host) => format!("{host}{}", path.pattern),
        HostMatch::Suffix(host) => format!("*.{host}{}", path.pattern),
        HostMatch::Any => path.pattern.clone(),
    }
}
