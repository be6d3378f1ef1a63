//! What no text may do: panic, hang, or take memory out of proportion.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{SMALL, etc, load, load_in};
use crate::config::model::Way;

/// Generous: these run unoptimised, on machines that do other things as well. What it catches is work that grows with
/// the square of the text, which would take hours.
const SOON: Duration = Duration::from_secs(60);

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    let took = start.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    println!("{what}: {took:?}");
    value
}

#[test]
fn bombs_are_refused_early() {
    let laughs = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
        let before = n - 1;
        text + &format!("a{n}: &a{n} [*a{before}, *a{before}]\n")
    });
    let many = |text: &str| text.repeat(1 << 18);
    let bombs = [
        ("anchors", laughs),
        ("open lists", many("[")),
        ("open mappings", many("{a: ")),
        ("nested lists", many("- ")),
        (
            "nested mappings",
            (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        ),
        ("one long scalar", many("aaaa")),
        ("one open quote", format!("a: \"{}", many("b"))),
        ("colons", many(": ")),
        ("question marks", many("? ")),
        ("documents", many("---\n")),
        ("comments", many("#\n")),
        ("directives", many("%YAML 1.2\n")),
        ("stars", many("*")),
        ("tags", many("!")),
        ("blanks", many(" ")),
        ("tabs", many("\t")),
    ];
    for (name, text) in bombs {
        let faults = timed(name, || load(&text)).map(drop).expect_err(name);
        assert!(
            faults.errors.len() <= 100 && faults.to_string().len() < 64 << 10,
            "{name}"
        );
    }
}

#[test]
fn a_list_of_a_million_lines_loads() {
    let dir = etc();
    let mut file =
        std::io::BufWriter::new(std::fs::File::create(dir.path().join("drop.txt")).expect("a file"));
    for n in 0..1_000_000_u32 {
        writeln!(file, "{}", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n)).expect("a line");
    }
    file.flush().expect("a file");
    let lists = "{mode: none, allow: [11.0.0.0/24, 10.0.0.0/8], deny: [{file: drop.txt}]}";
    let text = SMALL.replace("{mode: none}", lists);
    let (config, warnings) = timed("a million lines", || load_in(dir.path(), &text)).expect("a good list");
    assert_eq!(config.xdp.deny.len(), 1_000_000);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .0
            .message
            .starts_with("11.0.0.0 and 255 more have no effect")
    );
}

#[test]
fn a_line_without_an_end_is_one_fault() {
    let dir = etc();
    std::fs::write(
        dir.path().join("drop.txt"),
        format!("{}\n1.2.3.4\nx", "1".repeat(1 << 20)),
    )
    .expect("a file");
    let text = SMALL.replace("{mode: none}", "{mode: none, deny: [{file: drop.txt}]}");
    let faults = load_in(dir.path(), &text).expect_err("two bad lines");
    let told: Vec<_> = faults
        .errors
        .iter()
        .map(|fault| (fault.line, fault.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "the line is too long"),
            (3, "\"x\" is not an address or network")
        ]
    );
}

#[test]
fn a_hundred_thousand_keys_load() {
    let dir = etc();
    let mut text = String::new();
    for n in 0..100_000_u32 {
        let hash = Sha256::digest(n.to_be_bytes());
        write!(text, "- {{name: holder-{n}, sha256: ").expect("a string");
        hash.iter()
            .for_each(|byte| write!(text, "{byte:02x}").expect("a string"));
        text.push_str("}\n");
    }
    std::fs::write(dir.path().join("keys.yaml"), text).expect("a file");
    let text = format!("{SMALL}    auth: {{api_key: {{keys: {{file: keys.yaml}}}}}}\n");
    let (config, _) = timed("a hundred thousand keys", || load_in(dir.path(), &text)).expect("good keys");
    let Some([Way::ApiKey(auth)]) = config.routes[0].auth.as_ref().map(|auth| auth.ways()) else {
        panic!("keys are needed")
    };
    assert_eq!(auth.keys.len(), 100_000);
}

/// Text that looks enough like a configuration to get past the parser.
fn near() -> impl Strategy<Value = String> {
    let words = [
        "listen",
        "xdp",
        "routes",
        "match",
        "path",
        "upstream",
        "url",
        "auth",
        "api_key",
        "keys",
        "deny",
        "limits",
        "strikes",
        "block",
        "scores",
        "headers",
        "set",
        "http://a",
        "/a/**",
        "10s",
        "50/s",
        "1.2.3.4/8",
        "file",
        ": ",
        ": ",
        ":\n",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "\"",
        "'",
        "*",
        "&a ",
        "!",
        "|",
        ">",
        "#",
        "\t",
        "~",
        "é",
        "\u{feff}",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_gives_a_model_or_a_report(any in "(?s).{0,200}", near in near()) {
        for text in [any, near] {
            let start = Instant::now();
            if let Err(faults) = load(&text) {
                prop_assert!(!faults.errors.is_empty());
                prop_assert!(serde_json::to_string(&faults).is_ok());
                let _ = faults.to_string();
            }
            prop_assert!(start.elapsed() < SOON);
        }
    }

    #[test]
    fn a_damaged_configuration_gives_a_model_or_a_report(at in 0..5000_usize, len in 0..20_usize, put in "\\PC{0,8}|\n *") {
        let whole = include_str!("../../../../config/gateway.yaml");
        let cut = |at: usize| (0..=at.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
        let (start, end) = (cut(at), cut(at.saturating_add(len)));
        let text = format!("{}{put}{}", &whole[..start], &whole[end..]);
        if let Err(faults) = load(&text) {
            prop_assert!(!faults.errors.is_empty());
            let _ = faults.to_string();
        }
    }

    #[test]
    fn any_list_file_gives_a_list_or_a_report(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = etc();
        std::fs::write(dir.path().join("drop.txt"), &bytes).expect("a file");
        let text = SMALL.replace("{mode: none}", "{mode: none, deny: [{file: drop.txt}]}");
        if let Err(faults) = load_in(dir.path(), &text) {
            prop_assert!(!faults.errors.is_empty());
        }
    }
}
