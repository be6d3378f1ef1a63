//! How many connections the process may have: as many as the system lets it, and not the 1,024 that programs get which
//! use `select`; but for a few that are kept for who asks how it is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin::reserve;

/// Raises the soft limit on descriptors to what the hard one leaves of it. A host that refuses is no reason not to run.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum.map(reserve::under),
        ..limit
    };
    if limit.current != all.current
        && let Err(error) = setrlimit(Resource::Nofile, all)
    {
        tracing::warn!(%error, "the limit on descriptors stays as it is; see `ulimit -n`");
    }
}
