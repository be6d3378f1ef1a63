//! The right to be the only one: locks on files and directories, held for the life of a process.
//!
//! The kernel drops them with the process, however it ends. Whoever is refused learns who holds the lock, as far as
//! `/proc/locks` shows it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, major, minor};

/// Words of a holder's command line that are shown, in characters.
const SHOWN: usize = 80;

/// Who holds a lock, as far as that can be seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    pub pid: Option<u32>,
    /// Its command line.
    words: Vec<String>,
}

impl Holder {
    /// As `/proc` shows it.
    #[must_use]
    pub fn of(pid: Option<u32>) -> Self {
        let line = pid.and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
        let line = line.unwrap_or_default();
        let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        Self {
            pid,
            words: words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        }
    }

    /// What it is: a gateway holds its locks for as long as it lives, a command while it is at work.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self.words.split_first() {
            Some((_, words)) if words.iter().any(|word| word == "run") => "gateway",
            Some(_) => "command",
            None => "gateway or command",
        }
    }

    /// Whether it lets go by itself, as far as is known.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.what() == "gateway"
    }
}

/// ` (process 7)`, ` (process 7: deny import list.txt)`, or nothing.
impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(pid) = self.pid else { return Ok(()) };
        write!(f, " (process {pid}")?;
        if let Some((_, words)) = self.words.split_first().filter(|_| !self.is_gateway()) {
            let words = words.join(" ");
            let shown: String = words.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            write!(f, ": {shown}")?;
        }
        f.write_str(")")
    }
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another {} holds it{_0}", _0.what())]
    Held(Holder),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// ` (process 7)`, or nothing.
#[must_use]
pub fn of_process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// What to do about a holder; `alone` is what two gateways can not share.
#[must_use]
pub fn advice(holder: &Holder, alone: &str) -> String {
    if holder.is_gateway() {
        format!("two can not share one {alone}: stop it, or give this one {alone} of its own")
    } else {
        "try again when it has ended".to_owned()
    }
}

/// Takes the lock on an open file or directory. It is held until the file is closed.
pub fn exclusive(file: &File) -> Result<(), LockError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(Holder::of(holder(file)))),
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
            Err(LockError::Held(holder)) => assert!(holder.pid.is_none_or(|pid| pid == std::process::id())),
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
    fn a_gateway_and_a_command_are_told_apart_by_their_words() {
        let holder = |words: &[&str]| Holder {
            pid: Some(7),
            words: words.iter().map(ToString::to_string).collect(),
        };
        let gateway = holder(&["/usr/bin/gateway", "run", "--config", "x"]);
        assert_eq!(
            (gateway.what(), gateway.to_string().as_str()),
            ("gateway", " (process 7)")
        );
        let command = holder(&["gateway", "deny", "import", "a\x1bb"]);
        assert_eq!(command.what(), "command");
        assert_eq!(command.to_string(), " (process 7: deny import a\\u{1b}b)");
        assert_eq!(Holder::default().to_string(), "");
        let own = Holder::of(Some(std::process::id()));
        assert!(!own.words.is_empty() && !own.is_gateway(), "{own:?}");
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
