//! How many connections the process may have: as many as the system lets it, and not the 1,024 that programs get which
//! use `select`.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on descriptors to the hard one. A host that refuses is no reason not to run.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, all)
    {
        tracing::warn!(%error, "the limit on descriptors stays as it is; see `ulimit -n`");
    }
}
