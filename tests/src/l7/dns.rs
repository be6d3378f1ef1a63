//! A DNS server on loopback, whose zone a test changes while it runs.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Data {
    Ip(IpAddr),
    /// Priority, weight, port, target.
    Srv(u16, u16, u16, String),
}

/// What the server says.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    pub records: Vec<(String, Data)>,
    /// Of every record, in seconds.
    pub ttl: u32,
    /// Answers nothing at all.
    pub silent: bool,
    /// Answers SERVFAIL.
    pub fails: bool,
    /// Says over UDP that the answer does not fit.
    pub truncates: bool,
    /// Questions so far.
    pub asked: usize,
}

/// The running server.
#[derive(Clone, Debug)]
pub struct Dns {
    pub address: SocketAddr,
    pub zone: Arc<Mutex<Zone>>,
}

impl Dns {
    /// With an empty zone: there is no such name.
    #[must_use]
    pub fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            let address = udp.local_addr().expect("an address");
            if let Ok(tcp) = TcpListener::bind(address) {
                break (udp, tcp);
            }
        };
        let server = Self {
            address: udp.local_addr().expect("an address"),
            zone: Arc::default(),
        };
        let zone = Arc::clone(&server.zone);
        std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut bytes) {
                if let Some(answer) = answer(&zone, &bytes[..length], true) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let zone = Arc::clone(&server.zone);
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                let _ = stream.read_exact(&mut length);
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut question).is_ok()
                    && let Some(answer) = answer(&zone, &question, false)
                {
                    let length = u16::try_from(answer.len()).expect("a short answer");
                    let _ = stream.write_all(&length.to_be_bytes());
                    let _ = stream.write_all(&answer);
                }
            }
        });
        server
    }

    /// Changes what it says.
    pub fn set(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().unwrap());
    }

    /// Gives a name these addresses and no others.
    pub fn point(&self, name: &str, addresses: &[&str]) {
        self.set(|zone| {
            zone.records.retain(|(known, _)| known != name);
            for address in addresses {
                let ip = address.parse().expect("an address");
                zone.records.push((name.to_owned(), Data::Ip(ip)));
            }
        });
    }
}

fn answer(zone: &Mutex<Zone>, question: &[u8], udp: bool) -> Option<Vec<u8>> {
    let mut zone = zone.lock().unwrap();
    zone.asked += 1;
    if zone.silent || question.len() < 17 {
        return None;
    }
    let mut name = String::new();
    let mut at = 12;
    while question[at] != 0 {
        let length = usize::from(question[at]);
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(&question[at + 1..=at + length]));
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let mut out = question[..at + 5].to_vec();
    out[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    let known = zone.records.iter().any(|(known, _)| *known == name);
    let (high, low) = match (zone.fails, zone.truncates && udp, known) {
        (true, ..) => (0x81, 0x82),
        (_, true, _) => (0x83, 0x80),
        (.., false) => (0x81, 0x83),
        _ => (0x81, 0x80),
    };
    (out[2], out[3]) = (high, low);
    if low != 0x80 || high == 0x83 {
        return Some(out);
    }
    let mut count = 0_u8;
    for (_, data) in zone.records.iter().filter(|(known, _)| *known == name) {
        let (its_kind, bytes) = match data {
            Data::Ip(IpAddr::V4(ip)) => (1, ip.octets().to_vec()),
            Data::Ip(IpAddr::V6(ip)) => (28, ip.octets().to_vec()),
            Data::Srv(priority, weight, port, target) => {
                let mut bytes: Vec<u8> = [priority, weight, port]
                    .iter()
                    .flat_map(|n| n.to_be_bytes())
                    .collect();
                for label in target.split('.') {
                    bytes.push(u8::try_from(label.len()).expect("a label"));
                    bytes.extend(label.as_bytes());
                }
                bytes.push(0);
                (33, bytes)
            }
        };
        if its_kind == kind {
            count += 1;
            out.extend([0xc0, 12, 0, u8::try_from(its_kind).expect("small"), 0, 1]);
            out.extend(zone.ttl.to_be_bytes());
            out.extend(u16::try_from(bytes.len()).expect("short").to_be_bytes());
            out.extend(bytes);
        }
    }
    out[7] = count;
    Some(out)
}
