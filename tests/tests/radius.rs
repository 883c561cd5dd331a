//! Accounting by the real servers and clients: `FreeRADIUS` forwards, hostapd accounts for whom it let in by 802.1X, and the agent
//! answers on every address it has, with whatever secret is in force, and only what it has on disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hotspot_tests::aaa::{Authenticator, FreeRadius, HOTSPOT_SECRET, NAS_SECRET, SWITCH_V4, supplicate};
use hotspot_tests::lab::{GATEWAY_V4, Lab};
use hotspot_tests::namespace::Namespace;
use hotspot_tests::programs::{Agent, ask, sessions, write_secret};
use hotspot_tests::wait_until;
use serde_json::Value;

/// An agent that listens for accounting on every address, and where its secrets and data are.
struct Listening {
    agent: Agent,
    secrets: PathBuf,
    data: PathBuf,
}

fn listen(lab: &Lab, secrets_text: &str, options: &[&str]) -> Listening {
    let (data, secrets) = (lab.dir().join("data"), lab.dir().join("secrets"));
    write_secret(&secrets, secrets_text).unwrap();
    let secret_file = secrets.display().to_string();
    let listen =
        ["--radius-listen", "0.0.0.0:1813", "--radius-listen", "[::]:1813", "--radius-secret-file", &secret_file];
    let agent = Agent::start(&lab.gateway, &data, &[&listen, options].concat()).unwrap();
    Listening { agent, secrets, data }
}

/// Asks with the real client; what it said, and whether it took what came for an answer.
fn radclient(
    from: &Namespace,
    dir: &Path,
    to: &str,
    kind: &str,
    secret: &str,
    tries: u32,
    attributes: &str,
) -> (bool, String) {
    let file = dir.join(format!("request-{}", attributes.len()));
    std::fs::write(&file, attributes).unwrap();
    let mut client = from.command("radclient");
    client.args(["-x", "-t", "1", "-r", &tries.to_string(), "-f"]).arg(&file).args([to, kind, secret]);
    let output = client.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (said.contains("Received Acc"), said)
}

fn start(id: &str) -> String {
    format!("Acct-Status-Type = Start\nAcct-Session-Id = \"{id}\"\nUser-Name = \"alice\"\nNAS-Identifier = \"ap1\"\n")
}

#[test]
fn freeradius_forwards_accounting_and_refused_logins() {
    let lab = Lab::new(0).unwrap();
    let Listening { agent, data, .. } = listen(&lab, HOTSPOT_SECRET, &["--no-nat", "--grace", "0"]);
    let server = FreeRadius::start(&lab, &[("alice", "right")]).unwrap();
    let whole = "Acct-Status-Type = Start\nAcct-Session-Id = \"5f00\"\nUser-Name = \"alice\"\nNAS-Identifier = \"ap1\"\n\
                 Calling-Station-Id = \"02aa.bbcc.ddee\"\nCalled-Station-Id = \"00-10-A4-23-19-C0:Cafe: upstairs\"\n\
                 Framed-IP-Address = 10.20.0.77\nFramed-IPv6-Prefix = 2001:db8:77::/64\nDelegated-IPv6-Prefix = 2001:db8:78::/60\n\
                 NAS-Port-Type = Wireless-802.11\nNAS-Port-Id = \"wlan0\"\nAcct-Multi-Session-Id = \"roams\"\n\
                 Chargeable-User-Identity = 0x637569\nClass = 0x676f6c64\nWISPr-Location-ID = \"isocc=vn\"\nWISPr-Location-Name = \"Cafe\"\n";
    let accounting = format!("{SWITCH_V4}:1813");
    let (answered, said) = radclient(&lab.switch, lab.dir(), &accounting, "acct", NAS_SECRET, 5, whole);
    assert!(answered, "{said}\n{}", server.log());
    let login = "User-Name = \"mallory\"\nUser-Password = \"guessed\"\nNAS-Identifier = \"ap1\"\n\
                 Calling-Station-Id = \"02-00-00-00-00-66\"\n";
    let (_, said) = radclient(&lab.switch, lab.dir(), &format!("{SWITCH_V4}:1812"), "auth", NAS_SECRET, 1, login);
    assert!(said.contains("Received Access-Reject"), "{said}\n{}", server.log());
    let journals = || std::fs::read_dir(data.join("journal")).unwrap().flatten().map(|entry| entry.path());
    let told = |text: &str| {
        journals().any(|journal| {
            let decoded = hotspot_tests::programs::hotspot(&["decode", &journal.display().to_string()]).unwrap();
            String::from_utf8_lossy(&decoded.stdout).contains(text)
        })
    };
    wait_until("the refused login is reported", Duration::from_secs(20), || told("mallory")).unwrap();
    assert!(agent.stop().unwrap().success());

    let sessions = sessions(&data.join("archive")).unwrap();
    let session = &sessions["ap1/5f00"];
    let expected = [
        ("user", "alice"),
        ("client_mac", "02:aa:bb:cc:dd:ee"),
        ("ap_mac", "00:10:a4:23:19:c0"),
        ("ssid", "Cafe: upstairs"),
        ("nas", "ap1"),
        ("nas_port", "wlan0"),
        ("nas_port_type", "Wireless-802.11"),
        ("multi_session_id", "roams"),
        ("chargeable_user", "cui"),
        ("class", "gold"),
        ("location", "isocc=vn Cafe"),
        ("status", "active"),
    ];
    for (column, value) in expected {
        assert_eq!(session[column], value, "{column} of {session}");
    }
    assert_eq!(session["client_ips"], serde_json::json!(["10.20.0.77"]));
    assert_eq!(session["client_prefixes"], serde_json::json!(["2001:db8:77::/64", "2001:db8:78::/60"]));
}

