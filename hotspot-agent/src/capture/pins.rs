//! What outlives the agent: maps and links, pinned under a directory in bpffs that names the layout.
//!
//! `<bpffs>/hotspot/<instance>/v<layout>/` holds the maps by name and one link per hook, called
//! `link-<interface number>-<direction>-<hook>-<interface name>`. Killing the agent leaves all of it in place: counting goes
//! on, and the next start opens it instead of making it anew. Beside it may lie what an agent of an earlier layout left: its programs
//! are exchanged for ours, its maps are read to the end, and then it is removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use hotspot_common::control::Control;
use hotspot_common::{Active, Count, Direction, Head, NOTICE_RING_BYTES, OverflowKey, OverflowTotal, Set};
use rustix::fs::statfs;

use super::CaptureError;
use super::device::Device;
use super::hooks::Hook;
use super::layout::Layout;
use super::memory::MappedArray;
use super::object::{Dimensions, Object, Reading, SHARED_MAPS, load};
use super::pinned::Pinned;
use super::ring::RingReader;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The name of the map of what was not read.
const ETHERTYPES: &str = "ETHERTYPES";

/// The map can be mapped into memory (include/uapi/linux/bpf.h).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// A directory of pins.
#[derive(Clone, Debug)]
pub struct Pins {
    dir: PathBuf,
}

/// A link found among the pins, or with clsact a program.
#[derive(Debug)]
pub struct PinnedHook {
    pub number: u8,
    pub direction: Direction,
    pub hook: Hook,
    pub interface: String,
    pub path: PathBuf,
    pub object: Pinned,
}

impl PinnedHook {
    /// Whether it is on a device, or was on one of that name.
    pub fn is_on(&self, device: &Device) -> bool {
        match self.hook {
            Hook::Clsact => self.interface == device.name,
            Hook::XdpNative | Hook::XdpGeneric | Hook::Tcx => match self.object.link_device() {
                Ok(index) if index != 0 => index == device.index,
                _ => self.interface == device.name,
            },
        }
    }
}

impl Pins {
    /// The pins of one agent of a layout, and those of agents of other layouts before it; makes the directory. `instance` must be
    /// unique on the machine.
    pub fn open(bpffs: &Path, instance: &str, layout: Layout) -> Result<(Self, Vec<(Self, Layout)>), CaptureError> {
        let is_bpffs = statfs(bpffs).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|magic| magic == BPF_FS_MAGIC));
        if !is_bpffs {
            return Err(CaptureError::NoBpffs { path: bpffs.to_path_buf() });
        }
        let instance = bpffs.join("hotspot").join(instance);
        let dir = instance.join(layout.dir_name());
        fs::create_dir_all(&dir).map_err(|source| CaptureError::Pins { path: dir.clone(), source })?;
        let pins = Self { dir };
        let others = pins.others(&instance)?;
        Ok((pins, others))
    }

    /// What agents of other layouts left. One whose maps cannot be read is refused: beside ours its programs would count twice.
    fn others(&self, instance: &Path) -> Result<Vec<(Self, Layout)>, CaptureError> {
        let mut others = Vec::new();
        for entry in fs::read_dir(instance).map_err(|source| self.failed(source))? {
            let path = entry.map_err(|source| self.failed(source))?.path();
            if path == self.dir {
                continue;
            }
            if fs::read_dir(&path).map_err(|source| self.failed(source))?.next().is_none() {
                // Left by an agent that ended while it removed its pins.
                let _ = fs::remove_dir(&path);
                continue;
            }
            let Some(layout) = path.file_name().and_then(|name| Layout::of_dir(name.to_str()?)) else {
                // Ours was just made, or is empty.
                let _ = fs::remove_dir(&self.dir);
                return Err(CaptureError::OtherLayout { path });
            };
            others.push((Self { dir: path }, layout));
        }
        Ok(others)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn failed(&self, source: io::Error) -> CaptureError {
        CaptureError::Pins { path: self.dir.clone(), source }
    }

    /// The links an earlier agent left attached.
    pub fn hooks(&self) -> Result<Vec<PinnedHook>, CaptureError> {
        let failed = |source| self.failed(source);
        let mut hooks = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((number, direction, hook, interface)) = parse_link_name(&name) else { continue };
            let path = entry.path();
            let object = Pinned::open(&path).map_err(|source| CaptureError::Pins { path: path.clone(), source })?;
            hooks.push(PinnedHook { number, direction, hook, interface, path, object });
        }
        hooks.sort_by_key(|hook| (hook.number, hook.direction));
        Ok(hooks)
    }

    pub fn link_path(&self, number: u8, direction: Direction, hook: Hook, interface: &str) -> PathBuf {
        // bpffs refuses dots in names; no interface name holds a slash or a space.
        let interface = interface.replace('.', "%2e");
        self.dir.join(format!("link-{number}-{}-{}-{interface}", direction_name(direction), hook.name()))
    }

    /// Removes everything. The kernel frees what nothing holds any more.
    pub fn remove(&self) -> Result<(), CaptureError> {
        let failed = |source| self.failed(source);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        fs::remove_dir(&self.dir).map_err(failed)?;
        if let Some(instance) = self.dir.parent() {
            // Another layout's pins may still be there.
            let _ = fs::remove_dir(instance);
        }
        Ok(())
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "in",
        Direction::In => "out",
    }
}

