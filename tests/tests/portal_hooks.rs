//! The hooks in `contrib/portal`: what portals call them with, by the portals' own sources and programs, and what becomes of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hotspot_tests::lab::{Client, GATEWAY_V4, Lab, SERVER_V4};
use hotspot_tests::namespace::run;
use hotspot_tests::programs::{Agent, ask, sessions};
use hotspot_tests::wait_until;
use serde_json::Value;

const MAC: &str = "02:aa:bb:cc:dd:01";

fn hook(name: &str) -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/portal").join(name)).unwrap()
}

/// Hooks run by one of the shells that gateways have, while no agent is there: what they report stays in the spool.
struct Shell {
    dir: tempfile::TempDir,
    words: Vec<&'static str>,
    path: String,
}

impl Shell {
    /// Debian's `sh`, a shell that knows more than POSIX, and that of `OpenWrt` with its own tools.
    fn all() -> Vec<Self> {
        [&["dash"][..], &["bash", "--posix"], &["busybox", "sh"]].map(|words| Self::new(words.to_vec())).into()
    }

    fn new(words: Vec<&'static str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut path = std::env::var("PATH").unwrap();
        if words[0] == "busybox" {
            let tools = dir.path().join("bin");
            fs::create_dir(&tools).unwrap();
            let busybox = run(Command::new("sh").args(["-c", "command -v busybox"])).unwrap();
            for tool in ["awk", "sed", "tr", "head", "tail", "wc", "date", "dirname", "mkdir", "cat", "mv"] {
                symlink(busybox.trim(), tools.join(tool)).unwrap();
            }
            path = format!("{}:{path}", tools.display());
        }
        Self { dir, words, path }
    }

    /// Calls a hook; its answer, and the report it made, if it made one.
    fn call(
        &self,
        name: &str,
        environment: &[(&str, &[u8])],
        arguments: &[impl AsRef<[u8]>],
    ) -> (String, Option<Value>) {
        let spool = self.dir.path().join("spool/reports.jsonl");
        let _ = fs::remove_file(&spool);
        let output = Command::new(self.words[0])
            .args(&self.words[1..])
            .arg(hook(name))
            .args(arguments.iter().map(|argument| OsStr::from_bytes(argument.as_ref())))
            .env("PATH", &self.path)
            .env("HOTSPOT_PORTAL", self.dir.path().join("nobody.sock"))
            .env("HOTSPOT_SPOOL", &spool)
            .envs(environment.iter().map(|(name, value)| (name, OsStr::from_bytes(value))))
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let lines = fs::read(&spool).unwrap_or_default();
        // What is no UTF-8 is looked for in the bytes; the rest must be JSON without it.
        let report = (!lines.is_empty()).then(|| serde_json::from_str(&String::from_utf8_lossy(&lines)).unwrap());
        (String::from_utf8(output.stdout).unwrap(), report)
    }

    fn report(&self, name: &str, environment: &[(&str, &[u8])], arguments: &[impl AsRef<[u8]>]) -> Value {
        self.call(name, environment, arguments).1.unwrap_or_else(|| panic!("{}: no report", self.words[0]))
    }
}

/// As openNDS writes what it hands to `BinAuth` (`uh_urlencode` in src/util.c).
fn url_escaped(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte: &u8| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") };
    bytes.iter().map(escape).collect()
}

fn base64(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    run(Command::new("base64").arg("-w0").arg(file.path())).unwrap().trim().to_owned()
}

/// As pages of openNDS 9.5 and later send the custom variable.
fn custom(text: &str) -> String {
    url_escaped(base64(text.as_bytes()).as_bytes())
}

