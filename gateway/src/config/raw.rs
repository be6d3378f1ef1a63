//! YAML text to a small tree that remembers where everything stood. The only user of the YAML parser.
//!
//! Owns what is accepted as YAML at all. Knows no setting. A tree of our own, instead of deserialising into structs,
//! because a struct stops at its first fault and forgets the lines; we want every fault, each with its place.
//!
//! The subset is deliberately small: one document of mappings, lists and scalars with text as keys. Anchors, aliases
//! and tags are refused, so text can not grow while it is read, and what is written is what is meant.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::fault::{Wrong, quote};

/// Longest text taken, in bytes: room for the 100,000 keys of a large key file several times over.
pub const MOST_BYTES: usize = 64 << 20;
/// Deepest nesting; the deepest setting there is stands at 8.
const MOST_DEPTH: usize = 32;
/// The same for documents of others.
const MOST_DOCUMENT_DEPTH: usize = 128;
/// Most values in one text, so that memory is bounded by something closer to it than bytes.
const MOST_NODES: usize = 2_000_000;
/// Most faults of form that are gathered; from then on the text is most likely not meant to be this kind of YAML.
const MOST_FAULTS: usize = 20;

/// Where something stands: line and column in characters, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    pub line: u32,
    pub column: u32,
}

impl From<Marker> for Pos {
    fn from(mark: Marker) -> Self {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: small(mark.line()).max(1),
            column: small(mark.col()).saturating_add(1),
        }
    }
}

/// One value and its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub pos: Pos,
    pub value: Value,
    /// Whether it is a scalar without quotes, so that it may be a number or a truth.
    pub plain: bool,
}

impl Node {
    /// Stands for a text that could not be read.
    pub fn nothing() -> Self {
        Self {
            pos: Pos { line: 0, column: 0 },
            value: Value::Null,
            plain: true,
        }
    }

    /// Stands for a line of a text in another form.
    pub fn line(line: u32) -> Self {
        Self {
            pos: Pos { line, column: 1 },
            ..Self::nothing()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar, with or without quotes. What it means is the setting's to say.
    Text(String),
    List(Vec<Node>),
    /// In the order written; a key may be there twice.
    Map(Vec<Entry>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub pos: Pos,
    pub value: Node,
}

/// A fault of form.
#[derive(Debug, PartialEq, Eq)]
pub struct FormFault {
    pub pos: Pos,
    pub wrong: Wrong,
}

/// Reads one document. An empty text is [`Value::Null`].
///
/// # Errors
/// Text that is not YAML gives one fault, as nothing after it can be trusted; features of YAML that are not taken
/// give one fault each.
pub fn parse(text: &str) -> Result<Node, Vec<FormFault>> {
    parse_to(text, MOST_DEPTH)
}

fn parse_to(text: &str, most_depth: usize) -> Result<Node, Vec<FormFault>> {
    if text.len() > MOST_BYTES {
        let wrong = Wrong::new(format!("the text is longer than {} MiB", MOST_BYTES >> 20));
        return Err(vec![FormFault {
            pos: Pos { line: 1, column: 1 },
            wrong,
        }]);
    }
    let mut builder = Builder {
        most_depth,
        ..Builder::default()
    };
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((event, span))) => {
                if builder.take(event, span).is_err() {
                    break;
                }
            }
            Some(Err(error)) => {
                builder.faults.push(syntax(text, &error));
                break;
            }
        }
    }
    if !builder.faults.is_empty() {
        return Err(builder.faults);
    }
    Ok(builder.root.unwrap_or(Node {
        pos: Pos { line: 1, column: 1 },
        value: Value::Null,
        plain: false,
    }))
}

/// What can be understood of a text whether or not it is good YAML: each top-level section by itself, as far as it goes.
///
/// A line that can begin neither a key nor a continuation, such as a mark of a merge conflict, ends a section.
pub fn salvage(text: &str) -> Node {
    let mut entries = Vec::new();
    let mut section = String::new();
    for line in text.split_inclusive('\n') {
        let begins = line.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '\''));
        let continues = line.trim().is_empty() || line.starts_with([' ', '\t', '-', '#', '}', ']']);
        if !continues {
            entries.extend(section_entries(&section));
            section.clear();
        }
        if begins || continues {
            section.push_str(line);
        }
    }
    entries.extend(section_entries(&section));
    Node {
        pos: Pos { line: 1, column: 1 },
        value: Value::Map(entries),
        plain: false,
    }
}

