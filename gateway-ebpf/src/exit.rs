//! The one way out: count, sample, act. Every frame leaves through [`leave`] and is counted there once.

use core::ptr::NonNull;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use gateway_common::outcome::{DropReason, Verdict};
use gateway_common::tables::{Event, feature};
use gateway_ebpf::packet::{Packet, Transport};
use gateway_ebpf::policy::{Decision, Tables as _};

use crate::atomic;
use crate::maps::{COUNTERS, EVENTS, Kernel, PROCESSOR};

/// Carries out a decision and returns the XDP action.
#[inline(always)]
pub fn leave(ctx: &XdpContext, packet: &Packet, decision: Decision<NonNull<u64>>) -> u32 {
    let length = (ctx.data_end() - ctx.data()) as u64;
    count(decision.verdict.slot(), length);
    if let Some(tally) = decision.entry {
        // SAFETY: an aligned word of a map, whose lower bits count hits and have room for all there will ever be.
        unsafe { atomic::add(tally.as_ptr(), 1) };
    }
    if let Some(reason) = decision.observed {
        count(reason.observed_slot(), length);
        sample(ctx, packet, reason, reason.observed_slot());
    }
    match decision.verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(reason) => {
            sample(ctx, packet, reason, reason.slot());
            XDP_DROP
        }
    }
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
fn sample(ctx: &XdpContext, packet: &Packet, reason: DropReason, slot: u32) {
    let Some(settings) = Kernel.settings() else { return };
    if settings.features & (feature::LOG_DROPS | feature::EVENTS) == 0 {
        return;
    }
    let now = Kernel.now_ns();
    let Some(processor) = PROCESSOR.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this processor's own value of the map.
    let processor = unsafe { &mut *processor };
    if settings.features & feature::EVENTS != 0
        && now.wrapping_sub(processor.told_ns) >= settings.event_interval_ns
    {
        processor.told_ns = now;
        tell(ctx, packet, slot, now);
    }
    if settings.features & feature::LOG_DROPS != 0
        && now.wrapping_sub(processor.logged_ns) >= settings.log_interval_ns
    {
        processor.logged_ns = now;
        log(ctx, packet, reason);
    }
}

/// Puts an event into the ring. If that is full, the event is lost: it was a sample.
#[inline(always)]
fn tell(ctx: &XdpContext, packet: &Packet, slot: u32, now: u64) {
    let (source, transport, port) = match packet {
        Packet::Ip {
            source,
            transport,
            port,
        } => (source.0, *transport, *port),
        Packet::NotIp | Packet::Malformed(_) => ([0; 4], Transport::Other, 0),
    };
    let protocol = match transport {
        Transport::Syn | Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Icmp => 1,
        Transport::Other | Transport::Malformed(_) => 0,
    };
    let event = Event {
        time_ns: now,
        source,
        slot,
        ifindex: ctx.ingress_ifindex() as u32,
        length: (ctx.data_end() - ctx.data()) as u32,
        port,
        protocol,
        _pad: 0,
    };
    let _ = EVENTS.output::<Event>(&event, 0);
}

/// Writes a log line.
#[inline(always)]
fn log(ctx: &XdpContext, packet: &Packet, reason: DropReason) {
    let (number, interface) = (reason.slot(), ctx.ingress_ifindex() as u32);
    match packet {
        Packet::Ip { source, .. } if source.is_v4() => {
            info!(
                ctx,
                "drop reason={} source={:i} interface={}",
                number,
                u32::from_be(source.0[3]),
                interface
            );
        }
        Packet::Ip { source, .. } => {
            info!(
                ctx,
                "drop reason={} source={:i} interface={}",
                number,
                source.octets(),
                interface
            );
        }
        Packet::NotIp | Packet::Malformed(_) => info!(ctx, "drop reason={} interface={}", number, interface),
    }
}
