//! Entry points: one per hook.
#![no_std]
#![no_main]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::warn;
use hotspot_ebpf::frame::Frame;
use hotspot_ebpf::sides::Hook;
use hotspot_ebpf::{Remark, observe};

/// `TCX_NEXT` of tcx, `TC_ACT_UNSPEC` of clsact: go on as if this program were not here (include/uapi/linux/bpf.h).
const NEXT: i32 = -1;

#[xdp(frags)]
pub fn hotspot_xdp(ctx: XdpContext) -> u32 {
    let remark = observe(&ctx, &Frame::from_xdp(&ctx), Hook::Ingress, || Frame::anew(&ctx));
    say(&ctx, remark);
    xdp_action::XDP_PASS
}

#[classifier]
pub fn hotspot_ingress(ctx: TcContext) -> i32 {
    let remark = observe(&ctx, &Frame::from_skb(&ctx), Hook::Ingress, || Frame::pulled(&ctx));
    say(&ctx, remark);
    NEXT
}

#[classifier]
pub fn hotspot_egress(ctx: TcContext) -> i32 {
    let remark = observe(&ctx, &Frame::from_skb(&ctx), Hook::Egress, || Frame::pulled(&ctx));
    say(&ctx, remark);
    NEXT
}

/// Tells the agent's log; a function of its own, because it hardly ever happens.
#[inline(always)]
fn say<C: EbpfContext>(ctx: &C, remark: Remark) {
    match remark {
        Remark::None => {}
        Remark::DetailLost => {
            warn!(ctx, "cache, ring and overflow totals are full: packets are counted without their client")
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel asks for a GPL-compatible licence (include/linux/license.h).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
