//! Capture: the kernel programs on the client-facing interfaces, and what they counted.
//!
//! Owns maps, links and pins. Guarantees that nothing is cleared before its reader has said it is on disk, so that killing
//! the agent at any moment neither loses nor doubles. Decides nothing about flows: it carries what the kernel counted.

pub mod barrier;
pub mod clock;
mod clsact;
pub mod device;
mod drain;
pub mod hooks;
mod interfaces;
pub mod layout;
mod lost;
pub mod memory;
mod notices;
pub mod object;
mod offload;
mod pinned;
mod pins;
pub mod ring;
mod upgrade;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use aya_log::EbpfLogger;
use hotspot_archive::entry::Entry;
use hotspot_common::INTERFACES_MAX;
use hotspot_common::control::Control;
use hotspot_core::detail::{Detail, DetailLimits};
use ipnet::IpNet;
use log::Log;
use tracing::warn;

use crate::locks::LockError;
use crate::seldom::Seldom;

pub use drain::{Evictions, GenerationRead, RingRead, note_eviction, note_total};
pub use hooks::HookChoice;
pub use notices::NoticesRead;
pub use object::Dimensions;

use clock::{ClockReading, tick_ns};
use interfaces::{Attached, Chosen};
use layout::Layout;
use object::{Object, Reading};
use pins::{Maps, Pins};

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("this agent was built without the kernel programs; run `cargo xtask setup` and build it again")]
    NoProgram,
    #[error("interface {name:?} is not in this network namespace (there are: {})", known.join(", "))]
    UnknownInterface { name: String, known: Vec<String>, source: io::Error },
    #[error("{} is not a BPF file system; mount one with `mount -t bpf bpf {0}`, or name another with --bpffs", path.display())]
    NoBpffs { path: PathBuf },
    #[error("the pins in {} cannot be used", path.display())]
    Pins { path: PathBuf, source: io::Error },
    #[error("an earlier agent died while making its maps in {}; remove that directory", path.display())]
    HalfMade { path: PathBuf },
    #[error(
        "an agent of a later version left its programs counting in {}; start that version once more and stop it with SIGTERM, \
         so that what they counted is kept", path.display()
    )]
    OtherLayout { path: PathBuf },
    #[error("the kernel programs cannot be loaded")]
    Load(#[source] aya::EbpfError),
    #[error("the kernel programs hold no {name:?}")]
    NoSuchProgram { name: &'static str },
    #[error("cannot attach to {interface}")]
    Attach { interface: String, source: Box<aya::programs::ProgramError> },
    #[error("cannot put a filter on {interface}")]
    Filter { interface: String, source: io::Error },
    #[error("the interfaces of this network namespace cannot be listed")]
    Devices { source: io::Error },
    #[error("{pattern:?} is no pattern of interface names")]
    Pattern { pattern: String, source: glob::PatternError },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the link on {interface} cannot be pinned: this kernel attaches without links there")]
    CannotPin { interface: String },
    #[error("the link cannot be pinned at {}", path.display())]
    PinLink { path: PathBuf, source: Box<aya::pin::PinError> },
    #[error("a map of the kernel programs cannot be used")]
    Map(#[source] MapError),
    #[error("the kernel's maps cannot be mapped")]
    Mmap { source: io::Error },
    #[error("waiting for running programs failed (kernels booted with nohz_full= refuse membarrier)")]
    Barrier { source: io::Error },
    #[error("more than {INTERFACES_MAX} interfaces")]
    TooManyInterfaces,
}

/// What to capture, and how.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    pub interfaces: Vec<String>,
    pub hook: HookChoice,
    /// Networks of clients; not empty on mirror ports, where it decides which side is the client.
    pub client_nets: Vec<IpNet>,
    /// Look for the clients inside tunnels: VXLAN and Ethernet in GRE.
    pub decapsulate: bool,
    pub bpffs: PathBuf,
    /// Names the pins; unique on the machine.
    pub instance: String,
    pub slots_per_cpu_log2: u32,
    pub ring_bytes: u32,
}

/// What the programs of one interface have to say, which is rare.
type ProgramLog = EbpfLogger<&'static dyn Log>;

/// The running capture.
pub struct Capture {
    pins: Pins,
    maps: Maps,
    object: Object,
    /// What agents of other layouts left, until it is on disk.
    earlier: Vec<Capture>,
    chosen: Chosen,
    hook: HookChoice,
    reading: Reading,
    interfaces: Vec<Attached>,
    /// When the interfaces were looked at last.
    looked_ns: i64,
    /// Interfaces that cannot be covered; said once.
    refused: Vec<String>,
    /// Pins that were removed cannot be made again; said once.
    pins_are_lost: bool,
    /// Whether the hardware carries connections cannot be asked; said once.
    offload_is_unknown: bool,
    tick_ns: u64,
    /// Slots that were in use when a half was last read, to be cleared before it is used again.
    occupied: Vec<u32>,
    /// How many flows each CPU had when a half was last read.
    flows_of_cpus: Vec<usize>,
    /// Which half `occupied` is about.
    occupied_half: Option<u64>,
    /// Sums of evictions per generation that is not yet read.
    evictions: Vec<Evictions>,
    /// By the monotonic clock.
    generation_began: u64,
    /// When the programs were taken off, by the monotonic clock.
    detached_ns: Option<u64>,
    notices: notices::Notices,
    /// What clients may have on disk.
    detail: Detail,
    coarse: Seldom,
    losses: lost::Losses,
}

impl Capture {
    /// Opens or makes the maps, and attaches to every interface.
    pub fn start(settings: &CaptureSettings) -> Result<Self, CaptureError> {
        Self::start_as(settings, layout::CURRENT, Object::Hotspot)
    }

    /// The same, as an agent of another layout does it with its programs.
    pub fn start_as(settings: &CaptureSettings, layout: Layout, object: Object) -> Result<Self, CaptureError> {
        let chosen = Chosen::new(&settings.interfaces)?;
        let devices = interfaces::lock_all(chosen.find()?)?;
        if devices.is_empty() && !settings.interfaces.is_empty() {
            warn!(patterns = ?settings.interfaces, "no interface has such a name yet; waiting for one");
        }
        let (pins, others) = Pins::open(&settings.bpffs, &settings.instance, layout)?;
        let wanted = Dimensions {
            cpus: possible_cpus(),
            slots_per_cpu_log2: settings.slots_per_cpu_log2,
            ring_bytes: settings.ring_bytes,
        };
        let maps = Maps::open(&pins, layout, object, wanted)?;
        if maps.resumed && maps.dimensions != wanted {
            warn!(kept = ?maps.dimensions, ?wanted, "an earlier agent's maps go on with their sizes until it is stopped in order");
        }
        let reading = Reading { sides_by_address: !settings.client_nets.is_empty(), decapsulate: settings.decapsulate };
        let mut capture = Self::of(pins, maps, object, chosen, settings.hook, reading);
        let started = capture
            .set_client_nets(&settings.client_nets)
            .and_then(|()| capture.open_earlier(others))
            .and_then(|()| capture.cover_all(devices));
        if let Err(error) = started {
            // What took over from an earlier layout stays, as if this agent had been killed: the next start goes on.
            if !capture.maps.resumed && capture.earlier.is_empty() {
                // Nothing is left of an agent that could not start. What else fails now is of no interest.
                let _ = capture.detach();
                let _ = capture.remove_pins();
            }
            return Err(error);
        }
        capture.count_losses();
        Ok(capture)
    }

    fn of(pins: Pins, maps: Maps, object: Object, chosen: Chosen, hook: HookChoice, reading: Reading) -> Self {
        let clock = ClockReading::now();
        let flows_of_cpus = vec![0; maps.dimensions.cpus as usize];
        Self {
            pins,
            maps,
            object,
            earlier: Vec::new(),
            chosen,
            hook,
            reading,
            interfaces: Vec::new(),
            looked_ns: clock.wall_now(),
            refused: Vec::new(),
            pins_are_lost: false,
            offload_is_unknown: false,
            tick_ns: tick_ns(),
            occupied: Vec::new(),
            flows_of_cpus,
            occupied_half: None,
            evictions: Vec::new(),
            generation_began: clock.monotonic_ns,
            detached_ns: None,
            notices: notices::Notices::default(),
            detail: Detail::new(DetailLimits { client: u64::MAX, interface: u64::MAX }),
            coarse: Seldom::default(),
            losses: lost::Losses::default(),
        }
    }

    /// Loads the programs without attaching them, for `BPF_PROG_TEST_RUN`: they count as those of interface `number`.
    pub fn load_unattached(&mut self, number: u8) -> Result<&mut aya::Ebpf, CaptureError> {
        let programs = self.load_programs(number, &hooks::PROGRAMS)?;
        self.interfaces.push(Attached::by_hand(number, programs));
        Ok(self.programs(number))
    }

    /// The programs for one interface. Those wanted are loaded side by side, because the kernel takes its time to verify one; another
    /// is loaded when it is needed.
    fn load_programs(&self, number: u8, wanted: &[&str]) -> Result<aya::Ebpf, CaptureError> {
        let mut ebpf = object::load(self.object, self.pins.dir(), number, self.maps.dimensions, self.reading)?;
        std::thread::scope(|scope| {
            let named = ebpf.programs_mut().filter(|(name, _)| wanted.contains(name));
            let loading: Vec<_> = named.map(|(_, program)| scope.spawn(|| object::verify(program))).collect();
            loading.into_iter().try_for_each(|load| load.join().expect("a thread that does not panic"))
        })?;
        Ok(ebpf)
    }

    /// The loaded programs of an interface.
    ///
    /// # Panics
    ///
    /// Where no interface has that number.
    pub fn programs(&mut self, number: u8) -> &mut aya::Ebpf {
        let attached = self.interfaces.iter_mut().find(|attached| attached.number == number);
        attached.and_then(|attached| attached.programs.as_mut()).expect("an interface of that number")
    }

    fn set_client_nets(&self, nets: &[IpNet]) -> Result<(), CaptureError> {
        let map = MapData::from_pin(self.pins.dir().join("CLIENT_NETS")).map_err(CaptureError::Map)?;
        let mut trie: LpmTrie<MapData, [u8; 16], u32> =
            aya::maps::Map::LpmTrie(map).try_into().map_err(CaptureError::Map)?;
        for net in nets {
            let (address, prefix_len) = match net {
                IpNet::V4(net) => (net.network().to_ipv6_mapped().octets(), 96 + u32::from(net.prefix_len())),
                IpNet::V6(net) => (net.network().octets(), u32::from(net.prefix_len())),
            };
            trie.insert(&Key::new(prefix_len, address), 1, 0).map_err(CaptureError::Map)?;
        }
        Ok(())
    }

    /// Logs what the programs reported since the last time.
    pub fn flush_logs(&mut self) {
        self.interfaces.iter_mut().for_each(Attached::flush_log);
    }

    #[must_use]
    pub fn control(&self) -> Control {
        self.maps.control.read(0)
    }

    /// Whether maps of an earlier agent are being used.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.maps.resumed
    }

    /// Names of the interfaces, for every journal.
    #[must_use]
    pub fn interface_names(&self) -> Vec<Entry> {
        self.interfaces.iter().map(Attached::name_entry).collect()
    }

    #[must_use]
    pub fn dimensions(&self) -> Dimensions {
        self.maps.dimensions
    }

    /// Duplicates of the rings' file descriptors: readable when a program asked to be read soon.
    pub fn ring_fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.maps.rings.iter().map(ring::RingReader::try_clone_fd).collect()
    }

    /// What the journal of an earlier agent already holds: ring positions, and the evictions of generations not yet read.
    /// `notices` is the position in the ring of notices; `last_ns` when the last generation that is on disk was read, 0 if that is not
    /// known.
    pub fn resume_from(&mut self, positions: &[(u32, u64)], notices: u64, evictions: Vec<Evictions>, last_ns: i64) {
        self.maps.notices.skip_to(notices);
        if last_ns != 0 {
            self.generation_began = ClockReading::now().monotonic(last_ns);
        }
        for (cpu, position) in positions {
            if let Some(ring) = self.maps.rings.get_mut(*cpu as usize) {
                ring.skip_to(*position);
            }
        }
        self.evictions = evictions;
    }

    /// Limits what clients may have on disk, with what they have already. Without it there is no limit.
    pub fn limit_detail(&mut self, detail: Detail) {
        self.detail = detail;
    }

    /// What is read from now on is of the segment with this sequence.
    pub fn begin_segment(&mut self, sequence: u64) {
        self.detail.segment(sequence);
    }

    /// Takes the programs off the interfaces; what they counted can still be read.
    pub fn detach(&mut self) -> Result<(), CaptureError> {
        self.detached_ns = Some(ClockReading::now().monotonic_ns);
        for attached in &mut self.interfaces {
            for side in attached.sides.drain(..) {
                side.remove(&attached.device).map_err(|source| self.pins.failed(source))?;
            }
        }
        Ok(())
    }

    /// Removes the pins; call after the last read.
    pub fn remove_pins(&self) -> Result<(), CaptureError> {
        self.pins.remove()
    }

    #[must_use]
    pub fn pins_dir(&self) -> &Path {
        self.pins.dir()
    }
}

/// CPUs that may ever run a program; hot-plugged ones included.
fn possible_cpus() -> u32 {
    aya::util::nr_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1)
}
