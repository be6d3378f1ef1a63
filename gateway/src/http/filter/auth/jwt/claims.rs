//! What the claims of a token must say (RFC 7519, 4.1), strictly: a claim of the wrong type is not taken for one that is not
//! there. Pure.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::token::Fault;
use crate::config::model::Jwt;
use crate::http::filter::Identity;

/// Whom verified claims speak of, and until when that holds, in seconds since 1970.
///
/// # Errors
/// They do not hold now, or not here.
pub fn judge(model: &Jwt, claims: Map<String, Value>, now: u64) -> Result<(Arc<Identity>, u64), Fault> {
    let until = date(&claims, "exp")?
        .ok_or("it has no exp")?
        .saturating_add(model.leeway);
    if until <= now {
        return Err("it has expired");
    }
    if date(&claims, "nbf")?.is_some_and(|from| from > now.saturating_add(model.leeway)) {
        return Err("it is not valid yet");
    }
    date(&claims, "iat")?;
    let issuer = text(&claims, "iss")?;
    if !model.issuers.is_empty()
        && !issuer.is_some_and(|issuer| model.issuers.iter().any(|own| own == issuer))
    {
        return Err("it is of another issuer");
    }
    if let Some(wanted) = &model.audiences
        && !audiences(&claims)?
            .iter()
            .any(|audience| wanted.iter().any(|own| own == audience))
    {
        return Err("it is for another audience");
    }
    text(&claims, "sub")?;
    let mut identity = Identity {
        claims,
        ..Identity::default()
    };
    for name in &model.require {
        if identity.claim(name).is_none_or(Value::is_null) {
            return Err("a required claim is missing");
        }
    }
    identity.name = match identity.claim(&model.name_claim) {
        Some(Value::String(name)) => name.as_str().into(),
        Some(Value::Number(name)) => name.to_string().into(),
        None => "".into(),
        Some(_) => return Err("its claim with the name is neither text nor number"),
    };
    identity.scopes = scopes(&identity, &model.scope_claim)?;
    Ok((Arc::new(identity), until))
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<Option<&'c str>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("iss or sub is not text"),
    }
}

/// A point in time (RFC 7519, 2: NumericDate), which may have a fraction.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Fault> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err("exp, nbf or iat is not a number"),
    };
    match number.as_u64().or_else(|| whole(number.as_f64()?)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err("exp, nbf or iat is no point in time"),
    }
}

/// Without the fraction; more than there is room for is the end of time.
fn whole(number: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is not negative"
    )]
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, Fault> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(all)) => {
            let all: Option<Vec<_>> = all.iter().map(Value::as_str).collect();
            all.ok_or("aud holds something other than text")
        }
        Some(_) => Err("aud is neither text nor a list"),
    }
}

