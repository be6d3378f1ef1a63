//! A body coded piece by piece. Bytes in, bytes out; waits for nothing.
//!
//! The settings trade a little size for speed and for a bounded state: each body under way costs some hundred KiB.

use std::io::{self, Write};

use bytes::Bytes;

use crate::config::model::Coding;

/// From 1 to 9, 11 and 22; chosen for answers that are made anew each time.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Bits of the bytes that are looked back on.
const BROTLI_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 18;
const BROTLI_BUFFER: usize = 4096;

/// A body under way.
pub struct Encoder {
    kind: Kind,
    /// Whether something went in that has not come out.
    held: bool,
}

enum Kind {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// # Errors
    /// There is no memory for its state.
    pub fn new(coding: Coding) -> io::Result<Self> {
        let kind = match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Kind::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Coding::Brotli => Kind::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(ZSTD_WINDOW))?;
                Kind::Zstd(encoder)
            }
        };
        Ok(Self { kind, held: false })
    }

    /// Takes a piece. What comes out may be empty: it is held back until there is more, or until [`Encoder::flush`].
    ///
    /// # Errors
    /// The library failed, which nothing that goes in can bring about.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        self.writer().write_all(piece)?;
        let out = self.taken();
        self.held |= !piece.is_empty();
        Ok(out)
    }

    /// Whether a flush would bring something out.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.held
    }

    /// Brings out what is held back, so that whoever reads has all that went in.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn flush(&mut self) -> io::Result<Bytes> {
        self.writer().flush()?;
        self.held = false;
        Ok(self.taken())
    }

    /// A body that is all there.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn whole(mut self, body: &[u8]) -> io::Result<Bytes> {
        let front = self.push(body)?;
        let back = self.finish()?;
        Ok([front, back].concat().into())
    }

    /// The end of the body.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn finish(self) -> io::Result<Bytes> {
        let rest = match self.kind {
            Kind::Gzip(encoder) => encoder.finish()?,
            Kind::Brotli(encoder) => encoder.into_inner(),
            Kind::Zstd(encoder) => encoder.finish()?,
        };
        Ok(Bytes::from(rest))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.kind {
            Kind::Gzip(encoder) => encoder,
            Kind::Brotli(encoder) => encoder,
            Kind::Zstd(encoder) => encoder,
        }
    }

    fn taken(&mut self) -> Bytes {
        let out = match &mut self.kind {
            Kind::Gzip(encoder) => encoder.get_mut(),
            Kind::Brotli(encoder) => encoder.get_mut(),
            Kind::Zstd(encoder) => encoder.get_mut(),
        };
        Bytes::from(std::mem::take(out))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::coding::decode::Decoder;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut decoder = Decoder::new(coding, 1 << 30).expect("a decoder");
        let mut out = decoder.push(bytes).expect("well coded").to_vec();
        out.extend(decoder.finish().expect("complete"));
        out
    }

    #[test]
    fn a_flush_brings_everything_out() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            let mut decoder = Decoder::new(coding, 1 << 20).expect("a decoder");
            for n in 0..50 {
                let piece = format!("event {n}\n");
                let mut coded = encoder.push(piece.as_bytes()).expect("coded").to_vec();
                assert!(encoder.holds());
                coded.extend(encoder.flush().expect("flushed"));
                assert!(!encoder.holds());
                let out = decoder.push(&coded).expect("well coded");
                assert_eq!(out, piece, "{coding:?} {n}");
            }
        }
    }

    #[test]
    fn text_gets_smaller() {
        let text = "{\"name\":\"gateway\",\"kind\":\"edge\"},".repeat(1000);
        for coding in ALL {
            let mut encoder = Encoder::new(coding).expect("an encoder");
            let mut coded = encoder.push(text.as_bytes()).expect("coded").to_vec();
            coded.extend(encoder.finish().expect("finished"));
            assert!(coded.len() * 20 < text.len(), "{coding:?}: {}", coded.len());
            assert_eq!(decoded(coding, &coded), text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..8), flush in any::<bool>()) {
            for coding in ALL {
                let mut encoder = Encoder::new(coding).expect("an encoder");
                let mut coded = Vec::new();
                for piece in &pieces {
                    coded.extend(encoder.push(piece).expect("coded"));
                    if flush && encoder.holds() {
                        coded.extend(encoder.flush().expect("flushed"));
                    }
                }
                coded.extend(encoder.finish().expect("finished"));
                prop_assert_eq!(decoded(coding, &coded), pieces.concat());
            }
        }
    }
}
