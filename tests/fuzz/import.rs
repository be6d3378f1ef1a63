//! Any bytes as a list of each form: bounded, each network once, and what is kept survives aggregation and an export.
#![no_main]

use gateway::cli::import::{Format, Imported, Progress, aggregate, line, read};
use gateway::dataplane::lines::{self, Reasons};
use libfuzzer_sys::fuzz_target;

/// 2023, in milliseconds.
const NOW: u64 = 1_700_000_000_000;

fn parse(bytes: &[u8], format: Format) -> Option<Imported> {
    read(bytes, format, "", NOW, &mut Progress::silent()).ok()
}

fuzz_target!(|data: &[u8]| {
    for format in [Format::Auto, Format::Text, Format::Csv, Format::Json] {
        // Only a document that is no array is refused as a whole.
        let Some(imported) = parse(data, format) else {
            continue;
        };
        assert!(imported.bad.len() <= imported.bad_count);
        assert!(imported.entries.is_sorted_by(|a, b| a.net < b.net));
        let fewer = aggregate::aggregate(imported.entries.clone());
        assert!(fewer.len() <= imported.entries.len());
        assert!(fewer.is_sorted_by(|a, b| a.net < b.net));
        for entry in &imported.entries {
            assert!(
                fewer
                    .iter()
                    .any(|cover| cover.net.contains(&entry.net) || entry.net.contains(&cover.net)),
                "{}",
                entry.net
            );
        }
        let exported: String = imported.entries.iter().map(line).collect();
        let again = parse(exported.as_bytes(), Format::Text).expect("text is never refused");
        assert_eq!(again.bad, Vec::<String>::new());
        let nets = |imported: &Imported| imported.entries.iter().map(|entry| entry.net).collect::<Vec<_>>();
        // An end less than half a second away is rounded to now.
        assert!(again.entries.len() + again.ended == imported.entries.len());
        assert!(again.ended > 0 || nets(&again) == nets(&imported));
        for entry in &imported.entries {
            let mut text = Vec::new();
            lines::put(
                &mut text,
                &entry.net,
                entry.until_ms,
                entry.forced,
                entry.reason.as_deref(),
            );
            let text = String::from_utf8(text).expect("text");
            assert_eq!(
                lines::read(text.trim_end_matches('\n'), &mut Reasons::default()).as_ref(),
                Ok(entry)
            );
        }
    }
});