/// The entries of a section. If it is not good YAML, those of its first line if that says all, as in `key: value`; else
/// what came before the fault, less the value that stood next to it and may have swallowed what it should not.
fn section_entries(section: &str) -> Vec<Entry> {
    let (entries, good) = entries_so_far(section);
    if good {
        return entries;
    }
    let (first, _) = entries_so_far(section.lines().next().unwrap_or_default());
    let says_all = |entry: &Entry| matches!(entry.value.value, Value::Text(_));
    if first.iter().any(says_all) {
        first
    } else {
        entries
    }
}

fn entries_so_far(section: &str) -> (Vec<Entry>, bool) {
    let mut builder = Builder::default();
    let mut held: Option<(Event<'_>, Span)> = None;
    let mut good = true;
    for event in Parser::new_from_str(section) {
        good = event.is_ok();
        let next = event.ok();
        let before = std::mem::replace(&mut held, next);
        if let Some((event, span)) = before.filter(|(event, _)| good || !matches!(event, Event::Scalar(..))) {
            good &= builder.take(event, span).is_ok();
        }
        if !good {
            break;
        }
    }
    while builder.root.is_none() && !builder.open.is_empty() {
        if builder.close().is_err() {
            break;
        }
    }
    let entries = match builder.root {
        Some(Node {
            value: Value::Map(entries),
            ..
        }) => entries,
        _ => Vec::new(),
    };
    (entries, good)
}

/// The parser's own complaint, with advice for the two mistakes that these files invite.
fn syntax(text: &str, error: &ScanError) -> FormFault {
    let pos = Pos::from(*error.marker());
    let line = text.lines().nth(pos.line as usize - 1).unwrap_or_default();
    let wrong = Wrong::new(format!("not valid YAML: {}", error.info()));
    let wrong = if error.info().contains("anchor") {
        wrong.hint("text that begins with * or & must stand in quotes, such as \"*.example.com\"")
    } else if line.contains('\t') {
        wrong.hint("indent with spaces, not tabs")
    } else if line.matches('{').count() > 1 {
        wrong.hint("inside { } a path with {captures} must stand in quotes")
    } else {
        wrong
    };
    FormFault { pos, wrong }
}

/// A collection that is still open.
struct Open {
    pos: Pos,
    what: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Pos)>,
    },
}

struct Builder {
    most_depth: usize,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    faults: Vec<FormFault>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            most_depth: MOST_DEPTH,
            open: Vec::new(),
            root: None,
            nodes: 0,
            faults: Vec::new(),
        }
    }
}

/// Reading on would cost more than it tells.
struct Stop;

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let pos = Pos::from(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(pos, anchor, tag.is_some())?;
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    _ => Value::Text(text.into_owned()),
                };
                self.put(Node { pos, value, plain })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(pos, anchor, tag.is_some())?;
                self.begin(pos, Collection::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(pos, anchor, tag.is_some())?;
                self.begin(
                    pos,
                    Collection::Map {
                        entries: Vec::new(),
                        key: None,
                    },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(_) => {
                let wrong = Wrong::new("YAML aliases (*name) are not taken here");
                self.fault(
                    pos,
                    wrong.hint("write the value out, or put text that begins with * in quotes"),
                )?;
                self.put(Node {
                    pos,
                    value: Value::Null,
                    plain: false,
                })
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                self.fault(
                    pos,
                    Wrong::new("a second document begins here").hint("one file holds one document"),
                )?;
                Err(Stop)
            }
            _ => Ok(()),
        }
    }

    fn refuse_extras(&mut self, pos: Pos, anchor: usize, tagged: bool) -> Result<(), Stop> {
        if anchor != 0 {
            self.fault(
                pos,
                Wrong::new("YAML anchors (&name) are not taken here").hint("write the value out"),
            )?;
        }
        if tagged {
            self.fault(
                pos,
                Wrong::new("YAML tags (!name) are not taken here").hint("leave the tag out"),
            )?;
        }
        Ok(())
    }

    fn begin(&mut self, pos: Pos, what: Collection) -> Result<(), Stop> {
        if let Some(Open {
            what: Collection::Map { key: None, .. },
            ..
        }) = self.open.last()
        {
            self.fault(
                pos,
                Wrong::new("a key must be text").hint("put text that begins with { or [ in quotes"),
            )?;
            return Err(Stop);
        }
        let most = self.most_depth;
        if self.open.len() >= most {
            self.fault(pos, Wrong::new(format!("nested deeper than {most}")))?;
            return Err(Stop);
        }
        self.open.push(Open { pos, what });
        Ok(())
    }

    /// Ends the innermost collection. A key whose value never came goes with it.
    fn close(&mut self) -> Result<(), Stop> {
        let Some(Open { pos, what }) = self.open.pop() else {
            return Ok(());
        };
        let value = match what {
            Collection::List(items) => Value::List(items),
            Collection::Map { entries, .. } => Value::Map(entries),
        };
        self.put(Node {
            pos,
            value,
            plain: false,
        })
    }

    fn put(&mut self, node: Node) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            self.fault(
                node.pos,
                Wrong::new(format!("more than {MOST_NODES} values in one file")),
            )?;
            return Err(Stop);
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open {
                what: Collection::List(items),
                ..
            }) => items.push(node),
            Some(Open {
                what: Collection::Map { entries, key },
                ..
            }) => match key.take() {
                Some((key, pos)) => entries.push(Entry {
                    key,
                    pos,
                    value: node,
                }),
                None => match node.value {
                    Value::Text(text) => *key = Some((text, node.pos)),
                    _ => {
                        *key = Some((String::new(), node.pos));
                        self.fault(node.pos, Wrong::new("a key must be text"))?;
                    }
                },
            },
        }
        Ok(())
    }

    fn fault(&mut self, pos: Pos, wrong: Wrong) -> Result<(), Stop> {
        self.faults.push(FormFault { pos, wrong });
        if self.faults.len() < MOST_FAULTS {
            Ok(())
        } else {
            Err(Stop)
        }
    }
}

