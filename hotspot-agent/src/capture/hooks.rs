//! Where the programs are attached, and how that is decided.
//!
//! Guarantees that a program of somebody else is never replaced, and that both directions of an interface are covered or the
//! attempt fails. `auto` explains itself in the log.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode};
use clap::ValueEnum;
use hotspot_common::Direction;
use tracing::{info, warn};

use super::CaptureError;
use super::clsact;
use super::device::Device;
use super::object;
use super::pinned::{Pinned, first_of_tcx};
use super::pins::{PinnedHook, Pins};

/// All programs of the object: for what clients send, by XDP and by tc, and for what they get.
pub const PROGRAMS: [&str; 3] = [XDP, INGRESS, EGRESS];
const XDP: &str = "hotspot_xdp";
const INGRESS: &str = "hotspot_ingress";
const EGRESS: &str = "hotspot_egress";

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HookChoice {
    /// XDP where the driver does it natively and hides nothing, tc elsewhere.
    Auto,
    /// XDP for what clients send, tc for what they get; generic XDP where the driver has none.
    Xdp,
    /// Generic XDP for what clients send, tc for what they get.
    #[value(name = "xdpgeneric")]
    XdpGeneric,
    /// tc for both directions: tcx from Linux 6.6, clsact before.
    Tc,
    /// tc's older way for both directions.
    Clsact,
}

/// How one direction of an interface is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    XdpNative,
    XdpGeneric,
    Tcx,
    Clsact,
}

impl Hook {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpNative => "xdp",
            Self::XdpGeneric => "xdpgeneric",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::XdpNative, Self::XdpGeneric, Self::Tcx, Self::Clsact].into_iter().find(|hook| hook.name() == name)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One direction of an interface, and what covers it.
#[derive(Debug)]
pub struct Side {
    pub direction: Direction,
    pub hook: Hook,
    /// The link, or with clsact the program.
    object: Pinned,
}

impl Side {
    #[must_use]
    pub fn of(left: PinnedHook) -> Self {
        Self { direction: left.direction, hook: left.hook, object: left.object }
    }

    /// Whether our program is still where it was put, and no program before it can hide packets from it.
    pub fn is_attached(&self, device: &Device) -> io::Result<bool> {
        match self.hook {
            Hook::XdpNative | Hook::XdpGeneric => Ok(self.object.link_device()? == device.index),
            Hook::Tcx => Ok(self.object.link_device()? == device.index
                && first_of_tcx(device.index, self.direction)? == self.object.link_program()?),
            Hook::Clsact => clsact::is_there(device.index, self.direction),
        }
    }

    /// Makes the pin again where somebody removed it; true where that was so.
    pub fn keep_pinned(&self) -> io::Result<bool> {
        self.object.keep_pinned()
    }

    /// Follows a device that got another name.
    pub fn rename(&mut self, pins: &Pins, number: u8, device: &Device) -> io::Result<()> {
        self.object.rename(&pins.link_path(number, self.direction, self.hook, &device.name))
    }

    /// Takes the program away.
    pub fn remove(self, device: &Device) -> io::Result<()> {
        if self.hook == Hook::Clsact {
            clsact::remove(device.index, self.direction)?;
        }
        self.object.remove()
    }
}

/// How the directions of an interface are covered: `in:tcx out:tcx`.
pub struct Hooks<'a>(pub &'a [Side]);

impl fmt::Display for Hooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook =
            |direction| self.0.iter().find(|side| side.direction == direction).map_or("none", |side| side.hook.name());
        write!(f, "in:{} out:{}", hook(Direction::Out), hook(Direction::In))
    }
}

/// Where to attach.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub pins: &'a Pins,
    /// Of the interface, in flow keys.
    pub number: u8,
    pub device: &'a Device,
    pub choice: HookChoice,
}

