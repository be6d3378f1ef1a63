//! Walking a raw tree and gathering every fault on the way.
//!
//! Owns paths, places, unknown and missing keys, and wrong types. Knows no setting and no YAML. A key is known because
//! some code asked for it: there is no second list of keys to keep in step, and the same record lets a test see that
//! the documented example names every one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fault::{Excerpt, Fault, Faults, Wrong, nearest, quote};
use super::raw::{self, Entry, Node, Pos, Value};
use super::source::Source;

/// From here on, keys are looked for in a tree.
const FEW_KEYS: usize = 16;

/// What is shown of the line a fault stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Line,
    /// Secrets stand near: only the name of an unknown key.
    KeyOnly,
}

/// One value with its place in the text and in the structure.
#[derive(Clone, Debug)]
pub struct Field<'t> {
    pub source: &'t Source,
    pub node: &'t Node,
    /// For people: `routes[1].match.path`.
    pub path: String,
    /// For the record of known keys: `routes[].match.path`.
    shape: String,
    show: Show,
}

impl<'t> Field<'t> {
    /// The whole of a text.
    pub fn root(source: &'t Source, node: &'t Node) -> Self {
        Self {
            source,
            node,
            path: String::new(),
            shape: String::new(),
            show: Show::Line,
        }
    }

    /// The same value as a part of something larger: another file that a setting names.
    #[must_use]
    pub fn under(self, outer: &Field<'_>) -> Self {
        Self {
            path: outer.path.clone(),
            shape: outer.shape.clone(),
            show: outer.show,
            ..self
        }
    }

    /// The same value, with the promise that no report shows the lines at it or below it.
    #[must_use]
    pub fn secret(self) -> Self {
        Self {
            show: Show::KeyOnly,
            ..self
        }
    }

    /// The same value, known under the name of what may stand in several places.
    #[must_use]
    pub fn shaped(self, shape: &str) -> Self {
        Self {
            shape: shape.to_owned(),
            ..self
        }
    }

    /// `file:line`, for messages that point elsewhere.
    pub fn place(&self) -> String {
        format!("{}:{}", self.source.name, self.node.pos.line)
    }

    fn item(&self, index: usize, node: &'t Node) -> Self {
        let path = format!("{}[{index}]", self.path);
        Self {
            source: self.source,
            node,
            path,
            shape: format!("{}[]", self.shape),
            show: self.show,
        }
    }

    fn child(&self, step: &str, shape: &str, node: &'t Node) -> Self {
        let join = |outer: &str, step: &str| {
            if outer.is_empty() {
                step.to_owned()
            } else {
                format!("{outer}.{step}")
            }
        };
        Self {
            source: self.source,
            node,
            path: join(&self.path, step),
            shape: join(&self.shape, shape),
            show: self.show,
        }
    }
}

/// The walk: gathers faults, warnings and known keys.
#[derive(Debug)]
pub struct Walk {
    pub faults: Faults,
    /// Directory against which relative file names are meant.
    pub base: PathBuf,
    /// Whether certificates, keys and key files are opened. Without, their names are all that is known of them.
    pub opens_secrets: bool,
    /// In the order in which they were opened.
    pub files: Vec<String>,
    /// Every key the code asked for, and whether the text had it. Kept for tests alone: it is a good part of the walk's cost.
    #[cfg(test)]
    pub known: BTreeMap<String, bool>,
}

impl Walk {
    pub fn new(base: &Path) -> Self {
        Self {
            faults: Faults::default(),
            base: base.to_owned(),
            opens_secrets: true,
            files: Vec::new(),
            #[cfg(test)]
            known: BTreeMap::new(),
        }
    }

    pub fn fault(&mut self, field: &Field<'_>, wrong: Wrong) {
        self.faults.error(describe(field, field.node.pos, wrong));
    }

    pub fn warn(&mut self, field: &Field<'_>, wrong: Wrong) {
        self.faults.warning(describe(field, field.node.pos, wrong));
    }

    fn fault_at(&mut self, field: &Field<'_>, pos: Pos, wrong: Wrong) {
        self.faults.error(describe(field, pos, wrong));
    }

