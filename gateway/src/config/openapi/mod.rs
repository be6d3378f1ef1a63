//! OpenAPI documents (3.0 and 3.1): what an API promises, compiled for looking at requests and answers.
//!
//! [`files`] reads, and keeps references within the directory; `schema` brings schemas into one form; [`document`] knows what an
//! operation is. Holding a message against it is the request path's.

mod compile;
pub mod document;
mod files;
mod paths;
mod schema;

pub use document::{Content, Contract, In, Kinds, Operation, Parameter, Scheme, Status, Style, Validator};
pub use paths::{Found, Template};

/// What is wrong with a document, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: String,
    pub message: String,
}

impl Fault {
    fn new(place: &str, message: impl Into<String>) -> Self {
        Self {
            place: place.to_owned(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
