//! A small upstream for end-to-end tests that remembers what reached it. Speaks just enough HTTP/1.1 for a proxy.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use anyhow::Result;

use crate::net::Namespace;

/// The request line of everything that arrived.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// Listens on an address within a namespace. Lives as long as the test's process.
    pub fn start(namespace: &Namespace, address: &'static str) -> Result<Self> {
        let listener = namespace.within(move || TcpListener::bind(address))??;
        let origin = Self::default();
        std::thread::spawn({
            let origin = origin.clone();
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let origin = origin.clone();
                    std::thread::spawn(move || origin.serve(stream));
                }
            }
        });
        Ok(origin)
    }

    /// The request lines so far.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no holder panics").clone()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            self.seen
                .lock()
                .expect("no holder panics")
                .push(line.trim_end().to_owned());
            let (mut length, mut chunked) = (0_u64, false);
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).ok().filter(|length| *length > 0)?;
                let header = header.trim_end().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
                chunked |= header.starts_with("transfer-encoding:");
            }
            while chunked {
                let mut size = String::new();
                reader.read_line(&mut size).ok().filter(|length| *length > 0)?;
                let size = u64::from_str_radix(size.trim_end(), 16).ok()?;
                chunked = size > 0;
                std::io::copy(&mut (&mut reader).take(size + 2), &mut std::io::sink()).ok()?;
            }
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"ok\": true}\n";
            writer.write_all(answer.as_bytes()).ok()?;
        }
    }
}
