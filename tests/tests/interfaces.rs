//! How interfaces are covered: every hook alike, and nothing half covered in silence when devices or other people interfere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotspot_tests::foreign::{ForeignHook, ForeignProgram};
use hotspot_tests::lab::{ECHO_PORT, GATEWAY_V4, Lab};
use hotspot_tests::programs::{Agent, ask};
use hotspot_tests::wait_until;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
/// Ethernet, IPv4 and UDP headers.
const HEADERS_LEN: u64 = 42;

/// A venue with one client that has a lease.
fn venue() -> (Lab, PathBuf) {
    let lab = Lab::new(1).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    let data = lab.dir().join("data");
    (lab, data)
}

fn start(lab: &Lab, data: &Path, options: &[&str]) -> Agent {
    Agent::start(&lab.gateway, data, &[&["--generation", "1", "--grace", "0"], options].concat()).unwrap()
}

/// Client port, packets and bytes of every recorded echo, out and in.
fn recorded(archive: &Path) -> BTreeSet<[u64; 5]> {
    let columns = ["client_port", "packets_out", "bytes_out", "packets_in", "bytes_in"];
    let flows = ask("find", archive, &["proto", "udp", "and", "dst", "port", &ECHO_PORT.to_string()]).unwrap();
    flows.iter().map(|flow| columns.map(|column| flow[column].as_u64().unwrap())).collect()
}

fn truth(ports: std::ops::Range<u16>) -> BTreeSet<[u64; 5]> {
    let bytes = |port: u16| HEADERS_LEN + u64::from(port % 1000);
    ports.map(|port| [u64::from(port), 1, bytes(port), 1, bytes(port)]).collect()
}

/// The coverage of an interface.
fn coverage(archive: &Path, interface: &str) -> Value {
    let rows = hotspot_tests::programs::coverage(archive).unwrap();
    let row = rows.into_iter().find(|row| row["interface"] == interface).unwrap();
    assert_eq!(row["balanced"], true, "{row}");
    row
}

fn gaps(archive: &Path, interface: &str) -> Vec<String> {
    coverage(archive, interface)["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| gap.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_hook_makes_the_same_records_of_the_same_traffic() {
    for (option, hooks) in [
        ("xdp", "in:xdp out:tcx"),
        ("xdpgeneric", "in:xdpgeneric out:tcx"),
        ("tc", "in:tcx out:tcx"),
        ("clsact", "in:clsact out:clsact"),
        ("auto", "in:tcx out:tcx"),
    ] {
        let (lab, data) = venue();
        let agent = start(&lab, &data, &["--hook", option]);
        lab.clients[0].echo(20_000..20_200).unwrap();
        // A virtual cable keeps tags out of frames unless it is told not to.
        assert_eq!(agent.log().contains("rxvlan off"), option.starts_with("xdp"), "{option}: {}", agent.log());
        assert!(agent.stop().unwrap().success());
        let archive = data.join("archive");
        assert_eq!(recorded(&archive), truth(20_000..20_200), "{option}");
        assert_eq!(coverage(&archive, "lan")["hooks"], serde_json::json!([hooks]), "{option}");
        assert_eq!(gaps(&archive, "lan"), Vec::<String>::new(), "{option}");
        assert!(
            !lab.gateway.run("tc filter show dev lan ingress").unwrap().contains("hotspot"),
            "nothing is left attached"
        );
        assert!(!lab.gateway.ip("link show dev lan").unwrap().contains("xdp"), "nothing is left attached");
    }
}

/// Frames become larger than a page, which native XDP gets in several buffers.
#[test]
fn a_larger_mtu_changes_nothing_else() {
    for hook in ["tc", "xdp"] {
        let (lab, data) = venue();
        let agent = start(&lab, &data, &["--hook", hook]);
        let client = &lab.clients[0];
        client.namespace.run(&format!("ping -c 2 -i 0.2 -W 2 -s 1000 {GATEWAY_V4}")).unwrap();
        for (namespace, devices) in
            [(&lab.gateway, &["lan"][..]), (&lab.switch, &["gw", "c1", "br0"]), (&client.namespace, &["eth0"])]
        {
            devices.iter().for_each(|device| drop(namespace.ip(&format!("link set dev {device} mtu 9000")).unwrap()));
        }
        client.namespace.run(&format!("ping -c 3 -i 0.2 -W 2 -M do -s 8000 {GATEWAY_V4}")).unwrap();
        assert!(agent.stop().unwrap().success());
        let archive = data.join("archive");
        let flows = ask("find", &archive, &["proto", "icmp", "and", "dst", "ip", GATEWAY_V4]).unwrap();
        let sums = ["packets_out", "bytes_out", "packets_in", "bytes_in"]
            .map(|column| flows.iter().map(|flow| flow[column].as_u64().unwrap()).sum::<u64>());
        // Ethernet, IPv4 and ICMP headers.
        let bytes = 2 * (1000 + HEADERS_LEN) + 3 * (8000 + HEADERS_LEN);
        assert_eq!(sums, [5, bytes, 5, bytes], "{hook}: {flows:?}");
        assert_eq!(gaps(&archive, "lan"), Vec::<String>::new(), "{hook}");
    }
}

/// Killed and started again, a program is exchanged for the next without a packet that nobody counts.
#[test]
fn clsact_filters_are_taken_over_too() {
    let (lab, data) = venue();
    let options = ["--hook", "clsact"];
    let mut agent = Some(start(&lab, &data, &options));
    let restarted = AtomicBool::new(false);
    let end = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut port = 20_000;
            while !restarted.load(Ordering::Relaxed) && port < 60_000 {
                lab.clients[0].echo(port..port + 100).unwrap();
                port += 100;
            }
            port
        });
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(50));
            agent.take().unwrap().kill().unwrap();
            agent = Some(start(&lab, &data, &options));
        }
        restarted.store(true, Ordering::Relaxed);
        sending.join().unwrap()
    });
    assert!(agent.unwrap().stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")), truth(20_000..end));
    assert_eq!(gaps(&data.join("archive"), "lan"), Vec::<String>::new());
}

