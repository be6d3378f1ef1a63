//! `deny list`, `allow list`: a list of any length, written as it arrives. Holds one page of it.

use std::io::{BufWriter, Write};

use super::args::Args;
use super::ask::{begin, unexpected};
use super::{Exit, Failed, Result, render};
use crate::admin::api::{Answer, EntryRow, Request, RuleList};

/// Prints a list.
pub fn print(args: &Args, list: RuleList) -> Result<Exit> {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut layout: Box<dyn Layout> = if args.json {
        Box::<Json>::default()
    } else {
        Box::<render::Entries>::default()
    };
    let (mut answer, mut answerer) = begin(args, Request::ListRules { list, after: None })?;
    loop {
        let Answer::Page {
            more_after,
            unfiltered,
            text,
            ..
        } = answer
        else {
            return Err(unexpected());
        };
        let mut written = layout.rows(&text).and_then(|shown| Ok(out.write_all(&shown)?));
        if more_after.is_none() && written.is_ok() {
            written = out
                .write_all(&layout.end(&unfiltered))
                .and_then(|()| out.flush())
                .map_err(Into::into);
        }
        match written {
            Err(Unwritten::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(Exit::Done);
            }
            Err(Unwritten::Output(error)) => {
                return Err(Failed::new(Exit::Failed, format!("standard output: {error}")));
            }
            Err(Unwritten::Garbled) => return Err(unexpected()),
            Ok(()) => {}
        }
        if more_after.is_none() {
            return Ok(Exit::Done);
        }
        let after = more_after;
        answer = answerer.ask(Request::ListRules { list, after })?;
    }
}

enum Unwritten {
    Output(std::io::Error),
    Garbled,
}

impl From<std::io::Error> for Unwritten {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// How a list looks, page by page.
trait Layout {
    /// `text` has a row a line, as a JSON document.
    fn rows(&mut self, text: &[u8]) -> std::result::Result<Vec<u8>, Unwritten>;
    fn end(&mut self, unfiltered: &[String]) -> Vec<u8>;
}

fn rows(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|row| !row.is_empty())
}

impl Layout for render::Entries {
    fn rows(&mut self, text: &[u8]) -> std::result::Result<Vec<u8>, Unwritten> {
        let rows: std::result::Result<Vec<EntryRow>, _> = rows(text).map(serde_json::from_slice).collect();
        let rows = rows.map_err(|_| Unwritten::Garbled)?;
        Ok(self.page(&rows).into_bytes())
    }

    fn end(&mut self, unfiltered: &[String]) -> Vec<u8> {
        self.last(unfiltered).into_bytes()
    }
}

/// An array with a row a line.
#[derive(Default)]
struct Json {
    begun: bool,
}

impl Layout for Json {
    fn rows(&mut self, text: &[u8]) -> std::result::Result<Vec<u8>, Unwritten> {
        let mut out = Vec::with_capacity(text.len() + (text.len() >> 4));
        for row in rows(text) {
            out.extend_from_slice(if self.begun { b",\n  " } else { b"[\n  " });
            out.extend_from_slice(row);
            self.begun = true;
        }
        Ok(out)
    }

    fn end(&mut self, _: &[String]) -> Vec<u8> {
        if self.begun {
            b"\n]\n".to_vec()
        } else {
            b"[]\n".to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_make_one_array() {
        for (pages, all) in [
            (vec!["", ""], 0),
            (vec!["{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}\n"], 3),
        ] {
            let mut json = Json::default();
            let mut out = Vec::new();
            for page in pages {
                out.extend(json.rows(page.as_bytes()).unwrap_or_default());
            }
            out.extend(json.end(&[]));
            let read: Vec<serde_json::Value> = serde_json::from_slice(&out).expect("an array");
            assert_eq!(read.len(), all);
        }
    }
}
