//! The validated form of what a route matches and what it does itself. A part of the model, which hands it on.
//!
//! Owns the types and what makes two of them equal; knows nothing of YAML, of how a match is found or an answer built.

use std::fmt;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Part, UpstreamId};

/// Host names are lower case and without a port or a final dot; IPv6 addresses stand in brackets, in canonical form.
/// Most specific first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostMatch {
    Exact(String),
    /// `*.example.com`, stored without `*.`; matches any number of labels in front.
    Suffix(String),
    Any,
}

/// Which paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMatch {
    /// As written: `/v1/orders/**`, `/users/{id}`, `/health`, or the regular expression.
    pub pattern: String,
    pub shape: Shape,
}

impl PathMatch {
    /// Names of what it captures.
    pub fn captures(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.shape {
            Shape::Regex(pattern) => Box::new(pattern.names()),
            Shape::Segments { segments, .. } => {
                Box::new(segments.iter().filter_map(|segment| match segment {
                    Segment::Capture(name) => Some(name.as_str()),
                    Segment::Literal(_) | Segment::Glob => None,
                }))
            }
        }
    }
}

/// What a path must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A pattern, split at its slashes. `/` alone has no segments.
    Segments {
        segments: Vec<Segment>,
        /// Ends in `/**`: covers the path itself and everything below it. Then no segment is a [`Segment::Glob`].
        prefix: bool,
    },
    /// The whole canonical path.
    Regex(Pattern),
}

/// Literals hold only characters that a path carries unescaped (RFC 3986, 3.3), so that a pattern has one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    Literal(String),
    /// `{name}`: exactly one non-empty segment.
    Capture(String),
    /// `**` with segments after it: any number of segments, none included, and as few as will do. Once in a pattern.
    Glob,
}

/// A regular expression over bytes, anchored at both ends. Matching takes time linear in the text; the compiled form is
/// bounded in size and shared by its copies.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    regex: regex::bytes::Regex,
}

/// Most memory of a compiled expression, and of what is kept of it while it is used, in bytes.
const MOST_REGEX: usize = 256 << 10;

impl Pattern {
    /// # Errors
    /// What is wrong with the expression, or that it is too large.
    pub fn new(source: &str) -> Result<Self, String> {
        let build = |source: &str| {
            regex::bytes::RegexBuilder::new(source)
                .unicode(false)
                .size_limit(MOST_REGEX)
                .dfa_size_limit(MOST_REGEX)
                .nest_limit(50)
                .build()
        };
        // Alone first: `a)|(b` is no expression, and between the anchors it would be one without them.
        match build(source).and_then(|_| build(&anchored(source))) {
            Ok(regex) => Ok(Self {
                source: source.to_owned(),
                regex,
            }),
            Err(regex::Error::CompiledTooBig(_)) => Err("it is too large when compiled".to_owned()),
            // The message draws the expression over several lines; its last one says what is wrong.
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                Err(last.trim_start_matches("error: ").to_owned())
            }
        }
    }

    /// As [`Pattern::new`], but not anchored: it is looked for anywhere in a text.
    ///
    /// # Errors
    /// As [`Pattern::new`].
    pub fn anywhere(source: &str) -> Result<Self, String> {
        let Self { source, .. } = Self::new(source)?;
        let regex = regex::bytes::RegexBuilder::new(&source)
            .unicode(false)
            .size_limit(MOST_REGEX)
            .dfa_size_limit(MOST_REGEX)
            .nest_limit(50)
            .build();
        let regex = regex.map_err(|error| error.to_string())?;
        Ok(Self { source, regex })
    }

    /// As written, without anchors.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// What the group `name` matched.
    #[must_use]
    pub fn capture<'t>(&self, text: &'t [u8], name: &str) -> Option<&'t [u8]> {
        let found = self.regex.captures(text)?.name(name)?;
        Some(found.as_bytes())
    }

    /// Every match in `text` replaced by `parts`; `None` if that is longer than `most` bytes.
    #[must_use]
    pub fn replace(&self, text: &[u8], parts: &[Part], most: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for found in self.regex.captures_iter(text) {
            let whole = found.get_match();
            out.extend_from_slice(text.get(at..whole.start())?);
            for part in parts {
                out.extend_from_slice(match part {
                    Part::Text(text) => text.as_bytes(),
                    Part::Group(group) => found.get(*group).map_or(b"", |group| group.as_bytes()),
                });
            }
            if out.len() > most {
                return None;
            }
            at = whole.end();
        }
        out.extend_from_slice(text.get(at..)?);
        (out.len() <= most).then_some(out)
    }

    /// The number of the group `name`: its number, or its name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<usize> {
        let number = name.parse().ok().filter(|n| *n < self.regex.captures_len());
        number.or_else(|| self.regex.capture_names().position(|own| own == Some(name)))
    }

    /// Names of groups.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.regex.capture_names().flatten()
    }
}

