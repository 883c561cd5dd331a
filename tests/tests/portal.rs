//! Portals: the interface over both kinds of socket, the ready-made hooks, and the description of the interface.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how much memory it took is worth knowing")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hotspot_tests::lab::{Client, GATEWAY_V4, Lab, SERVER_V4};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, ask, decoded, files, rows, sessions, users, write_secret};
use hotspot_tests::wait_until;
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef-token";
const HMAC_KEY: &str = "0123456789abcdef-hmac-key";

/// A venue whose agent listens for portals on a socket and on the network.
struct Portal {
    lab: Lab,
    agent: Option<Agent>,
    data: PathBuf,
    socket: PathBuf,
}

impl Portal {
    fn new(clients: usize) -> Self {
        let lab = Lab::new(clients).unwrap();
        let secrets = lab.dir().join("portal.secrets");
        fs::write(&secrets, format!("token {TOKEN}\nhmac {HMAC_KEY}\n")).unwrap();
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
        let (data, socket) = (lab.dir().join("data"), lab.dir().join("portal.sock"));
        let mut portal = Self { lab, agent: None, data, socket };
        portal.start();
        portal
    }

    fn start(&mut self) {
        let secrets = self.lab.dir().join("portal.secrets").display().to_string();
        let (socket, address) = (self.socket.display().to_string(), format!("{GATEWAY_V4}:8017"));
        let options =
            ["--portal-listen", &socket, "--portal-listen", &address, "--portal-secret-file", &secrets, "--grace", "0"];
        self.agent = Some(Agent::start(&self.lab.gateway, &self.data, &options).unwrap());
    }

    fn stop(&mut self) {
        assert!(self.agent.take().unwrap().stop().unwrap().success());
    }

    /// Status and body of a request on the socket.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let socket = self.socket.display().to_string();
        curl(Command::new("curl").args(["--unix-socket", &socket]), method, &format!("http://hotspot{path}"), body)
    }

    /// The same from the access point, over the network.
    fn ask_from_afar(&self, headers: &[String], method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut command = self.lab.switch.command("curl");
        for header in headers {
            command.args(["-H", header]);
        }
        curl(&mut command, method, &format!("http://{GATEWAY_V4}:8017{path}"), body)
    }

    /// A hook of ours, as a portal on the gateway runs it.
    fn hook(&self, name: &str, environment: &[(&str, &str)], arguments: &[&str]) -> String {
        let mut command = Command::new(hook(name));
        command
            .env("HOTSPOT_PORTAL", &self.socket)
            .env("HOTSPOT_SPOOL", self.spool())
            .envs(environment.iter().copied())
            .args(arguments);
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn spool(&self) -> PathBuf {
        self.lab.dir().join("spool/reports.jsonl")
    }
}

/// Where a hook of ours is.
fn hook(name: &str) -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/portal").join(name)).unwrap()
}