impl Value {
    /// What this is, for a message. Never the content: it may be a secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// What a scalar means by itself (YAML 1.2.2, 10.3): null, a truth, a number, or text. `None` for lists and mappings.
pub fn scalar(node: &Node) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    let text = match &node.value {
        Value::Null => return Some(Json::Null),
        Value::Text(text) => text,
        Value::List(_) | Value::Map(_) => return None,
    };
    if !node.plain {
        return Some(Json::from(text.as_str()));
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix, radix| {
        text.strip_prefix(prefix)
            .and_then(|digits| u64::from_str_radix(digits, radix).ok())
    };
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    Some(match text.as_str() {
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        _ => radix("0x", 16)
            .or_else(|| radix("0o", 8))
            .map(Json::from)
            .or_else(|| text.parse::<i64>().ok().map(Json::from))
            .or_else(|| text.parse::<u64>().ok().map(Json::from))
            .or_else(|| {
                let real = number.then(|| text.parse::<f64>().ok()).flatten()?;
                serde_json::Number::from_f64(real).map(Json::Number)
            })
            .unwrap_or_else(|| Json::from(text.as_str())),
    })
}

/// A whole document as JSON, each scalar by itself; for files of others, which nest deeper than ours. Bounded by bytes and values.
///
/// # Errors
/// The first fault of form; a key that is there twice is one.
pub fn document(text: &str) -> Result<serde_json::Value, FormFault> {
    let node = parse_to(text, MOST_DOCUMENT_DEPTH).map_err(|faults| {
        let none = || FormFault {
            pos: Pos { line: 1, column: 1 },
            wrong: Wrong::new("not valid YAML"),
        };
        faults.into_iter().next().unwrap_or_else(none)
    })?;
    json(node)
}

fn json(node: Node) -> Result<serde_json::Value, FormFault> {
    use serde_json::Value as Json;
    if let Some(value) = scalar(&node) {
        return Ok(value);
    }
    Ok(match node.value {
        Value::List(items) => Json::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Value::Map(entries) => {
            let mut members = serde_json::Map::new();
            for entry in entries {
                let (key, pos) = (entry.key, entry.pos);
                let wrong = Wrong::new(format!("key {} is given twice", quote(&key)));
                if members.insert(key, json(entry.value)?).is_some() {
                    return Err(FormFault { pos, wrong });
                }
            }
            Json::Object(members)
        }
        Value::Null | Value::Text(_) => Json::Null,
    })
}

/// A key as a step of a path: bare if it is an ordinary name.
pub fn step(key: &str) -> String {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '*');
    if !key.is_empty() && key.len() <= 64 && key.chars().all(ordinary) {
        key.to_owned()
    } else {
        quote(key)
    }
}
