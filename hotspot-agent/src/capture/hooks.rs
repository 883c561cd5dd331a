//! Where the programs are attached, and how that is decided.
//!
//! Guarantees that a program of somebody else is never replaced, and that both directions of an interface are covered or the
//! attempt fails. `auto` explains itself in the log.

use std::fmt;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use clap::ValueEnum;
use hotspot_common::Direction;
use tracing::{info, warn};

use super::CaptureError;
use super::device::Device;
use super::pins::Pins;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HookChoice {
    /// XDP where the driver does it natively and hides nothing, tc elsewhere.
    Auto,
    /// XDP for what clients send, tc for what they get.
    Xdp,
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

/// How both directions of an interface are covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks {
    pub ingress: Hook,
    pub egress: Hook,
}

impl fmt::Display for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in:{} out:{}", self.ingress, self.egress)
    }
}

/// Priority and handle of our clsact filters, so that a later start finds them.
const CLSACT: NlOptions = NlOptions { priority: 0x6873, handle: tc::TcHandle::new(0, 1), classid: None };

/// Attaches both directions of an interface and pins the links, or takes over those an earlier agent left.
pub fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    number: u8,
    device: &Device,
    choice: HookChoice,
) -> Result<Hooks, CaptureError> {
    let left = pins.hooks()?.into_iter().filter(|hook| hook.interface == device.name && hook.number == number);
    let (mut ingress, mut egress) = (None, None);
    for hook in left {
        let taken = take_over(ebpf, &hook.path, hook.direction, hook.hook, device)?;
        match (taken, hook.direction) {
            (true, Direction::Out) => ingress = Some(hook.hook),
            (true, Direction::In) => egress = Some(hook.hook),
            (false, Direction::Out | Direction::In) => {}
        }
    }
    let egress = match egress {
        Some(hook) => hook,
        None => attach_tc(ebpf, pins, number, device, Direction::In, choice)?,
    };
    let ingress = match ingress {
        Some(hook) => hook,
        None => attach_ingress(ebpf, pins, number, device, choice)?,
    };
    Ok(Hooks { ingress, egress })
}

fn attach_ingress(
    ebpf: &mut Ebpf,
    pins: &Pins,
    number: u8,
    device: &Device,
    choice: HookChoice,
) -> Result<Hook, CaptureError> {
    match choice {
        HookChoice::Tc | HookChoice::Clsact => attach_tc(ebpf, pins, number, device, Direction::Out, choice),
        HookChoice::Xdp => match attach_xdp(ebpf, pins, number, device, XdpMode::Driver) {
            Ok(hook) => Ok(hook),
            Err(error) => {
                warn!(interface = device.name, %error, "no native XDP; generic XDP counts a packet that GRO put together as one");
                attach_xdp(ebpf, pins, number, device, XdpMode::Skb)
            }
        },
        HookChoice::Auto => {
            if let Some(why) = device.reason_against_xdp() {
                info!(interface = device.name, why, "hook for what clients send: tc");
                return attach_tc(ebpf, pins, number, device, Direction::Out, choice);
            }
            match attach_xdp(ebpf, pins, number, device, XdpMode::Driver) {
                Ok(hook) => {
                    info!(interface = device.name, driver = device.driver, "hook for what clients send: native XDP");
                    Ok(hook)
                }
                Err(error) => {
                    info!(interface = device.name, why = %error, "hook for what clients send: tc");
                    attach_tc(ebpf, pins, number, device, Direction::Out, choice)
                }
            }
        }
    }
}

fn attach_xdp(ebpf: &mut Ebpf, pins: &Pins, number: u8, device: &Device, mode: XdpMode) -> Result<Hook, CaptureError> {
    let failed = |source| CaptureError::Attach { interface: device.name.clone(), source: Box::new(source) };
    let hook = if matches!(mode, XdpMode::Skb) { Hook::XdpGeneric } else { Hook::XdpNative };
    let program: &mut Xdp = program(ebpf, "hotspot_xdp")?;
    let link = program.attach(&device.name, mode).map_err(failed)?;
    let link: FdLink = program
        .take_link(link)
        .map_err(failed)?
        .try_into()
        .map_err(|_| CaptureError::CannotPin { interface: device.name.clone() })?;
    pin(link, pins, number, Direction::Out, hook, device)?;
    Ok(hook)
}

