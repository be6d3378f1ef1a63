//! Files that a configuration names. Owns how they are found, opened and bounded; knows nothing of their content.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::config::decode::{Field, Walk};
use crate::config::fault::{Wrong, quote};

/// The file that `field` names, relative names meant against the directory of the configuration.
pub(super) fn named(walk: &mut Walk, field: &Field<'_>) -> Option<PathBuf> {
    let base = walk.base.clone();
    walk.value(field, |text| name(text).map(|path| base.join(path)))
}

/// A name that does not depend on where the gateway was started.
///
/// # Errors
/// A relative one.
pub(super) fn absolute(text: &str) -> Result<PathBuf, Wrong> {
    let path = name(text)?;
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Wrong::new(format!("{} is not an absolute path", quote(text))).hint("begin it with /"))
}

fn name(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') || text.len() > 4096 {
        return Err(Wrong::new(format!("{} is not a file name", quote(text))));
    }
    Ok(text.into())
}

/// Opens an ordinary file. Others are refused: a pipe or device may never end, or never begin.
///
/// # Errors
/// Names the file and what the system said.
pub(super) fn open(path: &Path) -> Result<File, Wrong> {
    let shown = quote(&path.to_string_lossy());
    let kind = std::fs::metadata(path).map_err(|error| unreadable(&shown, &error))?;
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "a directory"
        } else {
            "not an ordinary file"
        };
        return Err(Wrong::new(format!("can not read {shown}: it is {what}")));
    }
    File::open(path).map_err(|error| unreadable(&shown, &error))
}

/// The bytes of a file of at most `most` bytes.
///
/// # Errors
/// As [`open`], and a file that is larger.
pub(in crate::config) fn read(path: &Path, most: usize) -> Result<Vec<u8>, Wrong> {
    let shown = quote(&path.to_string_lossy());
    let mut bytes = Vec::new();
    let file = open(path)?;
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&shown, &error))?;
    if bytes.len() > most {
        return Err(Wrong::new(format!(
            "{shown} is larger than {}",
            crate::config::units::show_size(most as u64)
        )));
    }
    Ok(bytes)
}

/// As [`read`], as text.
///
/// # Errors
/// As [`read`], and bytes that are not UTF-8.
pub(in crate::config) fn read_text(path: &Path, most: usize) -> Result<String, Wrong> {
    String::from_utf8(read(path, most)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Wrong::new(format!(
            "{} is not text in UTF-8: see line {line}",
            quote(&path.to_string_lossy())
        ))
    })
}

fn unreadable(shown: &str, error: &std::io::Error) -> Wrong {
    let said = error.to_string();
    let said = said.split(" (os error").next().unwrap_or_default();
    let wrong = Wrong::new(format!("can not read {shown}: {said}"));
    match error.kind() {
        ErrorKind::PermissionDenied => wrong.hint("the user that runs the gateway must be able to read it"),
        ErrorKind::NotFound => wrong.hint("relative names start from the directory of the configuration"),
        _ => wrong,
    }
}
