//! The validated form of what a route changes in bodies. A part of the model, which hands it on.

use std::sync::Arc;

use super::shape::ValueTemplate;
use crate::config::openapi::Contract;

/// How the body of a message is made another. It is held in memory for that, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEdit {
    pub from: BodyForm,
    /// In order.
    pub edits: Vec<JsonEdit>,
    pub to: BodyMade,
    /// Longest body, decoded, in bytes. That which is made has the same bound.
    pub max_bytes: u64,
    /// Deepest nesting of JSON.
    pub max_depth: u32,
    /// What becomes of an answer that can not be changed. A request is refused.
    pub wrong: WrongBody,
}

/// What a body is before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// `application/json` and every `+json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// What a body is afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyMade {
    Json,
    Form,
    /// Written anew by a template, which is known to be well formed.
    Page {
        source: String,
        content_type: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongBody {
    /// 502.
    Refuse,
    /// It goes on as it is.
    Pass,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonEdit {
    /// Objects that are missing on the way are made; an index replaces in a list, `-` appends.
    Set {
        at: Pointer,
        value: JsonTemplate,
    },
    Remove(Pointer),
    /// The member keeps its place.
    Rename {
        at: Pointer,
        to: String,
    },
    Move {
        from: Pointer,
        to: Pointer,
    },
}

impl JsonEdit {
    /// Where it leads.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        let (one, other) = match self {
            Self::Set { at, .. } | Self::Remove(at) | Self::Rename { at, .. } => (at, None),
            Self::Move { from, to } => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }
}

/// A JSON Pointer (RFC 6901), its steps decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(pub Vec<String>);

impl Pointer {
    /// `None` if it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let step = |step: &str| {
            let mut rest = step.split('~').skip(1);
            let good = rest.all(|after| after.starts_with(['0', '1']));
            good.then(|| step.replace("~1", "/").replace("~0", "~"))
        };
        let steps = text.strip_prefix('/')?.split('/').map(step);
        Some(Self(steps.collect::<Option<_>>()?))
    }
}

/// A JSON value, with texts that are made of facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTemplate {
    /// As JSON text.
    Literal(String),
    Text(ValueTemplate),
    List(Vec<JsonTemplate>),
    Map(Vec<(String, JsonTemplate)>),
}

/// A document that requests and answers are held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validate {
    pub contract: Arc<Contract>,
    /// Number of the one operation that is meant; `None` for the one that fits.
    pub operation: Option<usize>,
    /// What stands in front of the document's paths; without a slash at the end.
    pub base: String,
    /// What is wrong is counted, and goes on.
    pub observe: bool,
    pub response: ResponseCheck,
    /// Whether query parameters must be described.
    pub refuse_unknown_query: bool,
    /// Longest body that is looked at, decoded, in bytes; a longer one is refused.
    pub max_bytes: u64,
    /// Deepest nesting of JSON.
    pub max_depth: u32,
}

/// What is done about answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCheck {
    Off,
    /// What is wrong is counted, and goes on.
    Observe,
    /// 502 in its place.
    Enforce,
}