#[test]
fn who_logs_in_by_802_1x_is_in_the_flows() {
    let lab = Lab::new(2).unwrap();
    let Listening { agent, data, .. } = listen(&lab, HOTSPOT_SECRET, &["--generation", "2", "--grace", "2"]);
    let server = FreeRadius::start(&lab, &[("alice@example.net", "right"), ("bob@example.net", "right")]).unwrap();
    let (alice, mallory) = (&lab.clients[0], &lab.clients[1]);
    let port = Authenticator::start(&lab, alice).unwrap();
    supplicate(lab.dir(), alice, "alice@example.net", "right").unwrap();
    wait_until("alice is let in", Duration::from_secs(30), || port.log().contains("starting accounting session"))
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", port.log(), server.log()));
    // Another port of the same switch comes up, and says so: that ends nobody's session on this one.
    let other_port = Authenticator::start(&lab, mallory).unwrap();
    supplicate(lab.dir(), mallory, "bob@example.net", "guessed").unwrap();
    wait_until("mallory is refused", Duration::from_secs(30), || other_port.log().contains("CTRL-EVENT-EAP-FAILURE"))
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", other_port.log(), server.log()));
    for client in [alice, mallory] {
        client.connect(&lab).unwrap();
        client.browse().unwrap();
    }
    // FreeRADIUS reads its file of refused logins once a second.
    wait_until("the refused login is forwarded", Duration::from_secs(20), || {
        !lab.dir().join("freeradius/rejects").exists() && !lab.dir().join("freeradius/rejects.work").exists()
    })
    .unwrap();
    assert!(agent.stop().unwrap().success());

    let archive = data.join("archive");
    let sessions = sessions(&archive).unwrap();
    let of = |mac: &str| -> Vec<&Value> { sessions.values().filter(|session| session["client_mac"] == mac).collect() };
    let [session] = of(&alice.mac)[..] else { panic!("{sessions:?}") };
    assert_eq!((&session["user"], &session["status"]), (&"alice@example.net".into(), &"active".into()));
    assert_eq!((&session["class"], &session["nas"]), (&"guests".into(), &"switch1".into()), "{session}");
    assert_eq!(session["auth_method"], "radius");
    let refused = of(&mallory.mac);
    assert!(!refused.is_empty(), "{sessions:?}");
    for refused in refused {
        assert_eq!((&refused["user"], &refused["status"]), (&"bob@example.net".into(), &"rejected".into()));
    }

    let flows = |mac: &str| ask("find", &archive, &["mac", mac]).unwrap();
    let (hers, others) = (flows(&alice.mac), flows(&mallory.mac));
    assert!(hers.len() >= 6 && others.len() >= 6, "{} and {} flows", hers.len(), others.len());
    // What her device said before she logged in is hers too, but says so.
    for flow in &hers {
        assert_eq!(flow["user"], "alice@example.net", "{flow}");
    }
    let since = hers.iter().filter(|flow| flow["start"].as_str() > session["started"].as_str());
    for flow in since {
        assert!(matches!(flow["attribution"].as_str(), Some("mac_only" | "authenticated")), "{flow}");
    }
    for flow in &others {
        assert_eq!((&flow["user"], &flow["attribution"]), (&Value::Null, &"unknown".into()), "{flow}");
    }
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let lab = Lab::new(1).unwrap();
    lab.gateway.ip("addr add 10.20.0.9/24 dev lan").unwrap();
    lab.gateway.ip("addr add 2001:db8:20::9/64 dev lan nodad").unwrap();
    let client = &lab.clients[0].namespace;
    client.ip("addr add 10.20.0.60/24 dev eth0").unwrap();
    client.ip("addr add 2001:db8:20::60/64 dev eth0 nodad").unwrap();
    let listening = listen(&lab, "10.20.0.60 four\n2001:db8:20::/64 six\n", &["--no-nat", "--grace", "0"]);
    // The first is where the kernel would answer from, the second is not.
    for (to, secret) in [
        ("10.20.0.1:1813", "four"),
        ("10.20.0.9:1813", "four"),
        ("[2001:db8:20::1]:1813", "six"),
        ("[2001:db8:20::9]:1813", "six"),
    ] {
        let (answered, said) = radclient(client, lab.dir(), to, "acct", secret, 3, &start(&to.replace(':', "-")));
        assert!(answered, "{to}: {said}");
    }
    assert!(listening.agent.log().contains("listening for RADIUS accounting"));
    assert!(listening.agent.stop().unwrap().success());
    assert_eq!(sessions(&listening.data.join("archive")).unwrap().len(), 4);
}

