//! What is let through of those who are known: by method, path, address, name, scopes and claims. Pure.

use std::net::IpAddr;

use http::Method;
use http::request::Parts;
use serde_json::Value;

use super::Identity;
use crate::config::model::{self, ClaimMatch, Conditions, HostMatch};
use crate::http::router::{Ask, Router};

/// Entries of which one must hold.
#[derive(Debug)]
pub(super) struct Grants(Box<[Grant]>);

#[derive(Debug)]
struct Grant {
    model: model::Grant,
    /// The paths, as routes are found.
    paths: Option<Router<()>>,
}

impl Grants {
    /// None, if there is nothing to be asked for.
    pub(super) fn compile(models: &[model::Grant]) -> Option<Self> {
        if models.is_empty() {
            return None;
        }
        let compile = |model: &model::Grant| Grant {
            paths: (!model.paths.is_empty()).then(|| {
                let mut router = Router::default();
                for path in &model.paths {
                    router.insert(&HostMatch::Any, path, &Conditions::default(), ());
                }
                router
            }),
            model: model.clone(),
        };
        Some(Self(models.iter().map(compile).collect()))
    }

    /// Whether one of them holds.
    pub(super) fn cover(&self, identity: Option<&Identity>, client: IpAddr, head: &Parts) -> bool {
        self.0.iter().any(|grant| grant.covers(identity, client, head))
    }
}

impl Grant {
    fn covers(&self, identity: Option<&Identity>, client: IpAddr, head: &Parts) -> bool {
        let model = &self.model;
        if !model.methods.is_empty() && !model.methods.contains(&head.method) {
            return false;
        }
        if !model.clients.is_empty() && !model.clients.iter().any(|net| net.contains(&client)) {
            return false;
        }
        if let Some(paths) = &self.paths {
            let ask = Ask {
                method: &Method::GET,
                headers: &head.headers,
                query: None,
                preflight: false,
            };
            if paths.find("", head.uri.path(), &ask).is_none() {
                return false;
            }
        }
        let speaks = !(model.names.is_empty() && model.scopes.is_empty() && model.claims.is_empty());
        let Some(identity) = identity else { return !speaks };
        (model.names.is_empty() || model.names.iter().any(|name| **name == *identity.name))
            && holds(&model.scopes, &model.claims, identity)
    }
}

/// Whether a caller has all these scopes, and claims that are as they must be.
pub(super) fn holds(scopes: &[String], claims: &[ClaimMatch], identity: &Identity) -> bool {
    scopes.iter().all(|scope| identity.has_scope(scope)) && claims.iter().all(|claim| fits(claim, identity))
}

fn fits(wanted: &ClaimMatch, identity: &Identity) -> bool {
    let Some(value) = identity.claim(&wanted.claim).filter(|value| !value.is_null()) else {
        return false;
    };
    let is = |value: &Value| match value {
        Value::String(text) => wanted.values.iter().any(|one| one == text),
        Value::Number(_) | Value::Bool(_) => wanted.values.contains(&value.to_string()),
        _ => false,
    };
    wanted.values.is_empty()
        || match value {
            Value::Array(items) => items.iter().any(is),
            one => is(one),
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(name: &str, values: &[&str]) -> ClaimMatch {
        ClaimMatch {
            claim: name.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }
    }

    #[test]
    fn claims_fit_by_value_by_item_or_by_being_there() {
        let Value::Object(claims) = json!({"role": "admin", "groups": ["a", "b", 3], "n": 1, "ok": true, "nil": null, "r": {"x": ["y"]}})
        else {
            panic!("an object")
        };
        let identity = Identity {
            claims,
            ..Identity::named("n")
        };
        let fits = |name, values: &[&str]| fits(&claim(name, values), &identity);
        assert!(fits("role", &["ops", "admin"]) && !fits("role", &["adm"]));
        assert!(fits("groups", &["b"]) && fits("groups", &["3"]) && !fits("groups", &["c"]));
        assert!(fits("n", &["1"]) && fits("ok", &["true"]) && !fits("ok", &["1"]));
        assert!(fits("role", &[]) && fits("r", &[]) && fits("r.x", &["y"]) && !fits("r", &["y"]));
        assert!(!fits("nil", &[]) && !fits("missing", &[]) && !fits("nil", &["null"]));
    }

    #[test]
    fn everything_within_an_entry_must_hold_and_one_entry_is_enough() {
        let path = |text: &str| {
            let (body, prefix) = text
                .strip_suffix("/**")
                .map_or((text, false), |body| (body, true));
            model::PathMatch {
                pattern: text.into(),
                shape: model::Shape::Segments {
                    segments: body
                        .split('/')
                        .skip(1)
                        .map(|s| model::Segment::Literal(s.into()))
                        .collect(),
                    prefix,
                },
            }
        };
        let grants = Grants::compile(&[
            model::Grant {
                methods: vec![Method::GET],
                scopes: vec!["read".into()],
                ..model::Grant::default()
            },
            model::Grant {
                paths: vec![path("/admin/**"), path("/b")],
                names: vec!["root".into()],
                ..model::Grant::default()
            },
            model::Grant {
                clients: vec!["10.0.0.0/8".parse().unwrap()],
                ..model::Grant::default()
            },
        ])
        .unwrap();
        let ask = |method: &str, path: &str, name: Option<&str>, scopes: &[&str], client: &str| {
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            let identity = name.map(|name| Identity {
                scopes: scopes.iter().map(|scope| (*scope).into()).collect(),
                ..Identity::named(name)
            });
            grants.cover(
                identity.as_ref(),
                client.parse().unwrap(),
                &request.into_parts().0,
            )
        };
        let far = "192.0.2.1";
        assert!(ask("GET", "/x", Some("a"), &["read"], far));
        assert!(!ask("POST", "/x", Some("a"), &["read"], far));
        assert!(!ask("GET", "/x", Some("a"), &["write"], far));
        assert!(ask("POST", "/admin/x", Some("root"), &[], far) && ask("POST", "/b", Some("root"), &[], far));
        assert!(
            !ask("POST", "/admin/x", Some("a"), &[], far) && !ask("POST", "/b/c", Some("root"), &[], far)
        );
        assert!(ask("DELETE", "/x", None, &[], "10.1.2.3") && !ask("GET", "/x", None, &[], far));
        assert!(Grants::compile(&[]).is_none());
    }
}
