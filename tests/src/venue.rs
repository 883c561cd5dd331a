//! The venue scenario: an evening of forty devices at three access points, in which everything happens that real networks do to a
//! record of who it was, and a judge who knows what the devices did.
//!
//! Reports of logins come from real RADIUS clients, leases from a real server to real clients, connections are real ones through the
//! gateway's translation. What is true is what the devices noted themselves ([`diary`]).

mod diary;
mod judge;
mod site;
mod stories;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::diary::{Diary, echo, page_within};
pub use self::judge::Findings;
use self::site::{Device, Login, Site};
use self::stories::Extras;
use crate::frames::ethernet_between;
use crate::generator::send_frames;
use crate::lab::{GATEWAY_V4, PUBLIC_V4, SERVER_V4};
use crate::namespace::run;
use crate::programs::{Agent, ask, coverage, write_secret};
use crate::wait_until;

const SECRET: &str = "not-a-secret-in-a-lab";
const DEVICES: usize = 40;
/// The one port that is left to those who share it.
const SHARED_PORT: u16 = 50_000;

// Who does what, by device. Device `n` comes in at access point `n % 3`; the first names all addresses, the second IPv4 only, the
// third none.
const NEVER_LOG_IN: [usize; 3] = [0, 1, 2];
const BROWSE_BEFORE: [usize; 4] = [3, 4, 5, 6];
const ROAM: std::ops::Range<usize> = 7..19;
/// The Stop of the old access point is lost for these.
const ROAM_WITHOUT_STOP: [usize; 2] = [17, 18];
const START_LATE: usize = 19;
const START_LOST: usize = 20;
const SWAP: [[usize; 2]; 2] = [[21, 24], [22, 25]];
const SPOOFER: usize = 23;
const VICTIM: usize = 27;
/// Handed to somebody else, and the Stop is lost.
const HANDED_OVER: [usize; 2] = [28, 29];
/// The same, at another access point.
const HANDED_OVER_ELSEWHERE: [usize; 2] = [30, 31];
const LEAVE_WITHOUT_STOP: [usize; 2] = [32, 33];
const SHARE_A_PORT: [[usize; 2]; 2] = [[34, 35], [36, 37]];
const SAME_PORT_AGAIN: usize = 38;
const RENEW: std::ops::Range<usize> = 34..40;
const REBOOTED_AP: usize = 1;

/// A scenario that ran.
#[derive(Debug)]
pub struct Evening {
    site: Site,
    pub findings: Findings,
}

impl Evening {
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.site.lab.dir().join("data/archive")
    }

    /// Leaves the lab running.
    pub fn keep(self) {
        std::mem::forget(self.site);
    }
}

struct Story<'a, W> {
    out: &'a mut W,
    site: Site,
    diary: Diary,
    /// By device.
    logins: Vec<Option<Login>>,
    agent: Option<Agent>,
    data: PathBuf,
    options: Vec<String>,
}

/// Runs the scenario, telling what happens.
pub fn run_venue(out: &mut impl Write) -> Result<Evening> {
    writeln!(out, "{DEVICES} devices, three access points, a gateway with NAT, and an Internet")?;
    let site = Site::new(DEVICES, SECRET)?;
    let (data, secret) = (site.lab.dir().join("data"), site.lab.dir().join("secret"));
    write_secret(&secret, SECRET)?;
    let (listen, secret) = (format!("{GATEWAY_V4}:1813"), secret.display().to_string());
    let portal = site.lab.dir().join("portal.sock").display().to_string();
    let options = ["--rotate", "15", "--grace", "6", "--generation", "2", "--portal-listen", &portal];
    let radius = ["--radius-listen", &listen, "--radius-secret-file", &secret];
    let options = [&options[..], &radius].concat().into_iter().map(str::to_owned).collect();
    let logins = vec![None; DEVICES];
    let mut story = Story { out, site, diary: Diary::default(), logins, agent: None, data: data.clone(), options };
    story.start_agent()?;
    story.evening()?;
    story.stop_agent()?;
    let Story { site, mut diary, .. } = story;
    diary.happened("devices with several privacy addresses", diary.devices_with_privacy_addresses());
    diary.happened("ports that changed hands within a second", ports_that_changed_hands(&site, &diary)?);
    let archive = data.join("archive");
    ensure_whole_but_for_the_restart(&archive)?;
    let findings = judge::judge(&site, &diary, &archive)?;
    show(out, &findings)?;
    Ok(Evening { site, findings })
}

