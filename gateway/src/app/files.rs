//! Files that change under a running gateway: certificates, keys and passwords of callers always, the configuration if it asks for that.
//!
//! Looks every two seconds, by name: renewed certificates and mounted configurations are usually put in place by a rename or
//! a changed link, which a watch on the file itself would not see. A change is taken up once it has stood still for one
//! look, so that a pair of which only one half has been written yet is left alone.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::control::Control;
use crate::config::Config;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// What tells a file from what it was: device, inode, length, and both times in nanoseconds.
type Stamp = (u64, u64, u64, i128, i128);

/// The files, each as it is now; `None` for one that is not there.
type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let facts = std::fs::metadata(path).ok()?;
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    Some((
        facts.dev(),
        facts.ino(),
        facts.len(),
        ns(facts.mtime(), facts.mtime_nsec()),
        ns(facts.ctime(), facts.ctime_nsec()),
    ))
}

fn stamps<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Stamps {
    paths.map(|path| (path.clone(), stamp(path))).collect()
}

/// Every file that TLS is made from.
fn certificates(config: &Config) -> Stamps {
    let tls = config.listen.iter().filter_map(|listener| listener.tls.as_ref());
    stamps(tls.flat_map(|tls| tls.files()))
}

/// Every file of callers' keys and passwords.
fn callers(config: &Config) -> Stamps {
    stamps(caller_files(config))
}

fn caller_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let auths = config.routes.iter().filter_map(|route| route.auth.as_ref());
    auths.flat_map(|auth| auth.caller_files().map(|(file, _)| file))
}

fn sources(config: &Config) -> Stamps {
    let watched = config.sources.iter().filter(|_| config.watch_files);
    // These are taken up by themselves.
    stamps(watched.filter(|source| !caller_files(config).any(|file| file == *source)))
}

/// Files of one purpose, and what has been made of them.
struct Watched {
    /// As they were when they were last taken up, or last refused.
    taken: Stamps,
    /// As they were at the last look.
    seen: Stamps,
}

impl Watched {
    fn new(now: Stamps) -> Self {
        Self {
            taken: now.clone(),
            seen: now,
        }
    }

    /// Whether they are to be taken up now: changed since the last time, and standing still.
    fn changed(&mut self, now: Stamps) -> bool {
        let still = now == self.seen;
        // Others than before are the doing of a reload, which has read them.
        if now.keys().ne(self.taken.keys()) {
            *self = Self::new(now);
            return false;
        }
        self.seen = now;
        if !still || self.seen == self.taken {
            return false;
        }
        self.taken.clone_from(&self.seen);
        true
    }
}

/// Looks for changes, until the gateway ends. `config` is the one that was read at the start.
pub(super) async fn watch(control: Rc<Control>, config: Config) {
    let mut pairs = Watched::new(certificates(&config));
    let mut callers = Watched::new(self::callers(&config));
    let mut texts = Watched::new(sources(&config));
    drop(config);
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (now, config) = {
            let runtime = control.site.load();
            (
                (
                    certificates(&runtime.config),
                    sources(&runtime.config),
                    self::callers(&runtime.config),
                ),
                runtime.config.watch_files,
            )
        };
        if texts.changed(now.1) && config {
            tracing::info!("the configuration's files have changed");
            control.reload_aloud().await;
        }
        if callers.changed(now.2) {
            super::callers::read_again(&control).await;
        }
        if pairs.changed(now.0) {
            control.renew();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_and_when_it_has_stood_still() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let look = || stamps([file.clone()].iter());
        std::fs::write(&file, "one").unwrap();
        let mut watched = Watched::new(look());
        assert!(!watched.changed(look()));
        std::fs::write(&file, "two!").unwrap();
        assert!(!watched.changed(look()), "it may not be whole yet");
        assert!(watched.changed(look()));
        assert!(!watched.changed(look()), "once");
        std::fs::remove_file(&file).unwrap();
        assert!(!watched.changed(look()));
        assert!(watched.changed(look()), "one that is gone is a change, too");
        // The same length and times, but another file.
        std::fs::write(&file, "two!").unwrap();
        assert!(!watched.changed(look()));
        assert!(watched.changed(look()));
        assert!(!watched.changed(Stamps::new()), "others are a reload's doing");
        assert!(!watched.changed(Stamps::new()));
    }
}
