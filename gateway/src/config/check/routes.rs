//! `routes`: what is matched, and what happens to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::upstreams::Upstreams;
use super::validate::Documents;
use super::{
    actions, auth, coding, conflicts, cors, errors, label, limits, matches, messages, rate, rewrite, validate,
};
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{
    Action, Conditions, HostMatch, HostRewrite, PathMatch, Route, UpstreamId, ValueMatch,
};
use crate::config::scalar::or_off;

pub(super) fn routes<'t>(
    walk: &mut Walk,
    top: &mut Table<'t>,
    upstreams: &mut Upstreams<'_>,
    shared: &mut rate::Named<'_>,
) -> Vec<Arc<Route>> {
    let mut auths = auth::named(walk, top);
    let items = top.list(walk, "routes");
    let mut routes: Vec<(Arc<Route>, Field<'_>)> = Vec::with_capacity(items.len());
    let mut documents = Documents::default();
    for item in items {
        let read = walk.table(&item, |walk, table| {
            route(walk, table, upstreams, &mut auths, &mut documents, shared)
        });
        routes.extend(read.flatten().map(|route| (Arc::new(route), item)));
    }
    auths.finish(walk);
    conflicts::tell(walk, &routes);
    auth::reached(walk, &routes);
    let mut names: HashMap<&str, &Field<'_>> = HashMap::with_capacity(routes.len());
    for (route, field) in &routes {
        let Some(other) = names.insert(&route.name, field) else {
            continue;
        };
        let (name, place) = (quote(&route.name), other.place());
        let wrong = Wrong::new(format!("a route named {name} stands at {place} already"));
        walk.fault(field, wrong.hint("give one of them another name"));
    }
    routes.into_iter().map(|(route, _)| route).collect()
}

/// `None` if it can not even be told what is matched.
fn route(
    walk: &mut Walk,
    table: &mut Table<'_>,
    upstreams: &mut Upstreams<'_>,
    auths: &mut auth::Named<'_>,
    documents: &mut Documents,
    shared: &mut rate::Named<'_>,
) -> Option<Route> {
    let name = table.value(walk, "name", label(128));
    let matched = table
        .require(walk, "match", matches::HINT)
        .and_then(|field| matches::matched(walk, &field));
    let cors = cors::cors(walk, table);
    let auth = auths.of_route(walk, table);
    let throttle = rate::throttle(walk, table, shared);
    let path = matched.as_ref().map(|(_, path, _)| path);
    let request = messages::request(walk, table, path);
    let response = messages::response(walk, table, path);
    let validate = validate::validate(walk, table, documents);
    let own = own_limits(walk, table);
    let own_errors = errors::errors(walk, table);
    let compress = coding::compress(walk, table);
    let decompress = coding::decompress(walk, table);
    let source = table.field.place();
    let name = match (&name, &matched) {
        (Some(name), _) => name.clone(),
        (None, Some((host, path, when))) => described(host, path, when),
        (None, None) => source.clone(),
    };
    let split = upstreams.split(walk, table);
    let mirror = upstreams.mirror(walk, table);
    let rewrite = rewrite::rewrite(walk, table, path);
    let action = actions::action(walk, table, upstreams, &name, path, split.as_ref());
    let asked = split
        .iter()
        .flat_map(|split| split.parts.iter().map(|(id, _)| *id));
    let asked = asked.chain(action.as_ref().and_then(Action::upstream));
    if rewrite.host == HostRewrite::Upstream && asked.into_iter().any(|id| !upstreams.has_one_host(id)) {
        let wrong = Wrong::new(
            "the endpoints of the upstream have different hosts, so rewrite.host can not be upstream",
        );
        walk.fault(&table.field, wrong.hint("write the host out"));
    }
    let (host, path, when) = matched?;
    Some(Route {
        name,
        host,
        path,
        when,
        cors: cors.map(Box::new),
        auth,
        request: request.headers.into(),
        response: response.headers.into(),
        query: request.query.into(),
        status: response.status,
        errors: own_errors.into(),
        request_body: request.body.map(Box::new),
        response_body: response.body.map(Box::new),
        validate: validate.map(Box::new),
        rewrite: rewrite.into(),
        split: split.map(Box::new),
        mirror,
        // Nothing is built from a route with a fault; it still takes part in the search for conflicts.
        action: action.unwrap_or(Action::Forward(UpstreamId(usize::MAX))),
        compress,
        decompress,
        throttle: throttle.into(),
        body_bytes: own.body_bytes,
        response_header: own.response_header,
        total: own.total,
        tunnel_idle: own.tunnel_idle,
        tunnel_life: own.tunnel_life,
        source,
    })
}

#[derive(Default)]
struct OwnLimits {
    body_bytes: Option<u64>,
    response_header: Option<Duration>,
    total: Option<Duration>,
    tunnel_idle: Option<Duration>,
    tunnel_life: Option<Option<Duration>>,
}

fn own_limits(walk: &mut Walk, table: &mut Table<'_>) -> OwnLimits {
    let read = table.get(walk, "limits").and_then(|field| {
        walk.table(&field, |walk, table| OwnLimits {
            body_bytes: table
                .value(walk, "body_bytes", limits::body)
                .map(|cap| cap.unwrap_or(u64::MAX)),
            response_header: table.value(walk, "response_header", limits::time),
            total: table.value(walk, "total", limits::time),
            tunnel_idle: table.value(walk, "tunnel_idle", limits::time),
            tunnel_life: table.value(walk, "tunnel_life", or_off(limits::time)),
        })
    });
    read.unwrap_or_default()
}

/// The name of a route that was given none: what it matches, as written, such as `/users[POST]`.
fn described(host: &HostMatch, path: &PathMatch, when: &Conditions) -> String {
    let mut name = match host {
        HostMatch::Exact(host) => format!("{host}{}", path.pattern),
        HostMatch::Suffix(host) => format!("*.{host}{}", path.pattern),
        HostMatch::Any => path.pattern.clone(),
    };
    if !when.is_empty() {
        let condition = |name: &str, value: &ValueMatch| match value {
            ValueMatch::Exact(text) => format!("{name}={text}"),
            ValueMatch::Prefix(text) => format!("{name}={text}*"),
            ValueMatch::Regex(regex) => format!("{name}~{}", regex.source()),
            ValueMatch::Present => name.to_owned(),
            ValueMatch::Absent => format!("!{name}"),
        };
        let methods = when.methods.iter().map(ToString::to_string);
        let headers = when
            .headers
            .iter()
            .map(|(name, value)| condition(name.as_str(), value));
        let query = when
            .query
            .iter()
            .map(|(name, value)| condition(&format!("?{name}"), value));
        let all: Vec<_> = methods.chain(headers).chain(query).collect();
        name += &format!("[{}]", all.join(","));
    }
    name
}
