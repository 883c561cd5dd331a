//! Reading a ring without consuming it: the position moves only when what was read is on disk.
//!
//! The layout is the kernel's (kernel/bpf/ringbuf.c): one page with the consumer position, which we write; one with the
//! producer position; then the records, mapped twice in a row so that none is ever split. A record is a header of 8 bytes
//! (u32 length with two flag bits, u32 page offset) and its bytes, rounded up to 8.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hotspot_common::FlowEvent;
use rustix::mm::ProtFlags;

use super::memory::Pages;

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER_LEN: u64 = 8;

/// One CPU's ring.
pub struct RingReader {
    fd: OwnedFd,
    consumer: Pages,
    producer: Pages,
    bytes: u64,
    /// Read up to here, in bytes since the ring was made; the kernel knows only what was released.
    position: u64,
}

impl RingReader {
    /// Maps a ring of `bytes` bytes (a power of two).
    pub fn new(fd: OwnedFd, bytes: u64) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let size = usize::try_from(bytes).map_err(io::Error::other)?;
        let consumer = Pages::map(fd.as_fd(), page, 0, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Pages::map(fd.as_fd(), page + 2 * size, page as u64, ProtFlags::READ)?;
        let mut reader = Self { fd, consumer, producer, bytes, position: 0 };
        reader.position = reader.consumer_position().load(Ordering::Acquire);
        Ok(reader)
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the first word of the page, which the kernel and we share.
        unsafe { AtomicU64::from_ptr(self.consumer.base().cast().as_ptr()) }
    }

    fn producer_position(&self) -> &AtomicU64 {
        // SAFETY: the first word of the page; it is only loaded here.
        unsafe { AtomicU64::from_ptr(self.producer.base().cast().as_ptr()) }
    }

    /// The byte at a position of the data area.
    fn at(&self, position: u64) -> NonNull<u8> {
        let offset = usize::try_from(position & (self.bytes - 1)).unwrap_or(0);
        // SAFETY: below the ring's size, and the data area follows the producer's page.
        unsafe { self.producer.base().add(rustix::param::page_size() + offset) }
    }

    /// Hands over every flow record that is complete, and returns the position after the last one.
    pub fn read(&mut self, mut each: impl FnMut(&FlowEvent)) -> u64 {
        self.read_bytes(|record| {
            if record.len() == size_of::<FlowEvent>() {
                // SAFETY: a record of this length, aligned to 8; every bit pattern is valid.
                each(unsafe { NonNull::from(record).cast::<FlowEvent>().as_ref() });
            }
        })
    }

    /// Hands over the bytes of every record that is complete, and returns the position after the last one.
    ///
    /// Stops at a record that a program is still writing. Nothing is released to the kernel.
    pub fn read_bytes(&mut self, mut each: impl FnMut(&[u8])) -> u64 {
        let produced = self.producer_position().load(Ordering::Acquire);
        while self.position < produced {
            // SAFETY: positions are multiples of 8; the kernel writes the header's first word atomically.
            let header = unsafe { AtomicU32::from_ptr(self.at(self.position).cast().as_ptr()) }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let len = u64::from(header & !DISCARDED);
            if header & DISCARDED == 0 {
                let start = self.at(self.position + HEADER_LEN);
                // SAFETY: a submitted record of this length, aligned to 8, mapped without a break; nobody writes it any more.
                each(unsafe { std::slice::from_raw_parts(start.as_ptr(), usize::try_from(len).unwrap_or(0)) });
            }
            self.position += HEADER_LEN + len.next_multiple_of(8);
        }
        self.position
    }

    /// Gives the room before `position` back to the kernel.
    pub fn release(&self, position: u64) {
        self.consumer_position().store(position, Ordering::Release);
    }

    /// Goes on from `position` if that is further: what lies before it was read by an earlier agent and is on disk.
    pub fn skip_to(&mut self, position: u64) {
        if position > self.position {
            self.position = position;
            self.release(position);
        }
    }

    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Another descriptor of the ring, to wait on.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}