#[test]
fn every_call_of_opennds_is_the_report_it_means() {
    let anna = custom("user=anna, email=anna@example.org");
    // v9.0.0 to v9.4.0, src/http_microhttpd.c line 200 and thereabouts: user, password, redirect, agent, ip, token, custom.
    let before = |user: &'static str, custom: &str| {
        ["auth_client", MAC, user, "na", "http%3a%2f%2fx%2f", "agent", "10.20.0.77", "a1b2", custom]
            .map(str::to_owned)
            .to_vec()
    };
    // v9.5.0 (line 178) to v10.3.1 and b9fbb8d of 2025-12 (line 198): originurl, agent, ip, token, custom.
    let login = |ip: &str, custom: &str| {
        ["auth_client", MAC, "http%3a%2f%2fx%2f", "Mozilla%2f5.0", ip, "a1b2", custom].map(str::to_owned).to_vec()
    };
    // binauth_action in src/auth.c, the same in all of them: counters, session, token, custom.
    let later = |method: &str, custom: &str| {
        [method, MAC, "1000", "200", "1757601433", "1757605033", "a1b2", custom].map(str::to_owned).to_vec()
    };
    let mut calls = vec![
        (before("na", "user%3dNguy%e1%bb%85n%20%22V%22%26consent%3dyes"), "put", Some("Nguyễn \"V\"")),
        (before("binh", "none"), "put", Some("binh")),
        (before("null", ""), "put", None),
        (login("10.20.0.77", &anna), "put", Some("anna")),
        (login("2001:db8:20::77", &anna), "put", Some("anna")),
        // No custom variable: base64 of "na".
        (login("10.20.0.77", "bmE%3d"), "put", None),
        (login("10.20.0.77", &url_escaped(b"user=anna&x=1")), "put", Some("anna")),
        // openNDS's own pages: theme_user-email-login-basic.sh, fas-hid.php.
        (login("10.20.0.77", &custom("username=Anna B emailaddress=a@b.c")), "put", Some("Anna B")),
        (login("10.20.0.77", &custom("fullname=Anna B, email=a@b.c")), "put", Some("Anna B")),
        (login("10.20.0.77", &custom("user=+84 912 345 678")), "put", Some("+84 912 345 678")),
        (login("10.20.0.77", &custom("superuser=no")), "put", None),
        (later("client_auth", &anna), "patch", Some("anna")),
        (later("ndsctl_auth", &anna), "put", Some("anna")),
        (later("preemptive_auth", &anna), "put", Some("anna")),
        (later("preemptive_auth", &url_escaped(b"preemptivemac-02:aa")), "put", None),
        (later("download_throttle", &anna), "patch", None),
        (later("upload_throttle", "none"), "patch", None),
    ];
    // Up to 10 quotas are downquota and upquota, in 11 download_quota and upload_quota.
    for end in
        ["client", "ndsctl", "idle", "timeout", "shutdown", "downquota", "upquota", "download_quota", "upload_quota"]
    {
        calls.push((later(&format!("{end}_deauth"), "none"), "delete", None));
    }
    for shell in Shell::all() {
        for (arguments, op, user) in &calls {
            let (answer, report) = shell.call("opennds-binauth", &[], arguments);
            let report = report.unwrap_or_else(|| panic!("{} {arguments:?}", shell.words[0]));
            let method = arguments[0].as_str();
            assert_eq!(
                (&report["op"], &report["id"], &report["mac"]),
                (&(*op).into(), &"opennds/a1b2".into(), &MAC.into())
            );
            assert_eq!(report["user"].as_str(), *user, "{} {arguments:?}", shell.words[0]);
            let ip = (method == "auth_client").then(|| arguments[if arguments.len() == 9 { 6 } else { 4 }].as_str());
            assert_eq!(report["ips"][0].as_str(), ip, "{arguments:?}");
            assert_eq!(answer, if method == "auth_client" { "0 0 0 0 0\n" } else { "" }, "openNDS decides the rest");
            let ended = (*op == "delete").then_some(method);
            assert_eq!(report["end_cause"].as_str(), ended);
            if ended.is_some() || method.ends_with("_throttle") {
                assert_eq!(
                    (&report["counters"]["bytes_in"], &report["counters"]["bytes_out"]),
                    (&"1000".into(), &"200".into())
                );
            }
        }
        assert_eq!(shell.call("opennds-binauth", &[], &["unknown_method", MAC]).1, None);
    }
}

