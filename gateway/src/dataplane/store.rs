//! What operators commanded, on disk. Owns the file's form and its safe change; gives no meaning to entries.
//!
//! `rules.txt` is a list of *transactions*: lines that put or remove a rule, then a line with their number and
//! checksum. One more rule costs one short append and flush, however long the list is. A crash leaves the file with or
//! without the whole transaction: an unfinished one at the end never happened. When half of the file is history, and
//! before anything is appended to a file that is not what was left, the file is replaced whole: written beside, flushed,
//! renamed, the directory flushed. The lock is held by whoever may write, the daemon for its whole life.

mod log;
mod old;

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::backend::List;
use super::lock::{Holder, LockError, advice, exclusive};
use super::privilege;
pub use log::Record;

/// Lines of history that are kept although nothing is left of them.
const HISTORY: usize = 10_000;

/// One commanded rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub list: RuleList,
    pub net: IpNet,
    /// Milliseconds since 1970; absent for no end.
    pub until_ms: Option<u64>,
    pub reason: Option<Arc<str>>,
    /// Denied although it cuts off someone protected.
    pub forced: bool,
}

/// The lists that operators write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleList {
    Allow,
    Deny,
}

impl From<RuleList> for List {
    fn from(list: RuleList) -> Self {
        match list {
            RuleList::Allow => Self::Allow,
            RuleList::Deny => Self::Deny,
        }
    }
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "another {}{holder} holds {path}; {}", .holder.what(), advice(.holder, "state_dir")
    )]
    Locked { path: PathBuf, holder: Holder },
    #[error("can not {operation} {path}: {cause}{}", privilege::for_files(.cause))]
    Io {
        operation: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error(
        "{path} is damaged: {detail}; nothing was changed. Move the file away to start without the commanded \
         rules, or mend it"
    )]
    Damaged { path: PathBuf, detail: String },
}

impl StoreError {
    /// Who holds the lock, if that is why.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Locked { holder, .. } => Some(holder),
            _ => None,
        }
    }
}

/// How the file was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    /// Bytes of whole transactions.
    bytes: u64,
    lines: usize,
}

/// The state directory, with the right to write to it.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    directory: PathBuf,
    /// `None` if the file must be written whole before anything is appended.
    left: Cell<Option<Left>>,
    _lock: File,
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        operation,
        path,
        cause,
    }
}

impl Store {
    /// Takes the lock, making the directory if need be.
    pub fn lock(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(io("create", directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = lock.map_err(io("open", &path))?;
        match exclusive(&lock) {
            Ok(()) => {}
            Err(LockError::Held(holder)) => return Err(StoreError::Locked { path, holder }),
            Err(LockError::Io(error)) => return Err(io("lock", &path)(error)),
        }
        Ok(Self {
            file: file_in(directory),
            directory: directory.to_owned(),
            left: Cell::new(None),
            _lock: lock,
        })
    }

    /// Where the state lies, for what is kept beside the rules.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was saved last; empty if nothing ever was.
    pub fn load(&self) -> Result<Vec<Saved>, StoreError> {
        let (saved, left) = read(&self.directory)?;
        self.left.set(left);
        Ok(saved)
    }

    /// Whether a change can be appended: the file is as it was left, and not mostly history. `live` rules are in it.
    #[must_use]
    pub fn takes_more(&self, live: usize) -> bool {
        let size = || fs::metadata(&self.file).map(|data| data.len());
        self.left.get().is_some_and(|left| {
            left.lines <= 2 * live + HISTORY && size().is_ok_and(|size| size == left.bytes)
        })
    }

    /// Has the file written whole before the next change: it does not hold what its owner knows.
    pub fn distrust(&self) {
        self.left.set(None);
    }

    /// Appends one transaction: all of it is on the disk, or an error comes back and none of it will ever be read.
    pub fn append<'a>(&self, records: impl Iterator<Item = Record<'a>>) -> Result<(), StoreError> {
        // Until it is known to have worked, nothing may be appended after it.
        let Some(left) = self.left.take() else {
            let cause = std::io::Error::other("it was not written whole before");
            return Err(io("append to", &self.file)(cause));
        };
        let file = OpenOptions::new().append(true).open(&self.file);
        let file = file.map_err(io("open", &self.file))?;
        let written = log::transaction(&file, records).and_then(|more| {
            file.sync_data()?;
            Ok(more)
        });
        match written {
            Ok((bytes, lines)) => {
                self.left.set(Some(Left {
                    bytes: left.bytes + bytes,
                    lines: left.lines + lines,
                }));
                Ok(())
            }
            Err(error) => {
                // What can not be taken back is without its last line, and is not read; the next change writes anew.
                if file.set_len(left.bytes).and_then(|()| file.sync_data()).is_ok() {
                    self.left.set(Some(left));
                }
                Err(io("append to", &self.file)(error))
            }
        }
    }

    /// Replaces what was saved.
    pub fn replace<'a>(&self, rules: impl Iterator<Item = Record<'a>>) -> Result<(), StoreError> {
        let beside = self.directory.join("rules.txt.new");
        let file = File::create(&beside).map_err(io("create", &beside))?;
        let written = log::whole(&file, rules).and_then(|written| {
            file.sync_all()?;
            Ok(written)
        });
        let (bytes, lines) = written.map_err(io("write", &beside))?;
        fs::rename(&beside, &self.file).map_err(io("replace", &self.file))?;
        old::forget(&self.directory);
        File::open(&self.directory)
            .and_then(|dir| dir.sync_all())
            .map_err(io("flush", &self.directory))?;
        self.left.set(Some(Left { bytes, lines }));
        Ok(())
    }
}

fn file_in(directory: &Path) -> PathBuf {
    directory.join("rules.txt")
}

/// Reads the saved rules without the right to write; empty if nothing ever was saved.
pub fn peek(directory: &Path) -> Result<Vec<Saved>, StoreError> {
    Ok(read(directory)?.0)
}

fn read(directory: &Path) -> Result<(Vec<Saved>, Option<Left>), StoreError> {
    let file = file_in(directory);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((old::read(directory)?, None));
        }
        Err(error) => return Err(io("read", &file)(error)),
    };
    match log::read(&bytes) {
        Ok((saved, bytes, lines)) => Ok((saved, Some(Left { bytes, lines }))),
        Err(detail) => Err(StoreError::Damaged { path: file, detail }),
    }
}

#[cfg(test)]
mod tests;
