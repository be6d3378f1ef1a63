//! Counts of quotas that outlive the process: read at the start, written every few seconds while they change, and at the end.
//! Also tells the limits what time it is, as they read no clock.
//!
//! The file is replaced whole: written beside, flushed, renamed. A crash loses what was counted since the last write, five
//! seconds at most or twenty times what a write takes, whichever is longer: so much may be granted twice.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::control::Control;
use crate::http::filter::limit::Registry;
use crate::http::filter::limit::ledger::{Ledger, MOST_BYTES};

/// Between two writes, at least.
const EVERY: Duration = Duration::from_secs(5);
/// A write may take this part of the time.
const SHARE: u32 = 20;
const TICK: Duration = Duration::from_secs(1);

fn file_in(directory: &Path) -> PathBuf {
    directory.join("quotas")
}

fn tick(limits: &Registry) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    limits.tick(since.map_or(0, |since| since.as_secs()));
}

/// Takes up what was counted before. A file that is damaged is set aside, and counting begins anew: to refuse everybody
/// would be worse.
pub(super) fn restore(directory: &Path, limits: &Registry) {
    tick(limits);
    if !limits.has_quotas() {
        return;
    }
    let path = file_in(directory);
    let bytes = match fs::metadata(&path) {
        Ok(data) if data.len() > MOST_BYTES => Ok(Vec::new()),
        Ok(_) => fs::read(&path),
        Err(error) => Err(error),
    };
    match bytes.map(|bytes| Ledger::decode(&bytes)) {
        Ok(Some(ledger)) => limits.restore(&ledger),
        Ok(None) => {
            let aside = path.with_extension("damaged");
            let moved = fs::rename(&path, &aside);
            tracing::error!(file = %path.display(), set_aside = moved.is_ok(), "the counts of quotas are damaged: all begin at zero");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::error!(file = %path.display(), %error, "the counts of quotas can not be read: all begin at zero");
        }
    }
}

/// Keeps the file while the gateway runs.
pub(super) async fn keep(control: Rc<Control>, directory: PathBuf) {
    let mut due = Instant::now() + EVERY;
    loop {
        tokio::time::sleep(TICK).await;
        let runtime = control.site.load();
        tick(runtime.limits());
        if Instant::now() < due {
            continue;
        }
        let begun = Instant::now();
        let path = directory.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, "new", runtime.limits())).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "the counts of quotas can not be written: a restart would lose them");
        }
        due = Instant::now() + EVERY.max(begun.elapsed() * SHARE);
    }
}

/// Writes what has changed since the last time.
pub(super) fn write(directory: &Path, beside: &str, limits: &Registry) -> io::Result<()> {
    let Some(ledger) = limits.ledger() else {
        return Ok(());
    };
    let written = replace(directory, beside, &ledger.encode());
    if written.is_err() {
        limits.unkept();
    }
    written
}

/// `beside` is the extension of the file that is written first: two writers must not have the same.
fn replace(directory: &Path, beside: &str, bytes: &[u8]) -> io::Result<()> {
    let path = file_in(directory);
    let beside = path.with_extension(beside);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    File::open(directory)?.sync_all()
}