/// Every packet is accounted for while the agent ran; where it did not, that is told, and nothing else is a gap.
fn ensure_whole_but_for_the_restart(archive: &Path) -> Result<()> {
    for row in coverage(archive)? {
        let gaps = row["gaps"].as_array().context("gaps")?;
        let is_restart = |gap: &Value| gap.to_string().contains("agent");
        ensure!(row["balanced"] == true && gaps.iter().all(is_restart), "{row}");
    }
    let verified = ask("verify", archive, &[])?;
    ensure!(verified[0]["verify"] == "ok", "{verified:?}");
    Ok(())
}

impl<W: Write> Story<'_, W> {
    fn start_agent(&mut self) -> Result<()> {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.agent = Some(Agent::start(&self.site.lab.gateway, &self.data, &options)?);
        Ok(())
    }

    fn stop_agent(&mut self) -> Result<()> {
        let agent = self.agent.take().context("no agent runs")?;
        let status = agent.stop()?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    fn evening(&mut self) -> Result<()> {
        self.arrive()?;
        self.reports_come_late_or_never()?;
        self.roam()?;
        self.renew()?;
        self.swap_addresses()?;
        self.forge_an_address()?;
        self.lose_stops()?;
        self.reboot_an_access_point()?;
        self.share_a_port()?;
        self.use_a_port_again()?;
        let extras = Extras::come(self)?;
        extras.share_a_repeater(self)?;
        extras.log_out_by_id_alone(self)?;
        extras.step_a_clock(self)?;
        extras.share_a_name(self)?;
        extras.restart_the_agent(self)?;
        self.tell("all browse once more, from new privacy addresses, and leave")?;
        let still_there = (0..DEVICES).filter(|device| !LEAVE_WITHOUT_STOP.contains(device));
        let mut still_there = still_there.map(|device| &self.site.devices[device]);
        still_there.try_for_each(Device::wait_for_another_v6)?;
        self.everybody_browses(1)?;
        self.log_everybody_out()
    }

    fn tell(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.out, "  {what}")?)
    }

    fn browse(&mut self, who: &[usize], rounds: usize, doubt: Option<&'static str>) -> Result<()> {
        self.diary.browse(&self.site.devices, who, rounds, doubt)
    }

    /// All that are still there; those of whom a Stop was lost elsewhere may be taken for two.
    fn everybody_browses(&mut self, rounds: usize) -> Result<()> {
        let gone = |device: &usize| LEAVE_WITHOUT_STOP.contains(device) && self.logins[*device].is_none();
        let handed_over = |device: &usize| HANDED_OVER_ELSEWHERE.contains(device);
        let (unsure, sure): (Vec<usize>, Vec<usize>) =
            (0..DEVICES).filter(|device| !gone(device)).partition(|device| handed_over(device));
        self.browse(&sure, rounds, None)?;
        self.browse(&unsure, rounds, Some("a lost Stop and another user elsewhere"))
    }

    /// Somebody logs in, and the report is queued.
    fn log_in(&mut self, device: usize, user: &str) -> Result<()> {
        self.diary.logs_in(device, user);
        self.logins[device] = Some(self.site.log_in(device, user)?);
        Ok(())
    }

    fn login(&self, device: usize) -> Result<Login> {
        self.logins[device].clone().with_context(|| format!("nobody is logged in on device {device}"))
    }

    fn stop(&mut self, login: &Login) -> Result<()> {
        self.site.report(login, "Stop", "Acct-Terminate-Cause = User-Request\n")
    }

    fn arrive(&mut self) -> Result<()> {
        self.tell("devices come, get leases and privacy addresses; some browse before they log in")?;
        self.site.connect_all()?;
        self.browse(&BROWSE_BEFORE, 1, Some("before the login"))?;
        self.diary.happened("devices that browsed before their login", BROWSE_BEFORE.len());
        let waits = |device: &usize| NEVER_LOG_IN.contains(device) || [START_LATE, START_LOST].contains(device);
        for device in (0..DEVICES).filter(|device| !waits(device)) {
            self.log_in(device, &format!("user{device}"))?;
        }
        self.site.deliver_all()?;
        let all: Vec<usize> = (0..DEVICES).filter(|device| ![START_LATE, START_LOST].contains(device)).collect();
        self.browse(&all, 3, None)
    }

    fn reports_come_late_or_never(&mut self) -> Result<()> {
        self.tell("one Start comes late, another never")?;
        for device in [START_LATE, START_LOST] {
            self.diary.logs_in(device, &format!("user{device}"));
        }
        // The access points know them; what they say of it comes later.
        let began = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(1300));
        self.browse(&[START_LATE, START_LOST], 2, None)?;
        std::thread::sleep(Duration::from_secs(3));
        for device in [START_LATE, START_LOST] {
            let (ap, user) = (self.site.devices[device].ap, format!("user{device}"));
            let id = self.site.aps[ap].next_session();
            let login = Login { device, user, ap, id, began };
            if device == START_LATE {
                let delay_s = began.elapsed().as_secs();
                self.site.report(&login, "Start", &format!("Acct-Delay-Time = {delay_s}\n"))?;
            } else {
                self.site.report(&login, "Interim-Update", "")?;
            }
            self.logins[device] = Some(login);
        }
        self.site.deliver_all()?;
        self.diary.happened("late Starts", 1);
        self.diary.happened("lost Starts", 1);
        Ok(())
    }

    fn roam(&mut self) -> Result<()> {
        self.tell("devices go to another access point, which says so before the old one notices")?;
        let mut left = Vec::new();
        for device in ROAM {
            left.push(self.login(device)?);
            let (user, to) = (format!("user{device}"), (self.site.devices[device].ap + 1) % self.site.aps.len());
            self.site.roam(device, to)?;
            self.logins[device] = Some(self.site.log_in(device, &user)?);
        }
        self.site.deliver_all()?;
        let roaming: Vec<usize> = ROAM.collect();
        self.browse(&roaming, 1, None)?;
        for login in left.iter().filter(|login| !ROAM_WITHOUT_STOP.contains(&login.device)) {
            self.site.report(login, "Stop", "Acct-Terminate-Cause = Lost-Carrier\n")?;
        }
        self.site.deliver_all()?;
        self.diary.happened("devices that roamed", left.len());
        self.diary.happened("lost Stops", ROAM_WITHOUT_STOP.len());
        self.browse(&roaming, 1, None)
    }

    fn renew(&mut self) -> Result<()> {
        self.tell("leases are renewed")?;
        let devices = &self.site.devices[RENEW];
        devices.iter().try_for_each(Device::renew)?;
        devices.iter().try_for_each(|device| device.wait_for_lease("renew"))?;
        let renewed = devices.iter().map(|device| device.leases("renew")).sum();
        self.diary.happened("renewed leases", renewed);
        let renewed: Vec<usize> = RENEW.collect();
        self.browse(&renewed, 1, None)
    }

    fn swap_addresses(&mut self) -> Result<()> {
        self.tell("devices swap addresses, and access points hear of it later")?;
        for pair in SWAP {
            self.site.swap_addresses(pair)?;
        }
        let swapped = SWAP.concat();
        self.browse(&swapped, 2, None)?;
        for device in &swapped {
            let login = self.login(*device)?;
            self.site.report(&login, "Interim-Update", "")?;
        }
        self.site.deliver_all()?;
        self.diary.happened("devices that swapped addresses", swapped.len());
        self.browse(&swapped, 1, None)
    }

    /// The forger tells the gateway that the victim's address is his. What the gateway sends to the victim passes him, and he passes
    /// it on; then he uses the address himself.
    fn forge_an_address(&mut self) -> Result<()> {
        self.tell("somebody forges ARP, stands in between, and uses another's address")?;
        let address = self.site.devices[VICTIM].v4()?;
        let forger = &self.site.devices[SPOOFER];
        for (name, value) in [
            ("ip_forward", "1"),
            ("conf.all.send_redirects", "0"),
            ("conf.eth0.send_redirects", "0"),
            ("conf.all.rp_filter", "0"),
            ("conf.eth0.rp_filter", "0"),
        ] {
            forger.namespace.sysctl(&format!("net.ipv4.{name}"), value)?;
        }
        let gateway_mac = self.site.lab.gateway_mac()?;
        let claim = arp(hex(&forger.mac)?, address, gateway_mac, GATEWAY_V4.parse()?)?;
        let (is_over, namespace) = (AtomicBool::new(false), &self.site.devices[SPOOFER].namespace);
        std::thread::scope(|scope| {
            let forging = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    send_frames(namespace, "eth0", std::slice::from_ref(&claim))?;
                    std::thread::sleep(Duration::from_millis(100));
                }
                anyhow::Ok(())
            });
            let told = forge(&self.site, &mut self.diary, address);
            is_over.store(true, Ordering::Relaxed);
            forging.join().map_err(|_| anyhow::anyhow!("the forger panicked"))??;
            told
        })?;
        // The victim defends its address (RFC 5227), and is heard.
        let victim = &self.site.devices[VICTIM];
        let defence = arp(hex(&victim.mac)?, address, gateway_mac, GATEWAY_V4.parse()?)?;
        wait_until("the gateway knows better", Duration::from_secs(10), || {
            let _ = send_frames(&victim.namespace, "eth0", std::slice::from_ref(&defence));
            self.site.neighbour(address).is_ok_and(|mac| mac.as_deref() == Some(&*victim.mac))
        })?;
        self.browse(&[VICTIM, SPOOFER], 1, None)
    }

    fn lose_stops(&mut self) -> Result<()> {
        self.tell("Stops are lost: of devices handed to somebody else, here and at another access point, and of some that leave")?;
        // Nothing passes an access point from the moment the device changes hands until it is known who logged in on it.
        let handed_over = [HANDED_OVER, HANDED_OVER_ELSEWHERE].concat();
        for device in &handed_over {
            if HANDED_OVER_ELSEWHERE.contains(device) {
                self.site.carry(*device, (self.site.devices[*device].ap + 2) % 3)?;
            } else {
                self.site.unplug(*device)?;
            }
            self.diary.logs_out(*device);
            self.log_in(*device, &format!("friend{device}"))?;
        }
        self.site.deliver_all()?;
        handed_over.iter().try_for_each(|device| self.site.plug_in(*device))?;
        self.browse(&HANDED_OVER, 1, None)?;
        self.browse(&HANDED_OVER_ELSEWHERE, 1, Some("a lost Stop and another user elsewhere"))?;
        for device in LEAVE_WITHOUT_STOP {
            self.site.devices[device].namespace.ip("link set eth0 down")?;
            self.diary.logs_out(device);
            self.logins[device] = None;
        }
        self.diary.happened("lost Stops", HANDED_OVER.len() + HANDED_OVER_ELSEWHERE.len() + LEAVE_WITHOUT_STOP.len());
        Ok(())
    }

    /// It forgets who is there, and numbers sessions from the beginning; they log in again, in another order.
    fn reboot_an_access_point(&mut self) -> Result<()> {
        self.tell("an access point reboots: everybody there logs in again, under numbers that others had before")?;
        let ap = REBOOTED_AP;
        let mut there: Vec<usize> =
            (0..DEVICES).filter(|device| self.logins[*device].as_ref().is_some_and(|login| login.ap == ap)).collect();
        let before: Vec<(String, String)> = (there.iter())
            .map(|device| self.login(*device).map(|login| (login.id, login.user)))
            .collect::<Result<_>>()?;
        self.site.aps[ap].restart();
        self.site.aps[ap].report("Accounting-On", "");
        self.site.deliver(ap)?;
        there.iter().for_each(|device| self.diary.logs_out(*device));
        there.reverse();
        for device in &there {
            let user = self.login(*device)?.user;
            self.log_in(*device, &user)?;
        }
        self.site.deliver(ap)?;
        let mut reused = 0;
        for device in &there {
            let login = self.login(*device)?;
            reused += usize::from(before.iter().any(|(id, user)| *id == login.id && *user != login.user));
        }
        self.diary.happened("access points that rebooted", 1);
        self.diary.happened("session numbers used again by another user", reused);
        let (unsure, sure): (Vec<usize>, Vec<usize>) =
            there.iter().partition(|device| HANDED_OVER_ELSEWHERE.contains(device));
        self.browse(&sure, 1, None)?;
        self.browse(&unsure, 1, Some("a lost Stop and another user elsewhere"))
    }

    /// The translation has one port for two devices: the second gets it when the first is done.
    fn share_a_port(&mut self) -> Result<()> {
        self.tell("a public port goes from one device to another within a second")?;
        for pair in SHARE_A_PORT {
            let addresses = pair.map(|device| self.site.devices[device].v4());
            let [first, second] = addresses;
            let rule = format!(
                "insert rule ip nat post oifname wan ip saddr {{ {}, {} }} meta l4proto tcp masquerade to :{SHARED_PORT}-{SHARED_PORT}",
                first?, second?
            );
            run(self.site.lab.gateway.command("nft").arg(rule))?;
            for device in pair {
                let (number, ap) = (self.diary.connections.len(), self.site.devices[device].ap);
                let path = format!("/who/{}-{number}-0", self.site.devices[device].name);
                // Asked again while the port is not free yet.
                let once = || page_within(SERVER_V4, &path, Duration::from_millis(150));
                let again = || (0..40).find_map(|_| once().ok()).context("the port stays taken");
                let done = self.site.devices[device].namespace.within(again)?;
                self.diary.note(done, device, ap, None);
                std::thread::sleep(Duration::from_millis(100));
            }
            run(self
                .site
                .lab
                .gateway
                .command("nft")
                .arg("flush chain ip nat post; add rule ip nat post oifname wan masquerade"))?;
        }
        Ok(())
    }

    /// Two connections, of which the second begins while the flow of the first is still open.
    fn use_a_port_again(&mut self) -> Result<()> {
        let Device { namespace, ap, .. } = &self.site.devices[SAME_PORT_AGAIN];
        for _ in 0..2 {
            let done = namespace.within(|| echo(&format!("0.0.0.0:{SHARED_PORT}")))?;
            self.diary.note(done, SAME_PORT_AGAIN, *ap, None);
        }
        self.diary.happened("ports that a device used again", 1);
        Ok(())
    }

    fn log_everybody_out(&mut self) -> Result<()> {
        for device in 0..DEVICES {
            // Who leaves is heard no more; a Stop was lost of some of them before, and they would still be taken for those who were there.
            self.site.unplug(device)?;
            if let Some(login) = self.logins[device].take() {
                self.stop(&login)?;
            }
        }
        self.site.deliver_all()?;
        (0..DEVICES).for_each(|device| self.diary.logs_out(device));
        Ok(())
    }
}

