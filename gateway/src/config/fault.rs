//! What is wrong with a configuration, and how that is told to people and to programs.
//!
//! Owns the report: faults, warnings, their order and their print. Knows nothing of what the settings mean. A fault
//! never shows a secret: whoever finds one in the neighbourhood of keys leaves the excerpt out.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

/// Most faults that one report holds; the rest are counted. A report of thousands helps nobody.
const MOST_FAULTS: usize = 100;

/// Most characters of a source line that are shown.
const EXCERPT_WIDTH: usize = 100;

/// Why a single value was refused, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub hint: Option<String>,
}

impl Wrong {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// With advice on what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for Wrong {}

/// A source line with the column that a fault points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    text: String,
    /// Characters in front of the caret.
    caret: usize,
}

impl Excerpt {
    /// The part of `line` around `column` (from 1), fit for a terminal.
    pub fn of(line: &str, column: u32) -> Self {
        let caret = (column.max(1) - 1) as usize;
        let start = if caret >= EXCERPT_WIDTH {
            caret - EXCERPT_WIDTH / 2
        } else {
            0
        };
        let text: String = line
            .chars()
            .skip(start)
            .take(EXCERPT_WIDTH)
            .map(harmless)
            .collect();
        Self {
            text: text.trim_end().to_owned(),
            caret: caret - start,
        }
    }
}

/// A character that can not steer a terminal: no controls, no reversal of the writing direction.
fn harmless(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// File as the operator named it.
    pub file: String,
    /// Line, from 1; 0 if the fault is of the file as a whole.
    pub line: u32,
    /// Column in characters, from 1; 0 if the fault is of the file as a whole.
    pub column: u32,
    /// Where in the structure, such as `routes[1].upstream[0].url`; empty for the top.
    pub path: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

impl Fault {
    /// The fault on one line, as compilers write it: `file:line:column: path: message; hint`.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut line = self.file.chars().map(harmless).collect::<String>();
        if self.line > 0 {
            line += &format!(":{}:{}", self.line, self.column);
        }
        if !self.path.is_empty() {
            line += &format!(": {}", self.path);
        }
        line += &format!(": {}", self.message);
        if let Some(hint) = &self.hint {
            line += &format!("; {hint}");
        }
        line
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, prefix: &str) -> fmt::Result {
        writeln!(f, "{prefix}{}", self.headline())?;
        if let Some(excerpt) = &self.excerpt {
            writeln!(f, "{:>6} | {}", self.line, excerpt.text)?;
            writeln!(f, "       | {:caret$}^", "", caret = excerpt.caret)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

/// Something that is allowed and probably not meant. Written like a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Warning(pub Fault);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "warning: ")
    }
}

/// Everything wrong with a configuration, in the order of files and lines.
///
/// `Display` is the report for people; `Serialize` the one for programs:
/// `{"errors": [{file, line, column, path, message, hint}], "warnings": [...], "left_out": 0}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    pub errors: Vec<Fault>,
    pub warnings: Vec<Warning>,
    /// Errors and warnings beyond the first hundred of each.
    pub left_out: usize,
}

impl Faults {
    pub(super) fn error(&mut self, fault: Fault) {
        if self.errors.len() < MOST_FAULTS {
            self.errors.push(fault);
        } else {
            self.left_out += 1;
        }
    }

    /// The first error in a line, and how many more there are.
    #[must_use]
    pub fn first(&self) -> String {
        let shown = |fault: &Fault| match fault.line {
            0 => fault.message.clone(),
            line => format!("{}:{line}: {}", fault.file, fault.message),
        };
        let more = match self.errors.len() + self.left_out {
            0 | 1 => String::new(),
            n => format!(", and {} more", n - 1),
        };
        self.errors.first().map(shown).unwrap_or_default() + &more
    }

    pub(super) fn warning(&mut self, fault: Fault) {
        if self.warnings.len() < MOST_FAULTS {
            self.warnings.push(Warning(fault));
        } else {
            self.left_out += 1;
        }
    }

    /// Brings faults and warnings into the order of the text; files in the order in which they were opened.
    ///
    /// A line that one fault keeps hidden, because secrets stand there, is hidden from the others as well.
    pub(super) fn finish(&mut self, files: &[String]) {
        let all = || {
            self.errors
                .iter()
                .chain(self.warnings.iter().map(|warning| &warning.0))
        };
        let place = |fault: &Fault| (fault.file.clone(), fault.line);
        let hidden: BTreeSet<_> = all().filter(|fault| fault.excerpt.is_none()).map(place).collect();
        let seen = self
            .errors
            .iter_mut()
            .chain(self.warnings.iter_mut().map(|warning| &mut warning.0));
        for fault in seen.filter(|fault| hidden.contains(&place(fault))) {
            fault.excerpt = None;
        }
        let key = |fault: &Fault| {
            (
                files.iter().position(|f| *f == fault.file),
                fault.line,
                fault.column,
            )
        };
        self.errors.sort_by_key(key);
        self.warnings.sort_by_key(|warning| key(&warning.0));
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.errors {
            write!(f, "{fault}")?;
        }
        for warning in &self.warnings {
            write!(f, "{warning}")?;
        }
        if self.left_out > 0 {
            writeln!(f, "and {} more", self.left_out)?;
        }
        let (errors, warnings) = (self.errors.len(), self.warnings.len());
        write!(
            f,
            "{}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        )
    }
}

impl std::error::Error for Faults {}

/// `1 error`, `2 errors`.
pub(super) fn counted(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// Text as it may appear in a message: in quotes, short, without anything that steers a terminal.
pub(super) fn quote(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).map(harmless).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// The known name that `name` was most likely meant to be.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&plain, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}
