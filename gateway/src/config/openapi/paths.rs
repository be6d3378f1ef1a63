//! Path templates of a document, and which of them a path matches.

use std::collections::BTreeMap;

use crate::config::braces::{self, Part};

/// Most names in one segment: each more makes a search within a search.
const MOST_NAMES: usize = 3;

/// A path template, cut at its slashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Template(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// A concrete one goes before one with a name in it (OpenAPI, "Path Templating").
    Literal(String),
    Mixed(Vec<Piece>),
    Whole(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Text(String),
    Name(String),
}

/// Values of the names, decoded.
pub type Found = Vec<(String, String)>;

impl Template {
    /// `None` if it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/').map(segment);
        segments.collect::<Option<_>>().map(Self)
    }

    /// Names in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|segment| {
            let names: Vec<&str> = match segment {
                Segment::Literal(_) => Vec::new(),
                Segment::Whole(name) => vec![name],
                Segment::Mixed(pieces) => pieces
                    .iter()
                    .filter_map(|piece| match piece {
                        Piece::Name(name) => Some(name.as_str()),
                        Piece::Text(_) => None,
                    })
                    .collect(),
            };
            names
        })
    }

    /// Number of segments.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// What the names take of a path, if it matches: its segments, decoded.
    #[must_use]
    pub fn of(&self, path: &[String]) -> Option<Found> {
        if path.len() != self.0.len() {
            return None;
        }
        let mut found = Vec::new();
        for (segment, text) in self.0.iter().zip(path) {
            match segment {
                Segment::Literal(literal) => (literal == text).then_some(())?,
                Segment::Whole(_) if text.is_empty() => return None,
                Segment::Whole(name) => found.push((name.clone(), text.clone())),
                Segment::Mixed(pieces) => mixed(pieces, text, &mut found)?,
            }
        }
        Some(found)
    }

    /// The same as a pattern of a route; `None` if it can be none: a name beside other text in one segment, a slash at the
    /// end, or a character that is written otherwise in a path.
    #[must_use]
    pub fn pattern(&self) -> Option<String> {
        let mut out = String::new();
        for segment in &self.0 {
            out.push('/');
            match segment {
                Segment::Literal(text) if text.is_empty() || encoded(text) != *text || text.contains('*') => {
                    return None;
                }
                Segment::Literal(text) => out.push_str(text),
                Segment::Whole(name) => {
                    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                    let name: String = name.chars().map(plain).take(60).collect();
                    let front = if name.starts_with(|c: char| c.is_ascii_digit()) {
                        "_"
                    } else {
                        ""
                    };
                    out.push_str(&format!("{{{front}{name}}}"));
                }
                Segment::Mixed(_) => return None,
            }
        }
        Some(out)
    }
}

impl Template {
    /// The same as a regular expression for a whole path.
    #[must_use]
    pub fn regex(&self) -> String {
        let mut out = String::new();
        for segment in &self.0 {
            out.push('/');
            match segment {
                Segment::Literal(text) => out.push_str(&regex::escape(&encoded(text))),
                Segment::Whole(_) => out.push_str("[^/]+"),
                Segment::Mixed(pieces) => out.extend(pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => regex::escape(&encoded(text)),
                    Piece::Name(_) => "[^/]+".to_owned(),
                })),
            }
        }
        out
    }

    /// The canonical path of a request for it, with a word in the place of each name; and its segments, decoded.
    #[must_use]
    pub fn example(&self) -> (String, Vec<String>) {
        const WORD: &str = "anything0";
        let segments = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Whole(_) => WORD.to_owned(),
            Segment::Mixed(pieces) => {
                let text = |piece: &Piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Name(_) => WORD.to_owned(),
                };
                pieces.iter().map(text).collect()
            }
        });
        let segments: Vec<String> = segments.collect();
        let path = segments.iter().flat_map(|text| ["/".to_owned(), encoded(text)]);
        (path.collect(), segments)
    }
}