/// While the gateway is told that the victim's address is at the forger.
fn forge(site: &Site, diary: &mut Diary, address: IpAddr) -> Result<()> {
    let forger = &site.devices[SPOOFER];
    wait_until("the gateway believes the forger", Duration::from_secs(10), || {
        site.neighbour(address).is_ok_and(|mac| mac.as_deref() == Some(&*forger.mac))
    })?;
    diary.browse(&site.devices, &[VICTIM], 2, None)?;
    ensure!(site.neighbour(address)?.as_deref() == Some(&*forger.mac), "the gateway did not believe the forger");
    forger.namespace.ip(&format!("addr add {address}/32 dev eth0"))?;
    for _ in 0..3 {
        let done = forger.namespace.within(|| echo(&format!("{address}:0")))?;
        diary.note(done, SPOOFER, forger.ap, Some("from a forged address"));
    }
    forger.namespace.ip(&format!("addr del {address}/32 dev eth0"))?;
    diary.happened("connections from a forged address", 3);
    diary.happened("devices whose answers passed a forger", 1);
    Ok(())
}

/// Pairs of requests by two devices, which the web server saw come from one address and port within a second.
fn ports_that_changed_hands(site: &Site, diary: &Diary) -> Result<usize> {
    let requests = site.lab.web_log()?;
    let shared: Vec<_> =
        requests.iter().filter(|request| request.ip == PUBLIC_V4 && request.port == SHARED_PORT).collect();
    let device = |path: &str| {
        let mut made = diary.connections.iter().filter(|connection| connection.path.as_deref() == Some(path));
        made.next().map(|connection| connection.device)
    };
    let mut changed = 0;
    for pair in shared.windows(2) {
        let apart_s = pair[1].at.parse::<f64>()? - pair[0].at.parse::<f64>()?;
        changed += usize::from(apart_s < 1.0 && device(&pair[0].path) != device(&pair[1].path));
    }
    Ok(changed)
}

