//! The venue: clients, an access switch, a gateway that translates addresses, and an Internet with servers.
//!
//! ```text
//!  c1 ─┐                        gateway                       internet
//!  c2 ─┼─ switch (AP 10.20.0.2) ─ lan 10.20.0.1   wan 203.0.113.7 ─ 203.0.113.1
//!  … ──┘                          2001:db8:20::1  NAT44; IPv6 routed   198.51.100.10, 2001:db8:100::10
//! ```

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::{self, Namespace, run};
use crate::wait_until;

pub const SERVER_V4: &str = "198.51.100.10";
pub const SERVER_V6: &str = "2001:db8:100::10";
pub const GATEWAY_V4: &str = "10.20.0.1";
pub const PUBLIC_V4: &str = "203.0.113.7";
/// Datagrams to this port vanish in the Internet without an answer.
pub const SILENT_PORT: u16 = 40_000;
pub const ECHO_PORT: u16 = 7007;
/// Bytes of `/big` on the web server.
pub const BIG_BYTES: usize = 5_000_000;

/// A running venue.
#[derive(Debug)]
pub struct Lab {
    pub gateway: Namespace,
    pub switch: Namespace,
    pub internet: Namespace,
    pub clients: Vec<Client>,
    number: u32,
    dir: PathBuf,
}

/// A device in the venue.
#[derive(Debug)]
pub struct Client {
    pub name: String,
    pub mac: String,
    pub namespace: Namespace,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Builds the venue; clients are connected, but have no addresses yet.
    pub fn new(clients: usize) -> Result<Self> {
        namespace::remove_stale();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hotspot-lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let make = |role: &str| Namespace::new(number, role);
        let mut lab = Self {
            gateway: make("gw")?,
            switch: make("sw")?,
            internet: make("net")?,
            clients: Vec::new(),
            number,
            dir,
        };
        lab.build_switch()?;
        for position in 1..=clients {
            lab.add_client(position)?;
        }
        lab.build_gateway()?;
        lab.build_internet()?;
        Ok(lab)
    }

    /// A directory for what belongs to this lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One more machine of this lab.
    pub fn namespace(&self, role: &str) -> Result<Namespace> {
        Namespace::new(self.number, role)
    }

    fn build_switch(&self) -> Result<()> {
        self.switch.ip("link add br0 type bridge mcast_snooping 0")?;
        self.switch.ip("addr add 10.20.0.2/24 dev br0")?;
        self.switch.ip("link set br0 up")?;
        self.switch.sysctl("net.ipv6.conf.br0.disable_ipv6", "1")?;
        self.connect_gateway()
    }

    /// The cable between switch and gateway.
    fn connect_gateway(&self) -> Result<()> {
        connect(&self.switch, "gw", &self.gateway, "lan")?;
        self.switch.ip("link set gw master br0")?;
        self.switch.sysctl("net.ipv6.conf.gw.disable_ipv6", "1")
    }

    /// Takes the gateway's client side away.
    pub fn remove_lan(&self) -> Result<()> {
        self.gateway.ip("link del lan").map(drop)
    }

    /// Gives it back, as another device of the same name.
    pub fn restore_lan(&self) -> Result<()> {
        self.connect_gateway()?;
        self.gateway.sysctl("net.ipv6.conf.lan.accept_dad", "0")?;
        self.give_lan_addresses()?;
        // The clients would go on sending to the device that was there before.
        self.clients.iter().try_for_each(|client| client.namespace.ip("neigh flush dev eth0").map(drop))
    }

    fn give_lan_addresses(&self) -> Result<()> {
        self.gateway.ip("addr add 10.20.0.1/24 dev lan")?;
        self.gateway.ip("addr add 2001:db8:20::1/64 dev lan").map(drop)
    }