fn attach_tc(
    ebpf: &mut Ebpf,
    pins: &Pins,
    number: u8,
    device: &Device,
    direction: Direction,
    choice: HookChoice,
) -> Result<Hook, CaptureError> {
    let failed = |source| CaptureError::Attach { interface: device.name.clone(), source: Box::new(source) };
    let (name, attach_type) = tc_program(direction);
    let program: &mut SchedClassifier = program(ebpf, name)?;
    if choice != HookChoice::Clsact {
        // First in the chain, so that a program that ends it cannot hide packets from us.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(&device.name, attach_type, order) {
            Ok(link) => {
                let link: FdLink = program
                    .take_link(link)
                    .map_err(failed)?
                    .try_into()
                    .map_err(|_| CaptureError::CannotPin { interface: device.name.clone() })?;
                pin(link, pins, number, direction, Hook::Tcx, device)?;
                return Ok(Hook::Tcx);
            }
            Err(error) => info!(interface = device.name, %error, "no tcx here; using clsact"),
        }
    }
    // It may be there already; what matters is whether the filter can be added.
    let _ = tc::qdisc_add_clsact(&device.name);
    let _ = tc::qdisc_detach_program(&device.name, attach_type, name);
    let link =
        program.attach_with_options(&device.name, attach_type, TcAttachOptions::Netlink(CLSACT)).map_err(failed)?;
    // The filter belongs to the device, not to this process: forgetting the link leaves it attached.
    std::mem::forget(program.take_link(link).map_err(failed)?);
    Ok(Hook::Clsact)
}

/// Puts our program into a link an earlier agent left; `false` where its device is gone, and so is the link then.
fn take_over(
    ebpf: &mut Ebpf,
    path: &std::path::Path,
    direction: Direction,
    hook: Hook,
    device: &Device,
) -> Result<bool, CaptureError> {
    let attached = (|| -> Option<()> {
        let link: FdLink = PinnedLink::from_pin(path).ok()?.into();
        match hook {
            Hook::XdpNative | Hook::XdpGeneric => {
                let program: &mut Xdp = program(ebpf, "hotspot_xdp").ok()?;
                let id = program.attach_to_link(link.try_into().ok()?).ok()?;
                drop(program.take_link(id).ok()?);
                Some(())
            }
            Hook::Tcx => {
                let program: &mut SchedClassifier = program(ebpf, tc_program(direction).0).ok()?;
                let id = program.attach_to_link(link.try_into().ok()?).ok()?;
                drop(program.take_link(id).ok()?);
                Some(())
            }
            Hook::Clsact => None,
        }
    })()
    .is_some();
    if attached {
        info!(interface = device.name, %hook, "took over the link an earlier agent left; counting never stopped");
        return Ok(true);
    }
    warn!(interface = device.name, %hook, "an earlier agent's link is dead (its interface was removed); attaching anew");
    std::fs::remove_file(path).map_err(|source| CaptureError::Pins { path: path.to_path_buf(), source })?;
    Ok(false)
}

fn pin(
    link: FdLink,
    pins: &Pins,
    number: u8,
    direction: Direction,
    hook: Hook,
    device: &Device,
) -> Result<(), CaptureError> {
    let path = pins.link_path(number, direction, hook, &device.name);
    // The pin holds the link from now on; this process needs no handle on it.
    link.pin(&path).map_err(|source| CaptureError::PinLink { path, source: Box::new(source) }).map(drop)
}

/// Takes an interface's programs away.
pub fn detach(pins: &Pins, number: u8, interface: &str, hooks: Hooks) -> Result<(), CaptureError> {
    for (direction, hook) in [(Direction::Out, hooks.ingress), (Direction::In, hooks.egress)] {
        if hook == Hook::Clsact {
            let (name, attach_type) = tc_program(direction);
            // The device may be gone, and the filter with it.
            let _ = tc::qdisc_detach_program(interface, attach_type, name);
            continue;
        }
        let path = pins.link_path(number, direction, hook, interface);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|source| CaptureError::Pins { path, source })?;
        }
    }
    Ok(())
}

fn tc_program(direction: Direction) -> (&'static str, TcAttachType) {
    match direction {
        Direction::Out => ("hotspot_ingress", TcAttachType::Ingress),
        Direction::In => ("hotspot_egress", TcAttachType::Egress),
    }
}

/// A program of the object, loaded.
pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, CaptureError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(CaptureError::NoSuchProgram { name })?;
    program.try_into().map_err(|source| CaptureError::Attach { interface: name.to_owned(), source: Box::new(source) })
}
