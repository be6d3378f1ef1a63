use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn parse(text: impl AsRef<[u8]>, format: Format) -> Imported {
    let read = read(text.as_ref(), format, "", NOW, &mut Progress::silent());
    read.expect("in memory")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn entry(text: &str, until_ms: Option<u64>, reason: Option<&str>) -> Line {
    Line {
        net: net(text),
        until_ms,
        forced: false,
        reason: reason.map(Into::into),
    }
}

fn nets(imported: &Imported) -> Vec<String> {
    imported
        .entries
        .iter()
        .map(|entry| entry.net.to_string())
        .collect()
}

#[test]
fn what_is_exported_is_imported_again() {
    let rows = [
        entry(
            "203.0.113.7/32",
            Some(1_800_000_000_000),
            Some("scanner; # twice\nover"),
        ),
        entry("2001:db8::/32", None, None),
    ];
    let text: String = rows.iter().map(line).collect();
    let imported = parse(text, Format::Auto);
    assert_eq!(imported.bad, Vec::<String>::new());
    let expected = [
        entry(
            "203.0.113.7/32",
            Some(1_800_000_000_000),
            Some("scanner; # twice over"),
        ),
        entry("2001:db8::/32", None, None),
    ];
    assert_eq!(imported.entries, expected);
}

#[test]
fn a_network_named_again_is_one_entry_and_the_last_line_holds() {
    let imported = parse(
        "10.0.0.0/8 # first\n192.0.2.1\n10.0.0.0/8 # second\n192.0.2.1/32\n",
        Format::Text,
    );
    assert_eq!((imported.entries.len(), imported.repeated), (2, 2));
    assert_eq!(imported.entries[0].reason.as_deref(), Some("second"));
}

#[test]
fn a_mark_in_front_of_the_text_is_no_part_of_it() {
    let imported = parse("\u{feff}10.0.0.0/8\n\u{feff}192.0.2.1\n", Format::Text);
    assert_eq!(
        (imported.entries.len(), imported.bad_count),
        (1, 1),
        "only in front"
    );
    assert_eq!(parse("\u{feff}[\"10.0.0.0/8\"]", Format::Auto).entries.len(), 1);
}

#[test]
fn bad_lines_are_named_and_the_rest_is_read() {
    let text = b"# a list\r\n\r\n10.0.0.0/8\r\nnonsense\r\n10.0.0.1 until=soon\n\xff\xfe\n192.0.2.1 ; ok\n";
    let imported = parse(text, Format::Auto);
    assert_eq!((imported.entries.len(), imported.bad_count), (2, 3));
    assert!(imported.bad[0].starts_with("line 4: "), "{:?}", imported.bad);
    assert!(imported.bad[2].contains("UTF-8"), "{:?}", imported.bad);
    let many = parse("x\n".repeat(50), Format::Text);
    assert_eq!((many.bad.len(), many.bad_count), (SHOWN, 50));
}

#[test]
fn a_line_without_an_end_is_bad_and_not_held() {
    let text = format!("10.0.0.0/8\n{}\n11.0.0.0/8\n", "1".repeat(200_000));
    let imported = parse(text, Format::Text);
    assert_eq!(
        (nets(&imported), imported.bad_count),
        (vec!["10.0.0.0/8".to_owned(), "11.0.0.0/8".to_owned()], 1)
    );
    assert!(
        imported.bad[0].starts_with("line 2: is longer"),
        "{:?}",
        imported.bad
    );
}

#[test]
fn what_has_ended_is_left_out_and_counted() {
    let imported = parse(
        "10.0.0.1 until=1600000000\n10.0.0.2 until=1800000000\n",
        Format::Text,
    );
    assert_eq!((imported.entries.len(), imported.ended), (1, 1));
}

#[test]
fn csv_takes_the_first_column_or_the_named_one() {
    let plain = parse(
        "203.0.113.7,x\n# note\n\"198.51.100.0/24\" , \"a \"\"b\"\"\"\n",
        Format::Auto,
    );
    assert_eq!(nets(&plain), ["198.51.100.0/24", "203.0.113.7/32"]);
    let named =
        "id;IP;Reason;TTL;expires\r\n1;203.0.113.7;bad, very;;2027-01-15T08:00:00Z\r\n2;203.0.113.8;;1h;\r\n";
    for format in [Format::Csv, Format::Auto] {
        let imported = parse(named, format);
        assert_eq!(imported.bad, Vec::<String>::new());
        let expected = [
            entry("203.0.113.7/32", Some(1_800_000_000_000), Some("bad, very")),
            entry("203.0.113.8/32", Some(NOW + 3_600_000), None),
        ];
        assert_eq!(imported.entries, expected);
    }
    let bad = parse(
        "address\n10.0.0.1\n\"10.0.0.2\n10.0.0.300\n\n\"10.0.0.3\"x\n",
        Format::Csv,
    );
    assert_eq!((nets(&bad), bad.bad_count), (vec!["10.0.0.1/32".to_owned()], 3));
    assert!(bad.bad[0].starts_with("line 3: "), "{:?}", bad.bad);
}

#[test]
fn json_takes_texts_and_objects() {
    let text = r#"["203.0.113.7", {"cidr": "198.51.100.0/24", "reason": "r", "ttl": "10m"},
        {"ip": "203.0.113.8", "expires": 1800000000}, {"address": "2001:db8::1"}, {"value": "10.0.0.0/8", "ttl": 60},
        7, {"x": 1}, "x", {"ip": "10.0.0.1", "ttl": []}]"#;
    let imported = parse(text, Format::Auto);
    let expected = [
        entry("10.0.0.0/8", Some(NOW + 60_000), None),
        entry("198.51.100.0/24", Some(NOW + 600_000), Some("r")),
        entry("203.0.113.7/32", None, None),
        entry("203.0.113.8/32", Some(1_800_000_000_000), None),
        entry("2001:db8::1/128", None, None),
    ];
    assert_eq!(imported.entries, expected);
    assert_eq!(imported.bad_count, 4);
    assert!(imported.bad[0].starts_with("entry 6: "), "{:?}", imported.bad);
    for broken in ["[\"10.0.0.0/8\"", "{}", "[] x", "[\"10.0.0.0/8\",]"] {
        let read = read(broken.as_bytes(), Format::Json, "", NOW, &mut Progress::silent());
        assert!(read.is_err(), "{broken}");
    }
}