    fn add_client(&mut self, position: usize) -> Result<()> {
        let name = format!("c{position}");
        let namespace = self.namespace(&name)?;
        let mac = format!("02:00:00:00:01:{position:02x}");
        connect(&self.switch, &name, &namespace, "eth0")?;
        self.switch.ip(&format!("link set {name} master br0"))?;
        self.switch.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1")?;
        namespace.ip(&format!("link set eth0 address {mac}"))?;
        namespace.sysctl("net.ipv6.conf.eth0.accept_dad", "0")?;
        self.clients.push(Client { name, mac, namespace });
        Ok(())
    }

    fn build_gateway(&self) -> Result<()> {
        let gateway = &self.gateway;
        connect(gateway, "wan", &self.internet, "up")?;
        for name in ["lan", "wan"] {
            gateway.sysctl(&format!("net.ipv6.conf.{name}.accept_dad"), "0")?;
        }
        gateway.sysctl("net.ipv4.ip_forward", "1")?;
        gateway.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        self.give_lan_addresses()?;
        gateway.ip(&format!("addr add {PUBLIC_V4}/24 dev wan"))?;
        gateway.ip("addr add 2001:db8:0:1::2/64 dev wan")?;
        gateway.ip("route add default via 203.0.113.1")?;
        gateway.ip("-6 route add default via 2001:db8:0:1::1")?;
        let rules =
            "table ip nat {\nchain post {\ntype nat hook postrouting priority 100;\noifname \"wan\" masquerade\n}\n}";
        run(gateway.command("nft").arg(rules))?;
        self.start_dhcp(|_| {})
    }

    /// Starts the gateway's DHCP server; what is done to its command line first is for those who replace it.
    pub fn start_dhcp(&self, adapt: impl FnOnce(&mut Command)) -> Result<()> {
        let mut dnsmasq = self.dhcp_server("lan", "10.20.0.50,10.20.0.200", "leases");
        dnsmasq.args(["--enable-ra", "--dhcp-range=::,constructor:lan,ra-only"]);
        adapt(&mut dnsmasq);
        self.gateway.spawn(&mut dnsmasq).map(drop)
    }

