//! Devices with a real DHCP server and real clients: names, makers, addresses, claims, and that nothing else they send is kept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::zombie_processes, reason = "what runs in a namespace is killed with it")]

use std::path::Path;
use std::time::Duration;

use hotspot_tests::lab::{Client, GATEWAY_V4, Lab, SERVER_V4, SERVER_V6};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, ask, decoded, ensure_whole, files, rows};
use hotspot_tests::wait_until;
use serde_json::Value;

const OPTIONS: [&str; 6] = ["--rotate", "600", "--grace", "1", "--generation", "1"];

/// What the tool can read of a file; nothing of one that is neither segment nor journal.
fn text_of(file: &Path) -> String {
    decoded(file).unwrap_or_default().iter().map(Value::to_string).collect()
}

/// The rows of `devices`.
fn devices(archive: &Path) -> Vec<Value> {
    rows(archive, "devices").unwrap()
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

/// Kea instead of dnsmasq, for both families.
fn start_kea(lab: &Lab) {
    // Server and client bind to their link-local addresses once, at their start, and the kernel refuses that while it looks whether
    // somebody else has the address (RFC 4862 §5.4): then no request is ever heard.
    for (namespace, device) in [(&lab.gateway, "lan"), (&lab.clients[0].namespace, "eth0")] {
        wait_until("the link-local address is its own", Duration::from_secs(10), || {
            namespace.ip(&format!("-o -6 addr show dev {device} tentative")).is_ok_and(|text| text.is_empty())
        })
        .unwrap();
    }
    lab.stop_dhcp().unwrap();
    let dir = lab.dir().display().to_string();
    let four = "{\"Dhcp4\": {\"interfaces-config\": {\"interfaces\": [\"lan\"]}, \"valid-lifetime\": 600, \
                \"lease-database\": {\"type\": \"memfile\", \"persist\": false}, \"subnet4\": [{\"subnet\": \"10.20.0.0/24\", \
                \"pools\": [{\"pool\": \"10.20.0.50-10.20.0.200\"}]}]}}";
    let six = format!(
        "{{\"Dhcp6\": {{\"data-directory\": \"{dir}\", \"interfaces-config\": {{\"interfaces\": [\"lan\"]}}, \
         \"lease-database\": {{\"type\": \"memfile\", \"persist\": false}}, \"preferred-lifetime\": 500, \"valid-lifetime\": 600, \
         \"subnet6\": [{{\"subnet\": \"2001:db8:20::/64\", \"interface\": \"lan\", \"pools\": [{{\"pool\": \
         \"2001:db8:20::5000-2001:db8:20::5fff\"}}]}}]}}}}"
    );
    for (program, config) in [("kea-dhcp4", four), ("kea-dhcp6", &*six)] {
        let (path, log) = (lab.dir().join(program), lab.dir().join(format!("{program}.log")));
        std::fs::write(&path, config).unwrap();
        let mut kea = lab.gateway.command(program);
        kea.env("KEA_PIDFILE_DIR", &dir).env("KEA_LOCKFILE_DIR", "none").arg("-c").arg(&path);
        let file = std::fs::File::create(&log).unwrap();
        kea.stdout(file.try_clone().unwrap()).stderr(file);
        lab.gateway.spawn(&mut kea).unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        wait_until(program, Duration::from_secs(10), || said().contains("_STARTED")).unwrap();
        assert!(!said().contains("OPEN_SOCKET_FAIL"), "{}", said());
    }
}

#[test]
fn leases_of_both_families_come_from_kea_too() {
    let lab = Lab::new(1).unwrap();
    let data = lab.dir().join("data");
    start_kea(&lab);
    let client = &lab.clients[0];
    let agent = Agent::start(&lab.gateway, &data, &OPTIONS).unwrap();
    let file = |name: &str, text: &str| {
        let path = lab.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let conf = file(
        "dhclient.conf",
        "send host-name \"laptop-7\";\nsend vendor-class-identifier \"lab laptop\";\nrequest subnet-mask, routers, host-name;\n",
    );
    let script = file(
        "dhclient.sh",
        "#!/bin/sh\n[ -n \"$new_ip_address\" ] && ip addr replace $new_ip_address/24 dev $interface\n\
         [ -n \"$new_ip6_address\" ] && ip addr replace $new_ip6_address/64 dev $interface\nexit 0\n",
    );
    run(std::process::Command::new("chmod").args(["755", &script])).unwrap();
    for family in ["-4", "-6"] {
        let (leases, pid) = (file(&format!("leases{family}"), ""), lab.dir().join(format!("pid{family}")));
        let mut dhclient = client.namespace.command("dhclient");
        dhclient.args([family, "-1", "-d", "-cf", &conf, "-lf", &leases, "-sf", &script, "-pf"]).arg(pid).arg("eth0");
        dhclient.stderr(std::fs::File::create(lab.dir().join(format!("dhclient{family}.log"))).unwrap());
        client.namespace.spawn(&mut dhclient).unwrap();
    }
    let granted = |text: &str| client.addresses().is_ok_and(|all| all.iter().any(|address| address.starts_with(text)));
    wait_until("leases of both families", Duration::from_secs(30), || granted("10.20.0.") && granted("2001:db8:20::5"))
        .unwrap_or_else(|error| {
            let said =
                files(lab.dir()).unwrap().into_iter().filter(|file| file.extension().is_some_and(|end| end == "log"));
            let said: String = said.map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect();
            panic!("{error}\n{said}")
        });
    assert!(agent.stop().unwrap().success());
    let rows = devices(&data.join("archive"));
    let found = rows.iter().find(|row| row["client_mac"] == *client.mac).unwrap();
    assert_eq!((found["hostname"].as_str(), found["vendor_class"].as_str()), (Some("laptop-7"), Some("lab laptop")));
    assert_eq!(found["dhcp_fingerprint"], "1,3,12");
    let ips: Vec<String> = serde_json::from_value(found["ips"].clone()).unwrap();
    assert!(ips.contains(&lease(client)) && ips.iter().any(|ip| ip.starts_with("2001:db8:20::5")), "{found}");
    let sources = found["source"].to_string();
    assert!(sources.contains("\"dhcp\"") && sources.contains("\"dhcpv6\""), "{found}");
    ensure_whole(&data.join("archive")).unwrap();
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
        kept = files(&data.join("journal")).unwrap().iter().map(|file| text_of(file)).collect();
        kept.contains("\"hostname\":\"ok\"")
    })
    .unwrap();
    assert!(agent.stop().unwrap().success());
    for file in files(&data).unwrap() {
        kept.push_str(&text_of(&file));
        kept.push_str(&String::from_utf8_lossy(&std::fs::read(&file).unwrap()));
    }
    kept.push_str(&std::fs::read_to_string(data.with_extension("log")).unwrap());
    assert!(kept.contains("c1-phone") && kept.contains("\"hostname\":\"ok\""), "what was decoded is what was recorded");
    for marker in [MARKER, &marker_hex] {
        assert!(!kept.contains(marker), "{marker} was kept");
    }
}
