//! Accounting by the real servers and clients: `FreeRADIUS` forwards, hostapd accounts for whom it let in by 802.1X, and the agent
//! answers on every address it has, with whatever secret is in force, and only what it has on disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hotspot_tests::aaa::{Authenticator, FreeRadius, HOTSPOT_SECRET, NAS_SECRET, SWITCH_V4, supplicate};
use hotspot_tests::lab::{Client, GATEWAY_V4, Lab, SERVER_V4};
use hotspot_tests::namespace::{Namespace, run};
use hotspot_tests::programs::{Agent, ask, decoded, files, hotspot, questions, rows, sessions, users, write_secret};
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

/// The texts of a session's columns.
fn assert_says(session: &Value, expected: &[(&str, &str)]) {
    for (column, value) in expected {
        assert_eq!(session[column], *value, "{column} of {session}");
    }
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
    let is_told =
        |journal: &PathBuf| decoded(journal).is_ok_and(|rows| rows.iter().any(|row| row["user"] == "mallory"));
    wait_until("the refused login is reported", Duration::from_secs(20), || {
        files(&data.join("journal")).unwrap().iter().any(is_told)
    })
    .unwrap();
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
    assert_says(session, &expected);
    assert_eq!(session["client_ips"], serde_json::json!(["10.20.0.77"]));
    assert_eq!(session["client_prefixes"], serde_json::json!(["2001:db8:77::/64", "2001:db8:78::/60"]));
    let refused: Vec<&Value> = sessions.values().filter(|session| session["status"] == "rejected").collect();
    assert_eq!(refused.len(), 1, "{sessions:?}");
    assert_eq!((&refused[0]["user"], &refused[0]["client_mac"]), (&"mallory".into(), &"02:00:00:00:00:66".into()));
}

