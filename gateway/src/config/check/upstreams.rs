//! `upstreams`: the services behind the gateway, by name or inline in a route.

mod dns;
mod endpoints;
mod settings;
mod shares;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::label;
use crate::config::decode::{Field, Key, Table, Walk};
use crate::config::fault::{Wrong, nearest, quote};
use crate::config::model::{Dns, Upstream, UpstreamId};
use crate::config::raw::Value;
use endpoints::endpoints;
pub(super) use settings::authorities;
pub(super) use shares::cookie;

/// The upstreams read so far.
pub(super) struct Upstreams<'t> {
    dns: Dns,
    list: Vec<Upstream>,
    /// The named ones. An inline upstream is its route's alone and can not be asked for by name.
    named: BTreeMap<String, UpstreamId>,
    /// The named ones that no route has asked for yet.
    unused: BTreeMap<UpstreamId, (Key<'t>, Field<'t>)>,
}

/// The mapping at the top: those that several routes share.
pub(super) fn named<'t>(walk: &mut Walk, top: &mut Table<'t>) -> Upstreams<'t> {
    let mut upstreams = Upstreams {
        dns: dns::dns(walk, top),
        list: Vec::new(),
        named: BTreeMap::new(),
        unused: BTreeMap::new(),
    };
    let Some(field) = top.get(walk, "upstreams") else {
        return upstreams;
    };
    for (key, field) in walk.entries(&field) {
        if let Err(wrong) = label(64)(key.text) {
            walk.fault_key(&field, &key, wrong);
        }
        let mut upstream = Upstream::new(key.text, Vec::new());
        // Kept even if it is bad, so that routes which name it are not told that it does not exist.
        let read = walk.table(&field, |walk, table| {
            settings::upstream(walk, table, &mut upstream)
        });
        read.unwrap_or_default();
        let id = upstreams.add(upstream);
        upstreams.named.insert(key.text.to_owned(), id);
        upstreams.unused.insert(id, (key, field));
    }
    upstreams
}

impl<'t> Upstreams<'t> {
    /// The `upstream` of a route: a name, or a list of endpoints.
    pub fn of_route(&mut self, walk: &mut Walk, field: &Field<'_>, route: &str) -> Option<UpstreamId> {
        match &field.node.value {
            Value::Text(name) => self.find(walk, field, name),
            Value::List(_) => {
                let endpoints = endpoints(walk, field);
                if self.named.contains_key(route) {
                    let wrong = Wrong::new(format!(
                        "this upstream would be called {} like the one in upstreams",
                        quote(route)
                    ));
                    walk.fault(field, wrong.hint("give the route another name"));
                }
                Some(self.add(Upstream::new(route, endpoints)))
            }
            other => {
                let wrong = Wrong::new(format!(
                    "expected a name or a list of endpoints, found {}",
                    other.kind()
                ));
                walk.fault(
                    field,
                    wrong.hint("write a name of upstreams, or [{url: \"http://127.0.0.1:9000\"}]"),
                );
                None
            }
        }
    }

    /// Whether all endpoints of an upstream are addressed by one host.
    pub fn has_one_host(&self, id: UpstreamId) -> bool {
        self.list
            .get(id.0)
            .is_none_or(|upstream| upstream.endpoints.is_empty() || upstream.authority().is_some())
    }

    /// The list, after a warning about what nobody uses.
    pub fn finish(self, walk: &mut Walk) -> Vec<Arc<Upstream>> {
        for (key, field) in self.unused.values() {
            let wrong = Wrong::new(format!("no route uses the upstream {}", quote(key.text)));
            walk.warn_key(field, key, wrong);
        }
        self.list.into_iter().map(Arc::new).collect()
    }

    fn add(&mut self, mut upstream: Upstream) -> UpstreamId {
        let id = UpstreamId(self.list.len());
        if upstream
            .endpoints
            .iter()
            .any(|endpoint| endpoint.address.is_name())
        {
            upstream.dns = self.dns.clone();
        }
        self.list.push(upstream);
        id
    }

    fn find(&mut self, walk: &mut Walk, field: &Field<'_>, name: &str) -> Option<UpstreamId> {
        if let Some(id) = self.named.get(name) {
            self.unused.remove(id);
            return Some(*id);
        }
        let wrong = Wrong::new(format!("there is no upstream {}", quote(name)));
        let hint = match nearest(name, self.named.keys().map(String::as_str)) {
            Some(known) => format!("did you mean {}?", quote(known)),
            None if name.contains("://") => format!("to name an address, write [{{url: {}}}]", quote(name)),
            None => "upstreams at the top names the shared ones".to_owned(),
        };
        walk.fault(field, wrong.hint(hint));
        None
    }
}
