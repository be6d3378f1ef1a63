//! `doctor`: is this host fit for the packet filter, and if not, what to do. Looks only; changes nothing.

mod ethtool;
mod interfaces;
mod system;

use std::path::Path;

use serde::Serialize;

use crate::config::Config;
use crate::config::model::XdpMode;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but less well than it could.
    Warn,
    /// The filter does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub level: Level,
    pub name: String,
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            name: name.into(),
            found: found.into(),
            todo: None,
        }
    }

    fn warn(name: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Warn,
            todo: Some(todo.into()),
            ..Self::ok(name, found)
        }
    }

    fn fail(name: impl Into<String>, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(name, found, todo)
        }
    }
}

/// Looks at the host and at each configured interface.
#[must_use]
pub fn examine(config: &Config) -> Vec<Check> {
    let mut checks = system::checks(Path::new("/"));
    if config.xdp.mode == XdpMode::None || config.xdp.interfaces.is_empty() {
        checks.push(Check::warn(
            "interfaces",
            "none is configured: no packet is filtered in the kernel",
            "name them in xdp.interfaces",
        ));
        return checks;
    }
    for name in &config.xdp.interfaces {
        checks.extend(interfaces::checks(name, &config.xdp));
    }
    checks
}
