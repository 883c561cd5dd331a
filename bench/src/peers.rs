//! The same work by others: softflowd, pmacctd, nfpcapd, and tcpdump that keeps the headers, beside the agent.
//!
//! Each listens alone on one end of a fresh cable while the same packets come through it; nobody takes a turn too. What a turn cost is
//! the processor time of the whole machine, kernel and collectors included, until the listener has written everything and ended, less
//! what the same packets cost when nobody listens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hotspot_tests::cable::Cable;
use hotspot_tests::generator::{Load, send_at_rate, send_for};
use hotspot_tests::namespace::{Namespace, run as output_of};
use hotspot_tests::programs::{Agent, coverage};
use hotspot_tests::wait_until;
use serde::Serialize;

use crate::rig::median;
use crate::write_json;

/// What the cable carries.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Traffic {
    /// The same 4 096 flows, at a rate everybody can be expected to follow.
    Known,
    /// Every packet opens a flow.
    New,
    /// The same 4 096 flows, as fast as one processor sends.
    Fast,
}

const KNOWN_PER_S: u32 = 100_000;
const NEW_PER_S: u32 = 50_000;
const FLOWS: u32 = 4096;
/// With fewer, source ports would run out.
const CLIENTS: u32 = 100;

impl Traffic {
    const ALL: [Self; 3] = [Self::Known, Self::New, Self::Fast];

    fn describe(self) -> String {
        match self {
            Self::Known => format!("{KNOWN_PER_S} packets of {FLOWS} flows per second"),
            Self::New => format!("{NEW_PER_S} packets per second, each of a new flow"),
            Self::Fast => format!("packets of {FLOWS} flows, as fast as they can be sent"),
        }
    }

    fn send(self, sender: &Namespace, seconds: u32) -> Result<()> {
        let load = Load { from: 0, to: FLOWS, clients: CLIENTS };
        match self {
            Self::Known => {
                for _ in 0..KNOWN_PER_S * seconds / FLOWS {
                    send_at_rate(sender, "eth0", load, KNOWN_PER_S)?;
                }
            }
            Self::New => {
                send_at_rate(sender, "eth0", Load { to: NEW_PER_S * seconds, ..load }, NEW_PER_S)?;
            }
            Self::Fast => {
                send_for(sender, "eth0", load, [2, 0, 0, 0, 0, 0xfe], seconds)?;
            }
        }
        Ok(())
    }
}

/// Who listens.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Listener {
    Nobody,
    Hotspot,
    Softflowd,
    Pmacctd,
    Nfpcapd,
    Tcpdump,
}

impl Listener {
    const ALL: [Self; 6] = [Self::Nobody, Self::Hotspot, Self::Softflowd, Self::Pmacctd, Self::Nfpcapd, Self::Tcpdump];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Hotspot => "hotspot",
            Self::Softflowd => "softflowd + nfcapd",
            Self::Pmacctd => "pmacctd",
            Self::Nfpcapd => "nfpcapd",
            Self::Tcpdump => "tcpdump -s 96",
        }
    }
}

/// One turn.
struct Turn {
    offered: f64,
    accounted: f64,
    machine_cpu_s: f64,
}

#[derive(Serialize)]
struct Figure {
    traffic: Traffic,
    listener: Listener,
    offered: f64,
    accounted: f64,
    /// Processor seconds of the machine, less those of the same turns with nobody.
    cpu_s: f64,
    /// The same per offered packet.
    cpu_ns_per_packet: f64,
}

