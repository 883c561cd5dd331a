//! The interfaces that are captured: chosen by name or pattern, covered, and looked after as long as the agent runs.
//!
//! Devices disappear, come back, get other names or appear late, and other people's tools take programs off. All of it is noticed
//! by looking, a few times a second, put right where that is possible, and recorded: no interface is half covered in silence.

use std::io;

use glob::Pattern;
use hotspot_archive::entry::{Entry, InterfaceName};
use hotspot_common::{Direction, INTERFACES_MAX};
use hotspot_core::WallNs;
use hotspot_core::record::CoverageRecord;
use hotspot_core::text::escaped;
use tracing::{error, info, warn};

use super::clock::ClockReading;
use super::device::Device;
use super::hooks::{self, Hooks, Place, Side};
use super::pins::PinnedHook;
use super::{Capture, CaptureError, ProgramLog};
use crate::locks::{Lock, LockError};

/// Generations after which nothing of an interface that is gone is left in the kernel, and its number may be another's.
const NUMBER_FREE_AFTER: u64 = 2;

/// An interface with our programs on it, or one that had them and is gone.
pub(super) struct Attached {
    pub(super) number: u8,
    pub(super) device: Device,
    pub(super) sides: Vec<Side>,
    /// How it is or was covered: `in:tcx out:tcx`.
    pub(super) hooks: String,
    /// None for what an agent of another layout left.
    pub(super) programs: Option<aya::Ebpf>,
    log: Option<ProgramLog>,
    state: State,
    /// The last moment both directions were known to be covered.
    whole_ns: WallNs,
    /// An earlier agent had covered it, and somebody took that away while no agent ran.
    was_broken: bool,
    /// Held so that no other agent captures here.
    lock: Option<Lock>,
    /// Since when the hardware may carry connections past the programs.
    pub(super) carried_since_ns: Option<WallNs>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Covered,
    /// A program was taken off and cannot be put back.
    Uncovered,
    /// The device is not there, since this generation.
    Gone(u64),
}

impl Attached {
    /// The name as records have it: whoever names an interface may put anything into it but a slash and white space.
    pub(super) fn spelled_name(&self) -> String {
        escaped(self.device.name.as_bytes())
    }

    /// Stands for an interface whose programs are only run by hand.
    pub(super) fn by_hand(number: u8, programs: aya::Ebpf) -> Self {
        Self {
            number,
            device: Device::unattached(number),
            sides: Vec::new(),
            hooks: String::new(),
            programs: Some(programs),
            log: None,
            state: State::Covered,
            whole_ns: 0,
            was_broken: false,
            lock: None,
            carried_since_ns: None,
        }
    }

    /// Stands for an interface whose packets were counted in maps of another layout.
    pub(super) fn left(number: u8, name: &str, hooks: &str) -> Self {
        let mut device = Device::unattached(number);
        name.clone_into(&mut device.name);
        Self {
            number,
            device,
            sides: Vec::new(),
            hooks: hooks.to_owned(),
            programs: None,
            log: None,
            state: State::Covered,
            whole_ns: 0,
            was_broken: false,
            lock: None,
            carried_since_ns: None,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone(_))
    }

    pub(super) fn name_entry(&self) -> Entry {
        Entry::Interface(InterfaceName { number: self.number, name: self.spelled_name() })
    }

    pub(super) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    fn gap(&self, to_ns: WallNs, why: &str) -> Entry {
        Entry::Gap(CoverageRecord::gap(&self.spelled_name(), self.whole_ns, to_ns, why))
    }
}

/// Which interfaces to capture: names, and patterns as in a shell.
#[derive(Debug)]
pub(super) struct Chosen {
    wanted: Vec<Pattern>,
}

impl Chosen {
    pub(super) fn new(wanted: &[String]) -> Result<Self, CaptureError> {
        let pattern = |text: &String| {
            Pattern::new(text).map_err(|source| CaptureError::Pattern { pattern: text.clone(), source })
        };
        Ok(Self { wanted: wanted.iter().map(pattern).collect::<Result<_, _>>()? })
    }

