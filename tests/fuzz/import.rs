//! Any bytes as a list: bounded, each network once, and what is kept survives an export.
#![no_main]

use std::collections::HashSet;

use gateway::admin::api::EntryRow;
use gateway::{admin, config};
use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/cli/import.rs"]
#[expect(dead_code, reason = "the rest of it serves the command line")]
mod import;

fuzz_target!(|data: &[u8]| {
    let read = import::read(data).expect("in memory");
    assert!(read.bad.len() <= read.bad_count);
    let networks: HashSet<_> = read.entries.iter().map(|entry| entry.0).collect();
    assert_eq!(networks.len(), read.entries.len());

    let row = |(net, until_ms, reason): &(_, Option<u64>, Option<String>)| EntryRow {
        net: *net,
        origin: "command".to_owned(),
        reason: reason.clone(),
        detail: 0,
        left_ms: None,
        until_ms: until_ms.filter(|until| *until < u64::MAX),
        hits: 0,
        enforced: true,
        skipped: None,
        observed: false,
    };
    let exported: String = read
        .entries
        .iter()
        .map(row)
        .map(|row| import::line(&row))
        .collect();
    let again = import::read(exported.as_bytes()).expect("in memory");
    assert_eq!(again.bad, Vec::<String>::new());
    assert_eq!(again.entries.len(), read.entries.len());
    for (before, after) in read.entries.iter().zip(&again.entries) {
        assert_eq!(
            (before.0, before.1.filter(|until| *until < u64::MAX)),
            (after.0, after.1)
        );
    }
});