/// Where the agent of the lab keeps its pins.
fn pins() -> PathBuf {
    let instances = std::fs::read_dir("/sys/fs/bpf/hotspot").unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("gw1-");
    instances.into_iter().find(is_ours).unwrap()
}

/// The directory of this layout among them.
fn layout_dir() -> String {
    format!("v{}", hotspot_common::LAYOUT_VERSION)
}

/// The pins of its links.
fn links() -> Vec<PathBuf> {
    let pinned = std::fs::read_dir(pins().join(layout_dir())).unwrap().map(|entry| entry.unwrap().path());
    pinned.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("link-")).collect()
}

#[test]
fn a_program_that_somebody_takes_off_is_put_back_and_the_gap_recorded() {
    for (hook, take_off) in [("tc", "link"), ("xdp", "link"), ("clsact", "qdisc")] {
        let (lab, data) = venue();
        let agent = start(&lab, &data, &["--hook", hook]);
        let client = &lab.clients[0];
        client.echo(20_000..20_050).unwrap();
        if take_off == "qdisc" {
            lab.gateway.run("tc qdisc del dev lan clsact").unwrap();
        } else {
            let links = links();
            assert_eq!(links.len(), 2, "{hook}");
            for link in links {
                lab.gateway.run(&format!("bpftool link detach pinned {}", link.display())).unwrap();
            }
        }
        let put_back = || agent.log().matches("putting it back").count();
        wait_until("both programs are put back", Duration::from_secs(1), || put_back() == 2).unwrap();
        // What is logged first is done after it.
        std::thread::sleep(Duration::from_millis(500));
        client.echo(21_000..21_050).unwrap();
        assert!(agent.stop().unwrap().success());
        let archive = data.join("archive");
        let expected: BTreeSet<_> = truth(20_000..20_050).into_iter().chain(truth(21_000..21_050)).collect();
        assert_eq!(recorded(&archive), expected, "{hook}");
        // Links are taken off one by one. Who looks in between sees two gaps, the second from where the first ends.
        let gaps = gaps(&archive, "lan");
        assert!(matches!((take_off, gaps.len()), (_, 1) | ("link", 2)), "{hook}: {gaps:?}");
        assert!(gaps.iter().all(|gap| gap.contains("somebody took a program off")), "{gaps:?}");
        let times: Vec<_> =
            gaps.iter().map(|gap| gap.split_once(": ").unwrap().0.split_once(" to ").unwrap()).collect();
        assert!(times.windows(2).all(|pair| pair[0].1 == pair[1].0), "{gaps:?}");
    }
}

