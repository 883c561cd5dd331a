//! The kernel's memory, mapped into the agent: arrays of the flow cache, read without system calls.
//!
//! Owns every raw pointer into map memory. Guarantees that a half of the cache is handed out as plain slices only against
//! proof ([`Waited`]) that no program still writes it.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use hotspot_common::control::Control;
use hotspot_common::{Active, Birth, Head, INTERFACES_MAX, Set, Slot, Tally, WAYS};
use rustix::mm::{MapFlags, ProtFlags};

use super::barrier::Waited;

/// Types that the kernel programs and the agent both keep in mapped arrays.
///
/// # Safety
///
/// `repr(C)`, no padding but explicit, every bit pattern valid, size a multiple of 8.
pub unsafe trait Shared: Copy + Default {}

// SAFETY: an integer.
unsafe impl Shared for u64 {}
// SAFETY: asserted where the type is defined.
unsafe impl Shared for Control {}
// SAFETY: asserted where the type is defined.
unsafe impl Shared for Set {}
// SAFETY: asserted where the type is defined.
unsafe impl Shared for Head {}

/// Pages of a file descriptor, unmapped on drop.
pub struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain shared memory; all access goes through volatile or atomic operations, or is proven exclusive.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps `len` bytes from `offset`.
    pub fn map(fd: BorrowedFd<'_>, len: usize, offset: u64, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address the kernel chooses cannot alias anything of ours.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, len })
    }

    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length, and nothing borrowed from it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// An array map (`BPF_F_MMAPABLE`) seen as an array.
pub struct MappedArray<T> {
    pages: Pages,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Shared> MappedArray<T> {
    /// Maps an array of `len` elements.
    pub fn new(map: impl AsFd, len: usize) -> io::Result<Self> {
        let bytes = (len * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let pages = Pages::map(map.as_fd(), bytes, 0, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Self { pages, len, element: PhantomData })
    }

    fn element(&self, index: usize) -> NonNull<T> {
        assert!(index < self.len, "element {index} of an array of {}", self.len);
        // SAFETY: within the mapping, as just checked.
        unsafe { self.pages.base().cast::<T>().add(index) }
    }

    /// What the element holds now; may be torn while a program writes it.
    #[must_use]
    pub fn read(&self, index: usize) -> T {
        // SAFETY: a live element; any bytes are a value. Volatile because the kernel writes it.
        unsafe { self.element(index).read_volatile() }
    }

    pub fn write(&self, index: usize, value: T) {
        // SAFETY: a live element. Volatile because the kernel reads it.
        unsafe { self.element(index).write_volatile(value) };
    }

    /// Elements that no program writes any more.
    ///
    /// # Panics
    ///
    /// Where the range is not within the array.
    #[must_use]
    pub fn settled(&self, range: Range<usize>, _proof: &Waited) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.len, "range {range:?} of an array of {}", self.len);
        // SAFETY: within the mapping, as just checked.
        let first = unsafe { self.pages.base().cast::<T>().add(range.start) };
        // SAFETY: within the mapping; nothing writes these elements (the proof), and any bytes are values.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), range.len()) }
    }
}

impl MappedArray<Control> {
    /// Makes a generation the one being written. A program reads the number once, as one word.
    pub fn write_generation(&self, generation: u64) {
        let control = self.element(0).as_ptr();
        // SAFETY: a live element.
        let word = unsafe { &raw mut (*control).generation };
        // SAFETY: an aligned word that the kernel only reads.
        let word = unsafe { AtomicU64::from_ptr(word) };
        word.store(generation, Ordering::Release);
    }

    /// Notes the last generation that is on disk.
    pub fn write_drained(&self, generation: u64) {
        let control = self.element(0).as_ptr();
        // SAFETY: a live element.
        let word = unsafe { &raw mut (*control).drained };
        // SAFETY: an aligned word that the kernel only reads.
        let word = unsafe { AtomicU64::from_ptr(word) };
        word.store(generation, Ordering::Release);
    }
}

