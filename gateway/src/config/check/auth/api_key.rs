//! `api_key`, and the files of keys. Owns the form of a key's entry.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{alone, label, one_or_more, place, scope};
use crate::config::check::files;
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Faults, Wrong};
use crate::config::model::{ApiKeyAuth, Key, Keys, Place, Way};
use crate::config::raw::{MOST_BYTES, Value};
use crate::config::scalar::truth;
use crate::config::source::Source;
use crate::config::{defaults, moment};

/// How an operator makes a hash; `printf` because `echo` would hash the line's end as well.
const MAKE_HASH: &str = "make it with: printf %s \"$KEY\" | sha256sum";
/// SHA-256 of nothing: what that command prints if the variable is not set.
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Most scopes, and most labels, of one key.
const MOST: usize = 64;

pub(super) fn api_key(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let standard = Place::Header(http::HeaderName::from_static(defaults::API_KEY_HEADER));
        let place = place(walk, table, standard);
        let keep = table.value_or(walk, "keep", false, truth);
        let keys = table.require(
            walk,
            "keys",
            "a list of {name, sha256}, or {file: keys.yaml} with such a list",
        )?;
        let (keys, file) = match keys.node.value {
            Value::Map(_) => walk.table(&keys, key_file)?,
            _ => (key_list(walk, &keys), None),
        };
        Some(Way::ApiKey(ApiKeyAuth {
            place,
            keep,
            keys: Arc::new(keys),
            file,
        }))
    })?
}

fn key_file(walk: &mut Walk, table: &mut Table<'_>) -> (Keys, Option<std::path::PathBuf>) {
    let Some(field) = table.require(walk, "file", "such as {file: keys.yaml}") else {
        return Default::default();
    };
    let Some(path) = files::named(walk, &field) else {
        return Default::default();
    };
    if !walk.opens_secrets {
        return (Keys::new(), Some(path));
    }
    let name = path.display().to_string();
    let keys = match files::read_text(&path, MOST_BYTES) {
        Ok(text) => {
            let source = Source::new(name.clone(), text);
            let node = walk.parse(&source, &field.path, true);
            node.map(|node| key_list(walk, &Field::root(&source, &node).under(&table.field)))
        }
        Err(wrong) => {
            walk.fault(&field, wrong);
            None
        }
    };
    if !walk.files.contains(&name) {
        walk.files.push(name);
    }
    (keys.unwrap_or_default(), Some(path))
}

/// Reads a file of keys by itself, as the command line does and a gateway whose file has changed.
///
/// # Errors
/// All that is wrong with it. No fault shows a line of it.
pub fn read_keys(path: &Path) -> Result<Keys, Faults> {
    alone(path, MOST_BYTES, |walk, source| {
        let node = walk.parse(source, "", true)?;
        Some(key_list(walk, &Field::root(source, &node).secret()))
    })
}

fn key_list(walk: &mut Walk, list: &Field<'_>) -> Keys {
    if let Value::Null = list.node.value {
        walk.fault(
            list,
            Wrong::new("there is nothing in it").hint("write [] if nobody is to have a key"),
        );
        return Keys::new();
    }
    let items = walk.list(list);
    if items.is_empty() && matches!(list.node.value, Value::List(_)) {
        walk.warn(
            list,
            Wrong::new("there are no keys: every request on this route is refused"),
        );
    }
    let mut keys = Keys::new();
    let mut lines: BTreeMap<[u8; 32], u32> = BTreeMap::new();
    for item in items {
        if let Value::Text(_) = item.node.value {
            let wrong = Wrong::new("keys are not written in clear: expected name and sha256, found text");
            walk.fault(&item, wrong.hint(MAKE_HASH));
            continue;
        }
        walk.table(&item, |walk, table| {
            let name = table.require(walk, "name", "who holds the key, for logs and for the upstream");
            let name = name.and_then(|field| walk.value(&field, label(128)));
            let scopes = table.get(walk, "scopes");
            let scopes = scopes
                .map(|field| one_or_more(walk, &field, scope))
                .unwrap_or_default();
            if scopes.len() > MOST {
                walk.fault(&table.field, Wrong::new(format!("more than {MOST} scopes")));
            }
            let expires = table.value(walk, "expires", until);
            let labels = labels(walk, table);
            let field = table.require(walk, "sha256", MAKE_HASH)?;
            let hash = walk.value(&field, hash)?;
            if let Some(line) = lines.insert(hash, field.node.pos.line) {
                walk.fault(
                    &field,
                    Wrong::new(format!("the same key stands on line {line} already")),
                );
            }
            let name = name?;
            keys.insert(
                hash,
                Key {
                    name,
                    scopes,
                    expires,
                    labels,
                },
            );
            Some(())
        });
    }
    keys
}

fn labels(walk: &mut Walk, table: &mut Table<'_>) -> BTreeMap<String, String> {
    let Some(field) = table.get(walk, "labels") else {
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for (key, field) in walk.entries(&field) {
        if let Err(wrong) = label(64)(key.text) {
            walk.fault_key(&field, &key, wrong);
        }
        let plain = |text: &str| {
            if text.len() <= 256 && !text.contains(char::is_control) {
                Ok(text.to_owned())
            } else {
                Err(Wrong::new(
                    "a label has at most 256 bytes and no control characters",
                ))
            }
        };
        if let Some(value) = walk.value(&field, plain) {
            labels.insert(key.text.to_owned(), value);
        }
    }
    if labels.len() > MOST {
        walk.fault(&field, Wrong::new(format!("more than {MOST} labels")));
    }
    labels
}

/// A point in time, in seconds since 1970.
fn until(text: &str) -> Result<u64, Wrong> {
    moment::moment(text)
        .map(|ms| ms / 1_000)
        .map_err(|_| Wrong::new("this is no point in time").hint("write 2027-01-15T08:00:00Z"))
}

/// A hash in hexadecimal. What was written stays out of the message: it may be the key itself.
fn hash(text: &str) -> Result<[u8; 32], Wrong> {
    let mut hash = [0; 32];
    let refuse = || Wrong::new("this is not a SHA-256 hash: 64 hexadecimal digits").hint(MAKE_HASH);
    if text.len() != 64 || !text.is_ascii() {
        return Err(refuse());
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let (high, low) = (
            digit(pair[0]).ok_or_else(refuse)?,
            digit(pair[1]).ok_or_else(refuse)?,
        );
        *byte = high << 4 | low;
    }
    if text.eq_ignore_ascii_case(EMPTY_HASH) {
        return Err(
            Wrong::new("this is the hash of an empty key").hint("was the variable set when it was made?")
        );
    }
    Ok(hash)
}
