//! The XDP program: the shell that gives `packet` and `policy` a frame, maps and a clock, and carries out the verdict.
//!
//! No `if` about traffic stands here. On any target but BPF this is an empty program, so that the workspace builds
//! and is linted as a whole.
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    feature(core_intrinsics, asm_experimental_arch)
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "the target's only way to an atomic instruction; see `atomic`"
    )
)]

#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod exit;
#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::bindings::xdp_action;
    use aya_ebpf::macros::xdp;
    use aya_ebpf::programs::XdpContext;
    use gateway_ebpf::packet::{self, Cursor};
    use gateway_ebpf::policy;

    use crate::maps::Kernel;
    use crate::{answer, exit};

    /// Every frame of an interface arrives here. The name is `tables::names::PROGRAM`.
    #[xdp]
    pub fn gateway_xdp(ctx: XdpContext) -> u32 {
        // SAFETY: the kernel keeps `data..data_end` readable while the program runs, and the verifier checks each load.
        let frame = unsafe { Cursor::from_raw(ctx.data() as *const u8, ctx.data_end() as *const u8) };
        let mut packet = packet::parse(frame);
        let Some(kernel) = Kernel::new() else {
            return xdp_action::XDP_PASS;
        };
        packet.content = kernel.forget(packet.content);
        let decision = policy::decide(&packet, &kernel);
        exit::leave(&ctx, kernel, &packet, decision)
    }

    /// What [`gateway_xdp`] hands over arrives here. The name is `tables::names::COOKIE_PROGRAM`.
    #[xdp]
    pub fn gateway_cookie(ctx: XdpContext) -> u32 {
        // SAFETY: as above.
        let frame = unsafe { Cursor::from_raw(ctx.data() as *const u8, ctx.data_end() as *const u8) };
        let mut packet = packet::parse(frame);
        let Some(kernel) = Kernel::new() else {
            return xdp_action::XDP_PASS;
        };
        packet.content = kernel.forget(packet.content);
        packet.source = kernel.forget(packet.source);
        packet.port = kernel.forget(packet.port);
        let verdict = answer::decide(&ctx, kernel, &packet);
        exit::leave_for_good(&ctx, kernel, &packet, verdict, None)
    }

    /// The compiler asks for one; the verifier would refuse a program that can reach it.
    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// The kernel gives some helpers to GPL-compatible programs only.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!(
        "this is the kernel program, built for BPF by the gateway's build script; it does not run by itself"
    );
    std::process::exit(2);
}
