//! Walking a raw tree and gathering every fault on the way.
//!
//! Owns paths, places, unknown and missing keys, and wrong types. Knows no setting and no YAML. A key is known because
//! some code asked for it: there is no second list of keys to keep in step, and the same record lets a test see that
//! the documented example names every one of them.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::fault::{Excerpt, Fault, Faults, Wrong, nearest, quote};
use super::raw::{self, Entry, Node, Pos, Value};
use super::source::Source;

/// From here on, keys are looked for in a tree.
const FEW_KEYS: usize = 16;

/// What stands where, without the numbers and names of one text: `routes[].match.path`. It is for the record of known keys,
/// and so for tests alone: a name for each of ten thousands of values is a good part of the walk's cost.
#[derive(Clone, Debug, Default)]
struct Shape {
    #[cfg(test)]
    text: String,
}

#[cfg_attr(not(test), expect(unused_variables, reason = "there is no record"))]
impl Shape {
    fn of(text: &str) -> Self {
        Self {
            #[cfg(test)]
            text: text.to_owned(),
        }
    }

    fn item(&self) -> Self {
        Self {
            #[cfg(test)]
            text: format!("{}[]", self.text),
        }
    }

    fn child(&self, step: &str) -> Self {
        Self {
            #[cfg(test)]
            text: joined(&self.text, step),
        }
    }
}

/// In one allocation: this is done for every value of a text.
fn joined(outer: &str, step: &str) -> String {
    let mut path = String::with_capacity(outer.len() + 1 + step.len());
    path.push_str(outer);
    if !outer.is_empty() {
        path.push('.');
    }
    path.push_str(step);
    path
}

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
    shape: Shape,
    show: Show,
}

impl<'t> Field<'t> {
    /// The whole of a text.
    pub fn root(source: &'t Source, node: &'t Node) -> Self {
        Self {
            source,
            node,
            path: String::new(),
            shape: Shape::default(),
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
            shape: Shape::of(shape),
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
            shape: self.shape.item(),
            show: self.show,
        }
    }

    fn child(&self, step: &str, shape: &str, node: &'t Node) -> Self {
        Self {
            source: self.source,
            node,
            path: joined(&self.path, step),
            shape: self.shape.child(shape),
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
    /// Names of keys that were asked for in the mappings that are being read, those of the innermost last.
    asked: Vec<&'static str>,
    /// Every key the code asked for, and whether the text had it.
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
            asked: Vec::new(),
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
        let (entries, keys) = self.distinct(field)?;
        let mut table = Table {
            field: field.clone(),
            taken: vec![false; entries.len()],
            entries,
            keys,
            first: self.asked.len(),
        };
        let value = read(self, &mut table);
        table.finish(self);
        Some(value)
    }

    /// The entries of a mapping whose keys are the operator's own names, with the key of each.
    pub fn entries<'t>(&mut self, field: &Field<'t>) -> Vec<(Key<'t>, Field<'t>)> {
        let (entries, _) = self.distinct(field).unwrap_or_default();
        let mut seen = HashSet::with_capacity(entries.len());
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
        let first = entries.iter().filter(|entry| seen.insert(&entry.key));
        first.map(named).collect()
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
    fn distinct<'t>(&mut self, field: &Field<'t>) -> Option<(&'t [Entry], Keys)> {
        let Value::Map(entries) = &field.node.value else {
            self.fault(
                field,
                expected("a mapping", &field.node.value).hint("write key: value pairs"),
            );
            return None;
        };
        let mut first: BTreeMap<&str, u32> = BTreeMap::new();
        // Most have few keys, which are sooner compared with each other than entered into a tree.
        let few = entries.len() <= FEW_KEYS;
        let mut keys = Keys::default();
        for (at, entry) in entries.iter().enumerate() {
            let line = if !keys.add(&entry.key) {
                None
            } else if few {
                let same = entries.iter().take(at).find(|other| other.key == entry.key);
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
            } else if !few {
                first.insert(&entry.key, entry.pos.line);
            }
        }
        Some((entries, keys))
    }
}

/// Tells without a look at the text of any that a key is surely not among some: most settings are left out of most mappings.
#[derive(Clone, Copy, Debug, Default)]
struct Keys(u64);

impl Keys {
    fn bit(key: &str) -> u64 {
        let bytes = key.as_bytes();
        let ends = |at: Option<&u8>| usize::from(at.copied().unwrap_or_default());
        let mix = ends(bytes.first()) * 5 + ends(bytes.last()) * 11 + bytes.len() * 17;
        1 << (mix % 64)
    }

    /// Whether one that can not be told from `key` was there.
    fn add(&mut self, key: &str) -> bool {
        let had = self.may_have(key);
        self.0 |= Self::bit(key);
        had
    }

    fn may_have(self, key: &str) -> bool {
        self.0 & Self::bit(key) != 0
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
    /// Of those with one key only the first counts.
    entries: &'t [Entry],
    /// Which of them were asked for.
    taken: Vec<bool>,
    keys: Keys,
    /// Where the names that were asked for here begin in [`Walk::asked`].
    first: usize,
}

impl<'t> Table<'t> {
    /// The value of `key`, if it is there. A key without a value is a fault: it is more often forgotten than meant.
    pub fn get(&mut self, walk: &mut Walk, key: &'static str) -> Option<Field<'t>> {
        let entry = self.take(walk, key)?;
        let found = self.field.child(key, key, &entry.value);
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
        let entry = self.take(walk, key)?;
        Some(self.field.child(key, key, &entry.value))
    }

    /// Whether `key` is there, with or without a good value.
    pub fn has(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    fn place(&self, key: &str) -> Option<usize> {
        if !self.keys.may_have(key) {
            return None;
        }
        self.entries.iter().position(|entry| entry.key == key)
    }

    fn take(&mut self, walk: &mut Walk, key: &'static str) -> Option<&'t Entry> {
        walk.asked.push(key);
        let place = self.place(key);
        #[cfg(test)]
        {
            let shape = self.field.shape.child(key).text;
            *walk.known.entry(shape).or_default() |= place.is_some();
        }
        let place = place?;
        if let Some(taken) = self.taken.get_mut(place) {
            *taken = true;
        }
        self.entries.get(place)
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
        if self.taken.iter().all(|taken| *taken) {
            walk.asked.truncate(self.first);
            return;
        }
        let asked = walk.asked.split_off(self.first);
        for (at, entry) in self.entries.iter().enumerate() {
            if self.taken.get(at) == Some(&true) || self.place(&entry.key) != Some(at) {
                continue;
            }
            let near = nearest(&entry.key, asked.iter().copied());
            // Where secrets stand, what looks like no name of a setting may be one of them, with a colon behind it.
            let hidden = self.field.show != Show::Line && near.is_none() && !is_plain(&entry.key);
            let wrong = match hidden {
                true => Wrong::new("unknown key, which is not shown, as it may be a secret"),
                false => Wrong::new(format!("unknown key {}", quote(&entry.key))),
            };
            let hint = match near {
                Some(known) => format!("did you mean {}?", quote(known)),
                None => format!("known here: {}", asked.join(", ")),
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