fn parse_link_name(name: &str) -> Option<(u8, Direction, Hook, String)> {
    let mut parts = name.strip_prefix("link-")?.splitn(4, '-');
    let number = parts.next()?.parse().ok()?;
    let direction = match parts.next()? {
        "in" => Direction::Out,
        "out" => Direction::In,
        _ => return None,
    };
    let hook = Hook::from_name(parts.next()?)?;
    Some((number, direction, hook, parts.next()?.replace("%2e", ".")))
}

/// The maps all interfaces share, as the agent uses them.
pub(super) struct Maps {
    pub(super) layout: Layout,
    pub(super) dimensions: Dimensions,
    pub(super) control: MappedArray<Control>,
    pub(super) sets: MappedArray<Set>,
    pub(super) heads: MappedArray<Head>,
    pub(super) rings: Vec<RingReader>,
    pub(super) notices: RingReader,
    pub(super) overflow: aya::maps::PerCpuHashMap<MapData, PodKey, PodTotal>,
    /// `None` where the maps are those of programs that did not count ethertypes.
    pub(super) ethertypes: Option<aya::maps::PerCpuHashMap<MapData, u32, PodCount>>,
    /// Whether an earlier agent made them.
    pub(super) resumed: bool,
    /// All of them, to make their pins again where somebody removes those.
    pub(super) pinned: Vec<Pinned>,
}

/// Overflow keys as aya wants them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(super) struct PodKey(pub(super) OverflowKey);
/// Overflow totals as aya wants them.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodTotal(pub(super) OverflowTotal);

/// Counts as aya wants them.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodCount(pub(super) Count);

// SAFETY: repr(C) without implicit padding; every bit pattern is valid.
unsafe impl aya::Pod for PodCount {}
// SAFETY: repr(C) without implicit padding; every bit pattern is valid.
unsafe impl aya::Pod for PodKey {}
// SAFETY: repr(C) without implicit padding; every bit pattern is valid.
unsafe impl aya::Pod for PodTotal {}

impl Maps {
    /// Opens the pinned maps, or makes them with these dimensions as `object` has them.
    pub(super) fn open(pins: &Pins, layout: Layout, object: Object, wanted: Dimensions) -> Result<Self, CaptureError> {
        let resumed = pins.dir().join("CONTROL").exists();
        let (dimensions, control) = if resumed { recorded(pins)? } else { (wanted, fresh_control(wanted)?) };
        if !resumed {
            // Loading makes the maps; the programs themselves come with each interface.
            let reading = Reading { sides_by_address: false, decapsulate: false };
            drop(load(object, pins.dir(), 0, dimensions, reading)?);
            make_control(pins)?;
        }
        let open = |name: &str| MapData::from_pin(pins.dir().join(name)).map_err(CaptureError::Map);
        let mapped = |source| CaptureError::Mmap { source };
        let notices = std::os::fd::AsFd::as_fd(open("NOTICES")?.fd()).try_clone_to_owned().map_err(mapped)?;
        let mut maps = Self {
            layout,
            dimensions,
            control: MappedArray::new(open("CONTROL")?.fd(), 1).map_err(mapped)?,
            sets: MappedArray::new(open("SLOTS")?.fd(), dimensions.sets() as usize).map_err(mapped)?,
            heads: MappedArray::new(open("HEADS")?.fd(), dimensions.cpus as usize).map_err(mapped)?,
            rings: Vec::new(),
            notices: RingReader::new(notices, u64::from(NOTICE_RING_BYTES)).map_err(mapped)?,
            overflow: Map::PerCpuHashMap(open("OVERFLOW")?).try_into().map_err(CaptureError::Map)?,
            ethertypes: None,
            resumed,
            pinned: Vec::new(),
        };
        maps.open_ethertypes(pins)?;
        let mut rings: ArrayOfMaps<MapData, MapData> =
            Map::ArrayOfMaps(open("RINGS")?).try_into().map_err(CaptureError::Map)?;
        for cpu in 0..dimensions.cpus {
            let ring = if resumed {
                rings.get(&cpu, 0).map_err(CaptureError::Map)?
            } else {
                make_ring(&mut rings, cpu, dimensions)?
            };
            let fd = std::os::fd::AsFd::as_fd(ring.fd()).try_clone_to_owned().map_err(mapped)?;
            maps.rings.push(RingReader::new(fd, u64::from(dimensions.ring_bytes)).map_err(mapped)?);
        }
        if !resumed {
            for cpu in 0..dimensions.cpus {
                let first_sets = [0, 1].map(|half| dimensions.first_set(half, cpu));
                let reaches = if layout.has_reaches { [dimensions.reach_for(0); 2] } else { first_sets };
                maps.heads.prepare(cpu as usize, control.hash_keys, first_sets, reaches);
            }
        }
        // Also an earlier agent may have died between the two.
        maps.heads_follow(control.generation);
        if !resumed {
            // Last, because its presence is what says that the rest is whole.
            maps.control.write(0, control);
        }
        for name in SHARED_MAPS {
            let path = pins.dir().join(name);
            // A map of a later version of the programs is made when they are loaded.
            if path.exists() {
                maps.pinned.push(Pinned::open(&path).map_err(|source| pins.failed(source))?);
            }
        }
        Ok(maps)
    }

