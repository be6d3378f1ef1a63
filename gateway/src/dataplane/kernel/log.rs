//! Log lines of the kernel program, handed to `tracing` under the target `gateway::xdp`.

use std::fmt::Write as _;
use std::net::IpAddr;

use aya::Ebpf;
use aya_log::EbpfLogger;
use gateway_common::outcome::{DropReason, OBSERVED};

use crate::dataplane::events::Interfaces;
use tokio::io::unix::AsyncFd;

/// The reading end of the program's log ring.
pub struct KernelLog(EbpfLogger<Forward>);

impl std::fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelLog")
    }
}

impl KernelLog {
    pub(super) fn new(program: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(program, Forward).ok().map(Self)
    }

    /// Forwards what has arrived, without waiting.
    pub fn flush(&mut self) {
        self.0.flush();
    }

    /// Forwards lines for as long as it is polled, on a tokio runtime with I/O. Ends only with an error.
    pub async fn run(self) -> std::io::Error {
        // SAFETY: the logger owns the map's descriptor, always returns the same one and never closes it early.
        let mut ring = match unsafe { AsyncFd::register(self.0) } {
            Ok(ring) => ring,
            Err(error) => return error.into(),
        };
        loop {
            match ring.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => return error,
            }
        }
    }
}

/// aya hands lines to the `log` crate's trait; this is that trait over `tracing`.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = named(&record.args().to_string(), &mut Interfaces::default());
        match record.level() {
            log::Level::Error => tracing::error!(target: "gateway::xdp", "{line}"),
            log::Level::Warn => tracing::warn!(target: "gateway::xdp", "{line}"),
            log::Level::Info => tracing::info!(target: "gateway::xdp", "{line}"),
            log::Level::Debug => tracing::debug!(target: "gateway::xdp", "{line}"),
            log::Level::Trace => tracing::trace!(target: "gateway::xdp", "{line}"),
        }
    }

    fn flush(&self) {}
}

/// The program writes each line in one form, as strings are costly there: a reason's number, or its observed twin's,
/// the source in the form of IPv6, and the interface's number. This puts the names, says what was only observed, and shows
/// IPv4 as such.
fn named(line: &str, interfaces: &mut Interfaces) -> String {
    let mut text = String::with_capacity(line.len() + 8);
    let mut observed = false;
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 {
            text.push(' ');
        }
        let number = word
            .strip_prefix("reason=")
            .and_then(|number| number.parse().ok());
        let interface = word
            .strip_prefix("interface=")
            .and_then(|index| index.parse().ok());
        let source = word.strip_prefix("source=").and_then(|addr| addr.parse().ok());
        if let Some((reason, only_observed)) = number.and_then(reason) {
            observed |= only_observed;
            let _ = write!(text, "reason={}", reason.name());
        } else if let Some(source) = source.map(|addr: IpAddr| addr.to_canonical()) {
            let _ = write!(text, "source={source}");
        } else if let Some(index) = interface {
            let _ = write!(text, "interface={}", interfaces.name(index));
        } else {
            text.push_str(word);
        }
    }
    match text.strip_prefix("drop ") {
        Some(rest) if observed => format!("observed {rest}"),
        _ => text,
    }
}

/// The reason of a counter's number, and whether it is the one for what was only observed.
fn reason(slot: u32) -> Option<(DropReason, bool)> {
    let find = |slot: u32| {
        DropReason::ALL
            .iter()
            .find(|reason| reason.slot() == slot)
            .copied()
    };
    match find(slot) {
        Some(reason) => Some((reason, false)),
        None => Some((find(slot.checked_sub(OBSERVED)?)?, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Interfaces, named};

    fn said(line: &str) -> String {
        named(line, &mut Interfaces::default())
    }

    #[test]
    fn a_known_number_becomes_a_name_and_the_rest_stays() {
        assert_eq!(
            said("drop reason=32 source=192.0.2.1"),
            "drop reason=denied source=192.0.2.1"
        );
        assert_eq!(said("drop reason=99  x"), "drop reason=99  x");
    }

    #[test]
    fn what_is_only_observed_is_not_called_a_drop_and_ipv4_is_shown_as_such() {
        assert_eq!(
            said("drop reason=162 source=::ffff:192.0.2.1 interface=1"),
            "observed reason=syn_limit source=192.0.2.1 interface=lo"
        );
        assert_eq!(
            said("drop reason=33 source=2001:db8::1 interface=999999"),
            "drop reason=blocked source=2001:db8::1 interface=if-999999"
        );
        assert_eq!(said("drop reason=200 source=x"), "drop reason=200 source=x");
    }
}
