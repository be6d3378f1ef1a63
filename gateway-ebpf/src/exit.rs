//! The one way out: count, sample, act. Every frame leaves through [`leave`] and is counted there once.

use core::ptr::NonNull;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use gateway_common::outcome::{DropReason, Verdict};
use gateway_common::tables::{Rule, feature};
use gateway_ebpf::packet::Packet;
use gateway_ebpf::policy::{Decision, Tables as _};

use crate::atomic;
use crate::maps::{COUNTERS, Kernel, LAST_LOG};

/// Carries out a decision and returns the XDP action.
#[inline(always)]
pub fn leave(ctx: &XdpContext, packet: &Packet, decision: Decision<NonNull<Rule>>) -> u32 {
    count(decision.verdict, (ctx.data_end() - ctx.data()) as u64);
    if let Some(rule) = decision.entry {
        // SAFETY: an aligned word of a map entry, which stays writable until the program ends (RCU); an entry
        // replaced meanwhile loses this hit, and nothing else.
        unsafe { atomic::add(&raw mut (*rule.as_ptr()).hits, 1) };
    }
    match decision.verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(reason) => {
            sample(ctx, packet, reason);
            XDP_DROP
        }
    }
}

/// Adds one packet to the counter of its outcome. Per processor, so no atomic is needed: XDP runs without preemption.
#[inline(always)]
fn count(verdict: Verdict, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict.slot()) {
        // SAFETY: this processor's own value of the map.
        let counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += bytes;
    }
}

/// Writes a log line for a drop, if asked for and if the last one is long enough ago.
#[inline(always)]
fn sample(ctx: &XdpContext, packet: &Packet, reason: DropReason) {
    let Some(settings) = Kernel.settings() else { return };
    if settings.features & feature::LOG_DROPS == 0 {
        return;
    }
    // SAFETY: the helper takes no argument and has no effect.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(last) = LAST_LOG.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this processor's own value of the map.
    let last = unsafe { &mut *last };
    if now.wrapping_sub(*last) < settings.log_interval_ns {
        return;
    }
    *last = now;
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
