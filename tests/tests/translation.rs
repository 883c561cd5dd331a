//! Translation: of a single public port, which whoever has it has alone and for a moment, and of what comes from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use hotspot_tests::lab::{Client, GATEWAY_V4, Lab, PUBLIC_V4, SERVER_V4};
use hotspot_tests::namespace::{self, Namespace};
use hotspot_tests::programs::{Agent, ask, ensure_whole, users, write_secret};
use hotspot_tests::wait_until;
use serde_json::Value;

const SECRET: &str = "not-a-secret-in-a-test";
const PORT: u16 = 50_000;

#[test]
fn a_public_port_that_changes_hands_within_a_second_has_two_owners() {
    let lab = Lab::new(2).unwrap();
    lab.gateway.run("nft flush chain ip nat post").unwrap();
    let rule = format!("nft add rule ip nat post oifname wan meta l4proto tcp masquerade to :{PORT}-{PORT}");
    lab.gateway.run(&rule).unwrap();
    let secret_file = lab.dir().join("radius.secret");
    write_secret(&secret_file, SECRET).unwrap();
    let (data, listen) = (lab.dir().join("data"), format!("{GATEWAY_V4}:1813"));
    let secret = secret_file.display().to_string();
    let options = ["--radius-listen", &listen, "--radius-secret-file", &secret, "--generation", "1", "--grace", "1"];
    let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
    for client in &lab.clients {
        client.connect(&lab).unwrap();
        let ip = client.addresses().unwrap().into_iter().find(|ip| ip.contains('.')).unwrap();
        let login = format!(
            "Acct-Status-Type = Start\nAcct-Session-Id = \"{0}\"\nUser-Name = \"user-{0}\"\nCalling-Station-Id = \"{1}\"\n\
             NAS-Identifier = \"ap1\"\nFramed-IP-Address = {ip}\n",
            client.name,
            client.mac.replace(':', "-")
        );
        lab.account(&login, SECRET).unwrap();
    }
    for client in &lab.clients {
        // Asked again where the port was not free yet.
        wait_until("the server answers", Duration::from_secs(10), || {
            let url = format!("http://{SERVER_V4}/who/{}-v4", client.name);
            client.namespace.run(&format!("curl -s -f -m 2 -o /dev/null {url}")).is_ok()
        })
        .unwrap();
        // What time would do: the connection is forgotten, and its port free.
        lab.gateway.run("conntrack -D -p tcp").unwrap();
    }
    assert!(agent.stop().unwrap().success());

    let archive = data.join("archive");
    ensure_whole(&archive).unwrap();
    let mut requests = lab.web_log().unwrap();
    requests.retain(|request| request.path.starts_with("/who/"));
    let asked: Vec<&str> = requests.iter().map(|request| &*request.path).collect();
    assert_eq!(asked, ["/who/c1-v4", "/who/c2-v4"]);
    for (request, user) in requests.iter().zip(["user-c1", "user-c2"]) {
        assert_eq!((&*request.ip, request.port), (PUBLIC_V4, PORT), "the server saw one address and port");
        let (public, at) = (format!("{PUBLIC_V4}:{PORT}"), format!("@{}", request.at));
        let found = ask("who", &archive, &["--public", &public, "--at", &at]).unwrap();
        assert_eq!(users(&found[0]), [user], "at {at}: {found:?}");
        assert_eq!((&found[0]["nat"], &found[0]["attribution"]), (&"exact".into(), &"authenticated".into()));
    }
    let flows = ask("find", &archive, &["public", "ip", PUBLIC_V4, "port", &PORT.to_string()]).unwrap();
    let time = |position: usize, name: &str| flows[position][name].as_str().unwrap().to_owned();
    let (first, second) = if time(0, "start") < time(1, "start") { (0, 1) } else { (1, 0) };
    assert_eq!(flows.len(), 2, "{flows:?}");
    assert!(time(first, "end") < time(second, "start"), "each has its own interval: {flows:?}");
}

