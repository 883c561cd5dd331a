//! The kernel programs: parse a frame, find its flow's slot, add, announce. Every packet passes, whatever happens here.
//!
//! Guarantees that every frame ends in exactly one place: a slot of the flow cache, an eviction on a ring, a client's
//! overflow total, or a named outcome (`hotspot_common::Outcome`). Never copies a byte past the transport header, but for the frames
//! by which devices say who they are (`notice`).
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

use core::mem::MaybeUninit;

use hotspot_common::{Count, FlowKey, Outcome};

pub mod announce;
pub mod cache;
pub mod clock;
pub mod ethertypes;
pub mod frame;
pub mod generation;
pub mod notice;
pub mod overflow;
pub mod parse;
pub mod plain;
pub mod settings;
pub mod share;
pub mod sides;
pub mod tally;

use cache::Packet;
use frame::Frame;
use generation::Place;
use parse::Parsed;
use plain::Plain;
use sides::Hook;
use tally::Counters;

/// Whether something happened that the agent's log should say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    None,
    /// For the first time in this generation, a packet is known by a counter only.
    DetailLost,
}

/// Counts one frame: the whole program, but for how the frame was handed over. `whole` gives the frame with all headers to be read.
#[inline(always)]
pub fn observe<S: notice::Source>(ctx: &S, frame: &Frame, hook: Hook, whole: impl FnOnce() -> Frame) -> Remark {
    let Some(place) = generation::here() else { return Remark::None };
    let tally = tally::of(place);
    let link = plain::link(frame, hook);
    let left = if let Some(plain) = link.as_ref().and_then(|link| plain::ipv4(frame, link, hook)) {
        straight(frame, plain, place, tally)
    } else if let Some(plain) = link.as_ref().and_then(|link| plain::ipv6(frame, link, hook)) {
        straight(frame, plain, place, tally)
    } else {
        any(ctx, whole(), hook, place, tally)
    };
    let Some(packet) = left else { return Remark::None };
    // SAFETY: what is left was written.
    let packet = unsafe { &*packet };
    if cache::add(packet, place, tally).is_err() && tally.end(Outcome::OverflowFull, packet.wire) {
        return Remark::DetailLost;
    }
    Remark::None
}

/// The straight path; gives the packet where it could not just be added to its flow.
#[inline(always)]
fn straight(frame: &Frame, plain: Plain, place: Place, tally: Counters) -> Option<*mut Packet> {
    let Plain { key, tcp_flags, headers_len } = plain;
    let wire = frame.on_wire(headers_len);
    tally.see(wire);
    let hash = cache::hash(&key, place);
    if cache::add_at_once(&key, hash, wire, tcp_flags, place) {
        return None;
    }
    let packet = cache::packet_at_hand(place)?;
    let parsed = Parsed { key: FlowKey::from_words(key), tcp_flags, headers_len: 0 };
    // SAFETY: a live element that only this CPU writes.
    unsafe { packet.write(Packet { parsed, wire, active: place.active, hash }) };
    Some(packet)
}

/// Every other frame; gives the packet where it is one of a flow.
#[inline(always)]
fn any<S: notice::Source>(ctx: &S, frame: Frame, hook: Hook, place: Place, tally: Counters) -> Option<*mut Packet> {
    let mut memory = MaybeUninit::uninit();
    // A function wants it in memory; the straight path does not.
    let frame = frame.put(&mut memory);
    let packet = cache::packet_at_hand(place)?;
    // SAFETY: points to a packet's memory, of which nothing is read before it is written.
    let parsed = unsafe { &mut *(&raw mut (*packet).parsed).cast::<MaybeUninit<Parsed>>() };
    if let Some(outcome) = Outcome::from_raw(parse::parse_into(frame, matches!(hook, Hook::Egress), parsed)) {
        let wire = frame.on_wire(0);
        tally.see(wire);
        tally.end(outcome, wire);
        if matches!(outcome, Outcome::Arp) {
            notice::of_arp(ctx, frame, hook, place, tally);
        }
        if matches!(outcome, Outcome::OtherEthertype) {
            ethertypes::count(frame, place.half(), wire.packets, wire.bytes);
        }
        return None;
    }
    // SAFETY: no outcome means that it was written.
    let parsed = unsafe { parsed.assume_init_ref() };
    let wire = frame.on_wire(parsed.headers_len);
    tally.see(wire);
    let hash = cache::hash(parsed.key.words(), place);
    // SAFETY: inside the packet's memory.
    unsafe { (&raw mut (*packet).wire).write(wire) };
    // SAFETY: as above.
    unsafe { (&raw mut (*packet).active).write(place.active) };
    // SAFETY: as above.
    unsafe { (&raw mut (*packet).hash).write(hash) };
    // SAFETY: all of it was written.
    notice::of_flow(ctx, frame, hook, unsafe { &*packet }, place, tally);
    Some(packet)
}

/// What one frame adds to a counter.
pub type Wire = Count;