impl Place<'_> {
    fn attach_failed(&self, source: aya::programs::ProgramError) -> CaptureError {
        CaptureError::Attach { interface: self.device.name.clone(), source: Box::new(source) }
    }

    fn pin(&self, object: impl AsFd, direction: Direction, hook: Hook) -> Result<Side, CaptureError> {
        let path = self.pins.link_path(self.number, direction, hook, &self.device.name);
        let object =
            Pinned::pin(object.as_fd(), &path).map_err(|source| CaptureError::Pins { path: path.clone(), source })?;
        Ok(Side { direction, hook, object })
    }

    /// The pin of a link that the library keeps to itself.
    fn pin_link(&self, link: FdLink, direction: Direction, hook: Hook) -> Result<Side, CaptureError> {
        let path = self.pins.link_path(self.number, direction, hook, &self.device.name);
        let failed = |source| CaptureError::Pins { path: path.clone(), source };
        // Left by a link that is dead.
        let _ = std::fs::remove_file(&path);
        link.pin(&path).map_err(|source| CaptureError::PinLink { path: path.clone(), source: Box::new(source) })?;
        Ok(Side { direction, hook, object: Pinned::open(&path).map_err(failed)? })
    }
}

/// Covers one direction of an interface.
pub fn cover(ebpf: &mut Ebpf, place: Place<'_>, direction: Direction) -> Result<Side, CaptureError> {
    match direction {
        Direction::Out => cover_ingress(ebpf, place),
        Direction::In => cover_by_tc(ebpf, place, direction),
    }
}

fn cover_ingress(ebpf: &mut Ebpf, place: Place<'_>) -> Result<Side, CaptureError> {
    let device = place.device;
    if matches!(place.choice, HookChoice::Xdp | HookChoice::XdpGeneric) && device.strips_vlan_tags {
        warn!(
            interface = device.name,
            "the device takes VLAN tags out of frames where XDP cannot see them, so clients' VLANs may not be recorded; \
             `ethtool -K {} rxvlan off`, or --hook auto",
            device.name
        );
    }
    match place.choice {
        HookChoice::Tc | HookChoice::Clsact => cover_by_tc(ebpf, place, Direction::Out),
        HookChoice::XdpGeneric => cover_by_xdp(ebpf, place, XdpMode::Skb),
        HookChoice::Xdp => cover_by_xdp(ebpf, place, XdpMode::Driver).or_else(|error| {
            warn!(interface = device.name, %error, "no native XDP; generic XDP counts a packet that GRO put together as one");
            cover_by_xdp(ebpf, place, XdpMode::Skb)
        }),
        HookChoice::Auto => {
            if let Some(why) = device.reason_against_xdp() {
                info!(interface = device.name, why, "hook for what clients send: tc");
                return cover_by_tc(ebpf, place, Direction::Out);
            }
            match cover_by_xdp(ebpf, place, XdpMode::Driver) {
                Ok(side) => {
                    info!(interface = device.name, driver = device.driver, "hook for what clients send: native XDP");
                    Ok(side)
                }
                Err(error) => {
                    info!(interface = device.name, why = %error, "hook for what clients send: tc");
                    cover_by_tc(ebpf, place, Direction::Out)
                }
            }
        }
    }
}

fn cover_by_xdp(ebpf: &mut Ebpf, place: Place<'_>, mode: XdpMode) -> Result<Side, CaptureError> {
    let hook = if matches!(mode, XdpMode::Skb) { Hook::XdpGeneric } else { Hook::XdpNative };
    let program: &mut Xdp = program(ebpf, XDP)?;
    let link = program.attach(&place.device.name, mode).map_err(|source| place.attach_failed(source))?;
    let link = program.take_link(link).map_err(|source| place.attach_failed(source))?;
    let link = FdLink::try_from(link).map_err(|_| CaptureError::CannotPin { interface: place.device.name.clone() })?;
    place.pin_link(link, Direction::Out, hook)
}

