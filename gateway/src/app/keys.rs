//! Keys of callers, read again when their files have changed.
//!
//! A file is taken over whole or not at all: with a fault in it the keys of before stay, which is said loudly. So they do if it
//! has become empty: that is what a copy which failed leaves behind. A file that is meant to hold no keys says so, by `[]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::control::Control;
use crate::config::model::{Auth, Keys};
use crate::config::{Config, read_keys};
use crate::runtime::Runtime;

/// Reads all of them, and puts those in force that differ.
pub(super) async fn read_again(control: &Control) {
    // A reload reads the same files: one after the other.
    let _turn = control.changing.lock().await;
    let old = control.site.load();
    let auths = old.config.routes.iter().filter_map(|route| route.auth.as_ref());
    let files: BTreeSet<PathBuf> = auths.flat_map(|auth| auth.key_files()).cloned().collect();
    let read = tokio::task::spawn_blocking(move || {
        let mut good = BTreeMap::new();
        for file in files {
            match read_keys(&file) {
                Ok(keys) => {
                    good.insert(file, Arc::new(keys));
                }
                Err(faults) => tracing::error!("KEYS NOT TAKEN OVER; the old ones stay in use: {faults}"),
            }
        }
        good
    });
    let Ok(read) = read.await else { return };
    let Some(config) = with_keys(&old.config, &read) else {
        return;
    };
    match Runtime::compile(&config, Some(&old), &control.metrics) {
        Ok(runtime) => {
            control.site.replace(runtime);
            control.freed.notify_one();
            tracing::info!("keys read again, as their files have changed");
        }
        Err(error) => tracing::error!(%error, "KEYS NOT TAKEN OVER; the old ones stay in use"),
    }
}

/// The configuration with keys as they are now; `None` if that is no change. What routes share stays shared.
fn with_keys(config: &Config, read: &BTreeMap<PathBuf, Arc<Keys>>) -> Option<Config> {
    let mut new = config.clone();
    let mut seen: BTreeMap<*const Auth, Option<Arc<Auth>>> = BTreeMap::new();
    let mut changed = false;
    for route in &mut new.routes {
        let Some(auth) = &route.auth else { continue };
        let made = seen
            .entry(Arc::as_ptr(auth))
            .or_insert_with(|| auth.with_keys(read).map(Arc::new));
        if let Some(made) = made {
            changed = true;
            let made = Arc::clone(made);
            Arc::make_mut(route).auth = Some(made);
        }
    }
    changed.then_some(new)
}
