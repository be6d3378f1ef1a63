//! Keys and passwords of callers, read again when their files have changed.
//!
//! A file is taken over whole or not at all: with a fault in it what was there before stays, which is said loudly once, and in
//! `status` for as long as it lasts. So it does if the file has become empty: that is what a copy which failed leaves behind.
//! A file that is meant to hold no keys says so, by `[]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::control::Control;
use crate::config::model::{Auth, CallerFile, Callers};
use crate::config::{Config, read_keys, read_passwords};
use crate::runtime::Runtime;

/// Reads all of them, and puts those in force that differ.
pub(super) async fn read_again(control: &Control) {
    // A reload reads the same files: one after the other.
    let _turn = control.changing.lock().await;
    let old = control.site.load();
    let auths = old.config.routes.iter().filter_map(|route| route.auth.as_ref());
    let files = auths.flat_map(|auth| auth.caller_files());
    let files: BTreeSet<_> = files.map(|(file, form)| (file.clone(), form)).collect();
    let Ok((read, mut stale)) = tokio::task::spawn_blocking(move || read(files)).await else {
        return;
    };
    if let Some(config) = with_callers(&old.config, &read) {
        match Runtime::compile(&config, Some(&old), &control.metrics) {
            Ok(runtime) => {
                control.site.replace(runtime);
                control.freed.notify_one();
                tracing::info!("keys and passwords of callers read again, as their files have changed");
            }
            Err(error) => {
                tracing::error!(%error, "CALLERS NOT TAKEN OVER; those of before stay in use");
                let files = read.keys.keys().chain(read.users.keys());
                stale.extend(files.map(|file| (file.clone(), format!("{}: {error}", file.display()))));
            }
        }
    }
    control.stale_callers.replace(stale);
    // It may have been one of these files that kept the configuration from being taken over.
    if control.stale_config.borrow().is_some()
        && Config::load(&control.path).is_ok_and(|(config, _)| config == control.site.load().config)
    {
        control.stale_config.take();
    }
}

/// What the files hold, and why those can not be used that can not.
fn read(files: BTreeSet<(PathBuf, CallerFile)>) -> (Callers, BTreeMap<PathBuf, String>) {
    let (mut callers, mut stale) = (Callers::default(), BTreeMap::new());
    for (file, form) in files {
        let read = match form {
            CallerFile::Keys => read_keys(&file).map(|keys| {
                callers.keys.insert(file.clone(), Arc::new(keys));
            }),
            CallerFile::Passwords => read_passwords(&file).map(|users| {
                callers.users.insert(file.clone(), Arc::new(users));
            }),
        };
        if let Err(faults) = read {
            let what = match form {
                CallerFile::Keys => "KEYS",
                CallerFile::Passwords => "PASSWORDS",
            };
            tracing::error!("{what} NOT TAKEN OVER; the old ones stay in use: {faults}");
            stale.insert(file, faults.first());
        }
    }
    (callers, stale)
}

/// The configuration with callers as they are now; `None` if that is no change. What routes share stays shared.
fn with_callers(config: &Config, read: &Callers) -> Option<Config> {
    let mut new = config.clone();
    let mut seen: BTreeMap<*const Auth, Option<Arc<Auth>>> = BTreeMap::new();
    let mut changed = false;
    for route in &mut new.routes {
        let Some(auth) = &route.auth else { continue };
        let made = seen
            .entry(Arc::as_ptr(auth))
            .or_insert_with(|| auth.with_callers(read).map(Arc::new));
        if let Some(made) = made {
            changed = true;
            let made = Arc::clone(made);
            Arc::make_mut(route).auth = Some(made);
        }
    }
    changed.then_some(new)
}
