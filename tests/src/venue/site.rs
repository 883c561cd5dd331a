//! The site: access points that are network namespaces of their own, each with a bridge and a RADIUS client, and devices that are
//! plugged into one and can be moved to another.
//!
//! ```text
//!  c1 c4 … ─ ap1 ─┐
//!  c2 c5 … ─ ap2 ─┼─ switch ─ gateway ─ internet
//!  c3 c6 … ─ ap3 ─┘
//! ```

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::{GATEWAY_V4, Lab, connect};
use crate::namespace::{Namespace, run};
use crate::wait_until;

/// Privacy addresses (RFC 8981) as phones have them, but a new one every nine seconds.
const PRIVACY: &str = "sysctl -qw net.ipv6.conf.default.use_tempaddr=2 net.ipv6.conf.default.temp_prefered_lft=14 \
                       net.ipv6.conf.default.temp_valid_lft=600 net.ipv6.conf.default.max_desync_factor=0";
/// Leases only touch their own namespace, never the machine's resolv.conf, and are noted.
const LEASE_SCRIPT: &str = "#!/bin/sh\ncase \"$1\" in\ndeconfig) ip -4 addr flush dev $interface;;\n\
                            bound|renew) ip addr replace $ip/24 dev $interface; ip route replace default via $router;;\nesac\n\
                            echo \"$1 $ip\" >> \"$LEASES\"\nexit 0\n";

/// What an access point says of its clients' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    All,
    V4,
    /// Like hostapd, it knows none.
    None,
}

#[derive(Debug)]
pub(super) struct AccessPoint {
    pub(super) name: String,
    pub(super) bssid: String,
    pub(super) says: Says,
    namespace: Namespace,
    /// Numbers begin anew with every start of it.
    sessions: u32,
    /// What it has to report.
    outbox: Vec<String>,
}

/// Somebody logged in, as an access point knows it.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) device: usize,
    pub(super) user: String,
    pub(super) ap: usize,
    pub(super) id: String,
    pub(super) began: Instant,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) mac: String,
    pub(super) namespace: Namespace,
    /// Where it is plugged in.
    pub(super) ap: usize,
    leases: PathBuf,
    dhcp: Option<Child>,
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) lab: Lab,
    pub(super) aps: Vec<AccessPoint>,
    pub(super) devices: Vec<Device>,
    secret: String,
}

impl AccessPoint {
    fn new(lab: &Lab, position: usize, says: Says) -> Result<Self> {
        let name = format!("ap{}", position + 1);
        let namespace = lab.namespace(&name)?;
        namespace.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
        namespace.ip("link add br0 type bridge mcast_snooping 0")?;
        connect(&lab.switch, &name, &namespace, "up")?;
        lab.switch.ip(&format!("link set {name} master br0"))?;
        lab.switch.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1")?;
        namespace.ip("link set dev up master br0")?;
        namespace.ip(&format!("addr add 10.20.0.{}/24 dev br0", 21 + position))?;
        namespace.ip("link set br0 up")?;
        let bssid = format!("02:00:00:00:ff:{:02x}", position + 1);
        Ok(Self { name, bssid, says, namespace, sessions: 0, outbox: Vec::new() })
    }

    /// It forgets everything, also which numbers it gave to sessions.
    pub(super) const fn restart(&mut self) {
        self.sessions = 0;
    }

    pub(super) fn next_session(&mut self) -> String {
        self.sessions += 1;
        format!("{:08x}", self.sessions)
    }

    /// Queues a report; `status` and what else belongs to it.
    pub(super) fn report(&mut self, status: &str, more: &str) {
        let Self { name, bssid, .. } = self;
        let called = bssid.to_uppercase().replace(':', "-");
        self.outbox.push(format!(
            "Acct-Status-Type = {status}\nNAS-Identifier = \"{name}\"\nCalled-Station-Id = \"{called}:Hall\"\n\
             NAS-Port-Type = Wireless-802.11\n{more}"
        ));
    }

    /// Sends what is queued with the real client, and waits for every answer.
    pub(super) fn deliver(&mut self, dir: &Path, secret: &str) -> Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let file = dir.join(format!("reports-{}", self.name));
        fs::write(&file, self.outbox.join("\n"))?;
        self.outbox.clear();
        let mut radclient = self.namespace.command("radclient");
        radclient.args(["-r", "3", "-t", "3", "-p", "16", "-f"]).arg(&file);
        run(radclient.args([&format!("{GATEWAY_V4}:1813"), "acct", secret])).map(drop)
    }
}

