//! Who calls, as authentication has found out: what limits, edits, rules and the log may speak of. Owns the form that all
//! ways of authentication are brought into; knows none of them.

use std::sync::Arc;

use serde_json::{Map, Value};

/// The holder of credentials that were verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// The holder of a key, the user of a password, the subject of a token or certificate.
    pub name: Arc<str>,
    /// What the credentials may be used for (RFC 6749, 3.3).
    pub scopes: Vec<Box<str>>,
    /// What else is vouched for: claims of a token, labels of a key, fields of a certificate.
    pub claims: Map<String, Value>,
}

impl Identity {
    /// With a name and nothing else.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| **own == *scope)
    }

    /// This one, with what another way of authentication vouches for as well. Of two claims of one name the first holds.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let mut all = self.clone();
        let new = other.scopes.iter().filter(|scope| !self.has_scope(scope));
        all.scopes.extend(new.cloned());
        for (name, claim) in &other.claims {
            all.claims.entry(name.as_str()).or_insert_with(|| claim.clone());
        }
        all
    }

    /// A claim by its name; or, where no claim has the whole name, by its path through objects, such as
    /// `realm_access.roles`.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.claims.get(path) {
            return Some(value);
        }
        let mut steps = path.split('.');
        let first = self.claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.as_object()?.get(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_or_by_its_path() {
        let claims = serde_json::json!({"a": {"b": {"c": 1}}, "https://x.example/role": "r", "a.b": 2});
        let Value::Object(claims) = claims else {
            panic!("an object")
        };
        let identity = Identity {
            claims,
            scopes: vec!["read".into()],
            ..Identity::named("n")
        };
        assert_eq!(identity.claim("a.b.c"), Some(&Value::from(1)));
        assert_eq!(identity.claim("a.b"), Some(&Value::from(2)));
        assert_eq!(identity.claim("https://x.example/role"), Some(&Value::from("r")));
        for missing in ["", "b", "a.c", "a.b.c.d", "."] {
            assert_eq!(identity.claim(missing), None, "{missing}");
        }
        assert!(identity.has_scope("read") && !identity.has_scope("rea"));
    }
}