#[test]
fn removed_pins_are_made_again_and_counting_never_stops() {
    let (lab, data) = venue();
    let agent = start(&lab, &data, &[]);
    let client = &lab.clients[0];
    let pins = pins();
    let count = || std::fs::read_dir(pins.join(layout_dir())).map_or(0, Iterator::count);
    let before = count();
    std::fs::remove_dir_all(&pins).unwrap();
    client.echo(20_000..20_020).unwrap();
    wait_until("the pins are made again", PATIENCE, || count() == before).unwrap();
    agent.kill().unwrap();
    client.echo(20_020..20_040).unwrap();
    let agent = start(&lab, &data, &[]);
    client.echo(20_040..20_060).unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")), truth(20_000..20_060));
    assert_eq!(gaps(&data.join("archive"), "lan"), Vec::<String>::new());
}

#[test]
fn a_bpf_file_system_that_is_unmounted_stops_nothing() {
    let (lab, data) = venue();
    let bpffs = lab.dir().join("bpf");
    std::fs::create_dir(&bpffs).unwrap();
    lab.gateway.run(&format!("mount -t bpf bpf {}", bpffs.display())).unwrap();
    let agent = start(&lab, &data, &["--bpffs", &bpffs.display().to_string()]);
    lab.clients[0].echo(20_000..20_020).unwrap();
    lab.gateway.run(&format!("umount {}", bpffs.display())).unwrap();
    wait_until("it is noticed", PATIENCE, || agent.log().contains("cannot be made again")).unwrap();
    lab.clients[0].echo(20_020..20_040).unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")), truth(20_000..20_040));
    assert_eq!(gaps(&data.join("archive"), "lan"), Vec::<String>::new());
}

#[test]
fn an_interface_that_disappears_is_waited_for_and_the_gap_recorded() {
    let (lab, data) = venue();
    let agent = start(&lab, &data, &["--rotate", "2"]);
    let client = &lab.clients[0];
    client.echo(20_000..20_020).unwrap();
    lab.remove_lan().unwrap();
    wait_until("it is noticed", PATIENCE, || agent.log().contains("the interface is gone")).unwrap();
    // Over the end of a journal.
    std::thread::sleep(Duration::from_millis(2500));
    lab.restore_lan().unwrap();
    wait_until("it is noticed", PATIENCE, || agent.log().contains("the interface is back")).unwrap();
    client.echo(21_000..21_020).unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let expected: BTreeSet<_> = truth(20_000..20_020).into_iter().chain(truth(21_000..21_020)).collect();
    assert_eq!(recorded(&archive), expected);
    let gaps = gaps(&archive, "lan");
    assert!(gaps.len() >= 2 && gaps.iter().all(|gap| gap.contains("not there")), "{gaps:?}");
}

#[test]
fn an_interface_with_another_name_is_the_same_interface() {
    let (lab, data) = venue();
    let agent = start(&lab, &data, &[]);
    let client = &lab.clients[0];
    client.echo(20_000..20_020).unwrap();
    lab.gateway.ip("link set dev lan down").unwrap();
    lab.gateway.ip("link set dev lan name guests").unwrap();
    lab.gateway.ip("link set dev guests up").unwrap();
    wait_until("it is noticed", PATIENCE, || agent.log().contains("has another name")).unwrap();
    client.echo(20_020..20_040).unwrap();
    agent.kill().unwrap();
    client.echo(20_040..20_060).unwrap();
    // The old name is no interface any more, the new one is: the link is taken over.
    let mut command = Agent::command_on("guests", &lab.gateway, &data, &["--generation", "1"]).unwrap();
    let agent = Agent::start_command(&mut command, &data).unwrap();
    client.echo(20_060..20_080).unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    assert_eq!(recorded(&archive), truth(20_000..20_080));
    assert_eq!(gaps(&archive, "guests"), Vec::<String>::new());
}

#[test]
fn interfaces_that_appear_later_are_covered_when_a_pattern_names_them() {
    let (lab, data) = venue();
    let mut command = Agent::command_on("guest*", &lab.gateway, &data, &["--generation", "1"]).unwrap();
    let agent = Agent::start_command(&mut command, &data).unwrap();
    assert!(agent.log().contains("waiting for one"), "{}", agent.log());
    for number in 1..=3 {
        lab.gateway.ip(&format!("link add guest{number} type veth peer name other{number}")).unwrap();
        lab.gateway.ip(&format!("link set guest{number} up")).unwrap();
        lab.gateway.ip(&format!("link set other{number} up")).unwrap();
    }
    let attached = || (1..=3).all(|number| agent.log().contains(&format!("interface=\"guest{number}\" hooks=")));
    wait_until("all are covered", PATIENCE, attached).unwrap();
    let log = agent.log();
    assert!(!log.contains("interface=\"other1\"") && !log.contains("interface=\"lan\""), "{log}");
    assert!(agent.stop().unwrap().success());
    for number in 1..=3 {
        let gaps = gaps(&data.join("archive"), &format!("guest{number}"));
        assert!(gaps.len() == 1 && gaps[0].contains("the interface is new"), "{gaps:?}");
    }
}