#[test]
fn opennds_own_script_reads_the_custom_hook_and_goes_on() {
    // binauth_log.sh reads the custom script into itself (`. $custombinauthpath`), prints quotas after it, and ends with its own status.
    let shell = Shell::new(vec!["dash"]);
    let spool = shell.dir.path().join("spool/reports.jsonl");
    let outer = shell.dir.path().join("binauth_log.sh");
    fs::write(&outer, format!(". {}\necho 60 0 0 0 0\nexit 0\n", hook("opennds-custombinauth").display())).unwrap();
    let output = Command::new("dash")
        .arg(&outer)
        .args(["idle_deauth", MAC, "1000", "200", "1", "2", "a1b2", "none"])
        .env("HOTSPOT_BINAUTH", hook("opennds-binauth"))
        .env("HOTSPOT_PORTAL", shell.dir.path().join("nobody.sock"))
        .env("HOTSPOT_SPOOL", &spool)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "60 0 0 0 0\n");
    assert!(fs::read_to_string(spool).unwrap().contains("idle_deauth"));
}

/// The environment of chilli's scripts (runscript in src/chilli.c, e0c7d7a of 2026-06, lines 775-860).
fn chilli<'a>(user: &'a [u8], more: &[(&'a str, &'a [u8])]) -> Vec<(&'a str, &'a [u8])> {
    let mut environment: Vec<(&str, &[u8])> = vec![
        ("USER_NAME", user),
        ("CALLING_STATION_ID", b"02-AA-BB-CC-DD-01"),
        ("CALLED_STATION_ID", b"02-00-00-00-FF-01"),
        ("FRAMED_IP_ADDRESS", b"10.20.0.77"),
        ("ACCT_SESSION_ID", b"5f0a"),
        ("NAS_ID", b"chilli1"),
        ("ACCT_INTERIM_INTERVAL", b"300"),
        ("SESSION_TIMEOUT", b"0"),
    ];
    environment.extend(more);
    environment
}

#[test]
fn chilli_promises_no_updates_because_it_calls_no_script_for_them() {
    const NONE: [&str; 0] = [];
    for shell in Shell::all() {
        let up = shell.report("chilli-con-up", &chilli(b"0912345678", &[]), &NONE);
        let expected = [
            ("op", "put"),
            ("id", "chilli/5f0a"),
            ("user", "0912345678"),
            ("mac", "02-AA-BB-CC-DD-01"),
            ("ap_mac", "02-00-00-00-FF-01"),
        ];
        assert!(expected.iter().all(|(name, value)| up[*name] == *value), "{up}");
        assert_eq!(up["ips"][0], "10.20.0.77");
        assert_eq!(up.get("interim_interval_s"), None, "{up}");
        let ended: [(&str, &[u8]); 3] =
            [("TERMINATE_CAUSE", b"4"), ("OUTPUT_OCTETS", b"300"), ("INPUT_OCTETS", b"4000")];
        let down = shell.report("chilli-con-down", &chilli(b"0912345678", &ended), &NONE);
        assert_eq!(
            (&down["op"], &down["id"], &down["end_cause"]),
            (&"delete".into(), &"chilli/5f0a".into(), &"Idle-Timeout".into())
        );
        assert_eq!((&down["counters"]["bytes_in"], &down["counters"]["bytes_out"]), (&"4000".into(), &"300".into()));
    }
}

/// Values that would do something if they were ever part of a program, a pattern, a format or a line.
fn hostile() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = [
        "$(touch pwned)",
        "`touch pwned`",
        "'; touch pwned; '",
        "\"; touch pwned; \"",
        "a\nb\n{\"op\":\"delete\",\"id\":\"x\"}",
        "\\\"\\\\",
        "a\tb\r\u{1b}[2J\u{7f}",
        "%s%n%41%00",
        "-n",
        "--",
        "*?[a-z]",
        "${HOME} & | > pwned",
        "a=b",
        "Nguyễn",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    values.push("x".repeat(10_000).into_bytes());
    values.push("\"\\".repeat(5_000).into_bytes());
    values
}