fn curl(command: &mut Command, method: &str, url: &str, body: &str) -> (u16, Value) {
    command.args(["-s", "-m", "10", "-w", "\n%{http_code}", "-X", method, "--data-binary", body, url]);
    let text = run(command).unwrap();
    let (body, status) = text.trim_end().rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// A client's IPv4 address, after it has got one.
fn address(client: &Client, lab: &Lab) -> String {
    client.connect(lab).unwrap();
    client.addresses().unwrap().into_iter().find(|ip| !ip.contains(':')).unwrap()
}

fn ping(client: &Client) {
    client.namespace.run(&format!("ping -c 1 -W 2 {SERVER_V4}")).unwrap();
}

/// The only ping of a client to the server: who the archive says it was, and how sure it is.
fn attributed(portal: &Portal, ip: &str) -> (String, String) {
    let archive = portal.data.join("archive");
    let found =
        ask("find", &archive, &["proto", "icmp", "and", "src", "ip", ip, "and", "dst", "ip", SERVER_V4]).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let text = |name: &str| found[0][name].as_str().unwrap_or_default().to_owned();
    (users(&found[0]).join(" or "), text("attribution"))
}

#[test]
fn a_session_reported_by_a_portal_names_the_flows() {
    let mut portal = Portal::new(2);
    let (known, other) = (address(&portal.lab.clients[0], &portal.lab), address(&portal.lab.clients[1], &portal.lab));
    let mac = portal.lab.clients[0].mac.clone();
    let login = format!(r#"{{"user":"guest-1","mac":"{mac}","ips":["{known}"],"ssid":"Cafe","nas":"portal1"}}"#);
    assert_eq!(portal.ask("PUT", "/v1/sessions/a%2F1", &login), (200, serde_json::json!({ "recorded": 1 })));
    assert_eq!(portal.ask("PUT", "/v1/sessions/a%2F1", &login).0, 200, "again is no other session");
    portal.lab.clients.iter().for_each(ping);
    assert_eq!(portal.ask("DELETE", "/v1/sessions/a%2F1", r#"{"end_cause":"User-Request"}"#).0, 200);
    portal.stop();
    assert_eq!(attributed(&portal, &known), ("guest-1".into(), "authenticated".into()));
    assert_eq!(attributed(&portal, &other), (String::new(), "unknown".into()));
    assert!(!portal.socket.exists(), "the socket goes with the agent");
}

#[test]
fn over_the_network_only_tokens_and_fresh_signatures_are_taken() {
    let mut portal = Portal::new(0);
    let body = r#"{"ips":["10.20.0.99"],"user":"x"}"#;
    let put = |headers: &[String]| portal.ask_from_afar(headers, "PUT", "/v1/sessions/n", body).0;
    assert_eq!(put(&[]), 401);
    assert_eq!(put(&["Authorization: Bearer 0123456789abcdef-wrong".into()]), 401);
    assert_eq!(put(&[format!("Authorization: Bearer {TOKEN}")]), 200);
    let signed = |at: u64, nonce: &str, path: &str| {
        let hash = run(Command::new("sh").args(["-c", "printf '%s' \"$1\" | sha256sum | cut -d ' ' -f 1", "sh", body]))
            .unwrap();
        let hash = hash.trim();
        let text = format!("{at}\n{nonce}\nPUT\n{path}\n{hash}");
        let script = format!("printf '%s' \"$1\" | openssl dgst -sha256 -hmac {HMAC_KEY} | sed 's/.* //'");
        let signature = run(Command::new("sh").args(["-c", &script, "sh", &text])).unwrap();
        [
            format!("Authorization: HMAC-SHA256 {}", signature.trim()),
            format!("X-Hotspot-Time: {at}"),
            format!("X-Hotspot-Nonce: {nonce}"),
            format!("X-Hotspot-Body-SHA256: {hash}"),
        ]
    };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let fresh = signed(now, "n-1", "/v1/sessions/n");
    assert_eq!(put(&fresh), 200);
    assert_eq!(put(&fresh), 409, "replayed");
    assert_eq!(put(&signed(now - 1000, "n-2", "/v1/sessions/n")), 401, "too old");
    assert_eq!(put(&signed(now, "n-3", "/v1/sessions/other")), 401, "signed for another path");
    assert_eq!(
        portal.ask_from_afar(&signed(now, "n-4", "/v1/sessions/n"), "PUT", "/v1/sessions/n", "{}").0,
        400,
        "another body"
    );
    assert!(portal.agent.as_ref().unwrap().log().contains("a portal's request was not taken"));
    // What was taken is taken, whatever becomes of the agent.
    portal.agent.take().unwrap().kill().unwrap();
    portal.start();
    let put = |headers: &[String]| portal.ask_from_afar(headers, "PUT", "/v1/sessions/n", body).0;
    assert_eq!(put(&fresh), 409, "replayed after a restart");
    assert_eq!(put(&signed(now, "n-5", "/v1/sessions/n")), 200);
}

/// Opens connections and sends heads with signatures that are none, and of the bodies what the agent lets it.
const STRANGERS: &str = "
import socket, sys, time
address, count, body = sys.argv[1], int(sys.argv[2]), b'x' * (4 << 20)
head = (b'POST /v1/batch HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: HMAC-SHA256 00\\r\\nX-Hotspot-Time: 1\\r\\nX-Hotspot-Nonce: n\\r\\n'
        b'X-Hotspot-Body-SHA256: 00\\r\\nContent-Length: %d\\r\\n\\r\\n' % (len(body) + 1))
held = []
for position in range(count):
    connection = socket.create_connection((address, 8017), 10)
    # Some say a head and send what they can, others send nothing at all.
    try:
        if position % 2 == 0:
            connection.sendall(head)
            connection.settimeout(0.05)
            connection.sendall(body)
    except OSError:
        pass
    held.append(connection)
print('all are there', flush=True)
time.sleep(60)
";

/// Memory of the agent now, MiB.
fn memory_mib(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn strangers_cost_no_memory_and_keep_nobody_from_being_heard() {
    let portal = Portal::new(0);
    let agent = portal.agent.as_ref().unwrap();
    let before_mib = memory_mib(agent);
    let mut strangers = portal.lab.switch.command("python3");
    let mut strangers =
        strangers.args(["-c", STRANGERS, GATEWAY_V4, "300"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = [0; 13];
    std::io::Read::read_exact(strangers.stdout.as_mut().unwrap(), &mut said).unwrap();
    let body = r#"{"ips":["10.20.0.99"],"user":"x"}"#;
    assert_eq!(portal.ask("PUT", "/v1/sessions/local", body).0, 200, "on the socket");
    let token = [format!("Authorization: Bearer {TOKEN}")];
    assert_eq!(portal.ask_from_afar(&token, "PUT", "/v1/sessions/n", body).0, 200, "over the network");
    let after_mib = memory_mib(agent);
    println!("{before_mib} MiB, and {after_mib} MiB with 300 connections of strangers");
    assert!(after_mib < before_mib + 32, "{before_mib} MiB, then {after_mib} MiB");
    strangers.kill().unwrap();
    strangers.wait().unwrap();
}

#[test]
fn what_is_no_report_is_refused_with_the_reason() {
    let portal = Portal::new(0);
    let check = |method: &str, path: &str, body: &str, status: u16, said: &str| {
        let (found, answer) = portal.ask(method, path, body);
        assert!(
            found == status && answer["error"].as_str().unwrap().contains(said),
            "{method} {path}: {found} {answer}"
        );
    };
    check("PUT", "/v1/sessions/a", "{", 400, "JSON");
    check("PUT", "/v1/sessions/a", r#"{"user":"x"}"#, 400, "names mac");
    check("GET", "/v1/sessions/a", "", 405, "PUT");
    check("PUT", "/v2/sessions/a", "{}", 404, "/v1/sessions/ID");
    check("POST", "/v1/batch", "{\"op\":\"put\"}", 400, "line 1");
    check("PUT", "/v1/leases/10.20.0.9", r#"{"hostname":"x"}"#, 400, "ip and mac");
    check("PATCH", "/v1/leases/10.20.0.9", "", 405, "PUT, DELETE");
    let large = format!("@{}", portal.lab.dir().join("large").display());
    fs::write(&large[1..], vec![b' '; (64 << 10) + 1]).unwrap();
    check("PUT", "/v1/sessions/a", &large, 413, "65536");
}

#[test]
fn the_hooks_of_portals_report_logins_and_ends() {
    let mut portal = Portal::new(2);
    let (first, second) = (address(&portal.lab.clients[0], &portal.lab), address(&portal.lab.clients[1], &portal.lab));
    let (mac1, mac2) = (portal.lab.clients[0].mac.clone(), portal.lab.clients[1].mac.clone());
    let custom = "user%3DNguy%E1%BB%85n%20%22V%22%26consent%3Dyes";
    let login = ["auth_client", &mac1, "na", "na", "http%3a%2f%2fx%2f", "agent", &first, "tok1", custom];
    assert_eq!(portal.hook("opennds-binauth", &[], &login), "0 0 0 0 0\n", "openNDS decides the rest");
    portal.hook("opennds-binauth", &[], &["client_auth", &mac1, "0", "0", "1", "2", "tok1"]);
    let station = mac2.to_uppercase().replace(':', "-");
    let chilli = [
        ("USER_NAME", "voucher \\7"),
        ("CALLING_STATION_ID", station.as_str()),
        ("FRAMED_IP_ADDRESS", second.as_str()),
        ("ACCT_SESSION_ID", "5f0a"),
        ("NAS_ID", "chilli1"),
        ("CALLED_STATION_ID", "02-00-00-00-FF-01"),
        ("ACCT_INTERIM_INTERVAL", "60"),
    ];
    portal.hook("chilli-con-up", &chilli, &[]);
    portal.lab.clients.iter().for_each(ping);
    portal.hook("opennds-binauth", &[], &["idle_deauth", &mac1, "1000", "200", "1", "2", "tok1"]);
    let down = [("TERMINATE_CAUSE", "1"), ("OUTPUT_OCTETS", "300"), ("INPUT_OCTETS", "4000")];
    portal.hook("chilli-con-down", &[&chilli[..], &down[..]].concat(), &[]);
    assert_eq!(fs::read_to_string(portal.spool()).unwrap(), "", "everything was taken");
    portal.stop();
    assert_eq!(attributed(&portal, &first), ("Nguyễn \"V\"".into(), "authenticated".into()));
    assert_eq!(attributed(&portal, &second), ("voucher \\\\7".into(), "authenticated".into()));
    let sessions = sessions(&portal.data.join("archive")).unwrap();
    let opennds = &sessions["opennds/tok1"];
    assert_eq!((&opennds["status"], &opennds["end_cause"]), (&"ended".into(), &"idle_deauth".into()));
    assert_eq!((opennds["bytes_in"].as_u64(), opennds["bytes_out"].as_u64()), (Some(1000), Some(200)));
    let chilli = &sessions["chilli/5f0a"];
    assert_eq!((&chilli["status"], &chilli["end_cause"]), (&"ended".into(), &"User-Request".into()));
    assert_eq!((chilli["bytes_in"].as_u64(), chilli["bytes_out"].as_u64()), (Some(4000), Some(300)));
}

#[test]
fn one_person_is_one_whoever_reports_the_name() {
    let lab = Lab::new(3).unwrap();
    let secret = lab.dir().join("radius.secret");
    write_secret(&secret, "xyzzy5461").unwrap();
    let (data, socket) = (lab.dir().join("data"), lab.dir().join("portal.sock"));
    let ips: Vec<String> = lab.clients.iter().map(|client| address(client, &lab)).collect();
    let macs: Vec<String> = lab.clients.iter().map(|client| client.mac.clone()).collect();
    let file = lab.dir().join("sessions.jsonl");
    fs::write(&file, format!(r#"{{"user":"CORP\\anna","mac":"{}","ips":["{}"]}}"#, macs[2], ips[2])).unwrap();
    let (secret, listens) = (secret.display().to_string(), format!("{GATEWAY_V4}:1813"));
    let (socket_text, file) = (socket.display().to_string(), file.display().to_string());
    let options = [
        "--radius-listen",
        &listens,
        "--radius-secret-file",
        &secret,
        "--portal-listen",
        &socket_text,
        "--sessions",
        &file,
        "--grace",
        "0",
    ];
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    let login = |id: &str, client: usize| {
        let station = macs[client].to_uppercase().replace(':', "-");
        let attributes = format!(
            "Acct-Status-Type = Start, Acct-Session-Id = \"{id}\", User-Name = \"CORP\\\\anna\", NAS-Identifier = \"ap1\", \
             Calling-Station-Id = \"{station}\", Framed-IP-Address = {}\n",
            ips[client]
        );
        lab.account(&attributes, "xyzzy5461").unwrap();
    };
    login("r0", 0);
    login("r1", 1);
    let put = |id: &str, fields: String| {
        let body = format!(r#"{{"mac":"{}","ips":["::ffff:{}"],{fields}}}"#, macs[1], ips[1]);
        curl(
            Command::new("curl").args(["--unix-socket", &socket_text]),
            "PUT",
            &format!("http://hotspot/v1/sessions/{id}"),
            &body,
        )
    };
    assert_eq!(put("p1", r#""user":"CORP\\anna""#.into()), (200, serde_json::json!({ "recorded": 1 })));
    lab.clients.iter().for_each(ping);
    assert!(agent.stop().unwrap().success());
    let archive = data.join("archive");
    for question in [r"user CORP\anna", r"user corp\ANNA", r#"user = "CORP\anna""#, r"user = CORP\\anna"] {
        let found = ask("find", &archive, &[&format!("{question} and proto icmp and dst ip {SERVER_V4}")]).unwrap();
        let mut who: Vec<(&str, &str)> = found
            .iter()
            .map(|row| (row["client_ip"].as_str().unwrap(), row["attribution"].as_str().unwrap()))
            .collect();
        who.sort_unstable();
        let mut all: Vec<(&str, &str)> = ips.iter().map(|ip| (ip.as_str(), "authenticated")).collect();
        all.sort_unstable();
        assert_eq!(who, all, "{question}: {found:?}");
        assert!(found.iter().all(|row| users(row) == [r"CORP\\anna"]), "{found:?}");
    }
}

#[test]
fn one_bad_field_of_a_report_costs_itself_and_the_login_stands() {
    let mut portal = Portal::new(1);
    let ip = address(&portal.lab.clients[0], &portal.lab);
    let mac = portal.lab.clients[0].mac.clone();
    // By the hook, as a portal in Latin-1 writes the name, with an access point that is a name.
    let name = std::ffi::OsStr::from_bytes(b"user=Ren\xe9");
    let status = Command::new(hook("hotspot-report"))
        .env("HOTSPOT_PORTAL", &portal.socket)
        .env("HOTSPOT_SPOOL", portal.spool())
        .args(["put", "l1", &format!("mac={mac}"), &format!("ip={ip}"), "ap_mac=hotspot1", "interim_interval_s=soon"])
        .arg(name)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(portal.spool()).unwrap(), "", "it was taken");
    assert!(!portal.spool().with_extension("jsonl.refused").exists());
    let body = format!(r#"{{"mac":"{mac}","ips":["{ip}"],"ssid":{{}}}}"#);
    let answer = serde_json::json!({ "odd_fields": ["ssid"], "recorded": 1 });
    assert_eq!(portal.ask("PATCH", "/v1/sessions/l1", &body), (200, answer));
    ping(&portal.lab.clients[0]);
    let log = portal.agent.as_ref().unwrap().log();
    assert!(log.contains("\"ap_mac\"") && log.contains("\"interim_interval_s\""), "the log names the fields: {log}");
    portal.stop();
    assert_eq!(attributed(&portal, &ip), (r"Ren\xe9".into(), "authenticated".into()));
    let sessions = sessions(&portal.data.join("archive")).unwrap();
    assert_eq!((&sessions["l1"]["called_station"], &sessions["l1"]["ap_mac"]), (&"hotspot1".into(), &Value::Null));
}

/// A client gives its address back (DHCPRELEASE).
fn release(client: &Client) {
    let ip = client.addresses().unwrap().into_iter().find(|ip| !ip.contains(':')).unwrap();
    let script = format!(
        "import socket\nmac, ip, server = bytes.fromhex('{}'), socket.inet_aton('{ip}'), socket.inet_aton('{GATEWAY_V4}')\n\
         m = bytes([1, 1, 6, 0]) + bytes(8) + ip + bytes(12) + mac + bytes(202) + bytes([99, 130, 83, 99, 53, 1, 7, 54, 4]) + server\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 68))\n\
         s.sendto(m + bytes([61, 7, 1]) + mac + bytes([255]), ('{GATEWAY_V4}', 67))\n",
        client.mac.replace(':', "")
    );
    run(client.namespace.command("python3").args(["-c", &script])).unwrap();
}

#[test]
fn leases_that_dnsmasq_reports_name_the_devices() {
    let mut portal = Portal::new(2);
    portal.lab.stop_dhcp().unwrap();
    let script = format!("--dhcp-script={}", hook("dnsmasq-dhcp-script").display());
    portal
        .lab
        .start_dhcp(|dnsmasq| {
            dnsmasq.args([&script, "--script-on-renewal"]);
            dnsmasq.env("HOTSPOT_PORTAL", &portal.socket).env("HOTSPOT_SPOOL", portal.spool());
        })
        .unwrap();
    let [phone, odd] = &portal.lab.clients[..] else { panic!("two clients") };
    let ip = address(phone, &portal.lab);
    ping(phone);
    // Another says what is no text, and gives its address back.
    odd.connect_with(&portal.lab, &["-x", "0x0c:6f64ff5c21", "-V", "MSFT 5.0"]).unwrap();
    release(odd);
    let journal = || -> Vec<Value> {
        let journals = files(&portal.data.join("journal")).unwrap();
        journals.iter().flat_map(|journal| decoded(journal).unwrap_or_default()).collect()
    };
    let of = |client: &Client| -> Vec<Value> {
        journal().into_iter().filter(|row| row["source"] == "lease" && row["client_mac"] == *client.mac).collect()
    };
    wait_until("what was given back is reported", Duration::from_secs(20), || {
        of(odd).iter().any(|fact| fact["event"]["released"].is_object())
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", of(odd)));
    let leased: Vec<Value> = of(phone).into_iter().filter(|fact| fact["event"]["leased"]["ip"] == ip).collect();
    let lease_s = leased[0]["event"]["leased"]["lease_s"].as_u64().unwrap();
    assert!((3500..=3600).contains(&lease_s), "{leased:?}");
    // The agent sees the requests too, so what the reports name is looked for in the reports.
    let named = |client: &Client| -> Value {
        of(client).into_iter().find_map(|fact| fact["event"].get("named").cloned()).unwrap_or_default()
    };
    let (phone_named, odd_named) = (named(phone), named(odd));
    wait_until("the spool is empty", Duration::from_secs(10), || {
        fs::read_to_string(portal.spool()).is_ok_and(|waits| waits.is_empty())
    })
    .unwrap();
    let macs = [phone.mac.clone(), odd.mac.clone()];
    portal.stop();

    let archive = portal.data.join("archive");
    let devices = rows(&archive, "devices").unwrap();
    for (column, value) in [("hostname", "c1-phone"), ("client_id", "01020000000101")] {
        assert_eq!(phone_named[column], value, "{phone_named}");
    }
    assert_eq!((&odd_named["hostname"], &odd_named["vendor_class"]), (&"od\\xff\\\\!".into(), &"MSFT 5.0".into()));
    let [phone, odd] = macs.map(|mac| {
        devices.iter().find(|row| row["client_mac"] == mac).unwrap_or_else(|| panic!("{devices:?}")).clone()
    });
    assert_eq!(phone["hostname"], "c1-phone");
    assert!(phone["vendor_class"].as_str().unwrap().starts_with("udhcp"), "{phone}");
    assert!(phone["dhcp_fingerprint"].as_str().unwrap().starts_with("1,3,"), "{phone}");
    assert_eq!(phone["client_id"], "01020000000101");
    assert!(phone["ips"].as_array().unwrap().contains(&ip.into()), "{phone}");
    assert_eq!((&odd["hostname"], &odd["vendor_class"]), (&"od\\xff\\\\!".into(), &"MSFT 5.0".into()));
    assert!(
        [&phone, &odd].iter().all(|row| row["source"].as_array().unwrap().contains(&"lease".into())),
        "{devices:?}"
    );
    let flows = ask("find", &archive, &["mac", "02:00:00:00:01:01", "and", "dst", "ip", SERVER_V4]).unwrap();
    assert!(!flows.is_empty() && flows.iter().all(|flow| flow["hostname"] == "c1-phone"), "{flows:?}");
}

#[test]
fn reports_wait_while_the_agent_is_away_and_one_bad_one_holds_up_none() {
    let mut portal = Portal::new(1);
    let ip = address(&portal.lab.clients[0], &portal.lab);
    let mac = portal.lab.clients[0].mac.clone();
    portal.stop();
    portal.hook("hotspot-report", &[], &["put", "w1", &format!("mac={mac}"), &format!("ip={ip}"), "user=early"]);
    portal.hook("hotspot-report", &[], &["put", "bad", "mac=no-mac"]);
    assert_eq!(fs::read_to_string(portal.spool()).unwrap().lines().count(), 2);
    portal.start();
    ping(&portal.lab.clients[0]);
    portal.hook("hotspot-report", &[], &["flush"]);
    assert_eq!(fs::read_to_string(portal.spool()).unwrap(), "");
    assert_eq!(fs::read_to_string(portal.spool().with_extension("jsonl.refused")).unwrap().lines().count(), 1);
    portal.stop();
    assert_eq!(attributed(&portal, &ip), ("early".into(), "authenticated".into()), "it had happened before the flow");
}

#[test]
fn the_interface_is_as_its_description_says() {
    let portal = Portal::new(0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = portal
        .lab
        .switch
        .command(&root.join("target/venv/bin/schemathesis").display().to_string())
        .args(["run", &root.join("docs/portal-api.yaml").display().to_string()])
        .args(["--url", &format!("http://{GATEWAY_V4}:8017"), "--max-examples", "40", "--seed", "7", "--workers", "1"])
        // What is true to the schema can still be refused (a login in the future); what is not must be.
        .args(["--exclude-checks", "positive_data_acceptance", "--exclude-operation-id", "reportBatch"])
        .args(["--phases", "examples,coverage,fuzzing", "-H", &format!("Authorization: Bearer {TOKEN}")])
        .current_dir(portal.lab.dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    wait_until("the agent goes on", Duration::from_secs(5), || portal.ask("GET", "/v1/health", "").0 == 200).unwrap();
}