impl Site {
    pub(super) fn new(devices: usize, secret: &str) -> Result<Self> {
        let lab = Lab::new(0)?;
        let kinds = [Says::All, Says::V4, Says::None];
        let aps = kinds.iter().enumerate().map(|(position, says)| AccessPoint::new(&lab, position, *says));
        let aps = aps.collect::<Result<Vec<_>>>()?;
        let script = lab.dir().join("lease.sh");
        fs::write(&script, LEASE_SCRIPT)?;
        run(std::process::Command::new("chmod").arg("755").arg(&script))?;
        // They would otherwise hold a closed connection's port for two minutes.
        for state in ["time_wait", "close"] {
            lab.gateway.sysctl(&format!("net.netfilter.nf_conntrack_tcp_timeout_{state}"), "0")?;
        }
        let mut site = Self { lab, aps, devices: Vec::new(), secret: secret.to_owned() };
        for position in 0..devices {
            site.add_device(position)?;
        }
        Ok(site)
    }

    fn add_device(&mut self, position: usize) -> Result<()> {
        self.add_device_at(position % self.aps.len())
    }

    /// Plugs in another device.
    pub(super) fn add_device_at(&mut self, ap: usize) -> Result<()> {
        let position = self.devices.len();
        let name = format!("c{}", position + 1);
        let mac = format!("02:00:00:00:01:{:02x}", position + 1);
        let namespace = self.lab.namespace(&name)?;
        namespace.run(PRIVACY)?;
        let port = &self.aps[ap].namespace;
        port.ip(&format!("link add {name} type veth peer name eth0 address {mac} netns {}", namespace.name()))?;
        port.ip(&format!("link set {name} master br0 up"))?;
        namespace.ip("link set eth0 up")?;
        let leases = self.lab.dir().join(format!("leases-{name}"));
        self.devices.push(Device { name, mac, namespace, ap, leases, dhcp: None });
        Ok(())
    }

    /// Another access point, of a name that others may have.
    pub(super) fn add_access_point(&mut self, name: &str, says: Says) -> Result<usize> {
        let mut ap = AccessPoint::new(&self.lab, self.aps.len(), says)?;
        name.clone_into(&mut ap.name);
        self.aps.push(ap);
        Ok(self.aps.len() - 1)
    }

