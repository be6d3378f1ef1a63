//! The one way out: count, sample, act. Every frame leaves through [`leave`] and is counted there once; one that is the
//! second program's leaves through that program's.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use gateway_common::outcome::{DropReason, Verdict};
use gateway_common::tables::{Event, feature};
use gateway_ebpf::packet::{Content, Packet};
use gateway_ebpf::policy::{Decision, Tables as _};

use crate::maps::{COOKIES, COUNTERS, EVENTS, Entry, Kernel};

/// Carries out a decision and returns the XDP action.
#[inline(always)]
pub fn leave(ctx: &XdpContext, kernel: Kernel, packet: &Packet, decision: Decision<Entry>) -> u32 {
    if let Some(entry) = decision.entry {
        entry.hit();
    }
    let (verdict, observed, cookie) =
        kernel.forget((decision.verdict, decision.observed, u32::from(decision.cookie)));
    if let Some(reason) = observed {
        count(reason.observed_slot(), (ctx.data_end() - ctx.data()) as u64);
    }
    if cookie != 0 {
        // SAFETY: nothing here is left to be dropped. It comes back if there is no second program.
        unsafe { COOKIES.tail_call(ctx, 0) };
    }
    leave_for_good(ctx, kernel, packet, verdict, observed)
}

/// Counts a verdict, tells of it, and returns its XDP action. What was observed is counted already.
#[inline(always)]
pub fn leave_for_good(
    ctx: &XdpContext,
    kernel: Kernel,
    packet: &Packet,
    verdict: Verdict,
    observed: Option<DropReason>,
) -> u32 {
    count(verdict.slot(), (ctx.data_end() - ctx.data()) as u64);
    let (action, told) = match verdict {
        Verdict::Pass(_) => (XDP_PASS, observed.map(DropReason::observed_slot)),
        Verdict::Drop(reason) => (XDP_DROP, Some(reason.slot())),
        Verdict::Answer(_) => (XDP_TX, None),
    };
    if let Some(slot) = told {
        sample(ctx, kernel, packet, slot);
    }
    action
}

/// Adds one packet to a counter. Per processor, so no atomic is needed: XDP runs without preemption.
#[inline(always)]
fn count(slot: u32, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: this processor's own value of the map.
        let counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes;
    }
}

/// Tells of a drop to whoever asked for it, if the last word about one is long enough ago.
#[inline(always)]
fn sample(ctx: &XdpContext, mut kernel: Kernel, packet: &Packet, slot: u32) {
    let Some(settings) = kernel.settings() else { return };
    if settings.features & (feature::LOG_DROPS | feature::EVENTS) == 0 {
        return;
    }
    let now = kernel.now_ns();
    let interval = (settings.event_interval_ns, settings.log_interval_ns);
    let features = settings.features;
    let processor = kernel.processor();
    if features & feature::EVENTS != 0 && now.wrapping_sub(processor.told_ns) >= interval.0 {
        processor.told_ns = now;
        tell(ctx, packet, slot, now);
    }
    if features & feature::LOG_DROPS != 0 && now.wrapping_sub(processor.logged_ns) >= interval.1 {
        processor.logged_ns = now;
        log(ctx, packet, slot);
    }
}

/// Puts an event into the ring. If that is full, the event is lost: it was a sample.
#[inline(always)]
fn tell(ctx: &XdpContext, packet: &Packet, slot: u32, now: u64) {
    let protocol = match packet.content {
        Content::Syn | Content::Tcp => 6,
        Content::Udp => 17,
        Content::Icmp => 1,
        Content::Other | Content::Malformed(_) | Content::Unreadable(_) | Content::NotIp => 0,
    };
    let event = Event {
        time_ns: now,
        source: packet.source.0,
        slot,
        ifindex: ctx.ingress_ifindex() as u32,
        length: (ctx.data_end() - ctx.data()) as u32,
        port: packet.port,
        protocol,
        _pad: 0,
    };
    let _ = EVENTS.output::<Event>(&event, 0);
}

/// Writes a log line. One form for all, since each costs a thousand instructions: an address that is not known is zero.
#[inline(always)]
fn log(ctx: &XdpContext, packet: &Packet, slot: u32) {
    info!(
        ctx,
        "drop reason={} source={:i} interface={}",
        slot,
        packet.source.octets(),
        ctx.ingress_ifindex() as u32
    );
}
