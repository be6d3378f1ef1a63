//! The open loop: requests at a fixed rate, whatever the answers do.
//!
//! Request number `n` is due at `n / rate`, and its time counts from then: one that had to wait, because the proxy or a
//! connection was still busy with others, has waited. A generator that sends the next request after the last answer leaves
//! just those out ("coordinated omission").

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{Timespec, epoll};
use rustix::thread::CpuSet;

use super::process::LOAD_CORE;

/// Longer heads are wrong answers.
const MOST_HEAD: usize = 16 << 10;
/// After the last request was due.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to send, how often.
#[derive(Clone, Debug)]
pub struct Plan {
    pub address: SocketAddr,
    pub path: String,
    /// Requests a second, all connections together.
    pub rate: f64,
    pub connections: usize,
    /// The longest it goes on.
    pub length: Duration,
    /// Bytes of a good answer's body.
    pub body: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of each good answer, in microseconds; sorted.
    micros: Vec<u32>,
    /// Answers that were not good, connections that broke, requests that got no answer.
    pub wrong: u64,
    /// The first of these, in words.
    pub first_wrong: Option<String>,
}

impl Outcome {
    pub fn answered(&self) -> usize {
        self.micros.len()
    }

    /// In microseconds, for a part between 0 and 1.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        self.micros.get(at).copied().map_or(f64::NAN, f64::from)
    }

    fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert_with(what);
    }
}

struct Connection {
    stream: TcpStream,
    /// When its request was due.
    due: Option<Instant>,
    got: Vec<u8>,
}

/// Has this thread run on the core of the load.
pub fn pin() -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(LOAD_CORE);
    rustix::thread::sched_setaffinity(None, &cores).context("pinning a thread to its core")
}

/// Sends at the rate until the time is over or `stop` is set, then waits for the answers that are due.
pub fn run(plan: &Plan, stop: &AtomicBool) -> Result<Outcome> {
    pin()?;
    ensure!(
        plan.rate > 0.0 && plan.connections > 0,
        "a rate of 0 measures nothing"
    );
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n",
        plan.path
    );
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("making an epoll")?;
    let mut connections = Vec::new();
    for number in 0..plan.connections {
        let connection = connect(plan.address).context("connecting")?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, &connection.stream, data, epoll::EventFlags::IN).context("watching a socket")?;
        connections.push(connection);
    }
    let mut free: VecDeque<usize> = (0..plan.connections).collect();
    let mut outcome = Outcome::default();
    let mut events = Vec::with_capacity(plan.connections);
    let begin = Instant::now();
    let (mut sent, mut open) = (0_u64, 0_usize);
    loop {
        let now = Instant::now();
        let over = now.duration_since(begin) >= plan.length || stop.load(Ordering::Relaxed);
        let next = begin + Duration::from_secs_f64(sent as f64 / plan.rate);
        if over && (open == 0 || now.duration_since(begin) >= plan.length + PATIENCE) {
            break;
        }
        if !over
            && next <= now
            && let Some(number) = free.pop_front()
        {
            sent += 1;
            if let Some(connection) = connections.get_mut(number) {
                connection.due = Some(next);
                open += 1;
                // A broken connection shows when it is read.
                let _ = (&connection.stream).write_all(request.as_bytes());
            }
        }
        let wait = if over || free.is_empty() {
            Duration::from_millis(20)
        } else {
            // Nothing if more is due: answers are looked at between any two requests, so that no burst makes them late.
            let next = begin + Duration::from_secs_f64(sent as f64 / plan.rate);
            next.saturating_duration_since(Instant::now())
        };
        let wait = Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: wait.subsec_nanos().into(),
        };
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for answers"),
        }
        for event in events.drain(..) {
            let number = event.data.u64() as usize;
            let Some(connection) = connections.get_mut(number) else {
                continue;
            };
            match connection.read(plan.body) {
                Ok(false) => {}
                Ok(true) => {
                    if let Some(due) = connection.due.take() {
                        let micros = due.elapsed().as_micros();
                        outcome.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                        open -= 1;
                        free.push_back(number);
                    } else {
                        outcome.wrong(|| "an answer that nobody asked for".to_owned());
                    }
                }
                Err(error) => {
                    outcome.wrong(|| format!("{error}, after {sent} requests"));
                    let was_open = connection.due.take().is_some();
                    let fresh = connect(plan.address).context("connecting again")?;
                    let data = epoll::EventData::new_u64(number as u64);
                    epoll::add(&poll, &fresh.stream, data, epoll::EventFlags::IN)
                        .context("watching a socket")?;
                    *connection = fresh;
                    if was_open {
                        open -= 1;
                        free.push_back(number);
                    }
                }
            }
        }
    }
    for _ in 0..open {
        outcome.wrong(|| "a request got no answer".to_owned());
    }
    outcome.micros.sort_unstable();
    Ok(outcome)
}

