//! The validated form of what a route changes in messages. A part of the model, which hands it on.
//!
//! Owns the types; knows nothing of YAML or of how a change is carried out.

use http::{HeaderName, HeaderValue, StatusCode};

use super::rare::Unsaid;
use super::routing::{Pattern, Template};

/// A value made of facts of the request. If a fact is missing, so is the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueTemplate(pub Vec<Fact>);

/// Something known of a request that has been admitted, as it came: before any edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// What the operator wrote.
    Text(String),
    /// `{host}`: the host that the request names, with its port.
    Host,
    /// `{client_ip}`: the client's address, as a trusted proxy names it or else that of the socket.
    ClientIp,
    /// `{request_id}`
    RequestId,
    /// `{method}`
    Method,
    /// `{path}`: the canonical path.
    Path,
    /// `{query}`: the whole query without `?`.
    Query,
    /// `{query.name}`: the value of a parameter, decoded; missing if there are several.
    Parameter(String),
    /// `{scheme}`: `http` or `https`.
    Scheme,
    /// `{identity}`: the name of who calls.
    Identity,
    /// `{claim.sub}`: what is vouched for of who calls.
    Claim(String),
    /// `{header.name}`: the value of a line; missing if there are several.
    Header(HeaderName),
    /// `{rest}`: what `/**` took, without a slash in front.
    Rest,
    /// `{name}`: a capture of the path pattern, or a named group of the regular expression; as the path carries it.
    Capture(String),
}

/// Header lines to change: renamed, then removed, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    pub rename: Vec<(HeaderName, HeaderName)>,
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Lines whose values are made for each request, after all others.
    pub made: Vec<Made>,
}

/// A line whose value is made of facts. One without a value is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub name: HeaderName,
    pub value: ValueTemplate,
    /// Beside lines of this name that there are, not in their place.
    pub add: bool,
}

impl Unsaid for HeaderEdit {
    const UNSAID: &'static Self = &Self {
        rename: Vec::new(),
        remove: Vec::new(),
        set: Vec::new(),
        add: Vec::new(),
        made: Vec::new(),
    };
}

impl HeaderEdit {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the upstream is asked for instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub path: Option<PathRewrite>,
    pub host: HostRewrite,
}

impl Unsaid for Rewrite {
    const UNSAID: &'static Self = &Self {
        path: None,
        host: HostRewrite::Keep,
    };
}

/// How another path is made of the canonical one. What comes of it must be canonical again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path, written anew.
    Template(Template),
    /// Whole segments taken from the front, if they stand there, then others put there. Each begins with a slash and
    /// ends without one; may be empty.
    Prefix { strip: String, add: String },
    /// Every match of the expression, which is not anchored, replaced.
    Regex { pattern: Pattern, replace: Vec<Part> },
}

/// A part of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// What a group of the expression matched; nothing if it took no part.
    Group(usize),
}

/// Which host the upstream is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostRewrite {
    /// The one that the client named.
    #[default]
    Keep,
    /// That of the upstream's own address.
    Upstream,
    Name(HeaderValue),
}

/// Parameters of the query to change: renamed, then removed, then set, then added. Names are compared decoded; what is not
/// touched stays as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryEdit {
    pub rename: Vec<(String, String)>,
    pub remove: Vec<String>,
    pub set: Vec<(String, ValueTemplate)>,
    pub add: Vec<(String, ValueTemplate)>,
}

impl Unsaid for QueryEdit {
    const UNSAID: &'static Self = &Self {
        rename: Vec::new(),
        remove: Vec::new(),
        set: Vec::new(),
        add: Vec::new(),
    };
}

impl QueryEdit {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Statuses of answers that the client sees as others. Single ones first, then whole classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusMap(pub Vec<StatusChange>);

/// One row: from a range of statuses, both ends included, to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusChange {
    pub from: (u16, u16),
    pub to: StatusCode,
}

impl StatusMap {
    /// What the client sees.
    #[must_use]
    pub fn of(&self, status: StatusCode) -> StatusCode {
        let code = status.as_u16();
        let row = self
            .0
            .iter()
            .find(|row| (row.from.0..=row.from.1).contains(&code));
        row.map_or(status, |row| row.to)
    }
}