    /// Parses the text of `source`; `None` if its form is wrong, which is then reported.
    /// `secret` leaves the text out of the report.
    pub fn parse(&mut self, source: &Source, path: &str, secret: bool) -> Option<Node> {
        let faults = match raw::parse(source.text()) {
            Ok(node) => return Some(node),
            Err(faults) => faults,
        };
        for fault in faults {
            let excerpt = if secret { None } else { source.excerpt(fault.pos) };
            self.faults.error(Fault {
                file: source.name.clone(),
                line: fault.pos.line,
                column: fault.pos.column,
                path: path.to_owned(),
                message: fault.wrong.message,
                hint: fault.wrong.hint,
                excerpt,
            });
        }
        None
    }

    /// Reads a mapping with known keys. Whatever `read` did not ask for is a fault.
    pub fn table<'t, T>(
        &mut self,
        field: &Field<'t>,
        read: impl FnOnce(&mut Self, &mut Table<'t>) -> T,
    ) -> Option<T> {
        let entries = self.distinct(field)?;
        let mut table = Table {
            field: field.clone(),
            entries,
            asked: Vec::new(),
        };
        let value = read(self, &mut table);
        table.finish(self);
        Some(value)
    }

    /// The entries of a mapping whose keys are the operator's own names, with the key of each.
    pub fn entries<'t>(&mut self, field: &Field<'t>) -> Vec<(Key<'t>, Field<'t>)> {
        let entries = self.distinct(field).unwrap_or_default();
        let named = |entry: &'t Entry| {
            let at = field.child(&raw::step(&entry.key), "*", &entry.value);
            (
                Key {
                    text: &entry.key,
                    pos: entry.pos,
                },
                at,
            )
        };
        entries.into_iter().map(named).collect()
    }

    /// A fault of the key, not the value, of an entry.
    pub fn fault_key(&mut self, field: &Field<'_>, key: &Key<'_>, wrong: Wrong) {
        self.fault_at(field, key.pos, wrong);
    }

    /// As [`Walk::fault_key`], but only a warning.
    pub fn warn_key(&mut self, field: &Field<'_>, key: &Key<'_>, wrong: Wrong) {
        self.faults.warning(describe(field, key.pos, wrong));
    }

    /// The items of a list; empty, with a fault, if it is none.
    pub fn list<'t>(&mut self, field: &Field<'t>) -> Vec<Field<'t>> {
        match &field.node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, node)| field.item(i, node))
                .collect(),
            other => {
                self.fault(
                    field,
                    expected("a list", other).hint("write [a, b], or one - item to a line"),
                );
                Vec::new()
            }
        }
    }

    /// A scalar as text, quoted or not.
    pub fn text<'t>(&mut self, field: &Field<'t>) -> Option<&'t str> {
        match &field.node.value {
            Value::Text(text) => Some(text),
            other => {
                self.fault(field, expected("a single value", other));
                None
            }
        }
    }

    /// A scalar that `read` understands.
    pub fn value<T>(&mut self, field: &Field<'_>, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.text(field)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.fault(field, wrong);
                None
            }
        }
    }

    /// The entries of a mapping, with a fault for each key that is there again.
    fn distinct<'t>(&mut self, field: &Field<'t>) -> Option<Vec<&'t Entry>> {
        let Value::Map(entries) = &field.node.value else {
            self.fault(
                field,
                expected("a mapping", &field.node.value).hint("write key: value pairs"),
            );
            return None;
        };
        let mut first: BTreeMap<&str, u32> = BTreeMap::new();
        let mut kept: Vec<&Entry> = Vec::with_capacity(entries.len());
        // Most have few keys, which are sooner compared with each other than entered into a tree.
        let few = entries.len() <= FEW_KEYS;
        for entry in entries {
            let line = if few {
                let same = kept.iter().find(|other| other.key == entry.key);
                same.map(|other| other.pos.line)
            } else {
                first.get(entry.key.as_str()).copied()
            };
            if let Some(line) = line {
                let message = format!(
                    "key {} is given twice; the first stands on line {line}",
                    quote(&entry.key)
                );
                self.fault_at(field, entry.pos, Wrong::new(message));
            } else {
                if !few {
                    first.insert(&entry.key, entry.pos.line);
                }
                kept.push(entry);
            }
        }
        Some(kept)
    }
}

/// A key that the operator chose.
#[derive(Clone, Copy, Debug)]
pub struct Key<'t> {
    pub text: &'t str,
    pub pos: Pos,
}