/// The interface that is new comes first in the kernel's list; the number of the other is taken all the same.
#[test]
fn a_new_interface_does_not_get_the_number_of_one_that_was_there() {
    let (lab, data) = venue();
    lab.gateway.ip("link add guest1 type veth peer name other1").unwrap();
    lab.gateway.ip("link set guest1 up").unwrap();
    let mut command = Agent::command_on("guest1", &lab.gateway, &data, &["--generation", "1"]).unwrap();
    Agent::start_command(&mut command, &data).unwrap().kill().unwrap();
    let mut command =
        Agent::command_on("guest1", &lab.gateway, &data, &["--interface", "lan", "--generation", "1"]).unwrap();
    let agent = Agent::start_command(&mut command, &data).unwrap();
    lab.clients[0].echo(20_000..20_020).unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    assert_eq!(recorded(&archive), truth(20_000..20_020));
    let on_lan = ask("find", &archive, &["proto", "udp", "and", "dst", "port", &ECHO_PORT.to_string()]).unwrap();
    assert!(on_lan.iter().all(|flow| flow["interface"] == "lan"), "{on_lan:?}");
    assert_eq!(gaps(&archive, "lan"), Vec::<String>::new());
    assert_eq!(gaps(&archive, "guest1"), Vec::<String>::new());
}

/// Its maps cannot be read by this version, and its programs must not count beside ours.
#[test]
fn programs_of_another_version_are_not_counted_beside() {
    let (lab, data) = venue();
    let agent = start(&lab, &data, &[]);
    let instance = pins();
    assert!(agent.stop().unwrap().success());
    let other = instance.join("v9");
    std::fs::create_dir_all(&other).unwrap();
    let map = other.join("CONTROL");
    lab.gateway
        .run(&format!("bpftool map create {} type array key 4 value 8 entries 1 name control", map.display()))
        .unwrap();
    let refused = Agent::command(&lab.gateway, &data, &[]).unwrap().output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{told}");
    assert!(told.contains("a later version") && told.contains(&other.display().to_string()), "{told}");
    std::fs::remove_dir_all(&instance).unwrap();
    assert!(start(&lab, &data, &[]).stop().unwrap().success());
}

/// Somebody else has the device's XDP hook: tc does the work, and the other program stays.
#[test]
fn a_program_of_somebody_else_is_never_replaced() {
    let (lab, data) = venue();
    let _foreign = ForeignProgram::attach(&lab.gateway, "lan", ForeignHook::Xdp).unwrap();
    let listed = || lab.gateway.run("bpftool net show dev lan").unwrap();
    let before = listed();
    assert!(before.contains("lan("), "it is there: {before}");
    let mut refused = Agent::command(&lab.gateway, &data, &["--hook", "xdp"]).unwrap();
    let refused = refused.output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    assert_eq!(listed(), before, "the refused agent left nothing");
    let agent = start(&lab, &data, &["--hook", "tc"]);
    lab.clients[0].echo(20_000..20_020).unwrap();
    assert!(agent.stop().unwrap().success());
    assert_eq!(recorded(&data.join("archive")), truth(20_000..20_020));
    assert_eq!(listed(), before);
}

/// A program that lets packets pass and ends the chain there would hide them from us.
#[test]
fn a_program_that_somebody_puts_first_does_not_stay_first() {
    let (lab, data) = venue();
    let client = &lab.clients[0];
    let _earlier = ForeignProgram::attach(&lab.gateway, "lan", ForeignHook::TcxIngress).unwrap();
    let agent = start(&lab, &data, &["--hook", "tc"]);
    client.echo(20_000..20_020).unwrap();
    let _later = ForeignProgram::attach(&lab.gateway, "lan", ForeignHook::TcxIngress).unwrap();
    wait_until("it is noticed", Duration::from_secs(1), || agent.log().contains("putting it back")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    client.echo(21_000..21_020).unwrap();
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    let expected: BTreeSet<_> = truth(20_000..20_020).into_iter().chain(truth(21_000..21_020)).collect();
    assert_eq!(recorded(&archive), expected);
    assert_eq!(gaps(&archive, "lan").len(), 1);
}
