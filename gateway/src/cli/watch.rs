//! `gateway watch`: sampled drops as they happen, from the running gateway or straight from the pinned ring.

mod top;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::args::{Args, WatchArgs};
use super::ask::{nobody_on, offline_failed, unexpected};
use super::{Exit, Failed, Result, known, render};
use crate::admin::api::{Answer, Outcome, Request, WatchOrder};
use crate::admin::client::{self, ClientError};
use crate::app::offline::watch::{Direct, Standing};
use crate::app::offline::{OfflineError, Trust, patiently};
use crate::config::Config;
use top::Top;

/// How often a table is shown, and how often it is seen to that events still come.
const SECOND: Duration = Duration::from_secs(1);

pub fn run(args: &Args, order: &WatchArgs) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    runtime.block_on(watch(args, order))
}

fn failed(error: &dyn std::fmt::Display) -> Failed {
    Failed::new(Exit::Failed, error.to_string())
}

async fn watch(args: &Args, order: &WatchArgs) -> Result<Exit> {
    let mut source = Source::open(args, order)?;
    let mut screen = Screen::new(args.json, order);
    let outcome = follow(&mut source, &mut screen, order).await;
    let closed = source.close();
    outcome.and(closed).map(|()| Exit::Done)
}

/// Shows what comes until enough was shown, the time is over, or the operator or the reader has gone.
async fn follow(source: &mut Source, screen: &mut Screen, order: &WatchArgs) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|error| failed(&error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let end = order.duration.map(|duration| Instant::now() + duration);
    let over = async {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut second = interval(SECOND);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once.
    second.tick().await;
    loop {
        let go_on = tokio::select! {
            answers = source.next() => screen.show(answers?)?,
            _ = second.tick() => {
                source.check()?;
                screen.second()?
            }
            () = &mut over => false,
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
            _ = hangup.recv() => false,
        };
        if !go_on {
            return screen.finish();
        }
    }
}

/// Where drops are told of.
enum Source {
    Gateway(Box<Gateway>),
    Ring(Box<Ring>),
}

/// A running gateway.
struct Gateway {
    lines: Lines<BufReader<UnixStream>>,
    socket: PathBuf,
    patience: Duration,
    /// When its first answer must have come; none is due after that, since there may be nothing to tell.
    first_by: Option<Instant>,
}

impl Gateway {
    fn ask(socket: &Path, order: &WatchOrder, patience: Duration) -> std::result::Result<Self, ClientError> {
        let stream = client::send(socket, &Request::Watch(order.clone()), patience)?;
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream))
            .map_err(|cause| ClientError::Io {
                path: socket.display().to_string(),
                cause,
            })?;
        Ok(Self {
            lines: BufReader::new(stream).lines(),
            socket: socket.to_owned(),
            patience,
            first_by: Some(Instant::now() + patience),
        })
    }

    async fn next(&mut self) -> Result<Vec<Answer>> {
        let line = match self.first_by {
            Some(first_by) => match timeout_at(first_by, self.lines.next_line()).await {
                Ok(line) => line,
                Err(_) => {
                    let stream = self.lines.get_ref().get_ref();
                    let pid = stream
                        .peer_cred()
                        .ok()
                        .and_then(|peer| u32::try_from(peer.pid()?).ok());
                    return Err(client::silent(&self.socket, pid, self.patience).into());
                }
            },
            None => self.lines.next_line().await,
        };
        let Some(line) = line.map_err(|error| failed(&error))? else {
            return Err(Failed::new(Exit::Failed, "the gateway has stopped"));
        };
        self.first_by = None;
        let outcome: Outcome = serde_json::from_str(&line).map_err(|cause| ClientError::Garbled {
            cause,
            ordered: false,
        })?;
        Ok(vec![outcome?])
    }
}

/// The pinned ring, and how to find a gateway that starts meanwhile.
struct Ring {
    /// `None` once it was given up for a gateway's sake.
    direct: Option<Direct>,
    order: WatchOrder,
    socket: PathBuf,
    patience: Duration,
    told: bool,
}

impl Source {
    fn open(args: &Args, order: &WatchArgs) -> Result<Self> {
        let order = WatchOrder {
            reason: order.reason.clone(),
            source: order.source,
        };
        if let Some(socket) = &args.socket {
            return match Self::gateway(socket, &order, args.timeout) {
                Err(ClientError::NotRunning) => Err(Failed::new(
                    Exit::Failed,
                    format!(
                        "no gateway answers on {}; without --socket drops are read from what is pinned in the kernel",
                        socket.display()
                    ),
                )),
                source => Ok(source?),
            };
        }
        let known = known::read(args)?;
        let socket = &known.config.admin.socket;
        match Self::gateway(socket, &order, args.timeout) {
            Err(ClientError::NotRunning) => known.warn(Some(&nobody_on(socket))),
            source => {
                known.warn(None);
                return Ok(source?);
            }
        }
        Self::ring(&known.config, known.trust(), order, args.timeout)
    }

    fn gateway(
        socket: &Path,
        order: &WatchOrder,
        patience: Duration,
    ) -> std::result::Result<Self, ClientError> {
        let gateway = Gateway::ask(socket, order, patience)?;
        Ok(Self::Gateway(Box::new(gateway)))
    }

