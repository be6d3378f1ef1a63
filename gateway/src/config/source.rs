//! A text and its name. Owns finding a line again; knows nothing of what the text says.

use super::fault::Excerpt;
use super::raw::Pos;

/// A text under its name, for excerpts.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    text: String,
    /// Byte offsets of the line starts.
    starts: Vec<usize>,
}

impl Source {
    pub fn new(name: String, text: String) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { name, text, starts }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line at `pos`, pointing there.
    pub fn excerpt(&self, pos: Pos) -> Option<Excerpt> {
        let start = *self.starts.get(pos.line as usize - 1)?;
        let line = self.text.get(start..)?.lines().next()?;
        Some(Excerpt::of(line, pos.column))
    }
}
