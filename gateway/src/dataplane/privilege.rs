//! What to tell someone whom the system refused. Owns the wording, so that it is the same wherever a right is missing.

use std::io;

/// After a refused system call on bpffs, a table or a program: rights that root has and a service can be given.
/// Empty if the error is another one.
#[must_use]
pub fn for_kernel(error: &io::Error) -> &'static str {
    hint(
        error,
        "; needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and CAP_SYS_ADMIN to mount bpffs): try sudo",
    )
}

/// After a refused look at the state directory. Empty if the error is another one.
#[must_use]
pub fn for_files(error: &io::Error) -> &'static str {
    hint(error, "; needs root: try sudo")
}

/// After a refused connection to the admin socket. Empty if the error is another one.
#[must_use]
pub fn for_socket(error: &io::Error) -> &'static str {
    hint(
        error,
        "; needs root, or membership of the socket's group: try sudo",
    )
}

/// `PermissionDenied` is what both EACCES and EPERM become.
fn hint(error: &io::Error, words: &'static str) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        words
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_gets_the_advice() {
        for code in [libc::EACCES, libc::EPERM] {
            let refused = io::Error::from_raw_os_error(code);
            for words in [for_kernel(&refused), for_files(&refused), for_socket(&refused)] {
                assert!(
                    words.contains("needs root") && words.ends_with("try sudo"),
                    "{words}"
                );
            }
        }
        assert_eq!(for_kernel(&io::Error::from_raw_os_error(libc::ENOENT)), "");
    }
}