    fn ring(config: &Config, trust: Trust, order: WatchOrder, patience: Duration) -> Result<Self> {
        let socket = config.admin.socket.clone();
        let open = || Direct::open(config, trust);
        let direct =
            patiently(open, OfflineError::holder).map_err(|error| offline_failed(&error, &socket))?;
        Ok(Self::Ring(Box::new(Ring {
            direct: Some(direct),
            order,
            socket,
            patience,
            told: false,
        })))
    }

    /// What is told next. Nothing is lost if it is dropped.
    async fn next(&mut self) -> Result<Vec<Answer>> {
        match self {
            Self::Gateway(gateway) => gateway.next().await,
            Self::Ring(ring) => ring.next().await,
        }
    }

    /// Sees to it that events still come.
    fn check(&mut self) -> Result<()> {
        let Self::Ring(ring) = self else {
            return Ok(());
        };
        if let Some(gateway) = ring.check()? {
            *self = gateway;
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        match self {
            Self::Ring(ring) => match ring.direct {
                Some(direct) => direct
                    .close()
                    .map_err(|error| offline_failed(&error, &ring.socket)),
                None => Ok(()),
            },
            Self::Gateway(_) => Ok(()),
        }
    }
}

impl Ring {
    async fn next(&mut self) -> Result<Vec<Answer>> {
        let Some(direct) = &mut self.direct else {
            return std::future::pending().await;
        };
        if !std::mem::replace(&mut self.told, true) {
            let every_ns = direct.every_ns();
            return Ok(vec![Answer::Watching(crate::admin::api::Watching { every_ns })]);
        }
        let seen = direct.next().await.map_err(|error| failed(&error))?;
        let wanted = seen.into_iter().filter(|sighting| self.order.wants(sighting));
        Ok(wanted.map(Answer::Seen).collect())
    }

    /// `Some` if a gateway has taken over: from here on it is asked.
    fn check(&mut self) -> Result<Option<Source>> {
        let Some(direct) = &mut self.direct else {
            return Ok(None);
        };
        match direct
            .check()
            .map_err(|error| offline_failed(&error, &self.socket))?
        {
            Standing::Watching => Ok(None),
            Standing::Gone => {
                self.direct = None;
                Err(Failed::new(
                    Exit::Failed,
                    "the packet filter was taken out of the kernel: there is nothing to watch any more",
                ))
            }
            Standing::Held => match Source::gateway(&self.socket, &self.order, self.patience) {
                Err(ClientError::NotRunning) => Ok(None),
                source => Ok(Some(source?)),
            },
        }
    }
}

/// What the operator sees.
struct Screen {
    json: bool,
    left: Option<u64>,
    top: Option<Top>,
    /// Rewrites the screen instead of adding to it.
    terminal: bool,
    greeted: bool,
}

impl Screen {
    fn new(json: bool, order: &WatchArgs) -> Self {
        Self {
            json,
            left: order.count.map(std::num::NonZero::get),
            top: order.top.map(|rows| Top::new(usize::from(rows.get()))),
            terminal: !json && std::io::stdout().is_terminal(),
            greeted: false,
        }
    }

    /// Shows single drops, or counts them. `false` when enough was shown.
    fn show(&mut self, answers: Vec<Answer>) -> Result<bool> {
        let mut text = String::new();
        for answer in answers {
            match answer {
                Answer::Watching(watching) => {
                    if let Some(top) = &mut self.top {
                        top.every_ns = watching.every_ns;
                    }
                    if !self.json && !std::mem::replace(&mut self.greeted, true) {
                        let sample = render::sample(watching.every_ns);
                        say(&format!("watching; {sample}. Ctrl-C ends."));
                    }
                }
                Answer::Seen(sighting) => {
                    if let Some(top) = &mut self.top {
                        top.count(&sighting);
                        continue;
                    }
                    if self.json {
                        text.push_str(&json(&sighting)?);
                    } else {
                        text.push_str(&render::sighting(&sighting));
                    }
                    if let Some(left) = &mut self.left {
                        *left -= 1;
                        if *left == 0 {
                            return self.print(&text).map(|_| false);
                        }
                    }
                }
                Answer::Lost { events } => {
                    if let Some(top) = &mut self.top {
                        top.lost += events;
                    } else if self.json {
                        text.push_str(&json(&serde_json::json!({ "lost": events }))?);
                    } else {
                        say(&format!(
                            "{events} more were not shown: they came faster than they were taken"
                        ));
                    }
                }
                _ => return Err(unexpected()),
            }
        }
        self.print(&text)
    }

    /// A second is over: shows the table, if one was asked for.
    fn second(&mut self) -> Result<bool> {
        let Some(top) = &mut self.top else { return Ok(true) };
        let now_ms = crate::dataplane::clock::Now::read().wall_ms;
        let table = top.take(now_ms);
        let text = if self.json {
            json(&table)?
        } else {
            let clear = if self.terminal { "\x1b[H\x1b[2J" } else { "" };
            format!("{clear}{}", table.text())
        };
        self.print(&text)
    }

    /// Shows what was counted since the last table.
    fn finish(&mut self) -> Result<()> {
        if self.top.as_ref().is_some_and(Top::has_news) {
            self.second()?;
        }
        Ok(())
    }

    /// `false` if the reader has gone.
    #[expect(clippy::unused_self, reason = "the screen is what prints")]
    fn print(&self, text: &str) -> Result<bool> {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failed::new(Exit::Failed, format!("standard output: {error}"))),
        }
    }
}

/// One JSON document on one line.
fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|error| failed(&error))?;
    Ok(text + "\n")
}

/// Says something to a person beside the output; if nobody can hear it, it is not said.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "gateway: {text}");
}