    /// A repeater at an access point, and devices behind it, one per address: all of them have its MAC there.
    pub(super) fn add_repeater(&mut self, ap: usize, own: &str, addresses: &[&str]) -> Result<()> {
        self.add_device_at(ap)?;
        let Some(Device { name, mac, namespace, .. }) = self.devices.last() else { return Ok(()) };
        // It has nothing to say itself.
        namespace.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
        namespace.ip(&format!("addr add {own}/24 dev eth0"))?;
        namespace.ip(&format!("route add default via {GATEWAY_V4}"))?;
        for (key, value) in [("ip_forward", "1"), ("conf.all.proxy_arp", "1"), ("conf.all.send_redirects", "0")] {
            namespace.sysctl(&format!("net.ipv4.{key}"), value)?;
        }
        // A proxy waits a while before it answers for others.
        namespace.sysctl("net.ipv4.neigh.eth0.proxy_delay", "0")?;
        let mut behind = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let (name, leases) = (format!("{name}b{number}"), self.lab.dir().join("none"));
            let inner = self.lab.namespace(&name)?;
            inner.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
            namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
            namespace.ip(&format!("link add b{number} type veth peer name eth0 netns {}", inner.name()))?;
            namespace.ip(&format!("link set b{number} up"))?;
            namespace.sysctl(&format!("net.ipv4.neigh.b{number}.proxy_delay"), "0")?;
            namespace.ip(&format!("route add {address}/32 dev b{number}"))?;
            inner.ip("link set eth0 up")?;
            inner.ip(&format!("addr add {address}/24 dev eth0"))?;
            inner.ip(&format!("route add default via {GATEWAY_V4}"))?;
            behind.push(Device { name, mac: mac.clone(), namespace: inner, ap, leases, dhcp: None });
        }
        self.devices.extend(behind);
        Ok(())
    }

    /// One gets a lease, and addresses of its own.
    pub(super) fn connect_one(&mut self, device: usize) -> Result<()> {
        self.ask_for_lease(device, None)?;
        self.devices[device].wait_for_lease("bound")?;
        self.devices[device].wait_for_v6()
    }

    /// All get leases from the real server, which renew themselves, and addresses of their own by router advertisements.
    pub(super) fn connect_all(&mut self) -> Result<()> {
        for position in 0..self.devices.len() {
            self.ask_for_lease(position, None)?;
        }
        for device in &self.devices {
            device.wait_for_lease("bound")?;
            device.wait_for_v6()?;
        }
        Ok(())
    }

    /// Starts a DHCP client, which goes on.
    pub(super) fn ask_for_lease(&mut self, device: usize, wanted: Option<&str>) -> Result<()> {
        let script = self.lab.dir().join("lease.sh");
        let device = &mut self.devices[device];
        let _ = fs::remove_file(&device.leases);
        let mut udhcpc = device.namespace.command("udhcpc");
        udhcpc.args(["-f", "-t", "10", "-T", "1", "-i", "eth0", "-s"]).arg(&script);
        udhcpc.args(["-x", &format!("hostname:{}-phone", device.name)]).env("LEASES", &device.leases);
        if let Some(ip) = wanted {
            udhcpc.args(["-r", ip]);
        }
        udhcpc.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        device.dhcp = Some(device.namespace.spawn(&mut udhcpc)?);
        Ok(())
    }

    /// Two give their addresses back, and each asks for the other's.
    pub(super) fn swap_addresses(&mut self, pair: [usize; 2]) -> Result<()> {
        let before = [self.devices[pair[0]].v4()?, self.devices[pair[1]].v4()?];
        for device in pair {
            self.devices[device].release()?;
        }
        for (device, wanted) in pair.into_iter().zip([before[1], before[0]]) {
            self.ask_for_lease(device, Some(&wanted.to_string()))?;
        }
        for (device, wanted) in pair.into_iter().zip([before[1], before[0]]) {
            self.devices[device].wait_for_lease("bound")?;
            let got = self.devices[device].v4()?;
            ensure!(got == wanted, "{} has {got} and not {wanted}", self.devices[device].name);
        }
        Ok(())
    }

    /// Plugs a device into another access point; it notices that it was without a carrier for a moment.
    pub(super) fn roam(&mut self, device: usize, to: usize) -> Result<()> {
        self.carry(device, to)?;
        self.plug_in(device)
    }

    /// Takes a device to another access point; nothing passes there before it is plugged in.
    pub(super) fn carry(&mut self, device: usize, to: usize) -> Result<()> {
        let Self { aps, devices, .. } = self;
        let device = &mut devices[device];
        aps[device.ap].namespace.ip(&format!("link set {} netns {}", device.name, aps[to].namespace.name()))?;
        device.ap = to;
        Ok(())
    }

    /// Nothing of a device passes its access point any more; it does not notice.
    pub(super) fn unplug(&self, device: usize) -> Result<()> {
        let device = &self.devices[device];
        self.aps[device.ap].namespace.ip(&format!("link set {} nomaster", device.name)).map(drop)
    }

    pub(super) fn plug_in(&self, device: usize) -> Result<()> {
        let device = &self.devices[device];
        self.aps[device.ap].namespace.ip(&format!("link set {} master br0 up", device.name)).map(drop)
    }

    /// The user of a device logs in where it is; the report is queued.
    pub(super) fn log_in(&mut self, device: usize, user: &str) -> Result<Login> {
        self.log_in_with(device, user, "")
    }

    /// The same, with what else belongs to the report.
    pub(super) fn log_in_with(&mut self, device: usize, user: &str, more: &str) -> Result<Login> {
        let ap = self.devices[device].ap;
        let id = self.aps[ap].next_session();
        let login = Login { device, user: user.to_owned(), ap, id, began: Instant::now() };
        self.report(&login, "Start", more)?;
        Ok(login)
    }

    /// Queues a report about a session, with the addresses the access point knows.
    pub(super) fn report(&mut self, login: &Login, status: &str, more: &str) -> Result<()> {
        let lasted = format!("Acct-Session-Time = {}\n", login.began.elapsed().as_secs());
        let lasted = if status == "Start" { "" } else { &lasted };
        self.report_as_counted(login, status, &(lasted.to_owned() + more))
    }

    /// The same, with what the access point counted among the rest.
    pub(super) fn report_as_counted(&mut self, login: &Login, status: &str, more: &str) -> Result<()> {
        let device = &self.devices[login.device];
        let mac = device.mac.to_uppercase().replace(':', "-");
        let mut text = format!(
            "Acct-Session-Id = \"{}\"\nUser-Name = \"{}\"\nCalling-Station-Id = \"{mac}\"\nAcct-Authentic = RADIUS\n\
             Acct-Interim-Interval = 300\n",
            login.id, login.user
        );
        let says = self.aps[login.ap].says;
        for ip in device.addresses()?.iter().filter(|ip| says == Says::All || (says == Says::V4 && ip.is_ipv4())) {
            let name = if ip.is_ipv6() { "Framed-IPv6-Address" } else { "Framed-IP-Address" };
            writeln!(text, "{name} = {ip}")?;
        }
        self.aps[login.ap].report(status, &(text + more));
        Ok(())
    }

    pub(super) fn deliver(&mut self, ap: usize) -> Result<()> {
        self.aps[ap].deliver(self.lab.dir(), &self.secret)
    }

    pub(super) fn deliver_all(&mut self) -> Result<()> {
        (0..self.aps.len()).try_for_each(|ap| self.deliver(ap))
    }

    /// At which device the gateway believes an address to be.
    pub(super) fn neighbour(&self, ip: IpAddr) -> Result<Option<String>> {
        let text = self.lab.gateway.ip(&format!("neigh show {ip} dev lan"))?;
        Ok(text.split("lladdr ").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned))
    }
}

