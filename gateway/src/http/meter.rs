//! Counts the frames of an HTTP/2 client that cost it nothing and the gateway something. Owns which frames those are and how
//! many are too many; knows frame headers (RFC 9113, 4.1) and nothing of what frames mean to a stream.
//!
//! The protocol's library bounds what a connection may hold: streams reset before they were looked at, CONTINUATION frames of
//! a header, small pieces of a body. Nothing there bounds how often a client asks for an answer (PING, SETTINGS) or throws a
//! request away that is already on its way to an upstream.

use std::time::Duration;

use tokio::time::Instant;

/// Counted frames that may come within [`WITHIN`]. A client that gives each of its 100 streams a tenth of a second before
/// it gives up resets as many; an upstream that hangs must not make honest clients look like a flood.
const MOST: u32 = 1000;
const WITHIN: Duration = Duration::from_secs(1);
/// Bytes to the client that make up for a counted frame: libraries measure the connection by a PING for each piece of an
/// answer. A PING's own answer has 17, so a flood never pays for itself.
const MAKE_UP: usize = 256;

/// Length of a frame's header.
const HEAD: usize = 9;
/// Length of a client's connection preface.
const PREFACE: usize = 24;

/// Follows one connection's bytes.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes until the next frame's header.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    counted: u32,
    since: Instant,
    over: bool,
    /// Bytes written that have not yet made up for a frame.
    written: usize,
    /// The header under way goes on in the next frame.
    header: bool,
}

impl Meter {
    /// From the first byte of the preface.
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
            counted: 0,
            since: Instant::now(),
            over: false,
            written: 0,
            header: false,
        }
    }

    /// Whether the client has begun something that it has not ended: a frame, or a header in several.
    pub(super) fn is_partial(&self) -> bool {
        self.skip > 0 || self.have > 0 || self.header
    }

    /// Follows what the client sent. Of a flood, how many of these bytes belong to the frame that was too many or stand before
    /// it: what comes behind need not be read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        loop {
            let skipped = self.skip.min(rest.len());
            rest = rest.get(skipped..).unwrap_or_default();
            self.skip -= skipped;
            if self.skip == 0 && self.over {
                return Some(bytes.len() - rest.len());
            }
            if rest.is_empty() {
                return None;
            }
            let taken = (HEAD - self.have).min(rest.len());
            let (part, behind) = rest.split_at(taken);
            for (to, from) in self.head.iter_mut().skip(self.have).zip(part) {
                *to = *from;
            }
            self.have += taken;
            rest = behind;
            if self.have == HEAD {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.frame(kind, flags);
            }
        }
    }

    /// Bytes were written to the client.
    pub(super) fn wrote(&mut self, bytes: usize) {
        if self.counted == 0 {
            return;
        }
        self.written += bytes;
        let made_up = u32::try_from(self.written / MAKE_UP).unwrap_or(u32::MAX);
        self.written %= MAKE_UP;
        self.counted = self.counted.saturating_sub(made_up);
    }

    fn frame(&mut self, kind: u8, flags: u8) {
        // DATA and CONTINUATION the library bounds; HEADERS are requests; WINDOW_UPDATE comes with what is written.
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const WINDOW_UPDATE: u8 = 8;
        const CONTINUATION: u8 = 9;
        const END_HEADERS: u8 = 4;
        self.header = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
        if matches!(kind, DATA | HEADERS | WINDOW_UPDATE | CONTINUATION) {
            return;
        }
        self.counted += 1;
        // The clock is looked at once in so many frames, never for a client that sends few.
        if self.counted < MOST {
            return;
        }
        let now = Instant::now();
        self.over = self.over || now.duration_since(self.since) < WITHIN;
        self.since = now;
        self.counted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: u8 = 3;
    const PING: u8 = 6;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0xff);
        frame
    }

    fn flood(kind: u8, count: u32) -> Vec<u8> {
        let mut bytes = vec![b'x'; PREFACE];
        for _ in 0..count {
            bytes.extend(frame(kind, 8));
        }
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_found_at_the_end_of_its_last_frame_however_it_is_cut() {
        for (kind, found) in [(RESET, true), (PING, true), (4, true), (2, true), (77, true)] {
            let bytes = flood(kind, MOST + 3);
            let end = PREFACE + MOST as usize * (HEAD + 8);
            for step in [1, 2, 7, 9, 10, 16, 17, 18, 4096, bytes.len()] {
                let (mut meter, mut at) = (Meter::new(), None);
                for (index, piece) in bytes.chunks(step).enumerate() {
                    if let Some(taken) = meter.read(piece) {
                        at = Some(index * step + taken);
                        break;
                    }
                }
                assert_eq!(at, found.then_some(end), "kind {kind} in pieces of {step}");
            }
            assert_eq!(Meter::new().read(&flood(kind, MOST - 1)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_bodies_and_windows_are_not_counted_and_payload_is_not_read() {
        for kind in [0, 1, 8, 9] {
            assert_eq!(Meter::new().read(&flood(kind, 10 * MOST)), None);
        }
        let mut meter = Meter::new();
        meter.read(&[b'x'; PREFACE]);
        // One frame of data that is full of resets.
        let inner = frame(RESET, 4).repeat(5000);
        let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
        meter.read(&[length[1], length[2], length[3], 0, 0, 0, 0, 0, 1]);
        assert_eq!(meter.read(&inner), None);
        assert_eq!((meter.counted, meter.skip), (0, 0));
    }

    #[test]
    fn what_has_begun_and_not_ended_is_known() {
        let mut meter = Meter::new();
        let mut read = |bytes: &[u8]| {
            meter.read(bytes);
            meter.is_partial()
        };
        assert!(read(&[b'x'; PREFACE - 1]));
        assert!(!read(b"x"));
        assert!(!read(&frame(PING, 8)));
        let open = frame(1, 3);
        assert!(
            read(&open[..4]) && read(&open[4..11]) && read(&open[11..]),
            "no END_HEADERS"
        );
        let mut rest = frame(9, 0);
        rest[4] = 4;
        assert!(!read(&rest));
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_bytes_written_make_up_for_frames() {
        let mut meter = Meter::new();
        meter.read(&[b'x'; PREFACE]);
        for _ in 0..20 {
            tokio::time::advance(WITHIN).await;
            assert_eq!(meter.read(&frame(PING, 8).repeat(MOST as usize)), None);
        }
        for _ in 0..20 * MOST {
            assert_eq!(meter.read(&frame(PING, 8)), None);
            meter.wrote(MAKE_UP);
        }
        let answered = (0..2 * MOST).find(|_| {
            meter.wrote(17);
            meter.read(&frame(PING, 8)).is_some()
        });
        assert!(answered.is_some(), "its answers do not make up for a PING");
    }
}
