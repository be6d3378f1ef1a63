//! One worker's connection to the Redis or Valkey that gateways share limits through, and what is done while there is none.
//! The only user of the redis crate.
//!
//! All requests of a worker share one pipelined connection. Nobody waits longer than the deadline, and nobody at all once the
//! server is known to be away: three late answers in a row, or a connection that breaks before its first answer, end the asking
//! until a connection that answers has been made behind the requests' backs. One that has answered and is closed is no more than
//! that (servers close what is idle): it is made anew, and who was waiting on it asks once more.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, RedisResult, Script};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::bounded::Bounded;
use crate::config::defaults;
use crate::config::model::Redis;
use crate::upstream::client_config;

/// Late answers in a row after which the server counts as away.
const LATE: u32 = 3;
/// For a connection and its first answer.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two tries to connect, or to ask on a new connection: the first pause, doubled each time, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// GCRA for several keys at once: all are charged, or none. The time is the server's, so that gateways whose clocks differ
/// agree. TATs are microseconds since 2025, which a double holds to a hundredth of one. `ARGV` has for each key the cost of a
/// request, the whole burst, and 1 for a limit that only observes. The answer has for each key how far ahead of now its TAT
/// is or would be with this request, negative if that is too far.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME')
local now = (tonumber(t[1]) - 1735689600) * 1000000 + tonumber(t[2])
local ahead, over, stop = {}, {}, false
for i, key in ipairs(KEYS) do
  local tat = tonumber(redis.call('GET', key) or now)
  ahead[i] = math.max(tat - now, 0) + tonumber(ARGV[3 * i - 2])
  over[i] = ahead[i] > tonumber(ARGV[3 * i - 1]) + 0.5
  stop = stop or (over[i] and ARGV[3 * i] == '0')
end
local told = {}
for i, key in ipairs(KEYS) do
  if not stop and not over[i] then
    redis.call('SET', key, string.format('%.17g', now + ahead[i]), 'PX', math.ceil(ahead[i] / 1000) + 1)
  end
  told[i] = math.ceil(ahead[i])
  if over[i] then told[i] = -told[i] end
end
return told",
    )
});

/// Workers of this process that know the server to be away.
static AWAY: AtomicU64 = AtomicU64::new(0);

/// Workers for which shared limits do as `when_away` says.
#[must_use]
pub fn away() -> u64 {
    AWAY.load(Ordering::Relaxed)
}

/// One of them.
struct Counted;

impl Counted {
    fn new() -> Self {
        AWAY.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        AWAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a key is held against.
pub(super) struct Ask {
    pub(super) key: String,
    /// Nanoseconds.
    pub(super) interval: u64,
    /// Nanoseconds.
    pub(super) burst: u64,
    pub(super) observe: bool,
}

/// One worker's way to one server.
pub(super) struct Link {
    model: Arc<Redis>,
    state: RefCell<State>,
    /// A connection has been made, or could not be.
    moved: Notify,
    late: Cell<u32>,
    /// Before the next try; none since the last answer.
    pause: Cell<Duration>,
}

enum State {
    Unasked,
    Connecting,
    Ready(Rc<Kept>),
    Away(Counted),
}

/// A connection that has been logged in.
struct Kept {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    /// More has come than was asked for.
    spent: Arc<AtomicBool>,
    used: Cell<Use>,
}

/// What a connection has been good for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Fresh,
    Asked,
    Answered,
}

impl Drop for Kept {
    // By itself it would wait for answers that nobody waits for.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

thread_local! {
    /// This worker's links. A reload that changes the server leaves the old one behind, to go with its last request.
    static LINKS: RefCell<Option<Rc<Link>>> = const { RefCell::new(None) };
}

impl Link {
    /// This worker's link to a server.
    pub(super) fn to(model: &Arc<Redis>) -> Rc<Self> {
        LINKS.with_borrow_mut(|known| {
            if let Some(link) = known.as_ref().filter(|link| link.model == *model) {
                return Rc::clone(link);
            }
            let link = Rc::new(Self {
                model: Arc::clone(model),
                state: RefCell::new(State::Unasked),
                moved: Notify::new(),
                late: Cell::new(0),
                pause: Cell::new(Duration::ZERO),
            });
            *known = Some(Rc::clone(&link));
            link
        })
    }

