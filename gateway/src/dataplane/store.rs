//! What operators commanded, on disk. Owns the file's form and its safe replacement; gives no meaning to entries.
//!
//! The file is replaced whole: written beside, flushed, renamed, the directory flushed. A crash leaves the old
//! file or the new one. The lock is held by whoever may write, the daemon for its whole life.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::backend::List;
use super::lock::{LockError, exclusive, of_process};
use super::privilege;

/// Version of the file's form.
const VERSION: u32 = 1;

/// One commanded rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    pub list: RuleList,
    pub net: IpNet,
    /// Milliseconds since 1970; absent for no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Denied although it cuts off someone protected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    rules: Vec<Saved>,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "another gateway{} holds {path}; two can not share one state_dir: stop it, or give this one a state_dir of \
         its own",
        of_process(*.pid)
    )]
    Locked { path: PathBuf, pid: Option<u32> },
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

/// The state directory, with the right to write to it.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    directory: PathBuf,
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
            Err(LockError::Held(pid)) => return Err(StoreError::Locked { path, pid }),
            Err(LockError::Io(error)) => return Err(io("lock", &path)(error)),
        }
        Ok(Self {
            file: file_in(directory),
            directory: directory.to_owned(),
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
        read(&self.file)
    }

    /// Replaces what was saved.
    pub fn save(&self, rules: Vec<Saved>) -> Result<(), StoreError> {
        let text = serde_json::to_vec(&Document {
            version: VERSION,
            rules,
        })
        .map_err(|error| io("write", &self.file)(error.into()))?;
        let beside = self.directory.join("rules.json.new");
        let mut file = File::create(&beside).map_err(io("create", &beside))?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(io("write", &beside))?;
        fs::rename(&beside, &self.file).map_err(io("replace", &self.file))?;
        File::open(&self.directory)
            .and_then(|dir| dir.sync_all())
            .map_err(io("flush", &self.directory))
    }
}

fn file_in(directory: &Path) -> PathBuf {
    directory.join("rules.json")
}

/// Reads the saved rules without the right to write; empty if nothing ever was saved.
pub fn peek(directory: &Path) -> Result<Vec<Saved>, StoreError> {
    read(&file_in(directory))
}

fn read(file: &Path) -> Result<Vec<Saved>, StoreError> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", file)(error)),
    };
    let damaged = |detail: String| StoreError::Damaged {
        path: file.to_owned(),
        detail,
    };
    let document: Document = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if document.version != VERSION {
        return Err(damaged(format!(
            "form {} is not known to this version",
            document.version
        )));
    }
    Ok(document.rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(net: &str) -> Saved {
        Saved {
            list: RuleList::Deny,
            net: net.parse().expect("a network"),
            until_ms: Some(5),
            reason: Some("test".to_owned()),
            forced: false,
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::lock(&dir.path().join("state")).expect("the lock");
        assert_eq!(store.load().expect("nothing yet"), []);
        store.save(vec![rule("10.0.0.0/8")]).expect("saved");
        assert_eq!(store.load().expect("loaded"), [rule("10.0.0.0/8")]);
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Store::lock(dir.path()).expect("the lock");
        assert!(matches!(Store::lock(dir.path()), Err(StoreError::Locked { .. })));
        drop(first);
        Store::lock(dir.path()).expect("the lock, freed");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_list() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in [
            "",
            "{",
            r#"{"version":9,"rules":[]}"#,
            r#"{"version":1,"rules":[{"net":"x"}]}"#,
        ] {
            fs::write(file_in(dir.path()), text).expect("written");
            assert!(
                matches!(peek(dir.path()), Err(StoreError::Damaged { .. })),
                "{text:?}"
            );
        }
    }
}
