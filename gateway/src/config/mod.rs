//! What an operator writes, in three forms: raw text, checked model, and (in `runtime`) what serves traffic.
//!
//! Owns the way from a file to a [`Config`] that is known to be good, and the report if it is not. Imports no sibling:
//! everything else is built from the model. The way is `raw` (YAML to a tree with places), `decode` (walking it and
//! gathering faults), `check` (what the settings mean), `model` (the outcome).

mod braces;
mod check;
mod decode;
pub mod defaults;
pub mod fault;
pub mod model;
pub mod moment;
pub mod openapi;
pub mod page;
mod raw;
mod scalar;
mod source;
mod survey;
pub mod units;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use check::auth::{read_keys, read_passwords};
pub use check::lists::{Reread, read_again};
pub use check::strikes::STRIKE_CODES;
pub use fault::{Fault, Faults, Warning};
pub use model::Config;
pub use survey::Survey;

use decode::{Field, Walk};
use fault::Wrong;
use source::Source;

impl Config {
    /// Reads and checks a configuration file, and every file that it names.
    ///
    /// Relative names in it are meant against the directory that the file lies in. Changes nothing anywhere, and
    /// does not look at interfaces, sockets or the network.
    ///
    /// # Errors
    /// All faults that were found, with the warnings.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Faults> {
        let name = path.display().to_string();
        match check::files::read_text(path, raw::MOST_BYTES) {
            Ok(text) => Self::parse(&text, &name, path.parent().unwrap_or(Path::new(""))),
            Err(Wrong { message, hint }) => {
                let mut faults = Faults::default();
                // The hint for files that a configuration names would mislead.
                let hint = if path.exists() {
                    hint
                } else {
                    Some("--config names another".to_owned())
                };
                let path = String::new();
                faults.error(Fault {
                    file: name,
                    line: 0,
                    column: 0,
                    path,
                    message,
                    hint,
                    excerpt: None,
                });
                Err(faults)
            }
        }
    }

    /// As [`Config::load`] from text: `origin_name` stands for the file in messages, `base_dir` for its directory.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, origin_name: &str, base_dir: &Path) -> Result<(Self, Vec<Warning>), Faults> {
        let mut walk = Walk::new(base_dir);
        walk_text(&mut walk, text, origin_name)
    }
}

/// [`Config::parse`] with a walk that the caller can look at afterwards.
fn walk_text(walk: &mut Walk, text: &str, origin_name: &str) -> Result<(Config, Vec<Warning>), Faults> {
    walk.files.push(origin_name.to_owned());
    let source = Source::new(origin_name.to_owned(), text.to_owned());
    match examine(walk, &source) {
        (Some(config), faults) if faults.errors.is_empty() => Ok((config, faults.warnings)),
        (_, faults) => Err(faults),
    }
}

/// What was made of a text, with defaults in the place of what is wrong, and everything that is.
fn examine(walk: &mut Walk, source: &Source) -> (Option<Config>, Faults) {
    let root = walk.parse(source, "", false);
    let config = root
        .as_ref()
        .and_then(|node| check::config(walk, &Field::root(source, node)));
    let mut faults = std::mem::take(&mut walk.faults);
    faults.finish(&walk.files);
    (config, faults)
}