impl MappedArray<Set> {
    /// Gives the slots of whole sets that hold a flow, and that no program writes any more. Slots are numbered through all sets.
    pub fn in_use<E>(
        &self,
        slots: Range<usize>,
        proof: &Waited,
        mut give: impl FnMut(usize, &Slot, &Birth) -> Result<(), E>,
    ) -> Result<(), E> {
        let ways = WAYS as usize;
        let sets = self.settled(slots.start / ways..slots.end / ways, proof);
        slots.step_by(ways).zip(sets).try_for_each(|(first, set)| {
            let both = set.slots.iter().zip(&set.births);
            let mut in_use = (first..).zip(both).filter(|(_, (slot, _))| slot.packets != 0);
            in_use.try_for_each(|(index, (slot, birth))| give(index, slot, birth))
        })
    }

    /// Writes one slot, and nothing beside it.
    ///
    /// # Panics
    ///
    /// Where there is no such slot.
    pub fn write_slot(&self, index: usize, slot: Slot) {
        let (set, way) = (index / WAYS as usize, index % WAYS as usize);
        let set = self.element(set).as_ptr();
        // SAFETY: a live element.
        let slots = unsafe { &raw mut (*set).slots };
        // SAFETY: the set has that slot: it has as many as there are ways.
        let place = unsafe { slots.cast::<Slot>().add(way) };
        // SAFETY: as above. Volatile because the kernel reads it.
        unsafe { place.write_volatile(slot) };
    }
}

impl MappedArray<Head> {
    /// Writes what stays the same for the maps' life, and the first reaches; no program runs yet.
    pub fn prepare(&self, cpu: usize, hash_keys: [u64; 6], first_sets: [u32; 2], reaches: [u32; 2]) {
        let head = self.element(cpu).as_ptr();
        // SAFETY: a live element.
        unsafe { (*head).reaches = reaches };
        // SAFETY: a live element.
        unsafe { (*head).hash_keys = hash_keys };
        // SAFETY: as above.
        unsafe { (*head).first_sets = first_sets };
    }

    /// Which of a CPU's slots are used in a half; may grow while programs write it.
    #[must_use]
    pub fn reach(&self, cpu: usize, half: usize) -> u32 {
        let head = self.element(cpu).as_ptr();
        // SAFETY: a live element; the index is checked.
        let reach = unsafe { &raw const (*head).reaches[half] };
        // SAFETY: as above. Volatile because the kernel writes it.
        unsafe { reach.read_volatile() }
    }

    /// Says which of a CPU's slots are used in a half that no program writes.
    pub fn write_reach(&self, cpu: usize, half: usize, reach: u32) {
        let head = self.element(cpu).as_ptr();
        // SAFETY: a live element; the index is checked.
        let place = unsafe { &raw mut (*head).reaches[half] };
        // SAFETY: as above. Volatile because the kernel reads it.
        unsafe { place.write_volatile(reach) };
        // SAFETY: as above; no program writes what belongs to this half.
        unsafe { (*head).crowded[half] = 0 };
    }

    /// What a tally holds now; may be torn while a program writes it.
    #[must_use]
    pub fn tally(&self, cpu: usize, half: usize, interface: u8) -> Tally {
        // SAFETY: inside a live element; any bytes are a value. Volatile because the kernel writes it.
        unsafe { self.place_of_tally(cpu, half, interface).read_volatile() }
    }

    /// A tally that no program writes any more.
    #[must_use]
    pub fn settled_tally(&self, cpu: usize, half: usize, interface: u8, _proof: &Waited) -> Tally {
        self.tally(cpu, half, interface)
    }

    /// Empties the tallies of a half that no program writes.
    pub fn clear_tallies(&self, cpu: usize, half: usize) {
        for interface in (0..INTERFACES_MAX).filter_map(|interface| u8::try_from(interface).ok()) {
            // SAFETY: inside a live element. Volatile because the kernel reads it.
            unsafe { self.place_of_tally(cpu, half, interface).write_volatile(Tally::default()) };
        }
    }

    fn place_of_tally(&self, cpu: usize, half: usize, interface: u8) -> *mut Tally {
        let head = self.element(cpu).as_ptr();
        // SAFETY: a live element; the indices are checked against the arrays' lengths.
        unsafe { &raw mut (*head).tallies[half][usize::from(interface)] }
    }

    /// Where programs on a CPU count from now on. A program reads it once, as one word.
    pub fn write_active(&self, cpu: usize, active: Active) {
        let head = self.element(cpu).as_ptr();
        // SAFETY: a live element.
        let word = unsafe { &raw mut (*head).active };
        // SAFETY: an aligned word that the kernel only reads.
        let word = unsafe { AtomicU64::from_ptr(word) };
        word.store(active.word(), Ordering::Release);
    }
}