#[test]
fn hostile_values_are_text_and_nothing_else() {
    for shell in Shell::all() {
        for value in hostile() {
            let text = String::from_utf8(value.clone()).unwrap();
            let field = [b"user=", &value[..]].concat();
            let put = [b"put", &value[..], b"mac=02:aa:bb:cc:dd:01", &field];
            let report = shell.report("hotspot-report", &[], &put);
            assert_eq!(
                (report["id"].as_str(), report["user"].as_str()),
                (Some(&*text), Some(&*text)),
                "{}",
                shell.words[0]
            );
            let up = shell.report("chilli-con-up", &chilli(&value, &[("ACCT_SESSION_ID", &value)]), &[] as &[&str]);
            assert_eq!(up["user"].as_str(), Some(&*text));
            assert_eq!(up["id"], format!("chilli/{text}"));
            let lease: [&[u8]; 4] = [b"add", b"02:aa:bb:cc:dd:01", b"10.20.0.77", &value];
            let lease = shell.report("dnsmasq-dhcp-script", &[("DNSMASQ_VENDOR_CLASS", &value)], &lease);
            assert_eq!((lease["hostname"].as_str(), lease["vendor_class"].as_str()), (Some(&*text), Some(&*text)));
            // As the page's visitor writes it, and as openNDS hands it on.
            let custom = url_escaped(base64(&[b"x=1,user=", &value[..]].concat()).as_bytes());
            let login = ["auth_client", MAC, &text, &text, "10.20.0.77", &text, &custom];
            let login = shell.report("opennds-binauth", &[], &login);
            let end = text.find([',', ';', '&', '\n']).unwrap_or(text.len());
            assert_eq!(login["user"].as_str(), Some(text[..end].trim_matches(' ')), "{}", shell.words[0]);
            assert_eq!(login["id"], format!("opennds/{text}"));
            let raw = ["auth_client", MAC, "u", "a", "10.20.0.77", "t", &text];
            shell.report("opennds-binauth", &[], &raw);
            assert!(!shell.dir.path().join("pwned").exists(), "{} ran {text:?}", shell.words[0]);
        }
    }
}

#[test]
fn bytes_that_are_no_text_come_through_as_they_are() {
    for shell in Shell::all() {
        let spooled = |name: &str, environment: &[(&str, &[u8])], arguments: &[Vec<u8>]| {
            shell.report(name, environment, arguments);
            let bytes = fs::read(shell.dir.path().join("spool/reports.jsonl")).unwrap();
            assert!(bytes.windows(5).any(|window| window == b"Ren\xe9\""), "{} {name}", shell.words[0]);
        };
        spooled("hotspot-report", &[], &[b"put".to_vec(), b"a".to_vec(), b"user=Ren\xe9".to_vec()]);
        spooled("chilli-con-up", &chilli(b"Ren\xe9", &[]), &[]);
        let custom = url_escaped(base64(b"user=Ren\xe9").as_bytes()).into_bytes();
        let login = [&b"auth_client"[..], MAC.as_bytes(), b"u", b"a", b"10.20.0.77", b"t", &custom];
        spooled("opennds-binauth", &[], &login.map(<[u8]>::to_vec));
    }
}

/// A venue where openNDS itself (Debian's, 9.10) decides who may go out.
struct OpenNds {
    lab: Lab,
    agent: Agent,
    daemon: std::process::Child,
}

