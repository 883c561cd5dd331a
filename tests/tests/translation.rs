//! Translation on a gateway with a single public port: whoever has it, has it alone, and for a moment.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use hotspot_tests::lab::{GATEWAY_V4, Lab, PUBLIC_V4, SERVER_V4};
use hotspot_tests::programs::{Agent, ask, ensure_whole, write_secret};
use hotspot_tests::wait_until;

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
        assert_eq!(found[0]["user"], user, "at {at}: {found:?}");
        assert_eq!((&found[0]["nat"], &found[0]["attribution"]), (&"exact".into(), &"authenticated".into()));
    }
    let flows = ask("find", &archive, &["public", "ip", PUBLIC_V4, "port", &PORT.to_string()]).unwrap();
    let time = |position: usize, name: &str| flows[position][name].as_str().unwrap().to_owned();
    let (first, second) = if time(0, "start") < time(1, "start") { (0, 1) } else { (1, 0) };
    assert_eq!(flows.len(), 2, "{flows:?}");
    assert!(time(first, "end") < time(second, "start"), "each has its own interval: {flows:?}");
}
