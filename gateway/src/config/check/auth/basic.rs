//! `basic`, and the files of passwords.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{label, one_or_more, scope};
use crate::config::check::files;
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::Wrong;
use crate::config::model::{Basic, PasswordHash, User, Way};
use crate::config::raw::Value;
use crate::config::scalar::{truth, within};
use crate::config::units;

const MAKE_HASH: &str = "make one with: gateway key hash-password";
/// Most users of one file, and its size in bytes.
const MOST_USERS: usize = 100_000;
const MOST_BYTES: usize = 16 << 20;

pub(super) fn basic(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let keep = table.value_or(walk, "keep", false, truth);
        let realm = table.value_or(walk, "realm", "gateway".to_owned(), label(64));
        let times = within(
            Duration::ZERO..=Duration::from_secs(3_600),
            units::duration,
            units::show_duration,
        );
        let remember = table.value_or(walk, "remember", defaults::REMEMBER_PASSWORD, times);
        let users = table.require(walk, "users", "a list of {name, hash}, or {file: passwords}")?;
        let users = match users.node.value {
            Value::Map(_) => walk.table(&users, file)?,
            _ => list(walk, &users),
        };
        Some(Way::Basic(Basic {
            keep,
            realm,
            remember: remember.as_secs(),
            users: Arc::new(users),
        }))
    })?
}

fn list(walk: &mut Walk, field: &Field<'_>) -> BTreeMap<String, User> {
    let mut users = BTreeMap::new();
    for item in walk.list(field) {
        walk.table(&item, |walk, table| {
            let name = table.require(walk, "name", "who logs in so");
            let hash = table.require(walk, "hash", MAKE_HASH);
            let scopes = table.get(walk, "scopes");
            let scopes = scopes
                .map(|field| one_or_more(walk, &field, scope))
                .unwrap_or_default();
            let name = name.and_then(|field| walk.value(&field, self::name));
            let hash = hash.and_then(|field| walk.value(&field, self::hash));
            let (name, hash) = (name?, hash?);
            if users.insert(name, User { hash, scopes }).is_some() {
                walk.fault(&item, Wrong::new("this user is there twice"));
            }
            Some(())
        });
    }
    users
}

fn name(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= 128 && !text.contains(':') && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("this is no user's name")
        .hint("1 to 128 bytes without colons and control characters (RFC 7617, 2)"))
}

fn hash(text: &str) -> Result<PasswordHash, Wrong> {
    PasswordHash::new(text).map_err(|reason| Wrong::new(reason).hint(MAKE_HASH))
}

/// One `name:hash` a line, as htpasswd writes them; `#` begins a comment.
fn file(walk: &mut Walk, table: &mut Table<'_>) -> BTreeMap<String, User> {
    let mut users = BTreeMap::new();
    let Some(field) = table.require(walk, "file", "such as {file: passwords}") else {
        return users;
    };
    let Some(path) = files::named(walk, &field) else {
        return users;
    };
    if !walk.opens_secrets {
        return users;
    }
    let shown = path.display().to_string();
    let text = match files::read_text(&path, MOST_BYTES) {
        Ok(text) => text,
        Err(wrong) => {
            walk.fault(&field, wrong);
            return users;
        }
    };
    if !walk.files.contains(&shown) {
        walk.files.push(shown.clone());
    }
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("line {} of {shown}", at + 1);
        let read = match line.split_once(':') {
            Some((user, of)) => name(user).and_then(|user| Ok((user, hash(of)?))),
            None => Err(Wrong::new("this is not NAME:HASH")),
        };
        match read {
            Ok((name, hash)) => {
                let scopes = Vec::new();
                if users.insert(name, User { hash, scopes }).is_some() {
                    walk.fault(&field, Wrong::new(format!("{place}: this user is there twice")));
                }
            }
            Err(wrong) => {
                let told = Wrong::new(format!("{place}: {}", wrong.message));
                walk.fault(&field, wrong.hint.map_or(told.clone(), |hint| told.hint(hint)));
            }
        }
        if users.len() > MOST_USERS {
            walk.fault(
                &field,
                Wrong::new(format!("{shown} has more than {MOST_USERS} users")),
            );
            break;
        }
    }
    users
}
