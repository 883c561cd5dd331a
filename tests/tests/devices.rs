//! Devices with a real DHCP server and real clients: names, makers, addresses, claims, and that nothing else they send is kept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hotspot_tests::lab::{Client, GATEWAY_V4, Lab, SERVER_V4, SERVER_V6};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, ask, ensure_whole, hotspot};
use hotspot_tests::wait_until;
use serde_json::Value;

const OPTIONS: [&str; 6] = ["--rotate", "600", "--grace", "1", "--generation", "1"];

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn decoded(file: &Path) -> String {
    let output = hotspot(&["decode", "--json", &file.display().to_string()]).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The rows of `devices`.
fn devices(archive: &Path) -> Vec<Value> {
    let segments: Vec<PathBuf> = files(&archive.join("devices"));
    segments
        .iter()
        .flat_map(|segment| {
            decoded(segment).lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        })
        .collect()
}

fn python(client: &Client, script: &str) {
    run(client.namespace.command("python3").args(["-c", script])).unwrap();
}

/// An IPv4 address of a client, from its lease.
fn lease(client: &Client) -> String {
    client.addresses().unwrap().into_iter().find(|address| address.contains('.')).unwrap()
}

#[test]
fn devices_are_known_by_name_maker_and_address() {
    let lab = Lab::new(3).unwrap();
    let data = lab.dir().join("data");
    let [phone, odd, spoofer] = &lab.clients[..] else { panic!("three clients") };
    // An address of a maker's for one, and privacy addresses (RFC 8981) for another.
    odd.namespace.ip("link set eth0 down").unwrap();
    odd.namespace.ip("link set eth0 address 00:1b:21:00:00:02").unwrap();
    odd.namespace.ip("link set eth0 up").unwrap();
    phone.namespace.ip("link set eth0 down").unwrap();
    phone.namespace.sysctl("net.ipv6.conf.eth0.use_tempaddr", "2").unwrap();
    phone.namespace.ip("link set eth0 up").unwrap();
    let agent = Agent::start(&lab.gateway, &data, &OPTIONS).unwrap();

    phone.connect(&lab).unwrap();
    odd.connect_with(&lab, &["-x", "0x0c:6f64ff5c21", "-V", "MSFT 5.0"]).unwrap();
    spoofer.connect(&lab).unwrap();
    wait_until("a privacy address", Duration::from_secs(20), || {
        phone.namespace.ip("-o -6 addr show dev eth0 temporary").is_ok_and(|text| text.contains("2001:db8:20:"))
    })
    .unwrap();
    phone.namespace.run(&format!("curl -s -f -o /dev/null http://{SERVER_V4}/hello")).unwrap();
    phone.namespace.run(&format!("curl -s -f -o /dev/null http://[{SERVER_V6}]/hello")).unwrap();
    odd.namespace.run(&format!("curl -s -f -o /dev/null http://{SERVER_V4}/hello")).unwrap();
    // Somebody says that the phone's address is his.
    let stolen = lease(phone);
    python(
        spoofer,
        &format!(
            "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('eth0', 0))\n\
             mac = bytes.fromhex('{}')\nip = socket.inet_aton('{stolen}')\n\
             s.send(b'\\xff' * 6 + mac + b'\\x08\\x06' + bytes([0, 1, 8, 0, 6, 4, 0, 1]) + mac + ip + bytes(6) + ip)\n",
            spoofer.mac.replace(':', "")
        ),
    );
    assert!(agent.stop().unwrap().success());

    let archive = data.join("archive");
    ensure_whole(&archive).unwrap();
    let rows = devices(&archive);
    let row = |mac: &str| rows.iter().find(|row| row["client_mac"] == mac).unwrap_or_else(|| panic!("{mac}: {rows:?}"));
    let ips = |row: &Value| -> Vec<String> { serde_json::from_value(row["ips"].clone()).unwrap() };
    let sources = |row: &Value| -> Vec<String> { serde_json::from_value(row["source"].clone()).unwrap() };

    let found = row(&phone.mac);
    assert_eq!((found["hostname"].as_str(), found["random_mac"].as_bool()), (Some("c1-phone"), Some(true)));
    assert!(found["vendor_class"].as_str().unwrap().starts_with("udhcp"), "{found}");
    assert!(found["dhcp_fingerprint"].as_str().unwrap().starts_with("1,3,"), "{found}");
    assert!(
        ips(found).contains(&stolen) && ["dhcp", "arp", "nd"].iter().all(|s| sources(found).iter().any(|t| t == s)),
        "{found}"
    );
    // The flow's IPv6 address is a temporary one, and neighbour discovery says whose.
    let flows = ask("find", &archive, &["mac", &phone.mac, "and", "dst", "ip", SERVER_V6]).unwrap();
    let used = flows[0]["client_ip"].as_str().unwrap();
    let temporary = phone.namespace.ip("-o -6 addr show dev eth0 temporary").unwrap();
    assert!(temporary.contains(used), "{used} is no privacy address: {temporary}");
    assert!(ips(found).iter().any(|ip| ip == used), "{used}: {found}");
    assert!(flows.iter().all(|flow| flow["hostname"] == "c1-phone"));

    let found = row("00:1b:21:00:00:02");
    assert_eq!(found["hostname"], "od\\xff\\\\!", "odd bytes are kept with escapes");
    assert_eq!(
        (found["device_vendor"].as_str(), found["vendor_class"].as_str()),
        (Some("Intel Corporate"), Some("MSFT 5.0"))
    );
    let flows = ask("find", &archive, &["mac", "00:1b:21:00:00:02", "and", "dst", "ip", SERVER_V4]).unwrap();
    assert!(!flows.is_empty() && flows.iter().all(|flow| flow["device_vendor"] == "Intel Corporate"));

    assert!(ips(row(&spoofer.mac)).contains(&stolen), "the claim is on record");
}

#[test]
fn a_kill_forgets_no_device() {
    let lab = Lab::new(2).unwrap();
    let data = lab.dir().join("data");
    let agent = Agent::start(&lab.gateway, &data, &OPTIONS).unwrap();
    lab.clients[0].connect(&lab).unwrap();
    agent.kill().unwrap();
    // Nobody reads now; the ring holds what is said.
    lab.clients[1].connect(&lab).unwrap();
    let agent = Agent::start(&lab.gateway, &data, &OPTIONS).unwrap();
    assert!(agent.stop().unwrap().success());
    let rows = devices(&data.join("archive"));
    for client in &lab.clients {
        let found: Vec<&Value> = rows.iter().filter(|row| row["client_mac"] == *client.mac).collect();
        assert_eq!(found.len(), 1, "{}: {rows:?}", client.name);
        assert_eq!(found[0]["hostname"], format!("{}-phone", client.name));
    }
    ensure_whole(&data.join("archive")).unwrap();
}

#[test]
fn nothing_that_a_user_sends_is_kept() {
    const MARKER: &str = "HoTsPoTmArKeR";
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    let client = &lab.clients[0];
    let agent = Agent::start(&lab.gateway, &data, &OPTIONS).unwrap();
    client.connect(&lab).unwrap();
    let mac = client.mac.replace(':', "");
    let marker_hex = MARKER.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    python(
        client,
        &format!(
            "import socket\nM = b'{MARKER}' * 4\nmac = bytes.fromhex('{mac}')\n\
             def udp(source, to, port, payload):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
             s.bind(('', source))\n    s.sendto(payload, (to, port))\n    s.close()\n\
             def dhcp(options, name=b''):\n    return (bytes([1, 1, 6, 0]) + bytes(24) + mac + bytes(10) + name.ljust(64, b'\\0') + bytes(128)\n        \
             + bytes([99, 130, 83, 99, 53, 1, 8]) + options)\n\
             udp(30000, '{SERVER_V4}', 40000, M)\n\
             udp(30001, '{SERVER_V4}', 53, M)\n\
             udp(68, '{SERVER_V4}', 67, M)\n\
             udp(546, '{SERVER_V4}', 547, bytes([1, 0, 0, 0, 0, 60, 0, len(M)]) + M)\n\
             udp(30002, '{SERVER_V4}', 67, dhcp(bytes([12, len(M)]) + M + bytes([255])))\n\
             udp(68, '{SERVER_V4}', 5000, dhcp(bytes([12, len(M)]) + M + bytes([255])))\n\
             udp(68, '{GATEWAY_V4}', 67, dhcp(bytes([77, len(M)]) + M + bytes([12, 2, 111, 107, 255]) + M, M))\n\
             udp(68, '{GATEWAY_V4}', 67, dhcp(bytes([12, 255]) + M))\n\
             t = socket.create_connection(('{SERVER_V4}', 80))\nt.sendall(b'GET /' + M + b' HTTP/1.0\\r\\n\\r\\n')\nt.recv(100)\n"
        ),
    );
    client.namespace.run(&format!("ping -c 2 -i 0.2 -s 64 -p {} {SERVER_V4}", &marker_hex[..26])).unwrap();
    // dig fails: nobody answers for the name.
    let _ = client.namespace.run(&format!("dig +tries=1 +time=1 @{SERVER_V4} {MARKER}.example.test"));
    // While the journal is open, and after it was sealed.
    let mut kept = String::new();
    wait_until("the last message is in the journal", Duration::from_secs(10), || {
        kept = files(&data.join("journal")).iter().map(|file| decoded(file)).collect();
        kept.contains("\"hostname\":\"ok\"")
    })
    .unwrap();
    assert!(agent.stop().unwrap().success());
    for file in files(&data) {
        if !file.ends_with("signing.key") {
            kept.push_str(&decoded(&file));
        }
        kept.push_str(&String::from_utf8_lossy(&std::fs::read(&file).unwrap()));
    }
    kept.push_str(&std::fs::read_to_string(data.with_extension("log")).unwrap());
    assert!(kept.contains("c1-phone") && kept.contains("\"hostname\":\"ok\""), "what was decoded is what was recorded");
    for marker in [MARKER, &marker_hex] {
        assert!(!kept.contains(marker), "{marker} was kept");
    }
}