#[test]
fn secrets_change_without_a_request_lost() {
    let lab = Lab::new(0).unwrap();
    let Listening { agent, secrets, data } = listen(&lab, "10.20.0.2 old\n", &["--no-nat", "--grace", "0"]);
    let to = format!("{GATEWAY_V4}:1813");
    let asks =
        |id: u32, secret: &str| radclient(&lab.switch, lab.dir(), &to, "acct", secret, 1, &start(&format!("{id:06}")));
    // Each is sent once: one that is lost has no answer.
    for id in 0..10 {
        agent.signal("HUP").unwrap();
        let (answered, said) = asks(id, "old");
        assert!(answered, "{said}");
    }
    let reads = || agent.log().matches("read the RADIUS secrets again").count();
    write_secret(&secrets, "10.20.0.2 new\n10.20.0.0/24 others\n").unwrap();
    wait_until("all signals are served", Duration::from_secs(10), || reads() >= 1).unwrap();
    let before = reads();
    agent.signal("HUP").unwrap();
    wait_until("the secrets are read", Duration::from_secs(10), || reads() > before).unwrap();
    assert!(asks(10, "new").0);
    assert!(!asks(11, "old").0, "the old secret is no longer good");
    write_secret(&secrets, "nonsense here and there\n").unwrap();
    agent.signal("HUP").unwrap();
    wait_until("a bad file is told", Duration::from_secs(10), || agent.log().contains("stay as they were")).unwrap();
    assert!(asks(12, "new").0, "a bad file changes nothing");
    let log = agent.log();
    assert!(agent.stop().unwrap().success());
    assert_eq!(sessions(&data.join("archive")).unwrap().len(), 12);
    for personal in ["alice", "new", "000001"] {
        assert!(!log.contains(&format!("{personal}\"")), "the log holds {personal}");
    }
}
