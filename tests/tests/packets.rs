//! The packet table over memory: parsing and policy as the host runs them. No privileges needed.

use std::collections::BTreeSet;

use gateway::dataplane::{Backend as _, Memory};
use gateway_common::outcome::{DropReason, Verdict};
use gateway_ebpf::packet::{Content, Cursor, parse};
use gateway_ebpf::policy::decide;
use gateway_tests::table::{Case, Setup, cases, slots};

fn memory(setup: &Setup) -> Memory {
    let mut memory = Memory::new([0x0123_4567, 0x89ab_cdef]);
    memory.now_ns = 1_000_000_000_000;
    let failures = memory.apply(&setup.changes());
    assert!(failures.is_empty(), "{failures:?}");
    memory
}

/// The verdict, and what was observed.
type Told = (Verdict, Option<DropReason>);

fn run(memory: &mut Memory, frame: &[u8]) -> Told {
    let decision = decide(&parse(Cursor::new(frame)), memory);
    (memory.leave(decision, frame.len() as u64), decision.observed)
}

fn verdict(case: &Case, frame: &[u8]) -> Told {
    let mut memory = memory(&case.setup);
    for frame in &case.before {
        run(&mut memory, frame);
    }
    run(&mut memory, frame)
}

#[test]
fn every_case_has_its_verdict() {
    let cases = cases();
    assert!(
        cases.len() >= 150,
        "the table has shrunk to {} cases",
        cases.len()
    );
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let got = verdict(case, &case.frame);
            let expected = (case.verdict, case.observed);
            (got != expected).then(|| format!("{}: {got:?}, expected {expected:?}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_outcome_is_in_the_table() {
    let seen: BTreeSet<u32> = cases().iter().map(|case| case.verdict.slot()).collect();
    assert_eq!(seen, slots().collect());
}

/// A frame cut short is truncated, or what its part alone is: not IP, or (cut within padding) what it was. It never
/// becomes another source's packet: a source that is read is the true one.
#[test]
fn a_frame_cut_at_any_length_is_never_taken_for_another() {
    for case in cases() {
        let whole = parse(Cursor::new(&case.frame));
        if matches!(whole.content, Content::NotIp | Content::Unreadable(_)) {
            continue;
        }
        for length in 0..case.frame.len() {
            let cut = parse(Cursor::new(&case.frame[..length]));
            match cut.content {
                Content::Unreadable(reason) => {
                    assert_eq!(reason, DropReason::Truncated, "{} at {length}", case.name)
                }
                Content::NotIp => panic!("{} cut at {length} lost its type", case.name),
                content => {
                    assert_eq!(cut.source, whole.source, "{} cut at {length}", case.name);
                    let lie = matches!(content, Content::Malformed(_));
                    assert!(
                        lie || content == whole.content,
                        "{} cut at {length}: {content:?}",
                        case.name
                    );
                }
            }
            verdict(&case, &case.frame[..length]);
        }
    }
}
