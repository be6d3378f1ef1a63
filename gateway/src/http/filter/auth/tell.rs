//! What the upstream is told of a caller, as header lines. Owns their text form: one line of printable ASCII, in which no
//! value can pass for another.

use std::fmt::Write as _;

use http::HeaderValue;
use serde_json::Value;

use crate::config::model::Attribute;
use crate::http::filter::Identity;

/// Longest line, in bytes. What is longer is left out, not cut: half a name is another name.
const MOST: usize = 4096;

/// The line, if there is something to say. In text `%`, all that is not printable, and a blank at either end, which readers
/// leave out, stand as `%` and two digits; in a claim the comma, too, so that a comma stands between items of a list and nowhere
/// else. A name is one value always, and keeps its commas: those of certificates have some.
pub(super) fn value(identity: &Identity, attribute: &Attribute) -> Option<HeaderValue> {
    let mut out = String::new();
    match attribute {
        Attribute::Name => text(&mut out, &identity.name, false),
        Attribute::Scopes => out = identity.scopes.join(" "),
        Attribute::Claim(path) => match identity.claim(path)? {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    claim(&mut out, item);
                }
            }
            one => claim(&mut out, one),
        },
    }
    if out.is_empty() || out.len() > MOST {
        return None;
    }
    HeaderValue::try_from(out).ok()
}

fn claim(out: &mut String, value: &Value) {
    match value {
        Value::String(own) => text(out, own, true),
        other => text(out, &other.to_string(), true),
    }
}

fn text(out: &mut String, text: &str, of_claim: bool) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' ' if at == 0 || at == last => out.push_str("%20"),
            b'%' => out.push_str("%25"),
            b',' if of_claim => out.push_str("%2C"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_value_ends_the_line_or_passes_for_another() {
        let Value::Object(claims) = json!({
            "s": "a b", "p": " admin ", "evil": "x\r\nX-Admin: 1", "u": "größe", "n": 7, "t": true, "l": ["a,b", 1, "c%2C"], "c": "a, b",
            "o": {"k": "v", "n": 1}, "e": "", "long": "x".repeat(5000), "d": {"deep": "y"}
        }) else {
            panic!("an object")
        };
        let identity = Identity {
            claims,
            scopes: vec!["read".into(), "write".into()],
            ..Identity::named("CN=al%ice,O=x")
        };
        let of = |fact: Attribute| value(&identity, &fact).map(|line| line.to_str().unwrap().to_owned());
        let claim = |name: &str| of(Attribute::Claim(name.into()));
        assert_eq!(of(Attribute::Name).as_deref(), Some("CN=al%25ice,O=x"));
        assert_eq!(of(Attribute::Scopes).as_deref(), Some("read write"));
        assert_eq!(claim("s").as_deref(), Some("a b"));
        assert_eq!(claim("p").as_deref(), Some("%20admin%20"));
        assert_eq!(claim("evil").as_deref(), Some("x%0D%0AX-Admin: 1"));
        assert_eq!(claim("u").as_deref(), Some("gr%C3%B6%C3%9Fe"));
        assert_eq!(
            (claim("n").as_deref(), claim("t").as_deref()),
            (Some("7"), Some("true"))
        );
        assert_eq!(claim("l").as_deref(), Some("a%2Cb,1,c%252C"));
        assert_eq!(
            claim("c").as_deref(),
            Some("a%2C b"),
            "one text is not a list of two"
        );
        assert_eq!(claim("o").as_deref(), Some(r#"{"k":"v"%2C"n":1}"#));
        assert_eq!(claim("d.deep").as_deref(), Some("y"));
        for nothing in ["e", "long", "missing"] {
            assert_eq!(claim(nothing), None, "{nothing}");
        }
    }
}