/// The expression as it is compiled: it must match the whole text.
pub(in crate::config) fn anchored(source: &str) -> String {
    format!(r"\A(?:{source})\z")
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source)
    }
}

/// What a request must be besides its host and its path. Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Sorted. With GET there is always HEAD, which asks for the same (RFC 9110, 9.3.2). Empty: any method.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// By the decoded name of a parameter.
    pub query: Vec<(String, ValueMatch)>,
}

impl Conditions {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }

    /// How specific this is, for routes of one host and path: the greater is asked first. Methods count first, then
    /// whole values, then parts of values, then presence.
    #[must_use]
    pub fn rank(&self) -> Rank {
        let values = || {
            let headers = self.headers.iter().map(|(_, value)| value);
            headers.chain(self.query.iter().map(|(_, value)| value))
        };
        let whole = values().filter(|value| matches!(value, ValueMatch::Exact(_)));
        let part = values().filter(|value| matches!(value, ValueMatch::Prefix(_) | ValueMatch::Regex(_)));
        let there = values().filter(|value| matches!(value, ValueMatch::Present | ValueMatch::Absent));
        (
            !self.methods.is_empty(),
            whole.count(),
            part.count(),
            there.count(),
        )
    }
}

/// See [`Conditions::rank`].
pub type Rank = (bool, usize, usize, usize);

/// What a header line or a query parameter must be. A value is looked at only if there is exactly one: which of two the
/// service behind would take, nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    Exact(String),
    Prefix(String),
    Regex(Pattern),
    Present,
    Absent,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Forward(UpstreamId),
    Redirect(Redirect),
    Respond(Respond),
}

impl Action {
    /// The upstream, if there is one.
    #[must_use]
    pub fn upstream(&self) -> Option<UpstreamId> {
        match self {
            Self::Forward(upstream) => Some(*upstream),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Begins with `https://`, `http://` or one slash; its authority is written out or is `{host}`.
    pub to: Template,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    pub body: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A text with places to fill in from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// `{host}`: the host that the request names, with its port.
    Host,
    /// `{path}`: the canonical path, with its slash in front.
    Path,
    /// `{query}`: the query with `?` in front, or nothing.
    Query,
    /// `{rest}`: what `/**` took, without a slash in front.
    Rest,
    /// `{name}`: a capture of the path pattern, or a named group of the regular expression.
    Capture(String),
}

/// Which scripts of other origins may read the answers of a route (Fetch, 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Vec<Origin>,
    pub methods: Vec<Method>,
    /// Header lines that a script may send besides the harmless ones.
    pub headers: Vec<HeaderName>,
    /// Header lines of an answer that a script may read besides the harmless ones.
    pub expose: Vec<HeaderName>,
    /// Whether cookies may be sent. Never with [`Origin::Any`].
    pub credentials: bool,
    /// How long a browser may remember the answer, in seconds.
    pub max_age: u32,
}

/// An origin: scheme, host and port, as browsers write it (RFC 6454, 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Any,
    /// `https://app.example.com`
    Exact(String),
    /// `https://*.example.com`: any number of labels in front, at least one.
    Below {
        /// `https://`
        scheme: String,
        /// `.example.com` or `.example.com:8443`
        suffix: String,
    },
}

/// What is done about paths that servers read differently, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// `%2F` and `%5C` stay as they are within their segment, instead of a refusal.
    pub keep_encoded_slashes: bool,
    /// `;` and `%3B` are refused: to some servers what follows is a parameter and no part of the path.
    pub refuse_parameters: bool,
}

/// Which header of a trusted proxy names the client. The other is dropped: a proxy that writes the one lets whatever a
/// client wrote in the other pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardingHeader {
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// How answers of a route are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// In the order in which they are preferred where the client does not care.
    pub codings: Vec<Coding>,
    /// Shortest body that is worth it, in bytes.
    pub min_bytes: u64,
}

/// A content coding (RFC 9110, 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}
