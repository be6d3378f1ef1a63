//! A map's values as this process's own memory. Owns the mapping; knows no layout.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags};

use super::error::at;
use crate::dataplane::Error;

/// The values of an array map, shared with the kernel program.
///
/// Everything is reached through atomics, since the program reads and counts at the same time.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to no thread, and all access to it is atomic.
unsafe impl Send for Region {}

impl Region {
    /// Maps all `entries` values of `value_size` bytes, a multiple of eight.
    pub fn map(fd: impl AsFd, name: &str, entries: u32, value_size: usize) -> Result<Self, Error> {
        let bytes = entries as usize * value_size;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        };
        let start = start.map_err(|error| at(format!("mapping the table {name}"))(error.into()))?;
        let start = NonNull::new(start.cast()).ok_or_else(|| Error::Load {
            operation: format!("mapping the table {name}"),
            detail: "it was mapped nowhere".into(),
        })?;
        Ok(Self { start, bytes })
    }

    /// The values as words of eight bytes.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and is reached through atomics only; any bit
        // pattern is a valid word.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 8) }
    }

    /// The values as words of four bytes.
    pub fn halves(&self) -> &[AtomicU32] {
        // SAFETY: as above. Words of both sizes are never used for the same bytes at the same time: a layout's fields
        // have one size each, but for copying whole tables that nobody else writes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 4) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `map`, which nothing borrows any more.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(result.is_ok());
    }
}
