//! The second program: answers a SYN by a cookie, or asks whether an ACK carries one. Reached from the first by a tail
//! call, so that the way of every other packet is as short as without it, and so that a kernel without the helpers
//! (before 6.0) still takes the first.
//!
//! It trusts nothing that the first program found: while a gateway is replaced, that may be an older one. Three questions
//! to the kernel make it sound, whatever the configuration says of listeners:
//! * Is the packet for this host itself, and not for one behind it? (the routing table)
//! * Is there a connection, also one that is closing or half open? Then it passes, always. (the sockets)
//! * If not: is there a listener? Only its SYNs are answered, and only ACKs that it would read as cookies are checked.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup,
    bpf_sock_tuple,
};
use aya_ebpf::helpers::{bpf_ktime_get_ns, generated as helper};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use gateway_common::addr::{Addr, MAPPED};
use gateway_common::branchless::{is_zero, opaque, smaller};
use gateway_common::outcome::{AnswerReason, DropReason, PassReason, Verdict};
use gateway_common::tables::{ALL_LISTENERS, LISTENERS, Settings, feature};
use gateway_ebpf::cookie::{self, Checksum, Heads, LONGEST, LONGEST_ANSWER, Offer, Own, ROOM, flag};
use gateway_ebpf::packet::{Content, Cursor, Packet};
use gateway_ebpf::policy::Tables as _;

use crate::atomic;
use crate::maps::{ANSWERED, Kernel};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTEN: u32 = 10;
/// Shortest frame of Ethernet, without its checksum.
const SHORTEST_FRAME: u32 = 60;
/// How often a SYN goes to each listener, so that it goes on to take cookies. It does so for two minutes after one.
const REFRESH_NS: u64 = 1_000_000_000;
/// `answered_ns` is written so seldom, since every processor writes the same words.
const NOTE_NS: u64 = 50_000_000;
/// VLAN tags that are looked through, as `packet` does.
const TAGS: u32 = 2;
/// EtherTypes of tags, as they lie in the frame.
const VLAN: [u8; 2] = [0x81, 0];
const SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