/// Text as it stands in a canonical path.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn segment(text: &str) -> Option<Segment> {
    if !text.contains(['{', '}']) {
        return Some(Segment::Literal(text.to_owned()));
    }
    let mut pieces = Vec::new();
    for part in braces::parts(text) {
        let name = match part? {
            Part::Text(plain) => {
                pieces.push(Piece::Text(plain.to_owned()));
                continue;
            }
            Part::Name(name) => name,
        };
        if name.is_empty() || matches!(pieces.last(), Some(Piece::Name(_))) {
            return None;
        }
        let names = pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Name(_)))
            .count();
        if names == MOST_NAMES {
            return None;
        }
        pieces.push(Piece::Name(name.to_owned()));
    }
    match pieces.as_slice() {
        [Piece::Name(name)] => Some(Segment::Whole(name.clone())),
        _ => Some(Segment::Mixed(pieces)),
    }
}

/// Each name takes as much as it can, and something.
fn mixed(pieces: &[Piece], text: &str, found: &mut Found) -> Option<()> {
    let Some((piece, more)) = pieces.split_first() else {
        return text.is_empty().then_some(());
    };
    let name = match piece {
        Piece::Text(literal) => return mixed(more, text.strip_prefix(literal.as_str())?, found),
        Piece::Name(name) => name,
    };
    let Some(Piece::Text(next)) = more.first() else {
        if text.is_empty() {
            return None;
        }
        found.push((name.clone(), text.to_owned()));
        return Some(());
    };
    let known = found.len();
    for (at, _) in text.rmatch_indices(next.as_str()).filter(|(at, _)| *at > 0) {
        found.push((name.clone(), text[..at].to_owned()));
        if mixed(more, &text[at..], found).is_some() {
            return Some(());
        }
        found.truncate(known);
    }
    None
}

/// Templates by their number of segments, the most concrete first.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeMap<usize, Vec<(Template, usize)>>);

impl Index {
    pub(super) fn insert(&mut self, template: Template, number: usize) {
        let all = self.0.entry(template.length()).or_default();
        all.push((template, number));
        all.sort();
    }

    pub(super) fn find(&self, path: &[String]) -> Option<(usize, Found)> {
        let all = self.0.get(&path.len())?;
        all.iter()
            .find_map(|(template, number)| Some((*number, template.of(path)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_concrete_template_wins_and_names_take_something() {
        let mut index = Index::default();
        for (n, text) in [
            "/a/{id}",
            "/a/mine",
            "/a/{id}.json",
            "/{x}/{y}",
            "/a/{f}-{t}/z",
            "/",
        ]
        .into_iter()
        .enumerate()
        {
            index.insert(Template::read(text).expect("a template"), n);
        }
        let find = |path: &str| {
            let path: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
            index
                .find(&path)
                .map(|(n, found)| (n, found.into_iter().map(|(_, v)| v).collect::<Vec<_>>().join(",")))
        };
        assert_eq!(find("/a/mine"), Some((1, String::new())));
        assert_eq!(find("/a/7"), Some((0, "7".into())));
        assert_eq!(find("/a/x.json.json"), Some((2, "x.json".into())));
        assert_eq!(find("/a/.json"), Some((0, ".json".into())));
        assert_eq!(find("/b/c"), Some((3, "b,c".into())));
        assert_eq!(find("/a/1-2-3/z"), Some((4, "1-2,3".into())));
        assert_eq!(find("/"), Some((5, String::new())));
        for none in ["/a", "/a/", "/a/-1/z", "/a/b/c"] {
            assert_eq!(find(none), None, "{none}");
        }
        for bad in ["", "a", "/{", "/{}", "/}", "/{a}{b}"] {
            assert_eq!(Template::read(bad), None, "{bad}");
        }
        assert_eq!(
            Template::read("/a/{user-id}")
                .and_then(|t| t.pattern())
                .as_deref(),
            Some("/a/{user_id}")
        );
    }
}
