//! A token in its three parts (RFC 7515, 7.1), strictly read: one meaning or none. Pure; verifies nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::config::model::Algorithm;

/// Longest token, in bytes.
pub const MOST: usize = 16 << 10;

/// Why a token is refused, for the log.
pub type Fault = &'static str;

/// A token that is well formed, and whose payload is not to be believed yet.
#[derive(Debug)]
pub struct Token<'t> {
    pub algorithm: Algorithm,
    /// The key that it asks for.
    pub key: Option<String>,
    /// What is signed: header and payload as they were sent.
    pub signed: &'t [u8],
    pub signature: Vec<u8>,
    payload: &'t [u8],
}

impl<'t> Token<'t> {
    /// # Errors
    /// It is no token, or one that is not served.
    pub fn read(token: &'t [u8]) -> Result<Self, Fault> {
        if token.len() > MOST {
            return Err("it is too long");
        }
        let mut parts = token.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it has not three parts");
        };
        let signed = token.get(..header.len() + 1 + payload.len()).unwrap_or_default();
        let header = object(header)?;
        // Extensions that must be understood; none is (RFC 7515, 4.1.11).
        if header.contains_key("crit") {
            return Err("its header has crit");
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm
            .and_then(Algorithm::named)
            .ok_or("its alg is not served")?;
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(key)) => Some(key.clone()),
            Some(_) => return Err("its kid is not text"),
        };
        Ok(Self {
            algorithm,
            key,
            signed,
            signature: decode(signature)?,
            payload,
        })
    }

    /// The claims. Only to be asked for when the signature is good.
    ///
    /// # Errors
    /// They can not be read.
    pub fn claims(&self) -> Result<Map<String, Value>, Fault> {
        object(self.payload)
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| "a part of it is not base64url")
}

fn object(part: &[u8]) -> Result<Map<String, Value>, Fault> {
    let bytes = decode(part)?;
    match serde_json::from_slice(&bytes) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err("a part of it is not a JSON object"),
        Err(_) => Err("a part of it is not JSON, or names something twice"),
    }
}

/// JSON in which no object has a name twice: of two, one reader takes the first and another the last (RFC 8725, 2.4).
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated names")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("a name is there twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(payload))
    }

    fn fault(text: &str) -> Fault {
        match Token::read(text.as_bytes()) {
            Err(fault) => fault,
            Ok(token) => token.claims().expect_err("a fault"),
        }
    }

    #[test]
    fn t32_alg_none_is_no_algorithm_in_any_spelling() {
        for name in [
            "none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "HS1", "RSA1_5",
        ] {
            let text = token(&format!(r#"{{"alg":"{name}"}}"#), "{}");
            assert_eq!(fault(&text), "its alg is not served", "{name}");
        }
        for header in [
            "{}",
            r#"{"alg":null}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"Alg":"RS256"}"#,
        ] {
            assert_eq!(fault(&token(header, "{}")), "its alg is not served", "{header}");
        }
    }

    #[test]
    fn t32_a_name_that_is_there_twice_has_no_meaning() {
        let twice = "a part of it is not JSON, or names something twice";
        let good = r#"{"alg":"RS256"}"#;
        assert_eq!(fault(&token(r#"{"alg":"RS256","alg":"HS256"}"#, "{}")), twice);
        for payload in [
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"sub":"a","\u0073ub":"b"}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
        ] {
            assert_eq!(fault(&token(good, payload)), twice, "{payload}");
        }
    }

    #[test]
    fn what_is_not_three_strict_parts_is_no_token() {
        let good = token(r#"{"alg":"RS256","kid":"k"}"#, r#"{"sub":"a"}"#);
        let read = Token::read(good.as_bytes()).expect("a token");
        assert_eq!(
            (read.algorithm, read.key.as_deref()),
            (Algorithm::Rs256, Some("k"))
        );
        assert_eq!(read.signature, b"sig");
        assert_eq!(read.claims().unwrap()["sub"], "a");
        for bad in [
            String::new(),
            "..".into(),
            "a.b".into(),
            format!("{good}.x"),
            format!("{good}="),
            format!("{good}\n"),
            good.replace('.', ".."),
            format!(" {good}"),
            token(r#"{"alg":"RS256","kid":7}"#, "{}"),
            token(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, "{}"),
            token(r#""RS256""#, "{}"),
            token(r#"{"alg":"RS256"}"#, "[1]"),
            token(
                r#"{"alg":"RS256"}"#,
                &format!("{}1{}", "[".repeat(500), "]".repeat(500)),
            ),
            token(r#"{"alg":"RS256"}"#, r#"{"exp":1e999}"#),
            token(
                r#"{"alg":"RS256"}"#,
                &format!(r#"{{"a":"{}"}}"#, "x".repeat(MOST)),
            ),
        ] {
            fault(&bad);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(token) = Token::read(&bytes) {
                let _ = token.claims();
            }
        }

        #[test]
        fn no_json_makes_it_panic(header in "[ -~]{0,40}", payload in "[ -~]{0,80}") {
            let text = token(&header, &payload);
            if let Ok(token) = Token::read(text.as_bytes()) {
                let _ = token.claims();
            }
        }
    }
}