/// Memory of one processor, and of one packet at a time.
#[repr(C, align(8))]
struct Scratch {
    heads: [u8; ROOM],
    answer: [u8; ROOM],
    tuple: [u32; 9],
    offer: Offer,
    route: [u32; 16],
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// What becomes of a packet that the first program handed over: `Pass` if it is no matter of cookies.
#[inline(always)]
pub fn decide(ctx: &XdpContext, kernel: Kernel, packet: &Packet) -> Verdict {
    judge(ctx, kernel, packet).unwrap_or(Verdict::Pass(PassReason::Clean))
}

/// `None` for what passes.
#[inline(always)]
fn judge(ctx: &XdpContext, kernel: Kernel, packet: &Packet) -> Option<Verdict> {
    let is_syn = match packet.content {
        Content::Syn => true,
        Content::Tcp => false,
        _ => return None,
    };
    let settings = kernel.settings()?;
    // SAFETY: a map value of this processor alone.
    let scratch = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
    let is_v6 = !packet.source.is_v4();
    let link = kernel.forget(link_length(ctx)?);
    let length = kernel.forget(load(ctx, link, scratch)?);
    let listener = kernel.forget(listener(
        settings,
        &destination(&scratch.heads, is_v6),
        packet.port,
    )?);
    if kernel.forget(u32::from(is_own(ctx, scratch, is_v6))) == 0 {
        return None;
    }
    let (readable, tcp_length, flags, bare) = kernel.forget(match Heads::read(&scratch.heads, length) {
        Some(heads) if heads.is_v6 == is_v6 => (
            1_u32,
            heads.tcp_length,
            u32::from(heads.flags),
            u32::from(heads.bare),
        ),
        _ => (0, 0, 0, 0),
    });
    let unanswerable = Some(Verdict::Drop(DropReason::UnanswerableSyn));
    if readable == 0 {
        return if is_syn { unanswerable } else { None };
    }
    let ends = flag::SYN | flag::RST | flag::ACK;
    if (!is_syn && flags as u8 & ends != flag::ACK)
        || kernel.forget(u32::from(only_a_listener_has_it(ctx, scratch, is_v6))) == 0
    {
        return None;
    }
    if !is_syn {
        return is_no_cookie(scratch, is_v6).then_some(Verdict::Drop(DropReason::InvalidCookie));
    }
    let now_ns = kernel.now_ns();
    let refreshes = bare != 0 && refreshes(scratch, is_v6, tcp_length, listener, now_ns);
    if kernel.forget(u32::from(refreshes)) != 0 {
        return None;
    }
    let Some(answer) = write(kernel, settings, scratch, is_v6, tcp_length) else {
        return unanswerable;
    };
    if !send_back(ctx, scratch, link, kernel.forget(answer)) {
        return unanswerable;
    }
    note(listener, now_ns);
    note(ALL_LISTENERS, now_ns);
    Some(Verdict::Answer(AnswerReason::SynCookie))
}

/// Bytes in front of the IP header.
#[inline(always)]
fn link_length(ctx: &XdpContext) -> Option<u32> {
    // SAFETY: the kernel keeps `data..data_end` readable while the program runs, and the verifier checks each load.
    let mut frame = unsafe { Cursor::from_raw(ctx.data() as *const u8, ctx.data_end() as *const u8) };
    let ethernet = frame.take::<14>()?;
    let (mut length, mut kind) = (14, [ethernet[12], ethernet[13]]);
    for _ in 0..TAGS {
        if kind != VLAN && kind != SERVICE_VLAN {
            break;
        }
        let tag = frame.take::<4>()?;
        kind = [tag[2], tag[3]];
        length += 4;
    }
    Some(length)
}

/// Of all 64 bits, since the verifier takes no half of a pointer.
#[inline(always)]
fn frame_length(ctx: &XdpContext) -> u32 {
    opaque((ctx.data_end() - ctx.data()) as u64) as u32
}

/// Copies the headers from IP on; returns how many bytes, at most [`LONGEST`].
#[inline(always)]
fn load(ctx: &XdpContext, link: u32, scratch: &mut Scratch) -> Option<u32> {
    let length = opaque(u64::from(frame_length(ctx).checked_sub(link)?)) as u32;
    let length = if length > LONGEST as u32 {
        LONGEST as u32
    } else {
        length
    };
    // IPv4 and TCP; the first program has seen that they are there.
    if length < 40 {
        return None;
    }
    // SAFETY: the buffer has room for `LONGEST` bytes.
    let failed =
        unsafe { helper::bpf_xdp_load_bytes(ctx.ctx, link, scratch.heads.as_mut_ptr().cast(), length) };
    (failed == 0).then_some(length)
}

#[inline(always)]
fn word(bytes: &[u8; ROOM], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn destination(heads: &[u8; ROOM], is_v6: bool) -> Addr {
    if is_v6 {
        Addr([word(heads, 24), word(heads, 28), word(heads, 32), word(heads, 36)])
    } else {
        Addr([0, 0, MAPPED, word(heads, 16)])
    }
}

/// The number of the listener that has this address and port.
#[inline(always)]
fn listener(settings: &Settings, destination: &Addr, port: u16) -> Option<u32> {
    let wildcard = if destination.is_v4() {
        Addr([0, 0, MAPPED, 0])
    } else {
        Addr([0; 4])
    };
    let [high, low] = destination.halves();
    let [any_high, any_low] = wildcard.halves();
    let mut found = LISTENERS as u64;
    for (index, listener) in settings.cookies.listeners.iter().enumerate() {
        let [its_high, its_low] = Addr(listener.addr).halves();
        let its = is_zero(its_high ^ high | its_low ^ low) | is_zero(its_high ^ any_high | its_low ^ any_low);
        let yes = its & is_zero(u64::from(listener.port ^ port));
        found = smaller(found, index as u64 | (1 - yes) << 32);
    }
    (found < LISTENERS as u64).then_some(found as u32)
}

/// Whether the packet ends at this host. A host that forwards has others behind it, whose ports are not ours to answer
/// for although a listener on every address would seem to have them.
#[inline(always)]
fn is_own(ctx: &XdpContext, scratch: &mut Scratch, is_v6: bool) -> bool {
    let (heads, route) = (&scratch.heads, &mut scratch.route);
    *route = [0; 16];
    // Places of the fields of `struct bpf_fib_lookup`: family, protocol; interface; source; destination.
    let family = if is_v6 { AF_INET6 } else { AF_INET };
    route[0] = u32::from_ne_bytes([family, 6, 0, 0]);
    // SAFETY: a field of the context.
    route[2] = unsafe { (*ctx.ctx).ingress_ifindex };
    if is_v6 {
        for at in 0..4 {
            route[4 + at] = word(heads, 8 + at * 4);
            route[8 + at] = word(heads, 24 + at * 4);
        }
    } else {
        route[4] = word(heads, 12);
        route[8] = word(heads, 16);
    }
    let route = (&raw mut *route).cast::<bpf_fib_lookup>();
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: the array has the structure's size, and any bits are a valid one.
    let answer = unsafe { helper::bpf_fib_lookup(ctx.as_ptr(), route, size, 0) };
    answer == i64::from(BPF_FIB_LKUP_RET_NOT_FWDED) || answer == i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
}

/// Whether the kernel would give the packet to a listener: there is one, and there is no connection, be it half open,
/// established or closing.
#[inline(always)]
fn only_a_listener_has_it(ctx: &XdpContext, scratch: &mut Scratch, is_v6: bool) -> bool {
    let (heads, tuple) = (&scratch.heads, &mut scratch.tuple);
    let mut look_up = |words: usize, addresses: usize, ports: usize| {
        for at in 0..words - 1 {
            tuple[at] = word(heads, addresses + at * 4);
        }
        tuple[words - 1] = word(heads, ports);
        let (tuple, size) = ((&raw mut *tuple).cast::<bpf_sock_tuple>(), words as u32 * 4);
        // SAFETY: the structure of the family whose size is given: source, destination, ports.
        unsafe { helper::bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, size, BPF_F_CURRENT_NETNS as i64 as u64, 0) }
    };
    let socket = if is_v6 {
        look_up(9, 8, 40)
    } else {
        look_up(3, 12, 20)
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the kernel gave it, and it is held until it is released.
    unsafe {
        let state = (&raw const (*socket).state).read_volatile();
        helper::bpf_sk_release(socket.cast());
        state == LISTEN
    }
}

/// Whether an ACK that belongs to no connection carries no cookie of this host either.
#[inline(always)]
fn is_no_cookie(scratch: &mut Scratch, is_v6: bool) -> bool {
    let heads = scratch.heads.as_mut_ptr();
    // SAFETY: both headers lie within the buffer.
    let refused = unsafe {
        if is_v6 {
            helper::bpf_tcp_raw_check_syncookie_ipv6(heads.cast(), heads.add(40).cast())
        } else {
            helper::bpf_tcp_raw_check_syncookie_ipv4(heads.cast(), heads.add(20).cast())
        }
    };
    refused != 0
}

/// Whether this SYN is the one that is let through now, so that its listener goes on to take cookies.
///
/// Only one that the stack will hand to the listener is of use, and an attacker must not be able to have all of them
/// be others: so it has to have a good checksum. Those that a veth leaves unfinished have a turn of their own.
#[inline(always)]
fn refreshes(scratch: &Scratch, is_v6: bool, tcp_length: u32, listener: u32, now_ns: u64) -> bool {
    let Some(answered) = ANSWERED.get_ptr_mut(listener) else {
        return false;
    };
    // SAFETY: aligned words of a map value.
    let (whole, begun) = unsafe {
        (
            &raw mut (*answered).refreshed_ns[0],
            &raw mut (*answered).refreshed_ns[1],
        )
    };
    let due = |turn: *mut u64| {
        // SAFETY: as above.
        let last = unsafe { turn.read_volatile() };
        (now_ns.saturating_sub(last) >= REFRESH_NS).then_some(last)
    };
    let (due_whole, due_begun) = (due(whole), due(begun));
    if due_whole.is_none() && due_begun.is_none() {
        return false;
    }
    let (turn, last) = match cookie::checksum(&scratch.heads, is_v6, tcp_length) {
        Checksum::Whole => (whole, due_whole),
        Checksum::Begun => (begun, due_begun),
        Checksum::Wrong => return false,
    };
    let Some(last) = last else { return false };
    // SAFETY: as above, changed atomically: of two processors one lets its SYN through.
    unsafe { atomic::swap_if(turn, last, now_ns) }
}

/// Makes the answer; returns its length.
#[inline(always)]
fn write(
    kernel: Kernel,
    settings: &Settings,
    scratch: &mut Scratch,
    is_v6: bool,
    tcp_length: u32,
) -> Option<u32> {
    let tcp_length = tcp_length.clamp(20, 60);
    let heads = scratch.heads.as_mut_ptr();
    // SAFETY: both headers lie within the buffer, the second with its whole length.
    let cookie = unsafe {
        if is_v6 {
            helper::bpf_tcp_raw_gen_syncookie_ipv6(heads.cast(), heads.add(40).cast(), tcp_length)
        } else {
            helper::bpf_tcp_raw_gen_syncookie_ipv4(heads.cast(), heads.add(20).cast(), tcp_length)
        }
    };
    if cookie < 0 {
        return None;
    }
    // SAFETY: the helper takes no argument and has no effect.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let cookie = kernel.forget(cookie);
    let with_options = settings.features & feature::COOKIE_OPTIONS != 0;
    if with_options {
        let tcp = if is_v6 { 40 } else { 20 };
        scratch.offer.read(&scratch.heads, tcp, tcp_length);
    }
    let (mss4, mss6) = (settings.cookies.mss4, settings.cookies.mss6);
    let own = Own {
        cookie: cookie as u32,
        segment_size: if is_v6 { mss6 } else { mss4 },
        scale: settings.cookies.window_scale as u8,
        now_ms: (now_ns / 1_000_000) as u32,
    };
    let offer = with_options.then_some(&scratch.offer);
    Some(cookie::answer(
        &scratch.heads,
        is_v6,
        offer,
        &own,
        &mut scratch.answer,
    ))
}

/// Puts the answer in the place of the packet, and turns the frame round.
#[inline(always)]
fn send_back(ctx: &XdpContext, scratch: &mut Scratch, link: u32, length: u32) -> bool {
    // What `answer` can return, for the verifier.
    let length = opaque(u64::from(length)) as u32;
    if !(40..=LONGEST_ANSWER as u32).contains(&length) || link > 22 {
        return false;
    }
    let wanted = (link + length).max(SHORTEST_FRAME) as i32;
    let frame = frame_length(ctx) as i32;
    // SAFETY: the verifier forgets every pointer into the packet here, and none is used behind.
    if unsafe { helper::bpf_xdp_adjust_tail(ctx.ctx, wanted - frame) } != 0 {
        return false;
    }
    let answer = scratch.answer.as_mut_ptr().cast();
    // SAFETY: the buffer has `length` bytes.
    if unsafe { helper::bpf_xdp_store_bytes(ctx.ctx, link, answer, length) } != 0 {
        return false;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 12 > end {
        return false;
    }
    let halves = start as *mut u16;
    for at in 0..3 {
        // SAFETY: twelve bytes were just compared with the end. Volatile, or the compiler would move them by a call.
        unsafe {
            let (to, from) = (halves.add(at).read_volatile(), halves.add(at + 3).read_volatile());
            halves.add(at).write_volatile(from);
            halves.add(at + 3).write_volatile(to);
        }
    }
    true
}

/// Remembers that a SYN was answered.
#[inline(always)]
fn note(listener: u32, now_ns: u64) {
    if let Some(answered) = ANSWERED.get_ptr_mut(listener) {
        // SAFETY: an aligned word of a map value; whoever writes it writes the same.
        unsafe {
            let word = &raw mut (*answered).answered_ns;
            if now_ns.saturating_sub(word.read_volatile()) >= NOTE_NS {
                word.write_volatile(now_ns);
            }
        }
    }
}