    /// Opens what a later version of the programs brought: where an earlier agent's maps go on it is there once ours are loaded.
    pub(super) fn open_ethertypes(&mut self, pins: &Pins) -> Result<(), CaptureError> {
        let path = pins.dir().join(ETHERTYPES);
        if self.ethertypes.is_none() && path.exists() {
            let map = MapData::from_pin(path).map_err(CaptureError::Map)?;
            self.ethertypes = Some(Map::PerCpuHashMap(map).try_into().map_err(CaptureError::Map)?);
        }
        Ok(())
    }

    /// Makes a generation the one being written. It is noted first, so that the next agent knows of it if this one dies on the way.
    pub(super) fn begin(&self, generation: u64) {
        self.control.write_generation(generation);
        self.heads_follow(generation);
    }

    /// Which of a CPU's slots are used in a half, as a mask of their numbers.
    pub(super) fn reach(&self, cpu: u32, half: usize) -> u32 {
        if self.layout.has_reaches { self.heads.reach(cpu as usize, half) } else { self.dimensions.whole_reach() }
    }

    fn heads_follow(&self, generation: u64) {
        let low = u32::try_from(generation & u64::from(u32::MAX)).unwrap_or(0);
        for cpu in 0..self.dimensions.cpus {
            let first_set = self.dimensions.first_set(low & 1, cpu);
            self.heads.write_active(cpu as usize, Active { generation: low, first_set });
        }
    }
}

/// What an earlier agent wrote into its maps.
fn recorded(pins: &Pins) -> Result<(Dimensions, Control), CaptureError> {
    let control = MapData::from_pin(pins.dir().join("CONTROL")).map_err(CaptureError::Map)?;
    let control = MappedArray::<Control>::new(control.fd(), 1).map_err(|source| CaptureError::Mmap { source })?.read(0);
    if control.cpus == 0 {
        return Err(CaptureError::HalfMade { path: pins.dir().to_path_buf() });
    }
    Ok((
        Dimensions {
            cpus: control.cpus,
            slots_per_cpu_log2: control.slots_per_cpu_log2,
            ring_bytes: control.ring_bytes,
        },
        control,
    ))
}

fn fresh_control(dimensions: Dimensions) -> Result<Control, CaptureError> {
    let mut random = [0u8; 56];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    if filled != Ok(random.len()) {
        return Err(CaptureError::Mmap { source: io::Error::other("the kernel gave no random bytes") });
    }
    let mut words = random.chunks_exact(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()));
    let mut word = || words.next().unwrap_or_default() | 1;
    Ok(Control {
        generation: 1,
        drained: 0,
        capture: word(),
        hash_keys: [word(), word(), word(), word(), word(), word()],
        slots_per_cpu_log2: dimensions.slots_per_cpu_log2,
        cpus: dimensions.cpus,
        ring_bytes: dimensions.ring_bytes,
        padding: 0,
    })
}

/// No program has this map, so loading does not make it.
fn make_control(pins: &Pins) -> Result<(), CaptureError> {
    let kind = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    let value_bytes = u32::try_from(size_of::<Control>()).unwrap_or(u32::MAX);
    let definition = aya_obj::Map::new_from_params(kind, u32::BITS / 8, value_bytes, 1, BPF_F_MMAPABLE);
    let control = MapData::create(definition, "CONTROL", None).map_err(CaptureError::Map)?;
    let pinned = control.pin(pins.dir().join("CONTROL"));
    pinned.map_err(|error| CaptureError::Map(MapError::PinError { name: Some("CONTROL".to_owned()), error }))
}

fn make_ring(
    rings: &mut ArrayOfMaps<MapData, MapData>,
    cpu: u32,
    dimensions: Dimensions,
) -> Result<MapData, CaptureError> {
    let kind = aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
    let definition = aya_obj::Map::new_from_params(kind, 0, 0, dimensions.ring_bytes, 0);
    let ring = MapData::create(definition, &format!("RING_{cpu}"), None).map_err(CaptureError::Map)?;
    rings.set(cpu, &ring, 0).map_err(CaptureError::Map)?;
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_link_says_what_it_is() {
        let pins = Pins { dir: PathBuf::from("/pins") };
        let path = pins.link_path(3, Direction::In, Hook::Tcx, "eth0.12-x");
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        assert_eq!(name.as_deref(), Some("link-3-out-tcx-eth0%2e12-x"));
        let parsed = name.as_deref().and_then(parse_link_name);
        assert_eq!(parsed, Some((3, Direction::In, Hook::Tcx, "eth0.12-x".to_owned())));
    }

    #[test]
    fn maps_are_not_mistaken_for_links() {
        assert!(SHARED_MAPS.iter().all(|name| parse_link_name(name).is_none()));
    }
}