    /// A DHCP server on one of the gateway's interfaces, whose leases are in a file of the lab's directory.
    #[must_use]
    pub fn dhcp_server(&self, interface: &str, range: &str, leases: &str) -> Command {
        let mut dnsmasq = self.gateway.command("dnsmasq");
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
                "--port=0",
                "--no-ping",
                "--pid-file=",
            ])
            .args(["--bind-interfaces", "--dhcp-authoritative", "--log-facility=/dev/null"])
            .args([format!("--interface={interface}"), format!("--dhcp-range={range},255.255.255.0,1h")])
            .arg(format!("--dhcp-leasefile={}", self.dir.join(leases).display()));
        dnsmasq
    }

    /// Ends the DHCP server, and waits until another can take its place.
    pub fn stop_dhcp(&self) -> Result<()> {
        let pids = run(Command::new("ip").args(["netns", "pids", self.gateway.name()]))?;
        let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        for pid in pids.split_whitespace().filter(|pid| name(pid).trim() == "dnsmasq") {
            run(Command::new("kill").arg(pid))?;
        }
        wait_until("its socket is closed", Duration::from_secs(10), || {
            self.gateway.run("ss -Hlun sport = :67").is_ok_and(|text| text.is_empty())
        })
    }

    fn build_internet(&self) -> Result<()> {
        let internet = &self.internet;
        internet.sysctl("net.ipv6.conf.up.accept_dad", "0")?;
        internet.ip("addr add 203.0.113.1/24 dev up")?;
        internet.ip("addr add 2001:db8:0:1::1/64 dev up")?;
        internet.ip(&format!("addr add {SERVER_V4}/32 dev lo"))?;
        internet.ip(&format!("addr add {SERVER_V6}/128 dev lo"))?;
        internet.ip("-6 route add 2001:db8:20::/64 via 2001:db8:0:1::2")?;
        let rules = format!(
            "table inet quiet {{\nchain in {{\ntype filter hook input priority 0;\nudp dport {SILENT_PORT} drop\n}}\n}}"
        );
        run(internet.command("nft").arg(rules))?;
        let mut dns = internet.command("dnsmasq");
        dns.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ])
        .args(["--bind-interfaces", &format!("--listen-address={SERVER_V4}"), "--log-facility=/dev/null"])
        .arg(format!("--address=/example.test/{SERVER_V4}"));
        internet.spawn(&mut dns)?;
        let echo = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('{SERVER_V4}', {ECHO_PORT}))\n\
             while True:\n    data, peer = s.recvfrom(2048)\n    s.sendto(data, peer)\n"
        );
        internet.spawn(internet.command("python3").args(["-c", &echo]))?;
        self.start_nginx()
    }

    fn start_nginx(&self) -> Result<()> {
        let dir = &self.dir;
        fs::create_dir_all(dir.join("www"))?;
        fs::write(dir.join("www/big"), vec![b'x'; BIG_BYTES])?;
        fs::write(dir.join("www/hello"), "hello\n")?;
        let conf = format!(
            "daemon off; user root; pid {0}/nginx.pid; error_log {0}/nginx-error.log;\nevents {{}}\nhttp {{\n\
             log_format who '$msec $remote_addr $remote_port $request_uri';\naccess_log {0}/access.log who;\n\
             client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4; scgi_temp_path {0}/t5;\n\
             server {{ listen {SERVER_V4}:80; listen [{SERVER_V6}]:80; root {0}/www; location /who/ {{ return 200 hello; }} }}\n}}\n",
            dir.display()
        );
        let path = dir.join("nginx.conf");
        fs::write(&path, conf)?;
        let mut nginx = self.internet.command("nginx");
        nginx.arg("-c").arg(&path).arg("-p").arg(dir);
        self.internet.spawn(&mut nginx)?;
        wait_until("nginx answers", Duration::from_secs(10), || {
            self.internet.run(&format!("curl -s -o /dev/null http://{SERVER_V4}/hello")).is_ok()
        })
    }

    /// Where clients send what goes to the Internet.
    pub fn gateway_mac(&self) -> Result<[u8; 6]> {
        let text = self.gateway.ip("-o link show dev lan")?;
        let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let bytes: Result<Vec<u8>, _> =
            mac.unwrap_or_default().split(':').map(|part| u8::from_str_radix(part, 16)).collect();
        bytes?.try_into().map_err(|_| anyhow::anyhow!("no address in {text:?}"))
    }

    /// What the web server logged: time in seconds, client address and port, path.
    pub fn web_log(&self) -> Result<Vec<WebRequest>> {
        let text = fs::read_to_string(self.dir.join("access.log"))?;
        text.lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let [at, ip, port, path] = words.as_slice() else { anyhow::bail!("web log: {line:?}") };
                Ok(WebRequest {
                    at: (*at).to_owned(),
                    ip: (*ip).to_owned(),
                    port: port.parse()?,
                    path: (*path).to_owned(),
                })
            })
            .collect()
    }

    /// Segments that the servers sent more than once (RFC 4022, `tcpRetransSegs`).
    pub fn retransmitted(&self) -> Result<u64> {
        let text = self.internet.run("cat /proc/net/snmp")?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:")).map(str::split_whitespace);
        let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
        let count = names.zip(values).find_map(|(name, count)| (name == "RetransSegs").then_some(count));
        Ok(count.context("no RetransSegs")?.parse()?)
    }

    /// Sends a RADIUS accounting packet from the access point, with the real client.
    pub fn account(&self, attributes: &str, secret: &str) -> Result<String> {
        let file = self.dir.join("account");
        fs::write(&file, attributes)?;
        let mut radclient = self.switch.command("radclient");
        radclient.args(["-r", "1", "-t", "3", "-f"]).arg(&file).args([&format!("{GATEWAY_V4}:1813"), "acct", secret]);
        run(&mut radclient)
    }

    /// Forgets to clean up: the lab goes on without this process.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A line of the web server's log.
