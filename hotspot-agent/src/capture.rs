//! Capture: the kernel programs on the client-facing interfaces, and what they counted.
//!
//! Owns maps, links and pins. Guarantees that nothing is cleared before its reader has said it is on disk, so that killing
//! the agent at any moment neither loses nor doubles. Decides nothing about flows: it carries what the kernel counted.

pub mod barrier;
pub mod clock;
pub mod device;
mod drain;
pub mod hooks;
pub mod memory;
pub mod object;
mod pins;
pub mod ring;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use aya_log::EbpfLogger;
use hotspot_common::INTERFACES_MAX;
use hotspot_common::control::Control;
use ipnet::IpNet;
use log::Log;
use tracing::{info, warn};

pub use drain::{Evictions, GenerationRead, RingRead, note_eviction};
pub use hooks::HookChoice;
pub use object::Dimensions;

use clock::{ClockReading, tick_ns};
use device::Device;
use hooks::Hooks;
use object::Reading;
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
    #[error("the kernel programs cannot be loaded")]
    Load(#[source] aya::EbpfError),
    #[error("the kernel programs hold no {name:?}")]
    NoSuchProgram { name: &'static str },
    #[error("cannot attach to {interface}")]
    Attach { interface: String, source: Box<aya::programs::ProgramError> },
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

/// An interface with our programs on it.
#[derive(Clone, Debug)]
pub struct Attached {
    pub number: u8,
    pub device: Device,
    pub hooks: Hooks,
}

/// The running capture.
pub struct Capture {
    pins: Pins,
    maps: Maps,
    interfaces: Vec<Attached>,
    tick_ns: u64,
    reading: Reading,
    /// Slots that were in use when a half was last read, to be cleared before it is used again.
    occupied: Vec<u32>,
    /// Which half `occupied` is about.
    occupied_half: Option<u64>,
    /// Sums of evictions per generation that is not yet read.
    evictions: Vec<Evictions>,
    generation_began_ns: i64,
    /// The loaded objects: their programs stay loaded while they are attached.
    loaded: Vec<aya::Ebpf>,
    /// What the programs have to say, which is rare.
    logs: Vec<EbpfLogger<&'static dyn Log>>,
}

impl Capture {
    /// Opens or makes the maps, and attaches to every interface.
    pub fn start(settings: &CaptureSettings) -> Result<Self, CaptureError> {
        let devices = settings.interfaces.iter().map(|name| Device::find(name)).collect::<Result<Vec<_>, _>>()?;
        let pins = Pins::open(&settings.bpffs, &settings.instance)?;
        let wanted = Dimensions {
            cpus: possible_cpus(),
            slots_per_cpu_log2: settings.slots_per_cpu_log2,
            ring_bytes: settings.ring_bytes,
        };
        let maps = Maps::open(&pins, wanted)?;
        if maps.resumed && maps.dimensions != wanted {
            warn!(kept = ?maps.dimensions, ?wanted, "an earlier agent's maps go on with their sizes until it is stopped in order");
        }
        let mut capture = Self {
            pins,
            maps,
            interfaces: Vec::new(),
            tick_ns: tick_ns(),
            reading: Reading { sides_by_address: !settings.client_nets.is_empty(), decapsulate: settings.decapsulate },
            occupied: Vec::new(),
            occupied_half: None,
            evictions: Vec::new(),
            generation_began_ns: ClockReading::now().wall_now(),
            loaded: Vec::new(),
            logs: Vec::new(),
        };
        capture.set_client_nets(&settings.client_nets)?;
        capture.attach_all(devices, settings)?;
        Ok(capture)
    }

    fn attach_all(&mut self, devices: Vec<Device>, settings: &CaptureSettings) -> Result<(), CaptureError> {
        let left = self.pins.hooks()?;
        for device in devices {
            let number = left.iter().find(|hook| hook.interface == device.name).map(|hook| hook.number);
            let is_free = |number: &u8| {
                left.iter().all(|hook| hook.number != *number)
                    && self.interfaces.iter().all(|attached| attached.number != *number)
            };
            let interfaces_max = u8::try_from(INTERFACES_MAX).unwrap_or(u8::MAX);
            let number = number.or_else(|| (0..interfaces_max).find(is_free)).ok_or(CaptureError::TooManyInterfaces)?;
            let mut ebpf = object::load(
                object::Object::Hotspot,
                self.pins.dir(),
                number,
                &self.control(),
                self.maps.dimensions,
                self.reading,
            )?;
            load_programs(&mut ebpf)?;
            let hooks = hooks::attach(&mut ebpf, &self.pins, number, &device, settings.hook)?;
            info!(interface = device.name, %hooks, number, "attached");
            match EbpfLogger::init(&mut ebpf) {
                Ok(log) => self.logs.push(log),
                Err(error) => warn!(%error, "the programs' messages cannot be read"),
            }
            self.interfaces.push(Attached { number, device, hooks });
            self.loaded.push(ebpf);
        }
        Ok(())
    }

    /// Loads the programs without attaching them, for `BPF_PROG_TEST_RUN`: they count as those of interface `number`.
    pub fn load_unattached(&mut self, number: u8) -> Result<&mut aya::Ebpf, CaptureError> {
        let control = self.control();
        let mut ebpf = object::load(
            object::Object::Hotspot,
            self.pins.dir(),
            number,
            &control,
            self.maps.dimensions,
            self.reading,
        )?;
        load_programs(&mut ebpf)?;
        let device = Device::unattached(number);
        let hooks = Hooks { ingress: hooks::Hook::XdpNative, egress: hooks::Hook::Tcx };
        self.interfaces.push(Attached { number, device, hooks });
        self.loaded.push(ebpf);
        let last = self.loaded.len() - 1;
        Ok(&mut self.loaded[last])
    }

    /// The loaded objects, one per interface in their order.
    pub fn loaded(&mut self) -> &mut [aya::Ebpf] {
        &mut self.loaded
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
        self.logs.iter_mut().for_each(EbpfLogger::flush);
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

    #[must_use]
    pub fn interfaces(&self) -> &[Attached] {
        &self.interfaces
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
    /// `last_ns` is when the last generation that is on disk was read, 0 if that is not known.
    pub fn resume_from(&mut self, positions: &[(u32, u64)], evictions: Vec<Evictions>, last_ns: i64) {
        if last_ns != 0 {
            self.generation_began_ns = last_ns;
        }
        for (cpu, position) in positions {
            if let Some(ring) = self.maps.rings.get_mut(*cpu as usize) {
                ring.skip_to(*position);
            }
        }
        self.evictions = evictions;
    }

    /// Takes the programs off the interfaces; what they counted can still be read.
    pub fn detach(&mut self) -> Result<(), CaptureError> {
        for attached in &self.interfaces {
            hooks::detach(&self.pins, attached.number, &attached.device.name, attached.hooks)?;
        }
        self.loaded.clear();
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

fn load_programs(ebpf: &mut aya::Ebpf) -> Result<(), CaptureError> {
    let failed = |source| CaptureError::Load(aya::EbpfError::ProgramError(source));
    hooks::program::<aya::programs::Xdp>(ebpf, "hotspot_xdp")?.load().map_err(failed)?;
    hooks::program::<aya::programs::SchedClassifier>(ebpf, "hotspot_ingress")?.load().map_err(failed)?;
    hooks::program::<aya::programs::SchedClassifier>(ebpf, "hotspot_egress")?.load().map_err(failed)
}

/// CPUs that may ever run a program; hot-plugged ones included.
fn possible_cpus() -> u32 {
    aya::util::nr_cpus().ok().and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1)
}