    /// The devices there are now. A name without `*`, `?` or `[` must be there.
    pub(super) fn find(&self) -> Result<Vec<Device>, CaptureError> {
        for pattern in &self.wanted {
            if Pattern::escape(pattern.as_str()) == pattern.as_str() {
                Device::find(pattern.as_str())?;
            }
        }
        let mut devices = list()?;
        devices.retain(|(_, name)| self.includes(name));
        devices.iter().map(|(_, name)| Device::find(name)).collect()
    }

    fn includes(&self, name: &str) -> bool {
        self.wanted.iter().any(|pattern| pattern.matches(name))
    }
}

impl Capture {
    /// Covers every device, taking over what an earlier agent left on it; what it left elsewhere is taken away.
    pub(super) fn cover_all(&mut self, devices: Vec<(Device, Option<Lock>)>) -> Result<(), CaptureError> {
        let mut left = self.pins.hooks()?;
        left.extend(self.hooks_of_earlier()?);
        // Numbers that are left still stand for what was counted by them.
        let mut reserved: Vec<u8> = left.iter().map(|hook| hook.number).collect();
        reserved.extend(self.numbers_of_earlier());
        for (device, lock) in devices {
            let of_device: Vec<PinnedHook> = left.extract_if(.., |hook| hook.is_on(&device)).collect();
            let number = match of_device.first() {
                Some(hook) => hook.number,
                None => self.free_number(&reserved)?,
            };
            self.cover(number, device, lock, of_device)?;
        }
        for hook in left {
            info!(interface = hook.interface, hook = %hook.hook, "removing what an earlier agent left and nobody asked for now");
            let device = Device::find(&hook.interface).unwrap_or_else(|_| Device::unattached(hook.number));
            Side::of(hook).remove(&device).map_err(|source| self.pins.failed(source))?;
        }
        Ok(())
    }

    fn cover(
        &mut self,
        number: u8,
        device: Device,
        lock: Option<Lock>,
        left: Vec<PinnedHook>,
    ) -> Result<(), CaptureError> {
        let mut programs = self.load_programs(number, &hooks::needed(self.hook, &device, &left))?;
        let place = Place { pins: &self.pins, number, device: &device, choice: self.hook };
        let mut sides = Vec::new();
        let was_covered = !left.is_empty();
        for hook in left {
            sides.extend(hooks::take_over(&mut programs, place, hook)?);
        }
        let was_broken = was_covered && sides.len() < 2;
        for direction in [Direction::In, Direction::Out] {
            if !sides.iter().any(|side| side.direction == direction) {
                sides.push(hooks::cover(&mut programs, place, direction)?);
            }
        }
        for side in &mut sides {
            // An earlier agent may have known the device by another name.
            side.rename(&self.pins, number, &device).map_err(|source| self.pins.failed(source))?;
        }
        let hooks = Hooks(&sides).to_string();
        info!(interface = device.name, hooks, number, "attached");
        let log = ProgramLog::init(&mut programs)
            .map_err(|error| warn!(%error, "the programs' messages cannot be read"))
            .ok();
        let attached = Attached {
            number,
            device,
            sides,
            hooks,
            programs: Some(programs),
            log,
            state: State::Covered,
            whole_ns: ClockReading::now().wall_now(),
            was_broken,
            lock,
            carried_since_ns: None,
        };
        // A number may have been that of an interface that is gone.
        self.interfaces.retain(|other| other.number != number);
        self.interfaces.push(attached);
        Ok(())
    }

    /// A number no interface has and that is not reserved, or one of an interface that has been gone for long enough.
    fn free_number(&self, reserved: &[u8]) -> Result<u8, CaptureError> {
        let generation = self.control().generation;
        let is_taken =
            |number: u8| reserved.contains(&number) || self.interfaces.iter().any(|attached| attached.number == number);
        let is_over = |attached: &&Attached| matches!(attached.state, State::Gone(since) if since + NUMBER_FREE_AFTER <= generation);
        let unused = (0..u8::try_from(INTERFACES_MAX).unwrap_or(u8::MAX)).find(|number| !is_taken(*number));
        unused
            .or_else(|| self.interfaces.iter().find(is_over).map(|attached| attached.number))
            .ok_or(CaptureError::TooManyInterfaces)
    }

