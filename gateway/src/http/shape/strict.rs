//! A JSON text as a tree, read strictly: no member twice, no deeper than allowed. Of two readings of one text, the gateway must
//! not take the one and the service behind the other.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::json::{Wrong, depth};

/// What the reader says of a member that is there twice; its errors are texts.
const TWICE: &str = "member twice";

/// The value of a whole text. Numbers beyond 64 bits lose digits here.
///
/// # Errors
/// It is no JSON, too deep or ambiguous.
pub fn parse(text: &[u8], most_depth: u32) -> Result<Value, Wrong> {
    let text = std::str::from_utf8(text).map_err(|_| Wrong::Syntax)?;
    depth(text, most_depth)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut reader);
    let value = value.and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| match error.to_string().starts_with(TWICE) {
        true => Wrong::Twice,
        false => Wrong::Syntax,
    })
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Self)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_as_serde_json_reads_it_but_for_what_is_ambiguous() {
        let text = br#"{"a":[1,-2,1.5,1e3,"\u00e4",null,true,{}],"b":18446744073709551615}"#;
        assert_eq!(parse(text, 8).ok(), serde_json::from_slice(text).ok());
        for (bad, wrong) in [
            (&b"{\"a\":1,\"a\":1}"[..], Wrong::Twice),
            (b"[{\"a\":{\"b\":1,\"\\u0062\":1}}]", Wrong::Twice),
            (b"{} 1", Wrong::Syntax),
            (b"", Wrong::Syntax),
            (b"\"\xff\"", Wrong::Syntax),
            (b"1e400", Wrong::Syntax),
            (b"\"\\ud800\"", Wrong::Syntax),
            (b"[[[[[[[[[1]]]]]]]]]", Wrong::Depth),
        ] {
            assert_eq!(parse(bad, 8), Err(wrong), "{}", String::from_utf8_lossy(bad));
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(
            parse(deep.as_bytes(), 1000),
            Err(Wrong::Syntax),
            "the reader has a bound of its own"
        );
    }
}
