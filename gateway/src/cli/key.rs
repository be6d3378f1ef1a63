//! Files of callers' keys, made and changed without a gateway: a running one takes a change up by itself.
//!
//! Owns how such a file is written: whole, one key a line, beside the old one and then in its place. A key is shown once,
//! when it is made; the file holds its hash.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::args::Args;
use super::import::times;
use super::{Exit, Failed, Result, print, print_json};
use crate::config::model::{Key, Keys};
use crate::config::{moment, read_keys};

/// Before every key, so that one that leaks is known for what it is.
const PREFIX: &str = "gk_";

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, once: the file gets its hash.
    New(New),
    /// Show the keys of a file.
    List {
        #[command(flatten)]
        file: InFile,
    },
    /// Take keys out of a file: all of a holder, or the one whose hash begins so.
    Revoke(Revoke),
    /// Read a password from standard input, and print what stands for it in a file of passwords.
    HashPassword,
}

#[derive(Debug, ClapArgs)]
pub struct InFile {
    /// The file of keys. It is rewritten whole: comments stay only at its beginning.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct New {
    /// Who holds the key.
    name: String,
    #[command(flatten)]
    file: InFile,
    /// What it may be used for; may be given several times.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it is good, such as 90d.
    #[arg(long, value_name = "TIME", conflicts_with = "expires")]
    ttl: Option<String>,
    /// Until when it is good, such as 2031-01-01T00:00:00Z.
    #[arg(long, value_name = "MOMENT")]
    expires: Option<String>,
    /// What else is known of the holder; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// All keys of this holder.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The key whose hash begins so, with 8 digits or more.
    #[arg(long, value_name = "DIGITS")]
    sha256: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Revoke {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    file: InFile,
}

fn failed(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failed {
    let message = format!("can not {what} {}", path.display());
    move |error| Failed::new(Exit::Failed, format!("{message}: {error}"))
}

fn bad(message: impl Into<String>) -> Failed {
    Failed::new(Exit::BadInput, message)
}

pub fn run(args: &Args, command: &KeyCommand) -> Result<Exit> {
    match command {
        KeyCommand::New(new) => self::new(args, new),
        KeyCommand::List { file } => list(args, &file.file),
        KeyCommand::Revoke(revoke) => self::revoke(args, revoke),
        KeyCommand::HashPassword => hash_password(args),
    }
}

fn new(args: &Args, new: &New) -> Result<Exit> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failed::new(Exit::Failed, format!("no randomness: {error}")))?;
    let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let hash: [u8; 32] = Sha256::digest(&secret).into();
    let now_ms = u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX);
    let expires = match (&new.ttl, &new.expires) {
        (Some(ttl), _) => Some(times::after(ttl, now_ms).map_err(bad)?),
        (None, Some(moment)) => Some(times::moment(moment).map_err(bad)?),
        (None, None) => None,
    };
    let expires = expires.map(|ms| ms / 1_000);
    if expires.is_some_and(|end| end <= now_ms / 1_000) {
        return Err(bad(
            "this key would be worth nothing from the start: its end is not to come; nothing was changed",
        ));
    }
    let label = |label: &String| {
        let (name, value) = label
            .split_once('=')
            .ok_or_else(|| bad(format!("{label:?} is not NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    let key = Key {
        name: new.name.clone(),
        scopes: new.scopes.clone(),
        expires,
        labels: new.labels.iter().map(label).collect::<Result<_>>()?,
    };
    change(&new.file.file, true, |keys| {
        keys.insert(hash, key.clone());
        Ok(())
    })?;
    let shown = if args.json {
        print_json(&json!({"key": secret, "sha256": hex(&hash), "name": new.name}))
    } else {
        print(&format!("{secret}\n"))
    };
    if let Err(failed) = shown {
        // Nobody will ever know it, and it would open doors.
        change(&new.file.file, false, |keys| {
            keys.remove(&hash);
            Ok(())
        })?;
        let message = format!("{}; the key was taken back", failed.message);
        return Err(Failed::new(failed.exit, message));
    }
    if !args.json && std::io::stdout().is_terminal() {
        let _ = writeln!(std::io::stderr(), "This is the only time that it is shown.");
    }
    Ok(Exit::Done)
}

fn list(args: &Args, path: &Path) -> Result<Exit> {
    let keys = read_keys(path).map_err(|faults| bad(faults.to_string()))?;
    let now = since_1970().as_secs();
    let expired = |key: &Key| key.expires.is_some_and(|end| end <= now);
    if args.json {
        let all: Vec<_> = keys
            .iter()
            .map(|(hash, key)| {
                json!({"name": key.name, "sha256": hex(hash), "scopes": key.scopes, "labels": key.labels,
                    "expires": key.expires.map(moment::show), "expired": expired(key)})
            })
            .collect();
        print_json(&all)?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    let mut rows: Vec<_> = keys.iter().collect();
    rows.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    for (hash, key) in rows {
        let end = match key.expires {
            None => String::new(),
            Some(end) if end <= now => format!("  EXPIRED {}", moment::show(end)),
            Some(end) => format!("  until {}", moment::show(end)),
        };
        let scopes = if key.scopes.is_empty() {
            String::new()
        } else {
            format!("  [{}]", key.scopes.join(" "))
        };
        let labels: String = key
            .labels
            .iter()
            .map(|(name, value)| format!("  {name}={value}"))
            .collect();
        text += &format!("{}  {}{scopes}{end}{labels}\n", &hex(hash)[..12], key.name);
    }
    print(&text)?;
    Ok(Exit::Done)
}

fn revoke(args: &Args, revoke: &Revoke) -> Result<Exit> {
    let front = revoke
        .which
        .sha256
        .as_ref()
        .map(|front| front.to_ascii_lowercase());
    if front.as_ref().is_some_and(|front| front.len() < 8) {
        return Err(bad(
            "give 8 digits of the hash or more: `gateway key list` shows them",
        ));
    }
    let mut gone = Vec::new();
    change(&revoke.file.file, false, |keys| {
        keys.retain(|hash, key| {
            let hit = match (&revoke.which.name, &front) {
                (Some(name), _) => key.name == *name,
                (None, Some(front)) => hex(hash).starts_with(front),
                (None, None) => false,
            };
            if hit {
                gone.push((hex(hash), key.name.clone()));
            }
            !hit
        });
        match (gone.len(), &front) {
            (0, _) => Err(bad("there is no such key; nothing was changed")),
            (2.., Some(_)) => Err(bad("several hashes begin so; nothing was changed")),
            _ => Ok(()),
        }
    })?;
    if args.json {
        let gone: Vec<_> = gone
            .iter()
            .map(|(hash, name)| json!({"sha256": hash, "name": name}))
            .collect();
        print_json(&json!({ "revoked": gone }))?;
    } else {
        for (hash, name) in gone {
            print(&format!("revoked {}  {name}\n", &hash[..12]))?;
        }
    }
    Ok(Exit::Done)
}

fn hash_password(args: &Args) -> Result<Exit> {
    let mut password = String::new();
    std::io::stdin()
        .take(4_096)
        .read_to_string(&mut password)
        .map_err(|error| bad(format!("standard input: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(bad("no password came by standard input"));
    }
    let hash =
        crate::config::model::hash_password(password).map_err(|error| Failed::new(Exit::Failed, error))?;
    if args.json {
        print_json(&json!({ "hash": hash }))?;
    } else {
        print(&format!("{hash}\n"))?;
    }
    Ok(Exit::Done)
}

/// Reads, changes and replaces a file, while nobody else does. `make` allows for one that is not there yet.
fn change(path: &Path, make: bool, change: impl FnOnce(&mut Keys) -> Result<()>) -> Result<()> {
    // Behind a link is what is read by others; the link stays.
    let behind = std::fs::canonicalize(path).ok();
    let path = behind.as_deref().unwrap_or(path);
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let lock = File::open(dir).map_err(failed("open", dir))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed("lock", dir)(error.into()))?;
    let (text, before) = match std::fs::read_to_string(path) {
        Ok(text) => (text, Some(std::fs::metadata(path).map_err(failed("read", path))?)),
        Err(error) if make && error.kind() == std::io::ErrorKind::NotFound => (String::new(), None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let blank = |line: &str| line.starts_with('#') || line.trim().is_empty();
    let mut keys = match before {
        // One that was only made, for the sake of its owner and mode.
        Some(_) if make && text.lines().all(blank) => Keys::new(),
        Some(_) => read_keys(path).map_err(|faults| bad(format!("{faults}\nnothing was changed")))?,
        None => Keys::new(),
    };
    change(&mut keys)?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let written = write(&beside, &head(&text), &keys, before.as_ref()).and_then(|()| {
        // What is written must be what is meant, before it is in force.
        match read_keys(&beside) {
            Ok(again) if again == keys => Ok(()),
            Ok(_) => Err(std::io::Error::other("it does not read back as it was written")),
            Err(faults) => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                faults.to_string(),
            )),
        }
    });
    let placed = written.and_then(|()| {
        std::fs::rename(&beside, path)?;
        lock.sync_all()
    });
    placed.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        match error.kind() {
            std::io::ErrorKind::InvalidInput => bad(format!("{error}\nnothing was changed")),
            _ => failed("write", path)(error),
        }
    })
}

fn write(path: &Path, head: &str, keys: &Keys, before: Option<&std::fs::Metadata>) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let Some(before) = before {
        // The gateway may run as another user, which could read the old file.
        let same = file.metadata()?;
        if (same.uid(), same.gid()) != (before.uid(), before.gid()) {
            chown(path, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(before.mode() & 0o640))?;
    }
    let mut text = head.to_owned();
    for (hash, key) in keys {
        text += &line(hash, key);
    }
    if keys.is_empty() {
        text += "[]\n";
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The comments at the beginning, or those of a new file.
fn head(text: &str) -> String {
    if text.is_empty() {
        return "# Keys of callers, by their SHA-256. Written by `gateway key`.\n".to_owned();
    }
    let comments = text
        .lines()
        .take_while(|line| line.starts_with('#') || line.trim().is_empty());
    comments.map(|line| format!("{line}\n")).collect()
}

fn line(hash: &[u8; 32], key: &Key) -> String {
    // JSON's quotes are also YAML's.
    let quote = |text: &str| json!(text).to_string();
    let mut line = format!("- {{name: {}, sha256: {}", quote(&key.name), hex(hash));
    if !key.scopes.is_empty() {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| quote(scope)).collect();
        line += &format!(", scopes: [{}]", scopes.join(", "));
    }
    if let Some(end) = key.expires {
        line += &format!(", expires: {}", quote(&moment::show(end)));
    }
    if !key.labels.is_empty() {
        let labels = key
            .labels
            .iter()
            .map(|(name, value)| format!("{}: {}", quote(name), quote(value)));
        line += &format!(", labels: {{{}}}", labels.collect::<Vec<_>>().join(", "));
    }
    line + "}\n"
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_changed_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        let key = |name: &str| Key {
            name: name.to_owned(),
            scopes: vec!["read".into(), "a:b".into()],
            expires: Some(1_900_000_000),
            labels: [("t".into(), "x: \"y\" # ü".into())].into(),
        };
        let put = |byte: u8, name: &str| {
            change(&path, true, |keys| {
                keys.insert([byte; 32], key(name));
                Ok(())
            })
        };
        put(1, "a").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        put(2, "*b").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().mode() & 0o777,
            0o640,
            "who could read it still can"
        );
        let keys = read_keys(&path).unwrap();
        assert_eq!(keys, [([1; 32], key("a")), ([2; 32], key("*b"))].into());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Keys of callers"), "{text}");
        // A name that the gateway would refuse, a fault in what is there, and a change that is none.
        for broken in [put(3, "a b"), change(&path, false, |_| Err(bad("no")))] {
            assert!(broken.is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // By a link, what is behind it is changed.
        let link = dir.path().join("link.yaml");
        std::os::unix::fs::symlink("keys.yaml", &link).unwrap();
        let without = |keys: &mut Keys| {
            keys.remove(&[1; 32]);
            Ok(())
        };
        change(&link, false, without).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read_keys(&path).unwrap(), [([2; 32], key("*b"))].into());
        std::fs::remove_file(&link).unwrap();
        std::fs::write(&path, "- hunter2\n").unwrap();
        let told = put(3, "c").expect_err("a secret in clear").message;
        assert!(
            !told.contains("hunter2") && told.contains("keys.yaml:1"),
            "{told}"
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn the_last_key_leaves_a_file_without_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        assert!(
            change(&path, false, |_| Ok(())).is_err(),
            "there is nothing to revoke from"
        );
        change(&path, true, |keys| {
            keys.insert(
                [1; 32],
                Key {
                    name: "a".into(),
                    ..Key::default()
                },
            );
            Ok(())
        })
        .unwrap();
        change(&path, false, |keys| {
            keys.clear();
            Ok(())
        })
        .unwrap();
        assert_eq!(read_keys(&path), Ok(Keys::new()));
    }

    proptest::proptest! {
        /// What is written is read again as it was, whatever stands in it.
        #[test]
        fn a_key_is_read_as_it_was_written(
            hash in proptest::array::uniform32(0_u8..),
            name in "[!#-&(-\\[\\]-_a-~]{1,20}",
            scopes in proptest::collection::vec("[!#-\\[\\]-~]{1,8}", 0..4),
            labels in proptest::collection::btree_map("[a-z]{1,6}", "[ -~äß€]{1,12}", 0..4),
            expires in proptest::option::of(1_u64..4_000_000_000),
        ) {
            let key = Key { name, scopes, expires, labels };
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("keys.yaml");
            std::fs::write(&path, line(&hash, &key)).unwrap();
            proptest::prop_assert_eq!(read_keys(&path), Ok(Keys::from([(hash, key)])));
        }

        /// No text of a file makes the reader panic, or shows up in what it says.
        #[test]
        fn no_file_of_keys_is_shown(text in "\\PC{0,60}|(- ?\\{?(name|sha256|scopes)?: ?[a-f0-9\\[\\]\"{}]{0,12}[,}]?\n){1,3}", secret in "[A-Z]{24}") {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("keys.yaml");
            for text in [format!("{text}{secret}"), format!("- {secret}{text}"), format!("- {{name: {secret}: {text}")] {
                std::fs::write(&path, text).unwrap();
                if let Err(faults) = read_keys(&path) {
                    proptest::prop_assert!(!faults.to_string().contains(&secret), "{}", faults);
                }
            }
        }
    }
}