    /// Charges all of these or none, within the deadline; in microseconds, as the script tells. `None` if the server is away.
    pub(super) async fn ask(self: &Rc<Self>, asked: &[Ask]) -> Option<Vec<i64>> {
        let by = Instant::now() + self.model.timeout;
        match timeout_at(by, self.answer(asked)).await {
            Ok(answer) => answer.filter(|told| told.len() == asked.len()),
            Err(_) => {
                self.late.set(self.late.get() + 1);
                if self.late.get() >= LATE {
                    self.lost(None, "answers come too late");
                }
                None
            }
        }
    }

    async fn answer(self: &Rc<Self>, asked: &[Ask]) -> Option<Vec<i64>> {
        let mut call = SCRIPT.prepare_invoke();
        for ask in asked {
            let microseconds = |nanoseconds: u64| {
                let (whole, rest) = (nanoseconds / 1000, nanoseconds % 1000);
                format!("{whole}.{rest:03}")
            };
            call.key(&ask.key);
            call.arg(microseconds(ask.interval));
            call.arg(microseconds(ask.burst));
            call.arg(u8::from(ask.observe));
        }
        let mut again = true;
        loop {
            let kept = self.connection().await?;
            if kept.used.get() == Use::Fresh {
                kept.used.set(Use::Asked);
            }
            let told: RedisResult<Vec<i64>> = call.invoke_async(&mut kept.connection.clone()).await;
            match told {
                Ok(told) => {
                    self.late.set(0);
                    self.pause.set(Duration::ZERO);
                    kept.used.set(Use::Answered);
                    return Some(told);
                }
                // The server may have charged this request before the connection broke: then it is charged twice. The other
                // way would be to admit it uncharged.
                Err(error) if again && error.is_connection_dropped() => {
                    again = false;
                    self.closed(&kept, &describe(&error));
                }
                Err(error) => {
                    self.lost(Some(&kept), &describe(&error));
                    return None;
                }
            }
        }
    }

    async fn connection(self: &Rc<Self>) -> Option<Rc<Kept>> {
        loop {
            let unasked = match &*self.state.borrow() {
                State::Ready(kept) => return Some(Rc::clone(kept)),
                State::Away(_) => return None,
                State::Unasked => true,
                State::Connecting => false,
            };
            if unasked {
                *self.state.borrow_mut() = State::Connecting;
                self.seek(Duration::ZERO);
            }
            self.moved.notified().await;
        }
    }

    /// A connection has come to its end. The next request makes another, unless this one has failed its first.
    fn closed(self: &Rc<Self>, kept: &Rc<Kept>, why: &str) {
        if kept.spent.load(Ordering::Relaxed) {
            self.lost(Some(kept), "it answers without end");
        } else if kept.used.get() == Use::Asked {
            self.lost(Some(kept), why);
        } else if self.uses(kept) {
            let _old = self.state.replace(State::Unasked);
        }
    }

    fn uses(&self, kept: &Rc<Kept>) -> bool {
        matches!(&*self.state.borrow(), State::Ready(used) if Rc::ptr_eq(used, kept))
    }

    /// Asks no more, and looks for a connection meanwhile. Those who come together tell it once; who tells of a connection that
    /// has been replaced tells nothing.
    fn lost(self: &Rc<Self>, with: Option<&Rc<Kept>>, why: &str) {
        if with.is_some_and(|kept| !self.uses(kept)) {
            return;
        }
        let seeks = match &*self.state.borrow() {
            State::Ready(kept) => {
                if kept.used.get() != Use::Answered {
                    self.longer();
                }
                false
            }
            State::Connecting => true,
            State::Unasked | State::Away(_) => return,
        };
        tracing::warn!(server = %self.model.url, why, "redis is away: shared limits do as when_away says");
        let _old = self.state.replace(State::Away(Counted::new()));
        self.moved.notify_waiters();
        self.late.set(0);
        if !seeks {
            self.seek(self.pause.get());
        }
    }

    /// How long to wait now that one more try has failed.
    fn longer(&self) -> Duration {
        let (first, longest) = PAUSES;
        self.pause.set((self.pause.get() * 2).clamp(first, longest));
        self.pause.get()
    }

