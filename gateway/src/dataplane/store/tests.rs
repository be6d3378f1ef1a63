use super::*;

fn rule(net: &str) -> Saved {
    Saved {
        list: RuleList::Deny,
        net: net.parse().expect("a network"),
        until_ms: Some(5),
        reason: Some("test".into()),
        forced: false,
    }
}

fn put(saved: &Saved) -> Record<'_> {
    Record::Put {
        list: saved.list,
        net: saved.net,
        until_ms: saved.until_ms,
        forced: saved.forced,
        reason: saved.reason.as_deref(),
    }
}

fn started(dir: &Path, rules: &[Saved]) -> Store {
    let store = Store::lock(dir).expect("the lock");
    assert_eq!(store.load().expect("nothing yet"), []);
    assert!(!store.takes_more(0), "there is no file yet");
    store.replace(rules.iter().map(put)).expect("saved");
    assert!(store.takes_more(rules.len()));
    store
}

#[test]
fn what_is_saved_is_loaded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b, c) = (rule("10.0.0.0/8"), rule("192.0.2.7/32"), rule("2001:db8::/32"));
    let store = started(&dir.path().join("state"), std::slice::from_ref(&a));
    assert_eq!(store.load().expect("loaded"), std::slice::from_ref(&a));
    store.append([put(&b), put(&c)].into_iter()).expect("saved");
    let remove = Record::Remove {
        list: RuleList::Deny,
        net: a.net,
    };
    store.append([remove].into_iter()).expect("saved");
    assert_eq!(store.load().expect("loaded"), [b.clone(), c]);
    let flush = Record::Flush { list: RuleList::Deny };
    store.append([flush, put(&b)].into_iter()).expect("saved");
    assert_eq!(store.load().expect("loaded"), [b]);
}

#[test]
fn the_last_word_on_a_network_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = rule("10.0.0.0/8");
    let second = Saved {
        reason: None,
        ..first.clone()
    };
    let store = started(dir.path(), std::slice::from_ref(&first));
    store.append([put(&second)].into_iter()).expect("saved");
    assert_eq!(store.load().expect("loaded"), [second]);
}

#[test]
fn a_transaction_is_there_whole_or_not_at_all_wherever_it_is_cut() {
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = (rule("10.0.0.0/8"), rule("192.0.2.7/32"));
    let store = started(dir.path(), std::slice::from_ref(&a));
    let file = file_in(dir.path());
    let before = fs::read(&file).expect("the file").len();
    store.append([put(&b)].into_iter()).expect("saved");
    let whole = fs::read(&file).expect("the file");
    for cut in before..whole.len() {
        fs::write(&file, &whole[..cut]).expect("written");
        assert_eq!(
            peek(dir.path()).expect("loaded"),
            std::slice::from_ref(&a),
            "{cut}"
        );
        assert_eq!(store.load().expect("loaded").len(), 1);
        assert_eq!(
            store.takes_more(1),
            cut == before,
            "what is torn off is not appended to"
        );
    }
    fs::write(&file, &whole).expect("written");
    assert_eq!(peek(dir.path()).expect("loaded"), [a, b]);
}

#[test]
fn a_byte_that_has_changed_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = started(dir.path(), &[rule("10.0.0.0/8"), rule("11.0.0.0/8")]);
    store
        .append([put(&rule("12.0.0.0/8"))].into_iter())
        .expect("saved");
    let file = file_in(dir.path());
    let whole = fs::read(&file).expect("the file");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).expect("written");
        // Without its last end of line, or its `=`, the last transaction looks unfinished.
        match peek(dir.path()) {
            Err(StoreError::Damaged { .. }) => {}
            Ok(rules) => assert_eq!(rules.len(), 2, "byte {at}"),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn history_is_dropped_when_it_is_most_of_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let a = rule("10.0.0.0/8");
    let store = started(dir.path(), std::slice::from_ref(&a));
    store.append((0..HISTORY + 2).map(|_| put(&a))).expect("saved");
    assert!(!store.takes_more(1));
    store.replace([put(&a)].into_iter()).expect("saved");
    assert!(store.takes_more(1));
}

#[test]
fn a_file_that_was_moved_away_is_written_whole_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = started(dir.path(), &[rule("10.0.0.0/8")]);
    fs::remove_file(file_in(dir.path())).expect("removed");
    assert!(!store.takes_more(1));
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Store::lock(dir.path()).expect("the lock");
    assert!(matches!(Store::lock(dir.path()), Err(StoreError::Locked { .. })));
    drop(first);
    Store::lock(dir.path()).expect("the lock, freed");
}

#[test]
fn the_old_form_is_read_and_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = dir.path().join("rules.json");
    let text = r#"{"version":1,"rules":[{"list":"deny","net":"10.0.0.0/8","until_ms":5,"reason":"test"}]}"#;
    fs::write(&old, text).expect("written");
    let store = Store::lock(dir.path()).expect("the lock");
    let rules = store.load().expect("loaded");
    assert_eq!(rules, [rule("10.0.0.0/8")]);
    assert!(!store.takes_more(1));
    store.replace(rules.iter().map(put)).expect("saved");
    assert!(!old.exists());
    assert_eq!(peek(dir.path()).expect("loaded"), rules);
}

#[test]
fn a_damaged_file_is_an_error_and_not_an_empty_list() {
    let dir = tempfile::tempdir().expect("a directory");
    for text in [
        "",
        "{",
        r#"{"version":9,"rules":[]}"#,
        r#"{"version":1,"rules":[{"net":"x"}]}"#,
    ] {
        fs::write(dir.path().join("rules.json"), text).expect("written");
        assert!(
            matches!(peek(dir.path()), Err(StoreError::Damaged { .. })),
            "{text:?}"
        );
    }
    for text in [
        "",
        "x\n",
        "gateway rules 3\n",
        "gateway rules 2\n= 1 0\n",
        "gateway rules 2\nX y\n= 1 0\n",
    ] {
        fs::write(file_in(dir.path()), text).expect("written");
        assert!(
            matches!(peek(dir.path()), Err(StoreError::Damaged { .. })),
            "{text:?}"
        );
    }
}

/// What a list of a million costs: rules become entries where they lie, and changes what is known to be there.
#[test]
fn what_there_are_millions_of_is_small() {
    use crate::dataplane::backend::Change;
    use crate::dataplane::desired::Entry;

    assert_eq!(size_of::<Saved>(), 56);
    assert_eq!(size_of::<(IpNet, Entry)>(), size_of::<Saved>());
    assert_eq!(size_of::<Change>(), 48);
    assert_eq!(
        size_of::<(IpNet, gateway_common::tables::Rule)>(),
        size_of::<Change>()
    );
}
