//! What a command knows of the gateway's whereabouts: from a good configuration, a bad one, or none.
//!
//! In trouble the file may be half edited. Commands that only need to find the gateway go on with what can be read and
//! say so in one line; `run`, `check` and `explain URL` need the whole and do not come here.

use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::args::Args;
use super::{Exit, Failed, Result};
use crate::app::offline::Trust;
use crate::config::{Config, defaults};
use crate::dataplane::privilege;

/// The configuration as far as it is known.
#[derive(Debug)]
pub struct Known {
    pub config: Config,
    /// What is wrong with it, and what is done instead.
    pub doubt: Option<String>,
}

impl Known {
    /// Whether lists and limits are to be taken from it.
    pub fn trust(&self) -> Trust {
        if self.doubt.is_some() {
            Trust::Part
        } else {
            Trust::Whole
        }
    }

    /// What to do if nobody answers there.
    pub fn advice(&self, args: &Args) -> Option<String> {
        self.doubt.as_ref()?;
        let file = args.config().display();
        Some(format!(
            "a gateway may run with another socket than could be read: put {file} right ({}), or name its socket with --socket PATH",
            check(args)
        ))
    }

    /// Says on standard error what is wrong, and `more` if anything is.
    pub fn warn(&self, more: Option<&str>) {
        if let Some(doubt) = &self.doubt {
            let more = more.map_or_else(String::new, |more| format!("; {more}"));
            let _ = writeln!(std::io::stderr(), "gateway: warning: {doubt}{more}");
        }
    }
}

/// Reads what can be read.
///
/// # Errors
/// The file was named and can not be opened: most likely it is the name that is wrong.
pub fn read(args: &Args) -> Result<Known> {
    let shown = args.config().display();
    let opened = open(args.config());
    let (config, what) = match &opened {
        Ok(()) => {
            let survey = Config::survey(args.config());
            match survey.faults {
                0 => (survey.config, None),
                1 => (
                    survey.config,
                    Some(format!("{shown} has 1 fault ({})", check(args))),
                ),
                n => (
                    survey.config,
                    Some(format!("{shown} has {n} faults ({})", check(args))),
                ),
            }
        }
        Err(error) if args.names_config() => {
            let hint = privilege::for_files(error);
            return Err(Failed::new(
                Exit::BadInput,
                format!("can not read {shown}: {error}{hint}"),
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (
            defaults::config(),
            Some(format!("there is no {shown} (--config names another)")),
        ),
        Err(error) => (defaults::config(), Some(format!("can not read {shown}: {error}"))),
    };
    let doubt = what.map(|what| {
        let proxies = if config.trusted_proxies.is_empty() {
            "; no trusted proxy is known"
        } else {
            ""
        };
        format!(
            "{what}; going on with {}, the state in {} and the pins in {}{proxies}",
            socket(&config),
            config.state_dir.display(),
            config.xdp.pin_dir.display()
        )
    });
    Ok(Known { config, doubt })
}

/// The admin socket, and whether it is the one that stands in where none could be read.
fn socket(config: &Config) -> String {
    let socket = &config.admin.socket;
    let which = if socket.as_os_str() == defaults::ADMIN_SOCKET {
        "the default socket"
    } else {
        "its socket"
    };
    format!("{which} {}", socket.display())
}

/// Tries to open the file; what is not an ordinary one, and may block, is left to those who read it.
fn open(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::File::open(path)?;
    }
    Ok(())
}

fn check(args: &Args) -> String {
    format!("`gateway check{}` lists them", args.same_config())
}