#[test]
fn a_controller_whose_accounting_names_no_device_is_understood_by_its_logins() {
    let lab = Lab::new(0).unwrap();
    let Listening { agent, data, .. } = listen(&lab, HOTSPOT_SECRET, &["--no-nat", "--grace", "0"]);
    let server = FreeRadius::start(&lab, &[("alice", "right")]).unwrap();
    let session = "User-Name = \"alice\"\nNAS-Identifier = \"controller\"\nAcct-Session-Id = \"7e\"\n";
    let login = format!(
        "{session}User-Password = \"right\"\nCalling-Station-Id = \"02-AA-BB-CC-DD-EE\"\nFramed-IP-Address = 10.20.0.77\n\
         Called-Station-Id = \"00-10-A4-23-19-C0:Cafe\"\n"
    );
    let (_, said) = radclient(&lab.switch, lab.dir(), &format!("{SWITCH_V4}:1812"), "auth", NAS_SECRET, 1, &login);
    assert!(said.contains("Received Access-Accept"), "{said}\n{}", server.log());
    let account = |report: &str| {
        let (to, report) = (format!("{SWITCH_V4}:1813"), format!("{session}{report}"));
        let (answered, said) = radclient(&lab.switch, lab.dir(), &to, "acct", NAS_SECRET, 5, &report);
        assert!(answered, "{said}\n{}", server.log());
    };
    account("Acct-Status-Type = Start\n");
    wait_until("the login is forwarded", Duration::from_secs(20), || server.has_forwarded()).unwrap();
    account("Acct-Status-Type = Stop\nAcct-Input-Octets = 10\nAcct-Output-Octets = 20\n");
    assert!(agent.stop().unwrap().success());

    let sessions = sessions(&data.join("archive")).unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let session = &sessions["controller/7e"];
    let expected = [
        ("user", "alice"),
        ("client_mac", "02:aa:bb:cc:dd:ee"),
        ("ap_mac", "00:10:a4:23:19:c0"),
        ("ssid", "Cafe"),
        ("status", "ended"),
    ];
    assert_says(session, &expected);
    assert_eq!((&session["client_ips"], &session["bytes_out"]), (&serde_json::json!(["10.20.0.77"]), &10.into()));
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
    wait_until("the refused login is forwarded", Duration::from_secs(20), || server.has_forwarded()).unwrap();
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
        assert_eq!(users(flow), ["alice@example.net"], "{flow}");
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
fn a_name_with_commas_in_it_hides_nobody_and_accuses_nobody() {
    let lab = Lab::new(2).unwrap();
    let listening = listen(&lab, "10.20.0.0/24 four\n", &["--no-nat", "--generation", "1", "--grace", "0"]);
    let (shared, own) = (&lab.clients[0], &lab.clients[1]);
    // Two people on one device, and one who has another's name in his on the other.
    let logins = [(shared, "s1, s2", "guest, chi"), (shared, "t1", "other (chi)"), (own, "u1", "chi, binh")];
    for client in [shared, own] {
        client.connect(&lab).unwrap();
    }
    for (client, id, user) in logins {
        let report = format!(
            "Acct-Status-Type = Start\nAcct-Session-Id = \"{id}\"\nUser-Name = \"{user}\"\nNAS-Identifier = \"ap1\"\n\
             Calling-Station-Id = \"{}\"\n",
            client.mac
        );
        let (answered, said) =
            radclient(&lab.switch, lab.dir(), &format!("{GATEWAY_V4}:1813"), "acct", "four", 3, &report);
        assert!(answered, "{said}");
    }
    for client in [shared, own] {
        client.namespace.run(&format!("ping -c 1 -W 2 {SERVER_V4}")).unwrap();
    }
    assert!(listening.agent.stop().unwrap().success());

    let archive = listening.data.join("archive");
    let pings =
        |filter: &str| ask("find", &archive, &[&format!("{filter} and proto icmp and dst ip {SERVER_V4}")]).unwrap();
    let of = |client: &Client| pings(&format!("mac {}", client.mac));
    for filter in ["user \"guest, chi\"", "user = \"guest, chi\"", "user \"other (chi)\"", "session \"ap1/s1, s2\""] {
        let found = pings(filter);
        assert!(!found.is_empty() && found == of(shared), "{filter}: {found:?}");
        for row in &found {
            let mut names = users(row);
            names.sort_unstable();
            assert_eq!((names, &row["attribution"]), (vec!["guest, chi", "other (chi)"], &"ambiguous".into()), "{row}");
        }
    }
    let found = pings("user \"chi, binh\"");
    assert!(!found.is_empty() && found == of(own), "{found:?}");
    for row in &found {
        assert_eq!(users(row), ["chi, binh"]);
    }
    for user in ["chi", "binh", "guest", "other", "s1"] {
        assert_eq!(pings(&format!("user {user}")), [] as [Value; 0], "{user}");
    }
    // Each person is a group of his own, with all of the rows that name him.
    let groups = ask("find", &archive, &["--by", "user", "proto icmp"]).unwrap();
    let count = |user: &str| groups.iter().find(|group| group["user"] == user).map(|group| group["flows"].clone());
    assert_eq!(groups.len(), 3, "{groups:?}");
    assert_eq!(count("guest, chi"), Some(of(shared).len().into()));
    assert_eq!(count("other (chi)"), Some(of(shared).len().into()));
    assert_eq!(count("chi, binh"), Some(of(own).len().into()));
    // The index says the same as the rows, and a table and CSV leave no doubt either.
    let log = questions(&archive).display().to_string();
    let archive = archive.display().to_string();
    let csv = hotspot(&["find", "--archive", &archive, "--audit", &log, "--csv", "user \"guest, chi\""]).unwrap();
    let csv = String::from_utf8(csv.stdout).unwrap();
    let lists = [r#""[""guest, chi"",""other (chi)""]""#, r#""[""other (chi)"",""guest, chi""]""#];
    assert!(lists.iter().any(|list| csv.contains(list)), "{csv}");
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

/// A file system of three megabytes: too small for the journal to reserve room in advance, so that it can be filled.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "small"]).arg(at)).unwrap();
        Self(at.to_path_buf())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because the agent of a failed test may still be there.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn with_the_disk_full_nothing_is_answered_and_afterwards_there_is_one_record() {
    let lab = Lab::new(0).unwrap();
    let _disk = SmallDisk::mount(&lab.dir().join("data"));
    // Nothing but the requests makes the agent write.
    let Listening { agent, data, .. } =
        listen(&lab, HOTSPOT_SECRET, &["--no-nat", "--generation", "60", "--grace", "0", "--rotate", "3600"]);
    let filler = data.join("filler");
    let full = std::fs::write(&filler, vec![0; 8 << 20]);
    assert!(full.is_err(), "a file system of 3 MiB is full by now");
    let to = format!("{GATEWAY_V4}:1813");
    // Of refused logins every report is a record of its own: one that was kept although it was not answered would show.
    let ask = |number: usize, tries: u32| {
        let failed = format!(
            "Acct-Status-Type = Failed\nAcct-Session-Id = \"login{number:03}\"\nUser-Name = \"mallory\"\nNAS-Identifier = \"ap1\"\n"
        );
        radclient(&lab.switch, lab.dir(), &to, "acct", HOTSPOT_SECRET, tries, &failed)
    };
    // The last page of the journal's file is the file's already: what fits into it can be written, and is answered.
    let page_bytes = 4096;
    let refused = (0..page_bytes / SMALLEST_FRAME_BYTES).find(|number| !ask(*number, 1).0);
    let refused = refused.expect("a page has no room for so many");
    assert!(!ask(refused, 3).0, "nor when it is asked again");
    assert!(!ask(refused + 1, 1).0, "nor is another");
    std::fs::remove_file(&filler).unwrap();
    wait_until("the journal is written again", Duration::from_secs(10), || {
        agent.log().contains("the journal can be written again")
    })
    .unwrap();
    let (answered, said) = ask(refused, 3);
    assert!(answered, "{said}");
    agent.signal("TERM").unwrap();
    wait_until("it says what it counted", Duration::from_secs(20), || agent.log().contains("RADIUS accounting ends"))
        .unwrap();
    let log = agent.log();
    assert!(agent.stop().unwrap().success());
    assert!(log.contains(&format!("recorded={} ", refused + 1)) && log.contains("not_recorded=5"), "{log}");
    // What was answered is there once, each from a moment of its own; what was not answered is not.
    let rows = rows(&data.join("archive"), "sessions").unwrap();
    let ids = rows.iter().map(|row| row["session_id"].as_str().unwrap().split('/').nth(1).unwrap().to_owned());
    let recorded: Vec<String> = ids.collect();
    let answered: Vec<String> = (0..=refused).map(|number| format!("login{number:03}")).collect();
    assert_eq!(recorded, answered);
    assert!(rows.iter().all(|row| row["status"] == "rejected"), "{rows:?}");
}

/// Of the journal's format: a frame's header, the nonce and the tag.
const SMALLEST_FRAME_BYTES: usize = 24 + 12 + 16;