/// Measures, prints the tables, and writes the file.
#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
pub(crate) fn run(json: Option<&Path>, rounds: usize, seconds: u32) -> Result<()> {
    let mut figures = Vec::new();
    for traffic in Traffic::ALL {
        let mut turns = Listener::ALL.map(|listener| (listener, Vec::new()));
        for _ in 0..rounds {
            for (listener, turns) in &mut turns {
                turns.push(turn(*listener, traffic, seconds).with_context(|| listener.name())?);
            }
        }
        println!("{}, {seconds} s, medians of {rounds} turns\n", traffic.describe());
        println!("{:<20} {:>10} {:>10} {:>8} {:>8} {:>10}", "", "offered", "accounted", "%", "CPU s", "ns/packet");
        let of = |turns: &[Turn], part: fn(&Turn) -> f64| median(turns.iter().map(part).collect());
        let cost = |turns: &[Turn]| of(turns, |turn| turn.machine_cpu_s / turn.offered);
        let nobody = cost(&turns[0].1);
        for (listener, turns) in turns.iter().skip(1) {
            let offered = of(turns, |turn| turn.offered);
            let per_packet = cost(turns) - nobody;
            let figure = Figure {
                traffic,
                listener: *listener,
                offered,
                accounted: of(turns, |turn| turn.accounted),
                cpu_s: per_packet * offered,
                cpu_ns_per_packet: per_packet * 1e9,
            };
            println!(
                "{:<20} {:>10.0} {:>10.0} {:>8.2} {:>8.2} {:>10.0}",
                listener.name(),
                figure.offered,
                figure.accounted,
                100.0 * figure.accounted / figure.offered,
                figure.cpu_s,
                figure.cpu_ns_per_packet
            );
            figures.push(figure);
        }
        println!();
    }
    write_json(json, &figures)
}

fn turn(listener: Listener, traffic: Traffic, seconds: u32) -> Result<Turn> {
    let cable = Cable::new()?;
    let listening = Listening::start(listener, &cable)?;
    let (cpu_before, before) = (machine_cpu_s()?, received(&cable.gateway)?);
    traffic.send(&cable.sender, seconds)?;
    // What is still on its way to a listener in user space.
    std::thread::sleep(Duration::from_millis(500));
    let accounted = listening.stop_and_count()?;
    let turn =
        Turn { offered: received(&cable.gateway)? - before, accounted, machine_cpu_s: machine_cpu_s()? - cpu_before };
    ensure!(turn.offered > 0.0, "no packet came through the cable");
    Ok(turn)
}

fn received(gateway: &Namespace) -> Result<f64> {
    let links: serde_json::Value = serde_json::from_str(&gateway.ip("-s -j link show dev lan")?)?;
    links[0]["stats64"]["rx"]["packets"].as_f64().context("ip -s -j link")
}

