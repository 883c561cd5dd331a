//! What an interface is: its index, its driver, and what of it speaks against XDP.
//!
//! Asks by ioctl on a socket, not in `/sys`, which may show another network namespace.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::CaptureError;

/// `SIOCETHTOOL` (include/uapi/linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GFLAGS` (include/uapi/linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 0x0000_0003;
const ETHTOOL_GFLAGS: u32 = 0x0000_0025;
/// The device takes VLAN tags out of what it receives.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// Drivers of devices that are made of software: XDP works on some, and is dearer than tcx on all.
const VIRTUAL: [&str; 10] =
    ["veth", "bridge", "tun", "bonding", "team", "macvlan", "802.1Q VLAN Support", "dummy", "vxlan", "batman_adv"];

/// An interface in this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub index: u32,
    /// Empty where the driver does not say.
    pub driver: String,
    /// The device takes VLAN tags out of frames (rx-vlan-offload), where XDP cannot see them.
    pub strips_vlan_tags: bool,
}

impl Device {
    /// Looks an interface up by name.
    pub fn find(name: &str) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::UnknownInterface { name: name.to_owned(), known: Self::names(), source };
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|error| failed(error.into()))?;
        let index = netdevice::name_to_index(&socket, name).map_err(|error| failed(error.into()))?;
        let driver = driver(&socket, name).unwrap_or_default();
        let strips_vlan_tags = flags(&socket, name).is_ok_and(|flags| flags & ETH_FLAG_RXVLAN != 0);
        Ok(Self { name: name.to_owned(), index, driver, strips_vlan_tags })
    }

    /// Stands for no device: programs that are only run by hand.
    pub(super) fn unattached(number: u8) -> Self {
        Self { name: format!("unattached{number}"), index: 0, driver: String::new(), strips_vlan_tags: false }
    }

    /// Why XDP is not the right hook here, if there is a reason.
    #[must_use]
    pub fn reason_against_xdp(&self) -> Option<&'static str> {
        if VIRTUAL.contains(&self.driver.as_str()) {
            Some("a virtual device: tcx costs less there")
        } else if self.driver.is_empty() {
            Some("the device does not name its driver")
        } else if self.strips_vlan_tags {
            Some("the device takes VLAN tags out of frames (rx-vlan-offload), where XDP cannot see them")
        } else {
            None
        }
    }

    /// Name and index of every interface of this network namespace.
    pub fn list() -> io::Result<Vec<(u32, String)>> {
        // SAFETY: takes nothing; gives an array that ends with an index of 0, or null.
        let first = unsafe { libc::if_nameindex() };
        if first.is_null() {
            return Err(io::Error::last_os_error());
        }
        let mut devices = Vec::new();
        let mut entry = first;
        loop {
            // SAFETY: within the array, whose end has not been passed.
            let device = unsafe { &*entry };
            if device.if_index == 0 {
                break;
            }
            // SAFETY: entries before the last hold a name that ends with NUL.
            let name = unsafe { CStr::from_ptr(device.if_name) };
            devices.push((device.if_index, name.to_string_lossy().into_owned()));
            // SAFETY: the entry was not the last one.
            entry = unsafe { entry.add(1) };
        }
        // SAFETY: the array is used no more.
        unsafe { libc::if_freenameindex(first) };
        Ok(devices)
    }

    fn names() -> Vec<String> {
        Self::list().unwrap_or_default().into_iter().map(|(_, name)| name).collect()
    }
}

/// `struct ifreq` with a pointer in its union.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    argument: *mut libc::c_void,
    /// The rest of the union.
    rest: [u8; 16],
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverAnswer {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_value`.
#[repr(C)]
struct ValueAnswer {
    command: u32,
    value: u32,
}

fn driver(socket: &OwnedFd, name: &str) -> io::Result<String> {
    let mut answer = DriverAnswer { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    ask(socket, name, (&raw mut answer).cast())?;
    let len = answer.driver.iter().position(|byte| *byte == 0).unwrap_or(answer.driver.len());
    Ok(String::from_utf8_lossy(&answer.driver[..len]).into_owned())
}

fn flags(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    let mut answer = ValueAnswer { command: ETHTOOL_GFLAGS, value: 0 };
    ask(socket, name, (&raw mut answer).cast())?;
    Ok(answer.value)
}

fn ask(socket: &OwnedFd, name: &str, argument: *mut libc::c_void) -> io::Result<()> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], argument, rest: [0; 16] };
    // The last byte stays zero; a longer name was refused before.
    for (to, from) in request.name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the request and what it points to outlive the call, and are as large as the kernel's structures.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