fn connect(address: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(Connection {
        stream,
        due: None,
        got: Vec::with_capacity(1024),
    })
}

impl Connection {
    /// Takes what is there. True if that ends a good answer; what is no good answer is an error.
    fn read(&mut self, body: usize) -> io::Result<bool> {
        let mut room = [0; 4096];
        match (&self.stream).read(&mut room) {
            Ok(0) => return Err(io::Error::other("the connection was closed")),
            Ok(count) => self.got.extend_from_slice(room.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let ended = whole(&self.got, body)?;
        if ended {
            self.got.clear();
        }
        Ok(ended)
    }
}

/// Whether these bytes are one whole good answer: 200, the right length, nothing after it.
fn whole(got: &[u8], body: usize) -> io::Result<bool> {
    let wrong = |what: &str| {
        let begin = String::from_utf8_lossy(got.get(..got.len().min(120)).unwrap_or_default()).into_owned();
        io::Error::other(format!("{what}: {begin:?}"))
    };
    let Some(head) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if got.len() > MOST_HEAD {
            Err(wrong("a head without end"))
        } else {
            Ok(false)
        };
    };
    let text = got.get(..head).unwrap_or_default();
    if !text.starts_with(b"HTTP/1.1 200 ") {
        return Err(wrong("not 200"));
    }
    let length = text.split(|byte| *byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (name, value) = line.split_once(':')?;
        let fits = name.eq_ignore_ascii_case("content-length");
        fits.then(|| value.trim().parse::<usize>().ok())?
    });
    if length != Some(body) {
        return Err(wrong("another length"));
    }
    match got.len().cmp(&(head + 4 + body)) {
        std::cmp::Ordering::Less => Ok(false),
        std::cmp::Ordering::Equal => Ok(true),
        std::cmp::Ordering::Greater => Err(wrong("more than was asked for")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn knows_a_good_answer() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-Length: 2\r\n\r\nab";
        assert!(whole(good, 2).expect("good"));
        assert!(!whole(&good[..good.len() - 1], 2).expect("not yet whole"));
        assert!(!whole(&good[..10], 2).expect("not yet whole"));
        assert!(whole(good, 3).is_err());
        assert!(whole(b"HTTP/1.1 200 OK\r\ncontent-Length: 2\r\n\r\nabc", 2).is_err());
        assert!(whole(b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nab", 2).is_err());
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\nab", 2).is_err());
    }

    #[test]
    fn a_stall_counts_for_all_that_were_due_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut room = [0; 1024];
            for number in 0.. {
                if stream.read(&mut room).expect("a request") == 0 {
                    break;
                }
                if number == 10 {
                    std::thread::sleep(Duration::from_millis(300));
                }
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
                    .expect("sent");
            }
        });
        let plan = Plan {
            address,
            path: "/".to_owned(),
            rate: 100.0,
            connections: 1,
            length: Duration::from_secs(1),
            body: 2,
        };
        let outcome = run(&plan, &AtomicBool::new(false)).expect("a run");
        assert_eq!(outcome.wrong, 0, "{:?}", outcome.first_wrong);
        assert!((95..=101).contains(&outcome.answered()), "{}", outcome.answered());
        // Thirty were due while the server slept: a closed loop would have seen one of a hundred.
        assert!(outcome.quantile(0.80) > 50_000.0, "{}", outcome.quantile(0.80));
        assert!(outcome.quantile(0.5) < 50_000.0, "{}", outcome.quantile(0.5));
    }
}
