//! The kernel programs: parse a frame, find its flow's slot, add, announce. Every packet passes, whatever happens here.
//!
//! Guarantees that every frame ends in exactly one place: a slot of the flow cache, an eviction on a ring, a client's
//! overflow total, or a named outcome (`hotspot_common::Outcome`). Never copies a byte past the transport header, but for the frames
//! by which devices say who they are (`notice`).
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

use hotspot_common::{Count, Outcome};

pub mod announce;
pub mod cache;
pub mod clock;
pub mod frame;
pub mod generation;
pub mod notice;
pub mod overflow;
pub mod parse;
pub mod settings;
pub mod share;
pub mod sides;
pub mod tally;

use cache::Packet;
use frame::Frame;
use parse::Parsed;
use sides::Hook;

/// Whether something happened that the agent's log should say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    None,
    /// For the first time in this generation, a packet is known by a counter only.
    DetailLost,
}

/// Counts one frame: the whole program, but for how the frame was handed over.
#[inline(always)]
pub fn observe<S: notice::Source>(ctx: &S, frame: &Frame, hook: Hook) -> Remark {
    let place = generation::here();
    let Some(tally) = tally::of(place) else { return Remark::None };
    match parse::parse(frame, hook) {
        Ok(Parsed { key, tcp_flags, headers_len }) => {
            let wire = frame.on_wire(headers_len);
            tally.see(wire);
            notice::of_flow(ctx, frame, &key, headers_len, place, tally);
            if cache::add(&Packet { key, wire, tcp_flags, place }, tally).is_err() {
                return if tally.end(Outcome::OverflowFull, wire) { Remark::DetailLost } else { Remark::None };
            }
        }
        Err(outcome) => {
            let wire = frame.on_wire(0);
            tally.see(wire);
            tally.end(outcome, wire);
            if matches!(outcome, Outcome::Arp) {
                notice::of_arp(ctx, frame, hook, place, tally);
            }
        }
    }
    Remark::None
}

/// What one frame adds to a counter.
pub type Wire = Count;
