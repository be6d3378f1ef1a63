//! A real redis-server on a free port, without a file of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The running server; it ends with this.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    address: SocketAddr,
    /// More words for its command line.
    more: Vec<String>,
}

impl Redis {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// If there is no redis-server.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that speaks TLS alone, with the files `server.crt`, `server.key` and `ca.crt` of a directory; clients must show a
    /// certificate of that CA.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[must_use]
    pub fn start_tls(files: &std::path::Path) -> Self {
        let file = |name: &str| files.join(name).display().to_string();
        let words = [
            ("--tls-cert-file", file("server.crt")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.crt")),
            ("--tls-auth-clients", "yes".to_owned()),
        ];
        let words: Vec<_> = words
            .into_iter()
            .flat_map(|(word, value)| [word.to_owned(), value])
            .collect();
        Self::start_with(&words)
    }

    /// One that closes a connection on which nothing has been asked for so many seconds.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[must_use]
    pub fn start_impatient(seconds: u32) -> Self {
        Self::start_with(&["--timeout".to_owned(), seconds.to_string()])
    }

    /// One that is a whole Redis Cluster: it has all slots.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[must_use]
    pub fn start_cluster(files: &std::path::Path) -> Self {
        let nodes = files.join("nodes.conf").display().to_string();
        let redis = Self::start_with(&[
            "--cluster-enabled".to_owned(),
            "yes".to_owned(),
            "--cluster-config-file".to_owned(),
            nodes,
        ]);
        redis.tell(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        for _ in 0..200 {
            if redis.tell(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
                return redis;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the cluster does not come up");
    }

    fn start_with(more: &[String]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut redis = Self {
            child: None,
            address,
            more: more.to_vec(),
        };
        redis.resume();
        redis
    }

    /// Starts it again at the same address, empty.
    ///
    /// # Panics
    /// If it does not listen within ten seconds.
    pub fn resume(&mut self) {
        let port = self.address.port().to_string();
        let child = Command::new("redis-server")
            .args(match self.more.iter().any(|word| word.starts_with("--tls")) {
                false => vec!["--port", &port],
                true => vec!["--port", "0", "--tls-port", &port],
            })
            .args(&self.more)
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--requirepass",
                "secret",
            ])
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server: cargo xtask setup installs it"));
        for _ in 0..200 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("redis-server does not listen at {}", self.address);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it in its tracks (or lets it go on): connections stay and nobody answers.
    pub fn freeze(&self, frozen: bool) {
        if let Some(child) = &self.child {
            let signal = if frozen { "-STOP" } else { "-CONT" };
            let _ = Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status();
        }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often scripts have been run, and how often time was asked: what the server itself counted.
    #[must_use]
    pub fn calls(&self, command: &str) -> u64 {
        let text = self.tell(&["INFO", "commandstats"]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse().ok())
            .unwrap_or(0)
    }

    /// Closes the connections of all clients; how many.
    #[must_use]
    pub fn hang_up(&self) -> u32 {
        let text = self.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
        text.trim().parse().unwrap_or(0)
    }

    fn tell(&self, command: &[&str]) -> String {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let output = Command::new("redis-cli")
            .args(["-h", &host, "-p", &port, "-a", "secret", "--no-auth-warning"])
            .args(command)
            .output()
            .expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