fn scopes(identity: &Identity, path: &str) -> Result<Vec<Box<str>>, Fault> {
    match identity.claim(path) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(text.split_ascii_whitespace().map(Into::into).collect()),
        Some(Value::Array(all)) => {
            let all: Option<Vec<Box<str>>> = all.iter().map(|one| one.as_str().map(Into::into)).collect();
            all.ok_or("its list of scopes holds something other than text")
        }
        Some(_) => Err("its scopes are neither text nor a list"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::model::{ClaimMatch, Place};

    fn model() -> Jwt {
        Jwt {
            place: Place::Bearer,
            keep: true,
            issuers: vec!["https://i".into()],
            audiences: Some(vec!["orders".into(), "shop".into()]),
            algorithms: vec![],
            keys: vec![],
            published: None,
            leeway: 30,
            require: vec!["tenant.id".into()],
            name_claim: "sub".into(),
            scope_claim: "scope".into(),
            scopes: vec![],
            claims: Vec::<ClaimMatch>::new(),
        }
    }

    /// The judgement of good claims with some of them changed; `null` takes one away.
    fn judged(change: Value) -> Result<(String, Vec<Box<str>>, u64), Fault> {
        let Value::Object(mut claims) = json!({
            "iss": "https://i", "aud": "orders", "sub": "alice", "exp": 1_000, "tenant": {"id": 7}
        }) else {
            panic!("an object")
        };
        let Value::Object(change) = change else {
            panic!("an object")
        };
        for (name, value) in change {
            if value.is_null() {
                claims.remove(&name);
            } else {
                claims.insert(name, value);
            }
        }
        judge(&model(), claims, 1_000).map(|(who, until)| (who.name.to_string(), who.scopes.clone(), until))
    }

    #[test]
    fn t32_times_are_numbers_and_an_end_is_a_must() {
        assert_eq!(judged(json!({})), Ok(("alice".into(), vec![], 1_030)));
        assert_eq!(judged(json!({"exp": null})).unwrap_err(), "it has no exp");
        for exp in [
            json!("2000"),
            json!(true),
            json!([2000]),
            json!({"a": 1}),
            json!(""),
        ] {
            assert_eq!(
                judged(json!({"exp": exp})).unwrap_err(),
                "exp, nbf or iat is not a number"
            );
        }
        assert_eq!(
            judged(json!({"exp": -1})).unwrap_err(),
            "exp, nbf or iat is no point in time"
        );
        assert_eq!(judged(json!({"exp": 970})).unwrap_err(), "it has expired");
        assert_eq!(judged(json!({"exp": 970.9})).unwrap_err(), "it has expired");
        assert!(judged(json!({"exp": 971})).is_ok(), "within the leeway");
        assert_eq!(judged(json!({"exp": 1e300})).unwrap().2, u64::MAX);
        assert_eq!(judged(json!({"exp": u64::MAX})).unwrap().2, u64::MAX);
        assert_eq!(judged(json!({"nbf": 1_031})).unwrap_err(), "it is not valid yet");
        assert!(judged(json!({"nbf": 1_030})).is_ok());
        assert_eq!(
            judged(json!({"nbf": "0"})).unwrap_err(),
            "exp, nbf or iat is not a number"
        );
        assert_eq!(
            judged(json!({"iat": "now"})).unwrap_err(),
            "exp, nbf or iat is not a number"
        );
    }

    #[test]
    fn t32_the_audience_is_text_or_a_list_of_it_and_one_of_ours() {
        for aud in [json!("shop"), json!(["x", "orders"])] {
            assert!(judged(json!({"aud": aud})).is_ok());
        }
        for aud in [
            json!("order"),
            json!("orders shop"),
            json!([]),
            json!(["x"]),
            json!("ORDERS"),
            Value::Null,
        ] {
            assert_eq!(
                judged(json!({"aud": aud})).unwrap_err(),
                "it is for another audience",
                "{aud}"
            );
        }
        for aud in [json!({"orders": 1}), json!(["orders", 1]), json!(1)] {
            assert!(judged(json!({"aud": aud})).is_err());
        }
    }

    #[test]
    fn the_rest_is_as_strict() {
        for iss in [json!("https://i/"), json!("http://i"), Value::Null] {
            assert_eq!(
                judged(json!({"iss": iss})).unwrap_err(),
                "it is of another issuer"
            );
        }
        assert!(judged(json!({"iss": ["https://i"]})).is_err());
        assert!(judged(json!({"sub": 7})).is_err());
        assert_eq!(judged(json!({"sub": null})).unwrap().0, "");
        assert_eq!(
            judged(json!({"tenant": {}})).unwrap_err(),
            "a required claim is missing"
        );
        let scopes = |value| judged(json!({"scope": value})).map(|(_, scopes, _)| scopes.join("|"));
        assert_eq!(scopes(json!("a  b")), Ok("a|b".into()));
        assert_eq!(scopes(json!(["a", "b"])), Ok("a|b".into()));
        assert!(scopes(json!([1])).is_err() && scopes(json!(1)).is_err());
    }
}