/// A mapping that is being read.
#[derive(Debug)]
pub struct Table<'t> {
    pub field: Field<'t>,
    entries: Vec<&'t Entry>,
    asked: Vec<&'static str>,
}

impl<'t> Table<'t> {
    /// The value of `key`, if it is there. A key without a value is a fault: it is more often forgotten than meant.
    pub fn get(&mut self, walk: &mut Walk, key: &'static str) -> Option<Field<'t>> {
        self.asked.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key).copied();
        let found = entry.map(|entry| self.field.child(key, key, &entry.value));
        #[cfg(test)]
        {
            let shape = self.field.child(key, key, self.field.node).shape;
            *walk.known.entry(shape).or_default() |= found.is_some();
        }
        let (entry, found) = (entry?, found?);
        if found.node.value == Value::Null {
            walk.fault_at(
                &found,
                entry.pos,
                Wrong::new("no value is given").hint("give one, or leave the key out"),
            );
            return None;
        }
        Some(found)
    }

    /// As [`Table::get`], for a key whose value may well be null.
    pub fn any(&mut self, walk: &mut Walk, key: &'static str) -> Option<Field<'t>> {
        let null = |entry: &&&Entry| entry.key == key && entry.value.value == Value::Null;
        let Some(entry) = self.entries.iter().find(null).copied() else {
            return self.get(walk, key);
        };
        self.asked.push(key);
        Some(self.field.child(key, key, &entry.value))
    }

    /// Whether `key` is there, with or without a good value.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Whether nothing at all was written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// As [`Table::get`], with a fault if the key is missing.
    pub fn require(&mut self, walk: &mut Walk, key: &'static str, hint: &str) -> Option<Field<'t>> {
        let found = self.get(walk, key);
        if !self.has(key) {
            walk.fault(
                &self.field,
                Wrong::new(format!("key {} is missing", quote(key))).hint(hint),
            );
        }
        found
    }

    /// The value of `key` as `read` understands it.
    pub fn value<T>(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let field = self.get(walk, key)?;
        walk.value(&field, read)
    }

    /// As [`Table::value`], with what holds if the key is not there. (Also after a fault, when nothing is built.)
    pub fn value_or<T>(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> T {
        self.value(walk, key, read).unwrap_or(default)
    }

    /// The items of the list at `key`; none if it is not there.
    pub fn list(&mut self, walk: &mut Walk, key: &'static str) -> Vec<Field<'t>> {
        self.get(walk, key)
            .map(|field| walk.list(&field))
            .unwrap_or_default()
    }

    fn finish(self, walk: &mut Walk) {
        for entry in self
            .entries
            .iter()
            .filter(|entry| !self.asked.contains(&entry.key.as_str()))
        {
            let near = nearest(&entry.key, self.asked.iter().copied());
            // Where secrets stand, what looks like no name of a setting may be one of them, with a colon behind it.
            let hidden = self.field.show != Show::Line && near.is_none() && !is_plain(&entry.key);
            let wrong = match hidden {
                true => Wrong::new("unknown key, which is not shown, as it may be a secret"),
                false => Wrong::new(format!("unknown key {}", quote(&entry.key))),
            };
            let hint = match near {
                Some(known) => format!("did you mean {}?", quote(known)),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            let mut fault = describe(&self.field, entry.pos, wrong.hint(hint));
            if self.field.show == Show::KeyOnly && !hidden {
                fault.excerpt = Some(Excerpt::of(&raw::step(&entry.key), 1));
            }
            walk.faults.error(fault);
        }
    }
}

/// Whether a key could be the name of a setting, by its length and letters.
fn is_plain(key: &str) -> bool {
    key.len() <= 12 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn describe(field: &Field<'_>, pos: Pos, wrong: Wrong) -> Fault {
    Fault {
        file: field.source.name.clone(),
        line: pos.line,
        column: pos.column,
        path: field.path.clone(),
        message: wrong.message,
        hint: wrong.hint,
        excerpt: if field.show == Show::Line {
            field.source.excerpt(pos)
        } else {
            None
        },
    }
}

fn expected(what: &str, found: &Value) -> Wrong {
    Wrong::new(format!("expected {what}, found {}", found.kind()))
}
