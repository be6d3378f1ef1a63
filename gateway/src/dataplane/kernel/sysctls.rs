//! Sysctls that are set for SYN cookies: what they were is remembered on disk, and put back when cookies are no longer
//! wanted or the filter is taken out.
//!
//! A record is of one boot, as the values are. What somebody else has set since is theirs, and left alone.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file in the state directory.
const FILE: &str = "sysctls.json";
const VALUES: &str = "/proc/sys/net/ipv4";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    boot: String,
    rows: Vec<Row>,
}

/// One value that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    name: String,
    was: String,
    set: String,
}

/// The values below a directory, and where it is remembered what they were.
#[derive(Debug)]
pub struct Sysctls {
    values: PathBuf,
    /// `None`: nothing is remembered.
    record: Option<PathBuf>,
    boot: String,
}

impl Sysctls {
    /// Those of this network namespace.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self {
            values: VALUES.into(),
            record: state_dir.map(|dir| dir.join(FILE)),
            boot: read(Path::new(BOOT_ID)).unwrap_or_default(),
        }
    }

    pub fn get(&self, name: &str) -> io::Result<String> {
        read(&self.values.join(name))
    }

    /// Sets a value, and remembers what it was before that.
    pub fn set(&self, name: &str, was: &str, value: &str) -> io::Result<()> {
        let mut record = self.load();
        // The first one: what was set by us is nothing to go back to.
        if !record.rows.iter().any(|row| row.name == name && row.set == was) {
            record.rows.retain(|row| row.name != name);
            record.rows.push(Row {
                name: name.to_owned(),
                was: was.to_owned(),
                set: value.to_owned(),
            });
        }
        if let Err(error) = self.save(&record) {
            tracing::warn!(%error, "it can not be remembered that net.ipv4.{name} was {was}: it will not be set back");
        }
        std::fs::write(self.values.join(name), value)
    }

    /// Sets back what is still as it was set. Says what it did, and what it could not do.
    pub fn restore(&self) -> Vec<String> {
        let mut record = self.load();
        let mut said = Vec::new();
        record.rows.retain(|Row { name, was, set }| {
            let path = self.values.join(name);
            if read(&path).ok().as_ref() != Some(set) {
                return false;
            }
            match std::fs::write(&path, was) {
                Ok(()) => {
                    said.push(format!("net.ipv4.{name} is {was} again; SYN cookies had it set to {set}"));
                    false
                }
                Err(error) => {
                    said.push(format!(
                        "net.ipv4.{name} is still {set}, as SYN cookies needed it, and could not be set back ({error}): \
                         run `sysctl -w net.ipv4.{name}={was}`"
                    ));
                    true
                }
            }
        });
        if let Err(error) = self.save(&record) {
            said.push(format!("what sysctls were can not be forgotten: {error}"));
        }
        said
    }

    /// Nothing if there is no record, or it is of another boot.
    fn load(&self) -> Record {
        let text = self.record.as_ref().and_then(|path| std::fs::read(path).ok());
        let record = text.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        record
            .filter(|record| record.boot == self.boot)
            .unwrap_or(Record {
                boot: self.boot.clone(),
                rows: Vec::new(),
            })
    }

    fn save(&self, record: &Record) -> io::Result<()> {
        let Some(path) = &self.record else {
            return Ok(());
        };
        if record.rows.is_empty() {
            return match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, serde_json::to_vec(record)?)?;
        std::fs::rename(&beside, path)
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two values, in files, and a record beside them.
    fn sysctls(dir: &Path, boot: &str) -> Sysctls {
        Sysctls {
            values: dir.to_owned(),
            record: Some(dir.join(FILE)),
            boot: boot.to_owned(),
        }
    }

    fn put(dir: &Path, name: &str, value: &str) {
        std::fs::write(dir.join(name), format!("{value}\n")).expect("written");
    }

    #[test]
    fn what_was_changed_is_put_back_and_what_others_changed_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        put(dir, "a", "1");
        put(dir, "b", "0");
        let values = sysctls(dir, "boot");
        values.set("a", "1", "2").expect("set");
        // As after a restart that found its own value changed back by hand, and set it again.
        put(dir, "a", "1");
        values.set("a", "1", "2").expect("set");
        values.set("b", "0", "2").expect("set");
        put(dir, "b", "1");
        let said = sysctls(dir, "boot").restore();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(
            (values.get("a").ok().as_deref(), values.get("b").ok().as_deref()),
            (Some("1"), Some("1"))
        );
        assert!(!dir.join(FILE).exists());
        assert!(values.restore().is_empty());
    }

    #[test]
    fn a_record_of_another_boot_says_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        put(dir.path(), "a", "1");
        sysctls(dir.path(), "one").set("a", "1", "2").expect("set");
        assert!(sysctls(dir.path(), "two").restore().is_empty());
        assert_eq!(sysctls(dir.path(), "two").get("a").ok().as_deref(), Some("2"));
    }
}
