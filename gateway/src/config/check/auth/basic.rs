//! `basic`, and the files of passwords.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{alone, label, one_or_more, scope};
use crate::config::check::files;
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Faults, Wrong};
use crate::config::model::{Basic, PasswordHash, User, Users, Way};
use crate::config::raw::{Node, Value};
use crate::config::scalar::{truth, within};
use crate::config::source::Source;
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
        let (users, file) = match users.node.value {
            Value::Map(_) => walk.table(&users, file)?,
            _ => (list(walk, &users), None),
        };
        Some(Way::Basic(Basic {
            keep,
            realm,
            remember: remember.as_secs(),
            users: Arc::new(users),
            file,
        }))
    })?
}

fn list(walk: &mut Walk, field: &Field<'_>) -> Users {
    let mut users = Users::new();
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

fn file(walk: &mut Walk, table: &mut Table<'_>) -> (Users, Option<PathBuf>) {
    let Some(field) = table.require(walk, "file", "such as {file: passwords}") else {
        return Default::default();
    };
    let Some(path) = files::named(walk, &field) else {
        return Default::default();
    };
    if !walk.opens_secrets {
        return (Users::new(), Some(path));
    }
    let name = path.display().to_string();
    let users = match files::read_text(&path, MOST_BYTES) {
        Ok(text) => lines(walk, &Source::new(name.clone(), text), Some(&table.field)),
        Err(wrong) => {
            walk.fault(&field, wrong);
            Users::new()
        }
    };
    if !walk.files.contains(&name) {
        walk.files.push(name);
    }
    (users, Some(path))
}

/// Reads a file of passwords by itself, as a gateway does whose file has changed.
///
/// # Errors
/// All that is wrong with it. No fault shows a line of it.
pub fn read_passwords(path: &Path) -> Result<Users, Faults> {
    alone(path, MOST_BYTES, |walk, source| Some(lines(walk, source, None)))
}

/// One `name:hash` a line, as htpasswd writes them; `#` begins a comment. `of` is the setting that names the file.
fn lines(walk: &mut Walk, source: &Source, of: Option<&Field<'_>>) -> Users {
    let fault = |walk: &mut Walk, at: usize, wrong| {
        let node = Node::line(u32::try_from(at).unwrap_or(u32::MAX));
        let field = Field::root(source, &node).secret();
        walk.fault(&of.map_or(field.clone(), |of| field.under(of)), wrong);
    };
    let mut users = Users::new();
    for (at, line) in source.text().lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = match line.split_once(':') {
            Some((user, of)) => name(user).and_then(|user| Ok((user, hash(of)?))),
            None => Err(Wrong::new("this is not NAME:HASH")),
        };
        match read {
            Ok((name, hash)) => {
                let scopes = Vec::new();
                if users.insert(name, User { hash, scopes }).is_some() {
                    fault(walk, at + 1, Wrong::new("this user is there twice"));
                }
            }
            Err(wrong) => fault(walk, at + 1, wrong),
        }
        if users.len() > MOST_USERS {
            fault(walk, at + 1, Wrong::new(format!("more than {MOST_USERS} users")));
            return users;
        }
    }
    // What a copy leaves behind that failed. With a fault in a line there was something.
    if users.is_empty() && walk.faults.errors.is_empty() {
        let wrong = Wrong::new("there is nobody in it");
        fault(
            walk,
            0,
            wrong.hint("write users: [] in the configuration if nobody is to log in"),
        );
    }
    users
}