#[derive(Clone, Debug)]
pub struct WebRequest {
    pub at: String,
    pub ip: String,
    pub port: u16,
    pub path: String,
}

impl Client {
    /// Gets a lease from the real server under the client's name, and waits for an IPv6 address.
    pub fn connect(&self, lab: &Lab) -> Result<()> {
        self.connect_with(lab, &["-x", &format!("hostname:{}-phone", self.name)])
    }

    /// The same, with options of `udhcpc`.
    pub fn connect_with(&self, lab: &Lab, options: &[&str]) -> Result<()> {
        self.lease(lab, options)?;
        wait_until("an IPv6 address", Duration::from_secs(20), || {
            self.addresses().is_ok_and(|addresses| addresses.iter().any(|address| address.starts_with("2001:db8:20:")))
        })
    }

    /// Gets a lease from whichever server answers, with options of `udhcpc`.
    pub fn lease(&self, lab: &Lab, options: &[&str]) -> Result<()> {
        let script = lab.dir().join("udhcpc.sh");
        // The lease only touches this namespace, never the machine's resolv.conf.
        fs::write(
            &script,
            "#!/bin/sh\n[ \"$1\" = bound ] && ip addr replace $ip/24 dev $interface && ip route replace default via $router\nexit 0\n",
        )?;
        run(Command::new("chmod").arg("755").arg(&script))?;
        let mut udhcpc = self.namespace.command("udhcpc");
        udhcpc.args(["-f", "-q", "-n", "-t", "10", "-T", "1", "-i", "eth0", "-s"]).arg(&script).args(options);
        run(&mut udhcpc).with_context(|| format!("{} got no lease", self.name)).map(drop)
    }

    /// Global addresses.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let text = self.namespace.ip("-o addr show dev eth0 scope global")?;
        let addresses =
            text.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next().map(str::to_owned));
        Ok(addresses.collect())
    }

    /// Browses, pings, asks and transfers, so that every usual protocol is there.
    pub fn browse(&self) -> Result<()> {
        let run = |line: String| self.namespace.run(&line);
        run(format!("curl -s -f -o /dev/null http://{SERVER_V4}/who/{}-v4", self.name))?;
        run(format!("curl -s -f -o /dev/null http://[{SERVER_V6}]/who/{}-v6", self.name))?;
        run(format!("curl -s -f -o /dev/null http://{SERVER_V4}/big"))?;
        run(format!("ping -c 2 -i 0.2 -W 2 {SERVER_V4}"))?;
        run(format!("ping -c 2 -i 0.2 -W 2 {SERVER_V6}"))?;
        run(format!("dig +tries=2 +time=2 @{SERVER_V4} example.test"))?;
        self.echo(10_001..10_002)
    }

    /// One datagram to the echo server and back from each port, of `port % 1000` bytes.
    pub fn echo(&self, ports: Range<u16>) -> Result<()> {
        let script = format!(
            "import socket\nfor port in range({}, {}):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
             s.settimeout(5)\n    s.bind(('', port))\n    s.sendto(b'e' * (port % 1000), ('{SERVER_V4}', {ECHO_PORT}))\n    \
             s.recvfrom(2048)\n    s.close()\n",
            ports.start, ports.end
        );
        run(self.namespace.command("python3").args(["-c", &script])).map(drop)
    }
}

/// Two ends of a cable.
pub fn connect(left: &Namespace, left_name: &str, right: &Namespace, right_name: &str) -> Result<()> {
    left.ip(&format!("link add {left_name} type veth peer name {right_name} netns {}", right.name()))?;
    left.ip(&format!("link set dev {left_name} up"))?;
    right.ip(&format!("link set dev {right_name} up")).map(drop)
}
