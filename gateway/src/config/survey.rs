//! What can be read of a configuration that need not be good.
//!
//! For the commands that someone types while the gateway is in trouble: they need to know where the gateway is, not that
//! every route is right. Never used to serve or to replace a running configuration.

use std::borrow::Cow;
use std::path::Path;

use super::decode::{Field, Walk};
use super::source::Source;
use super::{Config, check, defaults, examine, raw};

/// A configuration as far as it could be read.
#[derive(Debug)]
pub struct Survey {
    /// Defaults stand in the place of what is wrong or could not be read.
    pub config: Config,
    /// How many faults there are; with none, `config` is what `gateway run` would take, but for the keys of callers.
    pub faults: usize,
}

impl Config {
    /// Reads what can be read. Certificates, keys and key files stay closed, so whoever can not open those is not stopped.
    #[must_use]
    pub fn survey(path: &Path) -> Survey {
        match check::files::read(path, raw::MOST_BYTES) {
            Ok(bytes) => {
                // A byte that is no text, in a comment for instance, must not hide where the gateway is.
                let text = String::from_utf8_lossy(&bytes);
                let good = matches!(text, Cow::Borrowed(_));
                let survey = Survey::of(&text, path);
                Survey {
                    faults: survey.faults.max(usize::from(!good)),
                    ..survey
                }
            }
            Err(_) => Survey {
                config: defaults::config(),
                faults: 1,
            },
        }
    }
}

impl Survey {
    /// As [`Config::survey`] from text, `path` being where it would lie.
    #[must_use]
    pub fn of(text: &str, path: &Path) -> Self {
        let base = path.parent().unwrap_or(Path::new(""));
        let source = Source::new(path.display().to_string(), text.to_owned());
        let (config, faults) = examine(&mut closed(base), &source);
        let faults = match faults.errors.len() {
            0 => 0,
            told => told + faults.left_out,
        };
        let config = config.or_else(|| {
            let node = raw::salvage(text);
            check::config(&mut closed(base), &Field::root(&source, &node))
        });
        Self {
            config: config.unwrap_or_else(defaults::config),
            faults,
        }
    }
}

fn closed(base: &Path) -> Walk {
    let mut walk = Walk::new(base);
    walk.opens_secrets = false;
    walk
}