#[test]
fn the_form_is_told_by_the_name_and_then_by_the_beginning() {
    let guess = source::guess;
    assert_eq!(guess(b"10.0.0.1", "x.CSV"), Format::Csv);
    assert_eq!(guess(b"10.0.0.1", "x.json"), Format::Json);
    assert_eq!(guess(b"\n [\n", "feed"), Format::Json);
    assert_eq!(guess(b"# a, b\n10.0.0.1 ; x, y\n", "feed"), Format::Text);
    assert_eq!(guess(b"# a, b\nip,asn\n", "feed"), Format::Csv);
    assert_eq!(guess(b"network\n10.0.0.0/8\n", "feed"), Format::Csv);
    assert_eq!(guess(b"", "feed"), Format::Text);
}

fn aggregated(entries: &[Line]) -> Vec<String> {
    let all = aggregate::aggregate(entries.to_vec());
    all.iter().map(|entry| entry.net.to_string()).collect()
}

#[test]
fn neighbours_and_what_is_covered_are_joined() {
    let lines = |nets: &[&str]| -> Vec<Line> { nets.iter().map(|net| entry(net, None, None)).collect() };
    let halves = lines(&["10.0.0.0/9", "10.1.0.0/16", "10.128.0.0/10", "10.192.0.0/10"]);
    assert_eq!(aggregated(&halves), ["10.0.0.0/8"]);
    assert_eq!(
        aggregated(&lines(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"])),
        ["0.0.0.0/0", "::/0"]
    );
    assert_eq!(
        aggregated(&lines(&["10.0.1.0/24", "10.0.2.0/24"])),
        ["10.0.1.0/24", "10.0.2.0/24"]
    );
}

#[test]
fn a_few_single_addresses_stay_single() {
    let addrs = |count: u8| -> Vec<Line> {
        (0..count)
            .map(|last| entry(&format!("10.0.0.{last}/32"), None, None))
            .collect()
    };
    assert_eq!(aggregated(&addrs(4)).len(), 4);
    assert_eq!(aggregated(&addrs(8)), ["10.0.0.0/29"]);
    let beside = [addrs(2), vec![entry("10.0.0.2/31", None, None)]].concat();
    assert_eq!(aggregated(&beside), ["10.0.0.0/30"]);
}

#[test]
fn ends_and_reasons_keep_entries_apart() {
    let apart = [
        vec![
            entry("10.0.0.0/9", Some(1), None),
            entry("10.128.0.0/9", None, None),
        ],
        vec![
            entry("10.0.0.0/9", None, Some("a")),
            entry("10.128.0.0/9", None, Some("b")),
        ],
        vec![
            entry("10.0.0.0/8", Some(1), None),
            entry("10.1.0.0/16", Some(2), None),
        ],
        vec![
            entry("10.0.0.0/8", None, None),
            entry("10.1.0.0/16", None, Some("worse")),
        ],
        // The whole is listed for a longer time: the halves must not take its place.
        vec![
            entry("10.0.0.0/8", None, Some("a")),
            entry("10.0.0.0/9", Some(1), Some("b")),
            entry("10.128.0.0/9", Some(1), Some("b")),
        ],
    ];
    for entries in apart {
        assert_eq!(aggregate::aggregate(entries.clone()), entries);
    }
}

fn lists() -> impl Strategy<Value = Vec<Line>> {
    let one = (any::<u8>(), 22_u8..=32, prop::option::of(1_u64..4), 0..3_usize).prop_map(
        |(last, bits, until_ms, reason)| {
            let net = IpNet::new(Ipv4Addr::new(10, 0, last / 64, last).into(), bits).expect("a length");
            Line {
                net: net.trunc(),
                until_ms,
                forced: false,
                reason: [None, Some("a"), Some("b")][reason].map(Arc::from),
            }
        },
    );
    prop::collection::vec(one, 0..60)
}

/// Whether an address is listed at each moment.
fn covered(entries: &[Line], addr: IpAddr) -> [bool; 4] {
    [1, 2, 3, 4].map(|now| {
        let live = |entry: &&Line| entry.until_ms.is_none_or(|until| until >= now);
        entries.iter().filter(live).any(|entry| entry.net.contains(&addr))
    })
}

proptest! {
    #[test]
    fn aggregation_never_changes_what_is_covered_nor_when(mut entries in lists()) {
        entries.sort_by_key(|entry| entry.net);
        entries.dedup_by_key(|entry| entry.net);
        let fewer = aggregate::aggregate(entries.clone());
        prop_assert!(fewer.is_sorted_by(|a, b| a.net < b.net), "{:?}", fewer);
        prop_assert!(fewer.len() <= entries.len());
        for third in 0..4 {
            for last in 0..=255 {
                let addr = Ipv4Addr::new(10, 0, third, last).into();
                prop_assert_eq!(covered(&entries, addr), covered(&fewer, addr), "{}", addr);
            }
        }
    }

    #[test]
    fn any_list_comes_back_from_its_export(mut entries in lists()) {
        entries.sort_by_key(|entry| entry.net);
        entries.dedup_by_key(|entry| entry.net);
        for entry in &mut entries {
            entry.until_ms = entry.until_ms.map(|until| NOW + until * 1_000);
        }
        let text: String = entries.iter().map(line).collect();
        prop_assert_eq!(parse(text, Format::Auto).entries, entries);
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), near in "[0-9./,;#\"\\[\\]{}:\n a-f]{0,80}") {
        for format in [Format::Auto, Format::Text, Format::Csv, Format::Json] {
            for bytes in [&bytes, near.as_bytes()] {
                let _ = read(bytes, format, "", NOW, &mut Progress::silent());
            }
        }
    }
}
