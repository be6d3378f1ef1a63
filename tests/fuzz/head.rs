//! Any bytes on a connection through the look at request headers: however they are cut, the same is found.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/src/http/head.rs"]
mod head;

/// Bytes of the stream up to the request that is not unambiguous.
fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), ()> {
    let mut scanner = head::Scanner::default();
    for piece in pieces {
        if let Err(ambiguous) = scanner.take(piece) {
            assert!(ambiguous.before <= piece.len());
            return Err(());
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = found([stream]);
    assert_eq!(found(stream.chunks(usize::from(size).max(1))), whole);
    assert_eq!(found(stream.chunks(1)), whole);
});
