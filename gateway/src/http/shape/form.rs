//! Forms (`application/x-www-form-urlencoded`, WHATWG URL, 5) to JSON and back.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::push_text;
use crate::http::query::decode;

/// Most fields of a form.
const MOST: usize = 1000;

/// The text is no form that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not UTF-8 once it is decoded.
    NoText,
    TooMany,
}

impl Wrong {
    /// For the client.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NoText => "is not a form in UTF-8",
            Self::TooMany => "has more than 1000 fields",
        }
    }
}

/// A form as a JSON object: each value a string, those of a field that is there several times a list, in the order of the form.
///
/// # Errors
/// It is not UTF-8, or has too many fields.
pub fn to_json(form: &str) -> Result<String, Wrong> {
    let text = |part| String::from_utf8(decode(part).into_owned()).map_err(|_| Wrong::NoText);
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (count, pair) in form.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count == MOST {
            return Err(Wrong::TooMany);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (text(name)?, text(value)?);
        let at = *places.entry(name.clone()).or_insert(fields.len());
        match fields.get_mut(at) {
            Some((_, values)) => values.push(value),
            None => fields.push((name, vec![value])),
        }
    }
    let mut out = String::with_capacity(form.len() + 16);
    out.push('{');
    for (at, (name, values)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(&mut out, name);
        out.push(':');
        match values.as_slice() {
            [value] => push_text(&mut out, value),
            values => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    push_text(&mut out, value);
                }
                out.push(']');
            }
        }
    }
    out.push('}');
    Ok(out)
}

/// A flat JSON object as a form, in its order; lists of single values become fields that are there several times, and what is
/// null is left out. Numbers stay as they are written. `None` if it is not flat.
#[must_use]
pub fn of_json(text: &str) -> Option<String> {
    let mut out = String::new();
    let members: Members<'_> = serde_json::from_str(text).ok()?;
    for (name, value) in &members.0 {
        if value.get().starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            for item in items {
                push(&mut out, name, item.get())?;
            }
        } else {
            push(&mut out, name, value.get())?;
        }
    }
    Some(out)
}

/// A field of a single value, which is JSON text.
fn push(out: &mut String, name: &str, value: &str) -> Option<()> {
    let text = match value.as_bytes().first()? {
        b'n' => return Some(()),
        b'"' => Cow::Owned(serde_json::from_str::<String>(value).ok()?),
        b'[' | b'{' => return None,
        _ => Cow::Borrowed(value),
    };
    if !out.is_empty() {
        out.push('&');
    }
    push_encoded(out, name);
    out.push('=');
    push_encoded(out, &text);
    Some(())
}

/// Members of an object in their order, their values as they are written.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'t> Deserialize<'t> for Members<'t> {
    fn deserialize<D: Deserializer<'t>>(reader: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'t> Visitor<'t> for Reader {
            type Value = Members<'t>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        reader.deserialize_map(Reader)
    }
}

fn push_encoded(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn forms_become_objects_and_flat_objects_forms() {
        let json = |form: &str| {
            to_json(form)
                .ok()
                .map(|text| serde_json::from_str::<Value>(&text).expect("JSON"))
        };
        assert_eq!(
            json("a=1&b=x+y%26&a=2&c&=e"),
            Some(json!({"a": ["1", "2"], "b": "x y&", "c": "", "": "e"}))
        );
        assert_eq!(json(""), Some(json!({})));
        assert_eq!(to_json("a=%ff"), Err(Wrong::NoText));
        assert_eq!(
            to_json("z=1&a=2").as_deref(),
            Ok(r#"{"z":"1","a":"2"}"#),
            "in order"
        );
        assert!(to_json(&"a=1&".repeat(1000)).is_ok());
        assert_eq!(to_json(&"a=1&".repeat(1001)), Err(Wrong::TooMany));
        assert_eq!(
            of_json(r#" {"z": [ 1 ,"x y", null], "b": "ä\u0026=", "c": null, "d" : true, "e": []} "#)
                .as_deref(),
            Some("z=1&z=x+y&b=%C3%A4%26%3D&d=true")
        );
        assert_eq!(
            of_json(r#"{"a":123456789012345678901234567890,"b":1.10,"c":-0,"d":1E2}"#).as_deref(),
            Some("a=123456789012345678901234567890&b=1.10&c=-0&d=1E2"),
            "numbers as they came"
        );
        for bad in [
            json!([1]),
            json!({"a": {"b": 1}}),
            json!({"a": [[1]]}),
            json!("x"),
        ] {
            assert_eq!(of_json(&bad.to_string()), None, "{bad}");
        }
    }
}
