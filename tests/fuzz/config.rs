//! Any text as a configuration: refused or taken, and what is salvaged of it agrees with what was taken.
#![no_main]

use std::path::Path;

use gateway::config::{Config, Survey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let survey = Survey::of(text, Path::new("/nowhere/gateway.yaml"));
    match Config::parse(text, "gateway.yaml", Path::new("/nowhere")) {
        Ok((config, _)) => {
            assert_eq!(survey.faults, 0);
            assert_eq!(survey.config.xdp, config.xdp);
            assert_eq!(survey.config.admin, config.admin);
            assert_eq!(survey.config.state_dir, config.state_dir);
        }
        Err(faults) => {
            assert!(!faults.errors.is_empty());
            assert!(
                !faults.to_string().contains('\u{1b}'),
                "a fault steers the terminal"
            );
        }
    }
});