    fn seek(self: &Rc<Self>, pause: Duration) {
        let link = Rc::downgrade(self);
        tokio::task::spawn_local(seek(link, pause));
    }
}

/// Connects, and tries until it can; ends with the link.
async fn seek(link: Weak<Link>, mut pause: Duration) {
    loop {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let Some(model) = link.upgrade().map(|link| Arc::clone(&link.model)) else {
            return;
        };
        let found = timeout_at(Instant::now() + CONNECT, connect(&model, &link)).await;
        let Some(link) = link.upgrade() else { return };
        let first = matches!(*link.state.borrow(), State::Connecting);
        match found {
            Ok(Ok(kept)) => {
                let _old = link.state.replace(State::Ready(kept));
                link.moved.notify_waiters();
                if !first {
                    tracing::info!(server = %model.url, "redis is back");
                }
                return;
            }
            Ok(Err(error)) if first => {
                tracing::warn!(server = %model.url, why = error, "redis can not be reached");
            }
            Err(_) if first => tracing::warn!(server = %model.url, "redis does not answer"),
            _ => {}
        }
        let _old = link.state.replace(State::Away(Counted::new()));
        link.moved.notify_waiters();
        pause = link.longer();
    }
}

async fn connect(model: &Arc<Redis>, link: &Weak<Link>) -> Result<Rc<Kept>, String> {
    let mut login = RedisConnectionInfo::default()
        .set_db(model.database)
        .set_skip_set_lib_name();
    if let Some(username) = &model.username {
        login = login.set_username(username);
    }
    if let Some(password) = &model.password {
        login = login.set_password(password.reveal());
    }
    let stream = TcpStream::connect((model.host.as_str(), model.port)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    // A question is small, and somebody waits for its answer.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = &model.tls else {
        return talk(&login, stream, link).await;
    };
    let name = tls.server_name.as_ref().unwrap_or(&model.host).clone();
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    // Each time anew, as certificates are renewed; and not on the worker's thread, as files are read.
    let of = Arc::clone(model);
    let config = tokio::task::spawn_blocking(move || {
        let tls = of.tls.as_ref().map(|tls| client_config("redis", tls));
        tls.map(|config| config.map_err(|error| error.to_string()))
    });
    let Ok(Some(config)) = config.await else {
        return Err("its TLS could not be prepared".to_owned());
    };
    let secure = TlsConnector::from(Arc::new(config?)).connect(name, stream).await;
    talk(&login, secure.map_err(|error| error.to_string())?, link).await
}

/// Logs in, and has the connection live for as long as somebody holds it. The link hears of its end.
async fn talk<S>(login: &RedisConnectionInfo, stream: S, link: &Weak<Link>) -> Result<Rc<Kept>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, spent) = Bounded::new(stream);
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let made = MultiplexedConnection::new_with_config(login, stream, config).await;
    let (connection, driver) = made.map_err(|error| describe(&error))?;
    let kept = Rc::new_cyclic(|kept: &Weak<Kept>| {
        let (kept, link) = (Weak::clone(kept), Weak::clone(link));
        let driven = tokio::task::spawn_local(async move {
            driver.await;
            if let (Some(kept), Some(link)) = (kept.upgrade(), link.upgrade()) {
                link.closed(&kept, "the connection has been closed");
            }
        });
        Kept {
            connection,
            driver: driven.abort_handle(),
            spent,
            used: Cell::new(Use::Fresh),
        }
    });
    let answer = redis::cmd("PING")
        .query_async::<()>(&mut kept.connection.clone())
        .await;
    answer.map_err(|error| describe(&error))?;
    Ok(kept)
}

/// Without what the server quotes of a request.
fn describe(error: &RedisError) -> String {
    match error.code() {
        Some(code @ "CROSSSLOT") => format!(
            "{code}: it is of a Redis Cluster, and the keys of one question lie in several slots; give redis.prefix a hash tag, \
             such as {:?}",
            defaults::REDIS_PREFIX
        ),
        Some(code @ ("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")) => format!(
            "{code}: it is of a Redis Cluster and has not the slot of the keys; Cluster is not spoken, so url must be the server that \
             has it"
        ),
        Some(code) => code.to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    #[test]
    fn an_error_of_a_cluster_says_what_to_do_and_none_quotes_a_key() {
        for (code, says) in [
            ("CROSSSLOT", "redis.prefix a hash tag"),
            ("MOVED", "Cluster is not spoken"),
            ("ASK", "Cluster is not spoken"),
            ("OTHER", "OTHER"),
        ] {
            let error = make_extension_error(code.to_owned(), Some("3999 {key} 10.0.0.1:6381".to_owned()));
            let told = describe(&error);
            assert!(told.contains(says) && told.starts_with(code), "{told}");
            assert!(!told.contains("key}") && !told.contains("10.0.0.1"), "{told}");
        }
    }
}
