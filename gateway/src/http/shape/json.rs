//! Edits of a JSON text (RFC 8259) by JSON Pointer (RFC 6901).
//!
//! Only the objects and lists that a pointer leads through are taken apart; all else is copied letter by letter. So numbers keep
//! their digits and members their order, and an edit costs little more than a look at the text. A member that is there twice in
//! an object that is taken apart is refused: which of two the service behind would take, nobody knows.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::model::{JsonEdit, JsonTemplate, ValueTemplate};

/// From so many members on, those of an object are entered into a set to find one that is there twice.
const FEW: usize = 16;

/// The text is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not JSON.
    Syntax,
    /// Nested deeper than allowed.
    Depth,
    /// A member is there twice.
    Twice,
    /// The whole is nothing that the edits speak of, such as a list where they name members.
    Shape,
}

impl Wrong {
    /// For the client.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Syntax => "is not JSON",
            Self::Depth => "is nested too deeply",
            Self::Twice => "has an object with a member that is there twice",
            Self::Shape => "is not an object",
        }
    }
}

/// Carries out the edits, in order. An edit that finds no place changes nothing, but the whole must be of the kind that it leads
/// into: what is to be taken out of an object must not get through in a list of such. `fill` makes the values; where it makes
/// none the edit is left out.
///
/// # Errors
/// The text is no JSON, too deep, ambiguous, or of another kind.
pub fn edit(
    text: &str,
    edits: &[JsonEdit],
    most_depth: u32,
    fill: impl Fn(&ValueTemplate) -> Option<String>,
) -> Result<String, Wrong> {
    depth(text, most_depth)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| Wrong::Syntax)?;
    let mut root = Node::Raw(Cow::Borrowed(raw.get()));
    for edit in edits {
        for pointer in edit.pointers() {
            root.is_for(&pointer.0)?;
        }
        match edit {
            JsonEdit::Set { at, value } => {
                let mut made = String::new();
                if write_template(&mut made, value, &fill) {
                    root.put(&at.0, Node::Raw(Cow::Owned(made)), true)?;
                }
            }
            JsonEdit::Remove(at) => drop(root.take(&at.0)?),
            JsonEdit::Rename { at, to } => root.rename(&at.0, to)?,
            JsonEdit::Move { from, to } => {
                // What is moved into itself would have no place.
                if !begins(&to.0, &from.0)
                    && let Some(node) = root.take(&from.0)?
                {
                    root.put(&to.0, node, true)?;
                }
            }
        }
    }
    let mut out = String::with_capacity(text.len() + 64);
    root.write(&mut out);
    Ok(out)
}

fn begins(pointer: &[String], front: &[String]) -> bool {
    pointer.starts_with(front)
}

/// Refuses a text that nests deeper than `most`. Looks at brackets alone, without a stack.
///
/// # Errors
/// It does.
pub fn depth(text: &str, most: u32) -> Result<(), Wrong> {
    let mut open = 0_u32;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                open += 1;
                if open > most {
                    return Err(Wrong::Depth);
                }
            }
            b']' | b'}' => open = open.saturating_sub(1),
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => drop(bytes.next()),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            _ => {}
        }
    }
    Ok(())
}