/// Processor time since the machine started, but for idling and waiting.
fn machine_cpu_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq (man 5 proc); steal is somebody else's.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|field| ticks.get(*field)).sum::<u64>();
    Ok(busy as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A listener that is ready.
enum Listening {
    Nobody,
    Hotspot(Agent, PathBuf),
    /// Who listens, who collects what it exports, and where that ends.
    Peer(Listener, Running, Option<Running>, PathBuf),
}

impl Listening {
    fn start(listener: Listener, cable: &Cable) -> Result<Self> {
        let (gateway, dir) = (&cable.gateway, cable.dir().to_path_buf());
        let directory = dir.display();
        let (line, collector) = match listener {
            Listener::Nobody => return Ok(Self::Nobody),
            Listener::Hotspot => {
                let data = dir.join("data");
                let agent = Agent::start(gateway, &data, &["--no-nat", "--grace", "0"])?;
                return Ok(Self::Hotspot(agent, data));
            }
            Listener::Softflowd => {
                let collector = format!("nfcapd -b 127.0.0.1 -p 9995 -B 33554432 -w {directory} -t 3600");
                let line = format!(
                    "softflowd -d -i lan -m 1048576 -T ether -B 33554432 -v 9 -n 127.0.0.1:9995 -p {directory}/pid -c {directory}/ctl"
                );
                (line, Some(Running::start(gateway, &collector, &dir)?))
            }
            Listener::Pmacctd => {
                fs::write(dir.join("pmacctd.conf"), pmacctd_conf(&dir))?;
                (format!("pmacctd -f {directory}/pmacctd.conf"), None)
            }
            Listener::Nfpcapd => (format!("nfpcapd -i lan -s 96 -b 32 -B 1048576 -w {directory} -t 3600"), None),
            Listener::Tcpdump => (format!("tcpdump -i lan -n -s 96 -B 32768 -w {directory}/headers.pcap"), None),
        };
        let running = Running::start(gateway, &line, &dir)?;
        wait_until("a packet socket is open", Duration::from_secs(20), || {
            gateway.run("cat /proc/net/packet").is_ok_and(|text| text.lines().count() > 1)
        })?;
        Ok(Self::Peer(listener, running, collector, dir))
    }

    /// Ends it in order, and says how many packets its records are about.
    fn stop_and_count(self) -> Result<f64> {
        match self {
            Self::Nobody => Ok(0.0),
            Self::Hotspot(agent, data) => {
                ensure!(agent.stop()?.success(), "the agent failed");
                let rows = coverage(&data.join("archive"))?;
                ensure!(rows.iter().all(|row| row["balanced"] == true), "the log does not balance: {rows:?}");
                let sum = |name: &str| rows.iter().map(|row| row[name].as_f64().unwrap_or(0.0)).sum::<f64>();
                Ok(sum("flow_packets") + sum("overflow_packets"))
            }
            Self::Peer(listener, running, collector, dir) => {
                if matches!(listener, Listener::Softflowd) {
                    // Signals end it before it has exported anything.
                    running.stop_by(Command::new("softflowctl").arg("-c").arg(dir.join("ctl")).arg("shutdown"))?;
                } else {
                    running.interrupt()?;
                }
                if let Some(collector) = collector {
                    // What was exported last.
                    std::thread::sleep(Duration::from_secs(1));
                    collector.interrupt()?;
                }
                match listener {
                    Listener::Softflowd | Listener::Nfpcapd => packets_by_nfdump(&dir),
                    Listener::Pmacctd => packets_in_csv(&dir.join("flows.csv")),
                    Listener::Tcpdump => packets_in_capture(&dir.join("headers.pcap")),
                    Listener::Nobody | Listener::Hotspot => bail!("writes no files of others"),
                }
            }
        }
    }
}

/// Keys as ours, buffers as large as the others', and everything written at the end. A cache entry takes 4 KB; flows beyond are chained.
fn pmacctd_conf(dir: &Path) -> String {
    format!(
        "daemonize: false\npcap_interface: lan\npmacctd_pipe_size: 33554432\n\
         aggregate: src_mac, dst_mac, src_host, dst_host, src_port, dst_port, proto\n\
         plugins: print\nprint_output: csv\nprint_output_file: {}/flows.csv\nprint_refresh_time: 3600\n\
         print_cache_entries: 65537\nplugin_pipe_size: 134217728\nplugin_buffer_size: 10240\n",
        dir.display()
    )
}

fn packets_by_nfdump(dir: &Path) -> Result<f64> {
    let text = output_of(Command::new("nfdump").arg("-R").arg(dir).args(["-q", "-I"]))?;
    let packets = text.lines().find_map(|line| line.strip_prefix("Packets: ")).context("nfdump -I")?;
    Ok(packets.trim().parse()?)
}

fn packets_in_csv(path: &Path) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut lines = text.lines();
    let column = lines
        .next()
        .and_then(|head| head.split(',').position(|name| name == "PACKETS"))
        .context("no column PACKETS")?;
    Ok(lines.filter_map(|line| line.split(',').nth(column)?.parse::<f64>().ok()).sum())
}

fn packets_in_capture(path: &Path) -> Result<f64> {
    let text = output_of(Command::new("capinfos").args(["-T", "-r", "-c", "-M"]).arg(path))?;
    Ok(text.split_whitespace().last().context("capinfos")?.parse()?)
}

/// A program of others in the gateway's namespace.
struct Running(Child);

impl Running {
    fn start(gateway: &Namespace, line: &str, dir: &Path) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut command = gateway.command(words.next().unwrap_or_default());
        command.args(words).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(gateway.spawn(&mut command)?))
    }

    /// Most of them write what they have when they are interrupted.
    fn interrupt(self) -> Result<()> {
        let pid = self.0.id().to_string();
        self.stop_by(Command::new("kill").args(["-INT", &pid]))
    }

    fn stop_by(mut self, command: &mut Command) -> Result<()> {
        output_of(command)?;
        wait_until("it ends", Duration::from_secs(60), || !matches!(self.0.try_wait(), Ok(None)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
