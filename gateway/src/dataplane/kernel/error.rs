//! Kernel failures in an operator's words: the operation, the cause, and what to do about a missing privilege.

use std::io;

use aya::maps::MapError;

use crate::dataplane::{Error, privilege};

/// Turns an I/O error of `operation` into ours.
pub fn at(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |cause| os(operation.into(), cause)
}

/// An operating system's error, with a hint where one helps.
pub fn os(operation: String, cause: io::Error) -> Error {
    Error::Os {
        operation,
        hint: privilege::for_kernel(&cause).to_owned(),
        cause,
    }
}

/// An error of aya with all its causes, since the first alone rarely says why.
pub fn load_failed(operation: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !detail.contains(&text) {
            detail = format!("{detail}: {text}");
        }
        cause = inner.source();
    }
    if let Some(cause) = os_error(error) {
        detail.push_str(privilege::for_kernel(cause));
    }
    Error::Load {
        operation: operation.to_owned(),
        detail,
    }
}

/// An error of a map call on `table`.
pub fn map_failed(operation: &str, table: &'static str, capacity: u32, error: MapError) -> Error {
    match os_error(&error).and_then(io::Error::raw_os_error) {
        // A full hash says E2BIG, a full trie ENOSPC.
        Some(libc::E2BIG | libc::ENOSPC) => Error::Full {
            list: table,
            capacity,
        },
        Some(code) => os(format!("{operation} {table}"), io::Error::from_raw_os_error(code)),
        None => Error::Load {
            operation: format!("{operation} {table}"),
            detail: error.to_string(),
        },
    }
}

/// The operating system's error at the bottom of a chain.
pub fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        if let Some(syscall) = error.downcast_ref::<aya::sys::SyscallError>() {
            return Some(&syscall.io_error);
        }
        at = error.source();
    }
    None
}

/// Whether a map call failed because the key is there, or is not there.
pub fn is(error: &MapError, code: i32) -> bool {
    matches!(error, MapError::KeyNotFound) && code == libc::ENOENT
        || os_error(error).and_then(io::Error::raw_os_error) == Some(code)
}
