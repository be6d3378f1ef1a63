//! A coded body made plain, piece by piece, up to a size: a few bytes can stand for gigabytes.
//!
//! Owns that cap. A body that is cut short, damaged, or followed by something else is refused, so that nobody behind
//! sees another body than was checked here.

use std::io::{self, Write};

use bytes::Bytes;

use crate::config::model::Coding;

/// Bits of the longest window that a zstd body may ask for: 8 MiB, as RFC 9659 has it.
const ZSTD_WINDOW_MAX: u32 = 23;
const BROTLI_BUFFER: usize = 4096;

/// Why a body can not be made plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is larger than it may be.
    TooLarge,
    /// It is not what its header says.
    Damaged,
}

/// A body under way.
pub struct Decoder {
    kind: Kind,
}

enum Kind {
    Gzip(Box<flate2::write::MultiGzDecoder<Capped>>),
    Brotli(Box<brotli::DecompressorWriter<Capped>>),
    Zstd {
        decoder: zstd::stream::raw::Decoder<'static>,
        out: Capped,
        /// Whether the frame has ended: another may follow, or nothing.
        at_end: bool,
    },
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// What has come out and was not taken yet, and how much more may.
struct Capped {
    out: Vec<u8>,
    left: u64,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(piece.len() as u64) {
            Some(left) => self.left = left,
            None => {
                self.full = true;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.out.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// `most` is the cap in bytes on all that comes out, which is also the most that it holds.
    ///
    /// # Errors
    /// There is no memory for its state.
    pub fn new(coding: Coding, most: u64) -> io::Result<Self> {
        let capped = Capped {
            out: Vec::new(),
            left: most,
            full: false,
        };
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(Box::new(flate2::write::MultiGzDecoder::new(capped))),
            Coding::Brotli => Kind::Brotli(Box::new(brotli::DecompressorWriter::new(capped, BROTLI_BUFFER))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new()?;
                decoder.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_MAX))?;
                Kind::Zstd {
                    decoder,
                    out: capped,
                    at_end: true,
                }
            }
        };
        Ok(Self { kind })
    }

    /// Takes a piece, and gives what can be made plain so far.
    ///
    /// # Errors
    /// See [`Broken`]; the body is then at its end.
    pub fn push(&mut self, piece: &[u8]) -> Result<Bytes, Broken> {
        let written = match &mut self.kind {
            Kind::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Kind::Brotli(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Kind::Zstd { decoder, out, at_end } => zstd_frames(decoder, out, at_end, piece),
        };
        let capped = self.capped();
        match written {
            Ok(()) => Ok(Bytes::from(std::mem::take(&mut capped.out))),
            Err(_) if capped.full => Err(Broken::TooLarge),
            Err(_) => Err(Broken::Damaged),
        }
    }

    /// The end of the body.
    ///
    /// # Errors
    /// It ended early.
    pub fn finish(mut self) -> Result<Bytes, Broken> {
        let ended = match &mut self.kind {
            Kind::Gzip(decoder) => decoder.try_finish().is_ok(),
            Kind::Brotli(decoder) => decoder.close().is_ok(),
            Kind::Zstd { at_end, .. } => *at_end,
        };
        let capped = self.capped();
        match (ended, capped.full) {
            (_, true) => Err(Broken::TooLarge),
            (true, false) => Ok(Bytes::from(std::mem::take(&mut capped.out))),
            (false, false) => Err(Broken::Damaged),
        }
    }

    fn capped(&mut self) -> &mut Capped {
        match &mut self.kind {
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Brotli(decoder) => decoder.get_mut(),
            Kind::Zstd { out, .. } => out,
        }
    }
}

/// The library's own writer does not tell whether a frame has ended.
fn zstd_frames(
    decoder: &mut zstd::stream::raw::Decoder<'static>,
    out: &mut Capped,
    at_end: &mut bool,
    mut piece: &[u8],
) -> io::Result<()> {
    use zstd::stream::raw::Operation as _;
    let mut buffer = [0; 8 << 10];
    loop {
        let status = decoder.run_on_buffers(piece, &mut buffer)?;
        out.write_all(buffer.get(..status.bytes_written).unwrap_or_default())?;
        piece = piece.get(status.bytes_read..).unwrap_or_default();
        if status.bytes_read > 0 || status.bytes_written > 0 {
            *at_end = status.remaining == 0;
        }
        let drained = status.bytes_written < buffer.len();
        if piece.is_empty() && drained {
            return Ok(());
        }
        if status.bytes_read == 0 && status.bytes_written == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::coding::encode::Encoder;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).expect("an encoder");
        let mut out = encoder.push(plain).expect("coded").to_vec();
        out.extend(encoder.finish().expect("finished"));
        out
    }

    fn decode(coding: Coding, most: u64, pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<u8>, Broken> {
        let mut decoder = Decoder::new(coding, most).expect("a decoder");
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(decoder.push(&piece)?);
        }
        out.extend(decoder.finish()?);
        Ok(out)
    }

    #[test]
    fn t29_a_bomb_goes_off_at_the_cap() {
        let plain = vec![0; 64 << 20];
        for coding in ALL {
            let bomb = coded(coding, &plain);
            assert!(bomb.len() < 100_000, "{coding:?}: {}", bomb.len());
            let whole = |most| decode(coding, most, std::iter::once(bomb.clone()));
            assert_eq!(
                whole((64 << 20) - 1).map(|out| out.len()),
                Err(Broken::TooLarge),
                "{coding:?}"
            );
            assert_eq!(
                whole(1 << 20).map(|out| out.len()),
                Err(Broken::TooLarge),
                "{coding:?}"
            );
            assert_eq!(whole(64 << 20).map(|out| out.len()), Ok(64 << 20), "{coding:?}");
            let mut decoder = Decoder::new(coding, 1 << 20).expect("a decoder");
            assert!(
                bomb.chunks(100)
                    .any(|piece| decoder.push(piece) == Err(Broken::TooLarge))
            );
            assert!(decoder.capped().out.capacity() <= 2 << 20, "{coding:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_followed_by_something_else_is_damaged() {
        let plain =
            b"a body of some length, with words in it that come again: a body of some length".repeat(20);
        for coding in ALL {
            let whole = coded(coding, &plain);
            for cut in 1..whole.len() {
                let outcome = decode(coding, 1 << 20, std::iter::once(whole[..cut].to_vec()));
                assert_eq!(
                    outcome,
                    Err(Broken::Damaged),
                    "{coding:?} cut at {cut} of {}",
                    whole.len()
                );
            }
            let more = [&whole[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                decode(coding, 1 << 20, std::iter::once(more)),
                Err(Broken::Damaged),
                "{coding:?}"
            );
        }
        for coding in [Coding::Gzip, Coding::Zstd] {
            let twice = coded(coding, &plain).repeat(2);
            assert_eq!(
                decode(coding, 1 << 20, std::iter::once(twice)),
                Ok(plain.repeat(2)),
                "{coding:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_comes_out(plain in proptest::collection::vec(0_u8..4, 0..5000), size in 1_usize..600) {
            for coding in ALL {
                let whole = coded(coding, &plain);
                let pieces = whole.chunks(size).map(<[u8]>::to_vec);
                prop_assert_eq!(decode(coding, 1 << 20, pieces), Ok(plain.clone()));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_taken_within_the_cap(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for coding in ALL {
                if let Ok(out) = decode(coding, 1000, std::iter::once(bytes.clone())) {
                    prop_assert!(out.len() <= 1000);
                }
            }
        }
    }
}