/// A value, taken apart as far as was needed.
#[derive(Debug)]
enum Node<'t> {
    Raw(Cow<'t, str>),
    Object(Vec<(Cow<'t, str>, Node<'t>)>),
    List(Vec<Node<'t>>),
}

impl<'t> Node<'t> {
    /// Takes an object or list apart; others stay.
    fn open(&mut self) -> Result<(), Wrong> {
        let Self::Raw(text) = self else {
            return Ok(());
        };
        // What an edit has put here is taken apart by way of an owned text.
        let opened = match text {
            Cow::Borrowed(text) => open(text)?,
            Cow::Owned(text) => open(text)?.map(Node::into_owned),
        };
        if let Some(opened) = opened {
            *self = opened;
        }
        Ok(())
    }

    /// Whether a pointer may lead into this, the whole.
    fn is_for(&mut self, pointer: &[String]) -> Result<(), Wrong> {
        let Some(first) = pointer.first() else {
            return Ok(());
        };
        self.open()?;
        match self {
            Self::Object(_) => Ok(()),
            Self::List(_) if first == "-" || index(first).is_some() => Ok(()),
            Self::List(_) | Self::Raw(_) => Err(Wrong::Shape),
        }
    }

    fn into_owned<'o>(self) -> Node<'o> {
        match self {
            Self::Raw(text) => Node::Raw(Cow::Owned(text.into_owned())),
            Self::Object(members) => Node::Object(
                members
                    .into_iter()
                    .map(|(name, node)| (Cow::Owned(name.into_owned()), node.into_owned()))
                    .collect(),
            ),
            Self::List(items) => Node::List(items.into_iter().map(Node::into_owned).collect()),
        }
    }

    /// What stands one step further.
    fn child(&mut self, step: &str) -> Result<Option<&mut Self>, Wrong> {
        self.open()?;
        Ok(match self {
            Self::Raw(_) => None,
            Self::Object(members) => members
                .iter_mut()
                .find(|(name, _)| name == step)
                .map(|(_, node)| node),
            Self::List(items) => index(step).and_then(|at| items.get_mut(at)),
        })
    }

    /// Puts a value where the pointer leads. With `make`, objects that are missing on the way are made. In a list an index replaces and
    /// `-` appends.
    fn put(&mut self, at: &[String], value: Self, make: bool) -> Result<(), Wrong> {
        let Some((step, rest)) = at.split_first() else {
            *self = value;
            return Ok(());
        };
        self.open()?;
        match self {
            Self::Raw(_) => {}
            Self::Object(members) => match members.iter_mut().find(|(name, _)| name == step) {
                Some((_, node)) => node.put(rest, value, make)?,
                None if rest.is_empty() || make => {
                    let mut node = Self::Object(Vec::new());
                    node.put(rest, value, make)?;
                    members.push((Cow::Owned(step.clone()), node));
                }
                None => {}
            },
            Self::List(items) if step == "-" => {
                let mut node = Self::Object(Vec::new());
                node.put(rest, value, make)?;
                items.push(node);
            }
            Self::List(items) => {
                if let Some(node) = index(step).and_then(|at| items.get_mut(at)) {
                    node.put(rest, value, make)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the value out.
    fn take(&mut self, at: &[String]) -> Result<Option<Self>, Wrong> {
        let Some((last, way)) = at.split_last() else {
            return Ok(None);
        };
        let Some(holder) = self.walk(way)? else {
            return Ok(None);
        };
        holder.open()?;
        Ok(match holder {
            Self::Raw(_) => None,
            Self::Object(members) => {
                let at = members.iter().position(|(name, _)| name == last);
                at.map(|at| members.remove(at).1)
            }
            Self::List(items) => index(last)
                .filter(|at| *at < items.len())
                .map(|at| items.remove(at)),
        })
    }

    /// Gives a member another name, in its place; one that has the name already goes.
    fn rename(&mut self, at: &[String], to: &str) -> Result<(), Wrong> {
        let Some((last, way)) = at.split_last() else {
            return Ok(());
        };
        let Some(holder) = self.walk(way)? else {
            return Ok(());
        };
        holder.open()?;
        if let Self::Object(members) = holder
            && last != to
            && members.iter().any(|(name, _)| name == last)
        {
            members.retain(|(name, _)| name != to);
            if let Some((name, _)) = members.iter_mut().find(|(name, _)| name == last) {
                *name = Cow::Owned(to.to_owned());
            }
        }
        Ok(())
    }

    fn walk(&mut self, way: &[String]) -> Result<Option<&mut Self>, Wrong> {
        let mut node = self;
        for step in way {
            let Some(next) = node.child(step)? else {
                return Ok(None);
            };
            node = next;
        }
        Ok(Some(node))
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Raw(text) => out.push_str(text),
            Self::Object(members) => {
                out.push('{');
                for (at, (name, node)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    push_text(out, name);
                    out.push(':');
                    node.write(out);
                }
                out.push('}');
            }
            Self::List(items) => {
                out.push('[');
                for (at, node) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    node.write(out);
                }
                out.push(']');
            }
        }
    }
}

/// An index as RFC 6901 writes it: no sign, no zero in front.
fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || step.bytes().all(|b| b.is_ascii_digit()) && !step.starts_with('0');
    plain.then(|| step.parse().ok()).flatten()
}

/// One level of an object or a list; `None` for anything else.
fn open(text: &str) -> Result<Option<Node<'_>>, Wrong> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let opened = match text.as_bytes().first() {
        Some(b'{') => reader.deserialize_map(Level),
        Some(b'[') => reader.deserialize_seq(Level),
        _ => return Ok(None),
    };
    let node = opened.map_err(|_| Wrong::Syntax)?;
    if let Node::Object(members) = &node {
        let twice = if members.len() <= FEW {
            let again = |(at, (name, _)): (usize, &(Cow<'_, str>, _))| {
                members[..at].iter().any(|(other, _)| other == name)
            };
            members.iter().enumerate().any(again)
        } else {
            let mut seen = HashSet::with_capacity(members.len());
            !members.iter().all(|(name, _)| seen.insert(name))
        };
        if twice {
            return Err(Wrong::Twice);
        }
    }
    Ok(Some(node))
}

struct Level;

impl<'de> Visitor<'de> for Level {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            members.push((name, Node::Raw(Cow::Borrowed(value.get()))));
        }
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(value) = list.next_element::<&RawValue>()? {
            items.push(Node::Raw(Cow::Borrowed(value.get())));
        }
        Ok(Node::List(items))
    }
}

/// A member's name, borrowed where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Name<'t>(#[serde(borrow)] Cow<'t, str>);

/// A text as a JSON string.
pub(super) fn push_text(out: &mut String, text: &str) {
    // A string has a JSON form, always.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Writes a value; whether it is whole.
fn write_template(
    out: &mut String,
    template: &JsonTemplate,
    fill: &impl Fn(&ValueTemplate) -> Option<String>,
) -> bool {
    match template {
        JsonTemplate::Literal(text) => out.push_str(text),
        JsonTemplate::Text(template) => match fill(template) {
            Some(text) => push_text(out, &text),
            None => return false,
        },
        JsonTemplate::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                if !write_template(out, item, fill) {
                    return false;
                }
            }
            out.push(']');
        }
        JsonTemplate::Map(members) => {
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_text(out, name);
                out.push(':');
                if !write_template(out, value, fill) {
                    return false;
                }
            }
            out.push('}');
        }
    }
    true
}

#[cfg(test)]
mod tests;
