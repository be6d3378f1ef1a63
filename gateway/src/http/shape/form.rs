//! Forms (`application/x-www-form-urlencoded`, WHATWG URL, 5) to JSON and back.

use serde_json::Value;

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

/// A flat JSON object as a form; lists of single values become fields that are there several times, and what is null is left
/// out. `None` if it is not flat.
#[must_use]
pub fn of_json(value: &Value) -> Option<String> {
    let mut out = String::new();
    let mut push = |name: &str, value: &Value| {
        let text = match value {
            Value::Null => return Some(()),
            Value::Bool(truth) => truth.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            Value::Array(_) | Value::Object(_) => return None,
        };
        if !out.is_empty() {
            out.push('&');
        }
        push_encoded(&mut out, name);
        out.push('=');
        push_encoded(&mut out, &text);
        Some(())
    };
    for (name, value) in value.as_object()? {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| push(name, item))?,
            value => push(name, value)?,
        }
    }
    Some(out)
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
    use serde_json::json;

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
            of_json(&json!({"a": [1, "x y"], "b": "ä&=", "c": null, "d": true})).as_deref(),
            Some("a=1&a=x+y&b=%C3%A4%26%3D&d=true")
        );
        for bad in [
            json!([1]),
            json!({"a": {"b": 1}}),
            json!({"a": [[1]]}),
            json!("x"),
        ] {
            assert_eq!(of_json(&bad), None, "{bad}");
        }
    }
}