impl OpenNds {
    fn new() -> Self {
        let lab = Lab::new(1).unwrap();
        lab.clients[0].connect(&lab).unwrap();
        let (data, socket) = (lab.dir().join("data"), lab.dir().join("portal.sock"));
        let options = ["--portal-listen", &socket.display().to_string(), "--grace", "0"];
        let agent = Agent::start(&lab.gateway, &data, &options).unwrap();
        let configuration = format!(
            "GatewayInterface lan\nGatewayName cafe\nMaxClients 10\nfas_secure_enabled 0\nfasport 8080\nfaspath /x\nfasremoteip {GATEWAY_V4}\nBinAuth {}\n",
            hook("opennds-binauth").display()
        );
        fs::write(lab.dir().join("opennds.conf"), configuration).unwrap();
        let (client, ip) = (&lab.clients[0], address(&lab.clients[0]));
        fs::create_dir(lab.dir().join("tmp")).unwrap();
        // It asks a lease file whether the address was given by DHCP.
        fs::write(lab.dir().join("tmp/dhcp.leases"), format!("1893456000 {} {ip} phone *\n", client.mac)).unwrap();
        // Its state lies in /tmp, under fixed names.
        let script = format!(
            "mount --bind {} /mnt && mount --bind /mnt/tmp /tmp && exec opennds -f -d 1 -c /mnt/opennds.conf",
            lab.dir().display()
        );
        let mut command = lab.gateway.command("unshare");
        command
            .args(["-m", "sh", "-c", &script])
            .env("HOTSPOT_PORTAL", "/mnt/portal.sock")
            .env("HOTSPOT_SPOOL", "/mnt/spool/reports.jsonl");
        let log = fs::File::create(lab.dir().join("opennds.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let daemon = command.spawn().unwrap();
        Self { lab, agent, daemon }
    }

    fn client(&self) -> &Client {
        &self.lab.clients[0]
    }

    /// What a request of the client is answered; nothing where it is not.
    fn get(&self, options: &[&str], url: &str) -> String {
        let output = self
            .client()
            .namespace
            .command("curl")
            .args(["-s", "-i", "-m", "5"])
            .args(options)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The token that openNDS gives a client which is not logged in.
    fn token(&self) -> String {
        let mut token = String::new();
        wait_until("openNDS redirects the client", Duration::from_secs(60), || {
            let answer = self.get(&[], &format!("http://{SERVER_V4}/"));
            let found = answer.split("&tok=").nth(1).and_then(|rest| rest.split('&').next());
            found.unwrap_or_default().clone_into(&mut token);
            !token.is_empty()
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        token
    }

    fn log(&self) -> String {
        fs::read_to_string(self.lab.dir().join("opennds.log")).unwrap_or_default()
    }

    /// The reports of a kind that openNDS made so far, by the session's rows of the open journal.
    fn wait_for(&self, what: &str, is_there: impl Fn(&[Value]) -> bool) {
        wait_until(what, Duration::from_secs(30), || {
            let journals = hotspot_tests::programs::files(&self.lab.dir().join("data/journal")).unwrap_or_default();
            let rows: Vec<Value> =
                journals.iter().flat_map(|file| hotspot_tests::programs::decoded(file).unwrap_or_default()).collect();
            is_there(&rows.into_iter().filter(|row| row["record"] == "session").collect::<Vec<_>>())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", self.log()));
    }
}

fn address(client: &Client) -> String {
    client.addresses().unwrap().into_iter().find(|ip| !ip.contains(':')).unwrap()
}

#[test]
fn opennds_itself_reports_logins_and_ends_by_the_hook() {
    let mut portal = OpenNds::new();
    let (token, ip) = (portal.token(), address(portal.client()));
    let query = [
        "-G",
        "--data-urlencode",
        &format!("tok={token}"),
        "--data-urlencode",
        "redir=http://x.example/",
        "--data-urlencode",
        &format!("custom={}", base64("user=CORP\\anna, email=a@b.c".as_bytes())),
    ];
    portal.get(&query, &format!("http://{GATEWAY_V4}:2050/opennds_auth/"));
    portal.wait_for("the login and openNDS's own word that it let the client in", |rows| {
        rows.iter().any(|row| row["event"] == "interim")
    });
    portal.client().namespace.run(&format!("ping -c 1 -W 2 {SERVER_V4}")).unwrap();
    let pid = portal.daemon.id().to_string();
    // It ends the sessions of its clients before it ends itself.
    run(Command::new("kill").args(["-TERM", &pid])).unwrap();
    portal.wait_for("the end", |rows| rows.iter().any(|row| row["event"] == "stop"));
    portal.daemon.kill().unwrap();
    portal.daemon.wait().unwrap();
    let archive = portal.lab.dir().join("data/archive");
    assert!(portal.agent.stop().unwrap().success());
    let sessions = sessions(&archive).unwrap();
    let session = &sessions[&format!("opennds/{token}")];
    assert_eq!(
        (&session["user"], &session["client_mac"]),
        (&"CORP\\\\anna".into(), &portal.lab.clients[0].mac.clone().into())
    );
    assert_eq!((&session["status"], &session["end_cause"]), (&"ended".into(), &"shutdown_deauth".into()));
    let found = ask("find", &archive, &["user CORP\\anna and proto icmp and dst ip", SERVER_V4]).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["attribution"], &found[0]["client_ip"]), (&"authenticated".into(), &ip.into()));
}
