//! The right to be the only one: locks on files and directories, held for the life of a process.
//!
//! The kernel drops them with the process, however it ends. Whoever is refused learns who holds the lock, as far as
//! `/proc/locks` shows it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, major, minor};

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it, of this id if that is known.
    #[error("another gateway holds it{}", of_process(*.0))]
    Held(Option<u32>),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// ` (process 7)`, or nothing.
#[must_use]
pub fn of_process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// Takes the lock on an open file or directory. It is held until the file is closed.
pub fn exclusive(file: &File) -> Result<(), LockError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(holder(file))),
        Err(errno) => Err(LockError::Io(errno.into())),
    }
}

/// The lock on a directory of pins: two gateways on the same tables would undo each other's work, whatever else
/// they do not share.
#[derive(Debug)]
pub struct PinLock {
    dir: PathBuf,
    file: Option<File>,
}

impl PinLock {
    /// Takes the lock, making the directory if need be.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        loop {
            fs::create_dir_all(dir)?;
            let file = File::open(dir)?;
            exclusive(&file)?;
            // Whoever held it may have removed the directory just before letting go.
            if is_at(&file, dir) {
                return Ok(Self {
                    dir: dir.to_owned(),
                    file: Some(file),
                });
            }
        }
    }
}

impl Drop for PinLock {
    /// Leaves no empty directory behind.
    fn drop(&mut self) {
        if self.file.as_ref().is_some_and(|file| is_at(file, &self.dir)) {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (dev, ino) = (metadata.dev(), metadata.ino());
    let object = format!("{:02x}:{:02x}:{ino}", major(dev), minor(dev));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, &object))
}

/// The process in a line such as `1: FLOCK  ADVISORY  WRITE 6905 00:27:508819 0 EOF`. Lines of those who wait have an
/// arrow, and are not meant.
fn holder_in(line: &str, object: &str) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let (pid, locked) = (fields.nth(2)?, fields.next()?);
    // Zero or less: a process that can not be seen from here.
    (locked == object).then(|| pid.parse().ok().filter(|pid| *pid > 0))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_and_told_by_whom() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("pins");
        let first = PinLock::take(&dir).expect("the lock");
        match PinLock::take(&dir) {
            Err(LockError::Held(pid)) => assert!(pid.is_none_or(|pid| pid == std::process::id())),
            other => panic!("{other:?}"),
        }
        fs::create_dir(dir.join("v1")).expect("made");
        drop(first);
        assert!(dir.exists(), "what is in it stays");
        let again = PinLock::take(&dir).expect("the lock, freed");
        fs::remove_dir(dir.join("v1")).expect("removed");
        drop(again);
        assert!(!dir.exists(), "an empty directory is not left");
    }

    #[test]
    fn a_directory_that_was_replaced_is_no_longer_the_one_that_is_locked() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("pins");
        let first = PinLock::take(&dir).expect("the lock");
        fs::remove_dir(&dir).expect("removed");
        let second = PinLock::take(&dir).expect("the lock on the new one");
        drop(first);
        assert!(dir.exists(), "the first does not remove what is the second's");
        drop(second);
    }

    #[test]
    fn lines_of_the_kernel_s_list_are_read() {
        let line = "1: FLOCK  ADVISORY  WRITE 6905 00:27:508819 0 EOF";
        assert_eq!(holder_in(line, "00:27:508819"), Some(6905));
        assert_eq!(holder_in(line, "00:27:508818"), None);
        let waiting = "1: -> FLOCK  ADVISORY  WRITE 6906 00:27:508819 0 EOF";
        assert_eq!(holder_in(waiting, "00:27:508819"), None);
        assert_eq!(
            holder_in("1: POSIX  ADVISORY  WRITE 7 00:27:508819 0 EOF", "00:27:508819"),
            None
        );
        assert_eq!(
            holder_in("1: FLOCK  ADVISORY  WRITE -1 00:27:508819 0 EOF", "00:27:508819"),
            None
        );
        assert_eq!(holder_in("", "00:27:508819"), None);
    }
}
