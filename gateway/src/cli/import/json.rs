//! A JSON array: of texts, or of objects that hold one.

use std::io::{BufRead, Read as _};

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::Value;

use super::{Imported, Progress, times};
use crate::admin::api::LONGEST;
use crate::config::units;
use crate::dataplane::lines::{Line, Reasons};

const ADDRESS: &[&str] = &["cidr", "network", "address", "ip", "value", "prefix"];
const REASON: &[&str] = &["reason", "comment", "description"];
const EXPIRES: &[&str] = &["expires", "until", "expires_at"];

/// Entries are numbered, since an object may span lines.
pub fn read(
    input: impl BufRead,
    imported: &mut Imported,
    now_ms: u64,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    input.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LONGEST {
        return Err(std::io::Error::other(format!(
            "it is longer than {LONGEST} bytes"
        )));
    }
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let entries = Entries {
        imported,
        now_ms,
        progress,
    };
    let read = reader.deserialize_seq(entries).and_then(|()| reader.end());
    // Half a document is none: what stands before the fault is not taken either.
    read.map_err(|error| std::io::Error::other(format!("is no JSON array: {error}")))
}

struct Entries<'a> {
    imported: &'a mut Imported,
    now_ms: u64,
    progress: &'a mut Progress,
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of networks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(value) = array.next_element::<Value>()? {
            number += 1;
            match entry(&value, self.now_ms, &mut self.imported.reasons) {
                Ok(entry) => self.imported.take(number, entry),
                Err(why) => self.imported.bad(format_args!("entry {number}"), why),
            }
            self.progress.read(number);
        }
        Ok(())
    }
}

fn entry(value: &Value, now_ms: u64, reasons: &mut Reasons) -> Result<Line, String> {
    let network = |text: &str| units::network(text.trim()).map_err(|fault| fault.to_string());
    let object = match value {
        Value::String(text) => {
            return Ok(Line {
                net: network(text)?,
                until_ms: None,
                forced: false,
                reason: None,
            });
        }
        Value::Object(object) => object,
        _ => return Err("is neither a text nor an object".to_owned()),
    };
    let find = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| object.get(*name))
            .filter(|value| !value.is_null())
    };
    let net = find(ADDRESS).and_then(Value::as_str);
    let net = network(net.ok_or_else(|| format!("has none of {} with a text", ADDRESS.join(", ")))?)?;
    let plain = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("{other} is neither a text nor a number")),
    };
    let until_ms = match (find(EXPIRES), find(&["ttl"])) {
        (Some(moment), _) => Some(times::moment(&plain(moment)?)?),
        (None, Some(ttl)) => Some(times::after(&plain(ttl)?, now_ms)?),
        (None, None) => None,
    };
    let reason = find(REASON).map(plain).transpose()?;
    Ok(Line {
        net,
        until_ms,
        forced: false,
        reason: reason
            .filter(|text| !text.is_empty())
            .map(|text| reasons.share(&text)),
    })
}