fn cover_by_tc(ebpf: &mut Ebpf, place: Place<'_>, direction: Direction) -> Result<Side, CaptureError> {
    let (name, attach_type) = tc_program(direction);
    let program: &mut SchedClassifier = program(ebpf, name)?;
    if place.choice != HookChoice::Clsact {
        // First in the chain, so that a program that ends it cannot hide packets from us.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(&place.device.name, attach_type, order) {
            Ok(link) => {
                let link = program.take_link(link).map_err(|source| place.attach_failed(source))?;
                let link = FdLink::try_from(link)
                    .map_err(|_| CaptureError::CannotPin { interface: place.device.name.clone() })?;
                return place.pin_link(link, direction, Hook::Tcx);
            }
            Err(error) => info!(interface = place.device.name, %error, "no tcx here; using clsact"),
        }
    }
    let program = program.fd().map_err(|source| place.attach_failed(source))?;
    clsact::put(place.device.index, direction, program.as_fd(), name)
        .map_err(|source| CaptureError::Filter { interface: place.device.name.clone(), source })?;
    place.pin(program, direction, Hook::Clsact)
}

/// Puts our program where an earlier agent left its own, without a packet between them that nobody counts; `None` where that
/// one is not attached any more.
pub fn take_over(ebpf: &mut Ebpf, place: Place<'_>, left: PinnedHook) -> Result<Option<Side>, CaptureError> {
    let (direction, hook, path) = (left.direction, left.hook, left.path.clone());
    let failed = |source| CaptureError::Pins { path: path.clone(), source };
    let side = Side::of(left);
    let is_attached = side.is_attached(place.device).map_err(failed)?;
    let link = || PinnedLink::from_pin(&path).ok().map(FdLink::from);
    let taken = is_attached
        && match hook {
            Hook::XdpNative | Hook::XdpGeneric => {
                let program: &mut Xdp = program(ebpf, XDP)?;
                let link = link().and_then(|link| program.attach_to_link(link.try_into().ok()?).ok());
                link.is_some_and(|link| program.take_link(link).is_ok())
            }
            Hook::Tcx => {
                let program: &mut SchedClassifier = program(ebpf, tc_program(direction).0)?;
                let link = link().and_then(|link| program.attach_to_link(link.try_into().ok()?).ok());
                link.is_some_and(|link| program.take_link(link).is_ok())
            }
            Hook::Clsact => true,
        };
    if !taken {
        warn!(interface = place.device.name, %hook, "an earlier agent's program is not attached any more; attaching anew");
        side.remove(place.device).map_err(failed)?;
        return Ok(None);
    }
    info!(interface = place.device.name, %hook, "took over from an earlier agent; counting never stopped");
    // The filter is exchanged, and the pin is the program's.
    if hook == Hook::Clsact {
        return cover_by_tc(ebpf, Place { choice: HookChoice::Clsact, ..place }, direction).map(Some);
    }
    Ok(Some(side))
}

fn tc_program(direction: Direction) -> (&'static str, TcAttachType) {
    match direction {
        Direction::Out => (INGRESS, TcAttachType::Ingress),
        Direction::In => (EGRESS, TcAttachType::Egress),
    }
}

/// Programs that will be wanted on a device where an earlier agent left these hooks.
#[must_use]
pub fn needed(choice: HookChoice, device: &Device, left: &[PinnedHook]) -> Vec<&'static str> {
    let is_xdp = match left.iter().find(|hook| hook.direction == Direction::Out) {
        Some(left) => matches!(left.hook, Hook::XdpNative | Hook::XdpGeneric),
        None => match choice {
            HookChoice::Tc | HookChoice::Clsact => false,
            HookChoice::Xdp | HookChoice::XdpGeneric => true,
            HookChoice::Auto => device.reason_against_xdp().is_none(),
        },
    };
    vec![if is_xdp { XDP } else { INGRESS }, EGRESS]
}

/// A program of the object, loaded now where nobody expected that it would be needed.
pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, CaptureError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(CaptureError::NoSuchProgram { name })?;
    if program.fd().is_err() {
        object::verify(program)?;
    }
    program.try_into().map_err(|source| CaptureError::Attach { interface: name.to_owned(), source: Box::new(source) })
}
