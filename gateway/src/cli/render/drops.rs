//! Sampled drops as text.

use std::time::Duration;

use super::clean;
use crate::admin::api::Sighting;
use crate::config::moment;
use crate::config::units::show_duration;

/// `2023-11-14T22:13:20.123Z`, as log lines show the time.
pub fn utc(ms: u64) -> String {
    let second = moment::show(ms / 1_000);
    format!("{}.{:03}Z", second.trim_end_matches('Z'), ms % 1_000)
}

/// What a sample is and is not.
pub fn sample(every_ns: u64) -> String {
    format!(
        "a sample, at most one in {} on each processor: `gateway status` has the true numbers",
        show_duration(Duration::from_nanos(every_ns))
    )
}

/// One drop on one line.
pub fn sighting(seen: &Sighting) -> String {
    let source = seen
        .source
        .map_or_else(|| "-".to_owned(), |source| source.to_string());
    let to = match (&seen.protocol, seen.port) {
        (Some(protocol), Some(port)) => format!("{} port {port}", clean(protocol)),
        (Some(protocol), None) => clean(protocol),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "-".to_owned(),
    };
    format!(
        "{}  {:<8}  {:<16}  {source:<15}  {to:<14}  {:>5} bytes  {}\n",
        utc(seen.time_ms),
        clean(&seen.verdict),
        clean(&seen.reason),
        seen.length,
        clean(&seen.interface)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn a_drop_is_one_line_whatever_is_known_of_it() {
        let mut seen = Sighting {
            time_ms: 1_700_000_000_123,
            verdict: "drop".to_owned(),
            reason: "denied".to_owned(),
            source: "192.0.2.1".parse().ok(),
            protocol: Some("tcp".to_owned()),
            port: Some(8080),
            length: 74,
            interface: "eth0".to_owned(),
        };
        assert_eq!(
            sighting(&seen),
            "2023-11-14T22:13:20.123Z  drop      denied            192.0.2.1        tcp port 8080      74 bytes  eth0\n"
        );
        (seen.source, seen.protocol, seen.port) = (None, None, None);
        seen.interface = "a\nb".to_owned();
        let line = sighting(&seen);
        assert!(
            line.ends_with("bytes  a?b\n") && line.lines().count() == 1,
            "{line}"
        );
    }
}
