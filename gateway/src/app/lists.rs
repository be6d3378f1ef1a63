//! List files of the configuration, read again when they change.
//!
//! A list is taken over whole or not at all. A file that can not be read, has a bad line, or has become empty leaves the
//! list of before in force, which is said loudly once, and in `status` for as long as it lasts. A file that is being
//! written is left alone until two looks find it the same.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use crate::config::model::{FileStamp, ListFile, ListSources};
use crate::config::{Config, Reread, read_again};
use crate::dataplane::store::RuleList;
use crate::runtime::Runtime;

/// The shortest time between two looks at a file.
const TICK: Duration = Duration::from_secs(1);

/// What is known of one file.
#[derive(Debug)]
struct Watched {
    list: RuleList,
    file: ListFile,
    /// As the last look found it; `None` if it could not be found.
    last: Option<FileStamp>,
    /// Found in this state, it was not taken over.
    refused: Option<Option<FileStamp>>,
    due: Instant,
}

/// What one look says of a file.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It is what is in force.
    Same,
    /// It has changed, and may be changing still.
    Moving,
    /// It was in this state when it was refused.
    Refused,
    /// It has changed, and stands still.
    Ripe,
}

impl Watched {
    fn look(&mut self, found: Option<FileStamp>) -> Look {
        let still = self.last == found;
        self.last = found;
        if found == Some(self.file.stamp) {
            self.refused = None;
            Look::Same
        } else if self.refused == Some(found) {
            Look::Refused
        } else if still {
            Look::Ripe
        } else {
            Look::Moving
        }
    }
}

fn sources(config: &Config, list: RuleList) -> &ListSources {
    match list {
        RuleList::Allow => &config.xdp.allow_sources,
        RuleList::Deny => &config.xdp.deny_sources,
    }
}

fn key(list: RuleList) -> &'static str {
    match list {
        RuleList::Allow => "allow",
        RuleList::Deny => "deny",
    }
}

/// Looks at the files for as long as the gateway runs.
pub async fn follow(control: Rc<Control>) {
    let mut of: Option<Arc<Runtime>> = None;
    let mut files = Vec::new();
    loop {
        tokio::time::sleep(TICK).await;
        // A reload reads the same files: one after the other.
        let _turn = control.changing.lock().await;
        let runtime = control.site.load();
        if !of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &runtime)) {
            files = watched(&runtime.config, Instant::now());
            control.stale_lists.borrow_mut().clear();
            of = Some(Arc::clone(&runtime));
        }
        for list in [RuleList::Allow, RuleList::Deny] {
            step(&control, &runtime, list, &mut files).await;
        }
    }
}

fn watched(config: &Config, now: Instant) -> Vec<Watched> {
    let of = |list| {
        sources(config, list).files.iter().map(move |file| Watched {
            list,
            file: file.clone(),
            last: Some(file.stamp),
            refused: None,
            due: now,
        })
    };
    of(RuleList::Allow).chain(of(RuleList::Deny)).collect()
}

/// Looks at the files of one list that are due, and takes the list over if one has changed.
async fn step(control: &Control, runtime: &Arc<Runtime>, list: RuleList, files: &mut [Watched]) {
    let now = Instant::now();
    let mut ripe = false;
    for watched in files.iter_mut().filter(|watched| watched.list == list) {
        let Some(every) = watched.file.every.filter(|_| watched.due <= now) else {
            continue;
        };
        let path = watched.file.path.clone();
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(path).ok());
        let found = found.await.ok().flatten().as_ref().map(FileStamp::from);
        let look = watched.look(found);
        watched.due = now + if look == Look::Moving { TICK } else { every };
        ripe |= look == Look::Ripe;
        if look == Look::Same {
            let path = &watched.file.path;
            control.stale_lists.borrow_mut().retain(|(of, _)| of != path);
        }
    }
    if !ripe {
        return;
    }
    let config = Arc::clone(runtime);
    let read = tokio::task::spawn_blocking(move || {
        read_again(
            sources(&config.config, list),
            key(list),
            &config.config.xdp.capacity,
        )
    });
    let Ok(read) = read.await else { return };
    match read
        .map_err(|faults| faults.first())
        .and_then(|read| not_emptied(read, files, list))
    {
        Ok(read) => take_over(control, list, read, files).await,
        Err(why) => {
            tracing::error!(
                target: "gateway::dataplane", list = key(list), %why,
                "a list file has changed and was NOT taken over; the list of before stays in force"
            );
            for watched in files.iter_mut().filter(|watched| watched.list == list) {
                if watched.last != Some(watched.file.stamp) {
                    watched.refused = Some(watched.last);
                    let mut stale = control.stale_lists.borrow_mut();
                    stale.retain(|(of, _)| *of != watched.file.path);
                    stale.push((watched.file.path.clone(), why.clone()));
                }
            }
        }
    }
}

/// A feed that could not be fetched often leaves an empty file behind.
fn not_emptied(read: Reread, files: &[Watched], list: RuleList) -> Result<Reread, String> {
    let before = files.iter().filter(|watched| watched.list == list);
    let emptied = before
        .zip(&read.files)
        .find(|(before, after)| before.file.entries > 0 && after.entries == 0);
    match emptied {
        Some((_, file)) => Err(format!(
            "{} is empty now; `gateway reload` takes that over if it is meant",
            file.path.display()
        )),
        None => Ok(read),
    }
}

async fn take_over(control: &Control, list: RuleList, read: Reread, files: &mut [Watched]) {
    let networks = read.nets.len();
    let applied = control
        .dataplane
        .with(move |engine| engine.reconfigure_list(list, read.nets));
    let Ok(applied) = applied.await else { return };
    tracing::info!(
        target: "gateway::dataplane", list = key(list), networks, changes = applied.changes, failed = applied.failed,
        "a list file has changed and was taken over"
    );
    let of_list = files.iter_mut().filter(|watched| watched.list == list);
    for (watched, file) in of_list.zip(read.files) {
        control
            .stale_lists
            .borrow_mut()
            .retain(|(of, _)| *of != watched.file.path);
        watched.file = file;
        watched.refused = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64) -> FileStamp {
        FileStamp {
            device: 1,
            inode: 1,
            size,
            modified: (0, 0),
        }
    }

    #[test]
    fn a_file_is_read_when_it_stands_still_and_a_refused_one_not_again() {
        let mut watched = Watched {
            list: RuleList::Deny,
            file: ListFile {
                path: "drop.txt".into(),
                every: Some(TICK),
                stamp: stamp(1),
                entries: 1,
            },
            last: Some(stamp(1)),
            refused: None,
            due: Instant::now(),
        };
        let found = [1, 2, 3, 3].map(|size| Some(stamp(size)));
        let looks = found.map(|found| watched.look(found));
        assert_eq!(looks, [Look::Same, Look::Moving, Look::Moving, Look::Ripe]);
        watched.refused = Some(watched.last);
        let found = [Some(stamp(3)), None, None].map(|found| watched.look(found));
        assert_eq!(found, [Look::Refused, Look::Moving, Look::Ripe]);
        // What is in force again was never refused.
        assert_eq!(watched.look(Some(stamp(1))), Look::Same);
        assert_eq!(watched.refused, None);
    }
}