    /// Looks at every interface, puts right what can be put right, and returns what has to be recorded.
    pub fn look_after_interfaces(&mut self) -> Result<Vec<Entry>, CaptureError> {
        let now_ns = ClockReading::now().wall_now();
        let devices = list()?;
        let generation = self.control().generation;
        let mut entries = Vec::new();
        for position in 0..self.interfaces.len() {
            self.follow(position, &devices, generation, &mut entries)?;
        }
        self.restore_pins();
        for position in 0..self.interfaces.len() {
            self.restore_sides(position, now_ns, &mut entries);
        }
        self.welcome(devices, now_ns, &mut entries);
        self.look_for_offload(now_ns, &mut entries);
        self.looked_ns = now_ns;
        Ok(entries)
    }

    /// Notices that a device is gone or has another name.
    fn follow(
        &mut self,
        position: usize,
        devices: &[(u32, String)],
        generation: u64,
        entries: &mut Vec<Entry>,
    ) -> Result<(), CaptureError> {
        let attached = &mut self.interfaces[position];
        if attached.is_gone() {
            return Ok(());
        }
        let Some((_, name)) = devices.iter().find(|(index, _)| *index == attached.device.index) else {
            warn!(interface = attached.device.name, "the interface is gone; waiting for it to come back");
            attached.state = State::Gone(generation);
            for side in attached.sides.drain(..) {
                // The device took the programs with it.
                let _ = side.remove(&attached.device);
            }
            return Ok(());
        };
        if *name != attached.device.name {
            info!(interface = attached.device.name, now = name, "the interface has another name");
            attached.device.name.clone_from(name);
            for side in &mut attached.sides {
                side.rename(&self.pins, attached.number, &attached.device)
                    .map_err(|source| self.pins.failed(source))?;
            }
            entries.push(attached.name_entry());
        }
        Ok(())
    }

    /// Makes pins again that somebody removed. Counting went on, so nothing has to be recorded.
    fn restore_pins(&mut self) {
        let dir = self.pins.dir().display();
        match self.try_to_restore_pins() {
            Ok(false) => self.pins_are_lost = false,
            Ok(true) => {
                warn!(%dir, "somebody removed pins; they were made again, and counting never stopped");
                self.pins_are_lost = false;
            }
            Err(_) if self.pins_are_lost => {}
            Err(error) => {
                error!(%dir, %error, "pins were removed and cannot be made again: counting goes on, but would end with this agent");
                self.pins_are_lost = true;
            }
        }
    }

    fn try_to_restore_pins(&self) -> io::Result<bool> {
        std::fs::create_dir_all(self.pins.dir())?;
        let mut restored = false;
        for map in &self.maps.pinned {
            restored |= map.keep_pinned()?;
        }
        for side in self.interfaces.iter().flat_map(|attached| &attached.sides) {
            restored |= side.keep_pinned()?;
        }
        Ok(restored)
    }

    fn restore_sides(&mut self, position: usize, now_ns: WallNs, entries: &mut Vec<Entry>) {
        let attached = &mut self.interfaces[position];
        if attached.is_gone() {
            return;
        }
        let mut whole = Vec::new();
        let mut lost = Vec::new();
        for side in attached.sides.drain(..) {
            if side.is_attached(&attached.device).unwrap_or(false) { whole.push(side) } else { lost.push(side) }
        }
        attached.sides = whole;
        for side in lost {
            warn!(interface = attached.device.name, hook = %side.hook, "somebody took our program off, or put another before it; putting it back");
            // What cannot be removed is in the way of nothing: a pin of the same name replaces it.
            let _ = side.remove(&attached.device);
        }
        if attached.sides.len() == 2 {
            attached.whole_ns = now_ns;
            attached.state = State::Covered;
            return;
        }
        let place = Place { pins: &self.pins, number: attached.number, device: &attached.device, choice: self.hook };
        for direction in [Direction::Out, Direction::In] {
            if attached.sides.iter().any(|side| side.direction == direction) {
                continue;
            }
            let Some(programs) = attached.programs.as_mut() else { return };
            match hooks::cover(programs, place, direction) {
                Ok(side) => attached.sides.push(side),
                Err(failure) => {
                    if attached.state != State::Uncovered {
                        error!(interface = attached.device.name, error = %failure, "the interface is not covered; trying again");
                    }
                    attached.state = State::Uncovered;
                    return;
                }
            }
        }
        attached.hooks = Hooks(&attached.sides).to_string();
        entries.push(attached.gap(now_ns, "somebody took a program off the interface, or put another before it"));
        attached.whole_ns = now_ns;
        attached.state = State::Covered;
    }

