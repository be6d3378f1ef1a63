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
}

impl Wrong {
    /// For the client.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Syntax => "is not JSON",
            Self::Depth => "is nested too deeply",
            Self::Twice => "has an object with a member that is there twice",
        }
    }
}

/// Carries out the edits, in order. An edit that finds no place changes nothing. `fill` makes the values; where it makes none
/// the edit is left out.
///
/// # Errors
/// The text is no JSON, too deep or ambiguous.
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
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::model::{Fact, Pointer};

    fn at(pointer: &str) -> Pointer {
        Pointer::read(pointer).expect("a pointer")
    }

    fn set(pointer: &str, text: &str) -> JsonEdit {
        JsonEdit::Set {
            at: at(pointer),
            value: JsonTemplate::Literal(text.into()),
        }
    }

    fn edited(text: &str, edits: &[JsonEdit]) -> Result<String, Wrong> {
        edit(text, edits, 64, |template| match template.0.as_slice() {
            [Fact::Text(text)] => Some(text.clone()),
            _ => None,
        })
    }

    #[test]
    fn what_is_not_named_stays_letter_by_letter() {
        let text = r#" {"a": 1.50e+10, "z":{"big": 123456789012345678901234567890 , "s":"\u00e4\/"}, "b":[1.0,-0,{"x":null}], "c" : true} "#;
        for (edits, expected) in [
            (
                vec![set("/n", "1")],
                r#"{"a":1.50e+10,"z":{"big": 123456789012345678901234567890 , "s":"\u00e4\/"},"b":[1.0,-0,{"x":null}],"c":true,"n":1}"#,
            ),
            (
                vec![set("/z/big", "2")],
                r#"{"a":1.50e+10,"z":{"big":2,"s":"\u00e4\/"},"b":[1.0,-0,{"x":null}],"c":true}"#,
            ),
            (
                vec![set("/new/deep/er", "[]")],
                r#"{"a":1.50e+10,"z":{"big": 123456789012345678901234567890 , "s":"\u00e4\/"},"b":[1.0,-0,{"x":null}],"c":true,"new":{"deep":{"er":[]}}}"#,
            ),
            (
                vec![
                    JsonEdit::Remove(at("/z")),
                    JsonEdit::Remove(at("/b/1")),
                    set("/b/-", "7"),
                    set("/b/0", "8"),
                ],
                r#"{"a":1.50e+10,"b":[8,{"x":null},7],"c":true}"#,
            ),
            (
                vec![
                    JsonEdit::Rename {
                        at: at("/a"),
                        to: "c".into(),
                    },
                    JsonEdit::Remove(at("/z")),
                ],
                r#"{"c":1.50e+10,"b":[1.0,-0,{"x":null}]}"#,
            ),
            (
                vec![
                    JsonEdit::Move {
                        from: at("/z/s"),
                        to: at("/b/2/x"),
                    },
                    JsonEdit::Remove(at("/z")),
                ],
                r#"{"a":1.50e+10,"b":[1.0,-0,{"x":"\u00e4\/"}],"c":true}"#,
            ),
            (vec![set("", "0")], "0"),
        ] {
            assert_eq!(edited(text, &edits).as_deref(), Ok(expected), "{edits:?}");
        }
    }

    #[test]
    fn an_edit_that_finds_no_place_changes_nothing() {
        let text = r#"{"a":1,"l":[1],"o":{}}"#;
        for edit in [
            set("/a/b", "2"),
            set("/l/1", "2"),
            set("/l/01", "2"),
            set("/l/+0", "2"),
            set("/l/x", "2"),
            JsonEdit::Remove(at("/x/y")),
            JsonEdit::Remove(at("/l/5")),
            JsonEdit::Remove(at("")),
            JsonEdit::Rename {
                at: at("/nobody"),
                to: "a".into(),
            },
            JsonEdit::Move {
                from: at("/o"),
                to: at("/o/x"),
            },
            JsonEdit::Move {
                from: at("/nobody"),
                to: at("/a"),
            },
            JsonEdit::Set {
                at: at("/a"),
                value: JsonTemplate::Text(ValueTemplate(vec![Fact::Identity])),
            },
        ] {
            assert_eq!(
                edited(text, std::slice::from_ref(&edit)).as_deref(),
                Ok(text),
                "{edit:?}"
            );
        }
        assert_eq!(edited("7", &[set("/a", "1")]).as_deref(), Ok("7"));
    }

    #[test]
    fn names_and_values_are_escaped_and_pointers_unescaped() {
        let value = JsonTemplate::Map(vec![(
            "q\"".into(),
            JsonTemplate::List(vec![JsonTemplate::Text(ValueTemplate(vec![Fact::Text(
                "a\"\n\u{1}".into(),
            )]))]),
        )]);
        let edits = [JsonEdit::Set {
            at: at("/a~1b~0c"),
            value,
        }];
        assert_eq!(
            edited("{}", &edits).as_deref(),
            Ok(r#"{"a/b~c":{"q\"":["a\"\n\u0001"]}}"#)
        );
        assert_eq!(
            edited(r#"{"\u0061":1}"#, &[set("/a", "2")]).as_deref(),
            Ok(r#"{"a":2}"#)
        );
    }

    #[test]
    fn t29_what_is_no_json_or_too_deep_or_ambiguous_is_refused() {
        let one = [set("/a/b", "1")];
        for bad in [
            "",
            "{",
            "{\"a\":}",
            "[1,]",
            "{} {}",
            "nul",
            "{\"a\" 1}",
            "'a'",
            "{\"a\":01}",
        ] {
            assert_eq!(edited(bad, &one), Err(Wrong::Syntax), "{bad}");
        }
        assert_eq!(edited(r#"{"a":1,"a":2}"#, &one), Err(Wrong::Twice));
        assert_eq!(edited(r#"{"a":1,"\u0061":2}"#, &one), Err(Wrong::Twice));
        assert_eq!(edited(r#"{"a":{"b":1,"b":2}}"#, &one), Err(Wrong::Twice));
        let many: Vec<String> = (0..40).map(|n| format!("\"m{}\":1", n % 39)).collect();
        assert_eq!(
            edited(&format!("{{{}}}", many.join(",")), &one),
            Err(Wrong::Twice)
        );
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(edited(&deep(64), &one).is_ok());
        assert_eq!(edited(&deep(65), &one), Err(Wrong::Depth));
        assert_eq!(edited(&"[".repeat(1 << 20), &one), Err(Wrong::Depth));
        assert!(edited(r#"{"a":"[[[[\"[[["}"#, &one).is_ok() && depth(r#"["[\"[["]"#, 1).is_ok());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\/~ä\n]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c~/0]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// What serde_json makes of the same edits on a tree of its own.
        #[test]
        fn the_text_means_what_the_tree_says(mut tree in value(), new in value(), steps in proptest::collection::vec("[a-c0-2-]{1}", 0..4)) {
            let text = tree.to_string();
            let pointer = Pointer(steps.clone());
            let kept = edited(&text, &[]).expect("JSON");
            prop_assert_eq!(&kept, &text);
            let removed = edited(&text, &[JsonEdit::Remove(pointer.clone())]).expect("JSON");
            let replaced = edited(&text, &[JsonEdit::Set { at: pointer, value: JsonTemplate::Literal(new.to_string()) }]).expect("JSON");
            let path: String = steps.iter().map(|step| format!("/{step}")).collect();
            let replaced: Value = serde_json::from_str(&replaced).expect("JSON");
            if tree.pointer(&path).is_some() {
                prop_assert_eq!(replaced.pointer(&path), Some(&new));
                *tree.pointer_mut(&path).expect("there") = new;
                prop_assert_eq!(replaced, tree);
            } else {
                prop_assert_eq!(removed, text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"a0\\\\ ]{0,40}") {
            if let Ok(out) = edited(&text, &[set("/a/0", "1"), JsonEdit::Remove(at("/0"))]) {
                let out: Result<Value, _> = serde_json::from_str(&out);
                prop_assert!(out.is_ok());
            }
        }
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p gateway --lib -- --ignored --nocapture four_kibibytes"]
    fn four_kibibytes_take_microseconds() {
        let lines: Vec<Value> = (0..40)
            .map(|n| json!({"sku": format!("article-{n}"), "quantity": n, "price": 12.5, "note": "as ordered by phone", "tags": ["a", "b"]}))
            .collect();
        let text =
            json!({"id": 1, "customer": {"name": "x", "mail": "x@example.com"}, "lines": lines}).to_string();
        let edits = [
            set("/customer/tier", "\"gold\""),
            JsonEdit::Remove(at("/customer/mail")),
            JsonEdit::Rename {
                at: at("/id"),
                to: "number".into(),
            },
            JsonEdit::Move {
                from: at("/lines/0/note"),
                to: at("/note"),
            },
        ];
        let rounds = 20_000_u32;
        let begun = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(edited(std::hint::black_box(&text), &edits)).expect("JSON");
        }
        println!("{} bytes: {:?}", text.len(), begun.elapsed() / rounds);
    }
}
