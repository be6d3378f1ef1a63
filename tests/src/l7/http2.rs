//! A client that speaks HTTP/2 in frames, to say what no library would.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `GET http://a/`, and the same as a `POST`.
pub const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
pub const POST: &[u8] = b"\x83\x86\x84\x41\x01a";
pub const CANCEL: &[u8] = &[0, 0, 0, 8];

/// A frame.
///
/// # Panics
/// If the payload is longer than a frame can be.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection that writes what no library would, and reads all the while.
#[derive(Debug)]
pub struct Flood {
    stream: TcpStream,
    reader: JoinHandle<Vec<u8>>,
}

impl Flood {
    /// Connects, and sends a preface and an empty SETTINGS.
    ///
    /// # Panics
    /// If nobody accepts.
    #[must_use]
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut reading = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let (mut all, mut bytes) = (Vec::new(), [0; 64 << 10]);
            while let Ok(taken @ 1..) = reading.read(&mut bytes) {
                all.extend(&bytes[..taken]);
            }
            all
        });
        let mut flood = Self { stream, reader };
        flood.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        flood.send(&frame(SETTINGS, 0, 0, &[]));
        flood
    }

    /// Whether the other side still takes it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// No more will be sent.
    pub fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Everything that came, frame by frame, until the gateway closed: kind, stream, payload.
    ///
    /// # Panics
    /// If the reading thread has.
    #[must_use]
    pub fn frames(self) -> Vec<(u8, u32, Vec<u8>)> {
        let bytes = self.reader.join().unwrap();
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some((head, behind)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let Some((payload, behind)) = behind.split_at_checked(length) else {
                break;
            };
            frames.push((head[3], stream, payload.to_vec()));
            rest = behind;
        }
        frames
    }

    /// The code of the last GOAWAY.
    #[must_use]
    pub fn goaway(self) -> Option<u32> {
        let frames = self.frames();
        let (.., payload) = frames.iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
        Some(u32::from_be_bytes(payload.get(4..8)?.try_into().unwrap()))
    }
}

/// The odd stream of a turn.
#[must_use]
pub const fn stream(turn: u32) -> u32 {
    2 * turn + 1
}
