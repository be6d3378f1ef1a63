//! What an operator wrote for the gateway's own errors. A part of the model, which hands it on.

use std::sync::Arc;

use super::rare::Unsaid;

use http::{HeaderValue, StatusCode};

/// Pages by status. Empty by default: then answers are problem documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    /// For single statuses.
    pub exact: Vec<(u16, Arc<ErrorPage>)>,
    /// For a hundred each, by the first digit.
    pub classes: Vec<(u16, Arc<ErrorPage>)>,
}

impl Unsaid for ErrorPages {
    const UNSAID: &'static Self = &Self {
        exact: Vec::new(),
        classes: Vec::new(),
    };
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    pub content_type: HeaderValue,
    pub body: Vec<PagePiece>,
    /// How what is filled in is written.
    pub escape: Escape,
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PagePiece {
    Text(String),
    Code,
    Status,
    Title,
    RequestId,
}

/// How text is kept from being more than text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    None,
    Html,
    Json,
}

impl ErrorPages {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.classes.is_empty()
    }

    /// The page for a status: its own before that of its class.
    #[must_use]
    pub fn get(&self, status: StatusCode) -> Option<&ErrorPage> {
        let (status, class) = (status.as_u16(), status.as_u16() / 100);
        let find = |pages: &'_ [(u16, Arc<ErrorPage>)], of: u16| pages.iter().position(|(key, _)| *key == of);
        if let Some(at) = find(&self.exact, status) {
            return self.exact.get(at).map(|(_, page)| &**page);
        }
        let at = find(&self.classes, class)?;
        self.classes.get(at).map(|(_, page)| &**page)
    }
}