/// What a client serves, by TCP and UDP.
#[expect(clippy::zombie_processes, reason = "the child ends with its namespace")]
fn serve(client: &Client, port: u16) {
    let script = format!(
        "import socket, threading\nt = socket.create_server(('0.0.0.0', {port}))\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         u.bind(('0.0.0.0', {port}))\ndef echo():\n    while True:\n        data, peer = u.recvfrom(2048)\n        u.sendto(data, peer)\n\
         threading.Thread(target=echo, daemon=True).start()\n\
         while True:\n    c, peer = t.accept()\n    c.sendall(c.recv(64))\n    c.close()\n"
    );
    client.namespace.spawn(client.namespace.command("python3").args(["-c", &script])).unwrap();
    wait_until("it is served", Duration::from_secs(10), || {
        client.namespace.run(&format!("ss -Hltn sport = :{port}")).is_ok_and(|text| !text.is_empty())
    })
    .unwrap();
}

/// Says something to an endpoint from a port, and hears it again.
fn ask_from(namespace: &Namespace, kind: &str, from: (&str, u16), to: (&str, u16)) {
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.{kind})\ns.settimeout(5)\ns.bind(('{}', {}))\ns.connect(('{}', {}))\n\
         s.send(b'who?')\nassert s.recv(64) == b'who?'",
        from.0, from.1, to.0, to.1
    );
    namespace.command("python3").args(["-c", &script]).status().map(|status| assert!(status.success())).unwrap();
}

#[test]
fn what_a_forwarded_port_leads_to_has_the_public_endpoint() {
    let lab = Lab::new(2).unwrap();
    let data = lab.dir().join("data");
    for client in &lab.clients {
        client.connect(&lab).unwrap();
    }
    let address = |client: &Client| client.addresses().unwrap().into_iter().find(|ip| ip.contains('.')).unwrap();
    let [inside, neighbour] = [0, 1].map(|client| address(&lab.clients[client]));
    serve(&lab.clients[0], 80);
    let rules = format!(
        "table ip forward {{\nchain pre {{\ntype nat hook prerouting priority -100;\n\
         ip daddr {PUBLIC_V4} meta l4proto {{ tcp, udp }} th dport 8080 dnat to {inside}:80\n}}\n\
         chain post {{\ntype nat hook postrouting priority 99;\nip saddr 10.20.0.0/24 ip daddr {inside} masquerade\n}}\n}}"
    );
    namespace::run(lab.gateway.command("nft").arg(rules)).unwrap();
    let agent = Agent::start(&lab.gateway, &data, &["--generation", "1", "--grace", "1"]).unwrap();
    ask_from(&lab.internet, "SOCK_STREAM", (SERVER_V4, 40_001), (PUBLIC_V4, 8080));
    ask_from(&lab.internet, "SOCK_DGRAM", (SERVER_V4, 40_002), (PUBLIC_V4, 8080));
    // From inside, by the public address: translated at both ends.
    ask_from(&lab.clients[1].namespace, "SOCK_STREAM", (&neighbour, 40_003), (PUBLIC_V4, 8080));
    assert!(agent.stop().unwrap().success());

    let archive = data.join("archive");
    ensure_whole(&archive).unwrap();
    let served = ask("find", &archive, &["mac", &lab.clients[0].mac, "and", "src", "port", "80"]).unwrap();
    let peers: BTreeSet<u64> = served.iter().filter_map(|flow| flow["peer_port"].as_u64()).collect();
    assert_eq!(peers, BTreeSet::from([40_001, 40_002, 40_003]), "{served:?}");
    for flow in &served {
        let public = (&flow["public_ip"], &flow["public_port"], &flow["nat"]);
        assert_eq!(public, (&PUBLIC_V4.into(), &8080.into(), &"exact".into()), "{flow}");
    }
    let outside: Vec<&Value> = served.iter().filter(|flow| flow["peer_ip"] == SERVER_V4).collect();
    assert!(outside.len() >= 2, "{served:?}");
    let public = format!("{PUBLIC_V4}:8080");
    for flow in outside {
        let at = flow["start"].as_str().unwrap();
        let found = ask("who", &archive, &["--public", &public, "--at", at]).unwrap();
        assert_eq!(found[0]["client_mac"], lab.clients[0].mac, "{found:?}");
    }
    let asked = ask("find", &archive, &["mac", &lab.clients[1].mac, "and", "src", "port", "40003"]).unwrap();
    let is_right =
        |flow: &Value| flow["peer_ip"] == PUBLIC_V4 && flow["public_ip"] == GATEWAY_V4 && flow["nat"] == "exact";
    assert!(!asked.is_empty() && asked.iter().all(is_right), "the server sees the gateway's address: {asked:?}");
}