    /// Covers devices that came back, or are there for the first time.
    fn welcome(&mut self, devices: Vec<(u32, String)>, now_ns: WallNs, entries: &mut Vec<Entry>) {
        for (index, name) in devices {
            if !self.chosen.includes(&name) {
                continue;
            }
            if self.interfaces.iter().any(|attached| attached.device.index == index && !attached.is_gone()) {
                continue;
            }
            // It may be gone again by now.
            let Ok(device) = Device::find(&name) else { continue };
            let before = self.interfaces.iter().position(|attached| attached.is_gone() && attached.device.name == name);
            let (since_ns, why) = match before {
                Some(position) => (self.interfaces[position].whole_ns, "the interface was not there"),
                None => (self.looked_ns, "the interface is new"),
            };
            match self.cover_late(device, before) {
                Ok(position) => {
                    let attached = &mut self.interfaces[position];
                    attached.whole_ns = since_ns;
                    entries.push(attached.name_entry());
                    entries.push(attached.gap(now_ns, why));
                    attached.whole_ns = now_ns;
                    self.refused.retain(|refused| *refused != name);
                }
                Err(failure) => {
                    if !self.refused.contains(&name) {
                        error!(interface = name, error = %failure, "an interface that appeared cannot be covered; trying again");
                        self.refused.push(name);
                    }
                }
            }
        }
    }

    fn cover_late(&mut self, device: Device, before: Option<usize>) -> Result<usize, CaptureError> {
        let lock = Lock::interface(&device.name, device.index)?;
        let Some(position) = before else {
            let number = self.free_number(&[])?;
            self.cover(number, device, Some(lock), Vec::new())?;
            return Ok(self.interfaces.len() - 1);
        };
        let attached = &mut self.interfaces[position];
        let place = Place { pins: &self.pins, number: attached.number, device: &device, choice: self.hook };
        let mut sides = Vec::new();
        for direction in [Direction::Out, Direction::In] {
            if let Some(programs) = attached.programs.as_mut() {
                sides.push(hooks::cover(programs, place, direction)?);
            }
        }
        attached.hooks = Hooks(&sides).to_string();
        info!(interface = device.name, hooks = attached.hooks, "the interface is back");
        attached.sides = sides;
        attached.device = device;
        attached.state = State::Covered;
        attached.lock = Some(lock);
        Ok(position)
    }

    /// What is not covered now, up to now: for the end of a journal. The rest of it is recorded when it ends.
    pub fn open_gaps(&mut self) -> Vec<Entry> {
        let now_ns = ClockReading::now().wall_now();
        let mut entries = self.offload_so_far(now_ns);
        for attached in &mut self.interfaces {
            let why = match attached.state {
                State::Covered => continue,
                State::Uncovered => "a program cannot be put back on the interface",
                State::Gone(_) => "the interface is not there",
            };
            entries.push(attached.gap(now_ns, why));
            attached.whole_ns = now_ns;
        }
        entries
    }

    /// Whether the programs of an earlier agent counted until this one came.
    #[must_use]
    pub fn went_on(&self) -> bool {
        self.maps.resumed || !self.earlier.is_empty()
    }

    /// What an earlier agent had covered, and was not when this one came.
    #[must_use]
    pub fn broken_since(&self, from_ns: WallNs) -> Vec<Entry> {
        let went_on = self.went_on();
        let broken = self.interfaces.iter().filter(|attached| attached.was_broken || !went_on);
        broken
            .map(|attached| {
                let why = if went_on {
                    "somebody took a program off the interface while no agent was running"
                } else {
                    "no agent and no programs were running"
                };
                Entry::Gap(CoverageRecord::gap(&attached.spelled_name(), from_ns, attached.whole_ns, why))
            })
            .collect()
    }
}

fn list() -> Result<Vec<(u32, String)>, CaptureError> {
    Device::list().map_err(|source| CaptureError::Devices { source })
}

/// The locks of interfaces, before anything is changed on them.
pub(super) fn lock_all(devices: Vec<Device>) -> Result<Vec<(Device, Option<Lock>)>, LockError> {
    devices
        .into_iter()
        .map(|device| {
            let lock = Lock::interface(&device.name, device.index)?;
            Ok((device, Some(lock)))
        })
        .collect()
}