impl Device {
    /// Global addresses that can be used; privacy addresses that were replaced too.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>> {
        let text = self.namespace.ip("-o addr show dev eth0 scope global")?;
        let usable = text.lines().filter(|line| !line.contains("tentative"));
        usable
            .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next())
            .map(|ip| ip.parse().with_context(|| format!("{}: {ip:?}", self.name)))
            .collect()
    }

    pub(super) fn v4(&self) -> Result<IpAddr> {
        self.addresses()?.into_iter().find(IpAddr::is_ipv4).with_context(|| format!("{} has no lease", self.name))
    }

    /// How often its DHCP client noted something: `bound`, `renew`.
    pub(super) fn leases(&self, what: &str) -> usize {
        let text = fs::read_to_string(&self.leases).unwrap_or_default();
        text.lines().filter(|line| line.split(' ').next() == Some(what)).count()
    }

    pub(super) fn wait_for_lease(&self, what: &str) -> Result<()> {
        wait_until(&format!("{}: {what}", self.name), Duration::from_secs(30), || self.leases(what) > 0)
    }

    /// Until it has an address that does not say which device it is.
    fn wait_for_v6(&self) -> Result<()> {
        wait_until(&format!("{}: a privacy address", self.name), Duration::from_secs(30), || {
            let text = self.namespace.ip("-6 -o addr show dev eth0 scope global temporary");
            text.is_ok_and(|text| text.lines().any(|line| !line.contains("tentative")))
        })
    }

    /// Until it no longer uses the first of them.
    pub(super) fn wait_for_another_v6(&self) -> Result<()> {
        wait_until(&format!("{}: another privacy address", self.name), Duration::from_secs(30), || {
            let text = self.namespace.ip("-6 -o addr show dev eth0 scope global temporary");
            text.is_ok_and(|text| text.lines().any(|line| line.contains("deprecated")))
        })
    }

    /// Tells its DHCP client to renew the lease now, as it would at half of it.
    pub(super) fn renew(&self) -> Result<()> {
        self.signal("USR1")
    }

    fn release(&mut self) -> Result<()> {
        self.signal("USR2")?;
        // Once when it began, and once now.
        wait_until("the lease is given back", Duration::from_secs(10), || self.leases("deconfig") >= 2)?;
        if let Some(mut child) = self.dhcp.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.dhcp.as_ref().context("no DHCP client")?.id().to_string();
        run(std::process::Command::new("kill").args([&format!("-{name}"), &pid])).map(drop)
    }
}