/// An ARP reply by which a device says that an address is its own.
fn arp(sender: [u8; 6], address: IpAddr, target: [u8; 6], target_address: IpAddr) -> Result<Vec<u8>> {
    let (IpAddr::V4(address), IpAddr::V4(target_address)) = (address, target_address) else {
        anyhow::bail!("ARP is about IPv4")
    };
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let packet = [&head[..], &sender, &address.octets(), &target, &target_address.octets()].concat();
    Ok(ethernet_between(sender, target, &[], 0x0806, &packet))
}

fn hex(mac: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("no address: {mac}"))
}

fn show(out: &mut impl Write, findings: &Findings) -> Result<()> {
    writeln!(out, "\n── What happened\n")?;
    for (what, times) in &findings.disturbances {
        writeln!(out, "  {times:>4} {what}")?;
    }
    writeln!(out, "\n── What the archive says of it, judged by what the devices did\n")?;
    writeln!(out, "  {:>6} {:>7} {:>9} {:>6}", "", "right", "uncertain", "wrong")?;
    let Findings { flows, right, uncertain, wrong, who_asked, who_right, who_uncertain, who_wrong, .. } = findings;
    writeln!(out, "  flows  {right:>7} {uncertain:>9} {wrong:>6}   of {flows}")?;
    writeln!(out, "  who    {who_right:>7} {who_uncertain:>9} {who_wrong:>6}   of {who_asked}")?;
    writeln!(
        out,
        "\n  {} connections were clear; of these not surely said: {}",
        findings.clear, findings.clear_but_uncertain
    )?;
    let rows: Vec<String> = findings.attributions.iter().map(|(name, count)| format!("{name} {count}")).collect();
    Ok(writeln!(out, "  rows: {}\n", rows.join(", "))?)
}
