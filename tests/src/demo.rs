//! The demo: a venue's evening in a minute, and what an investigator sees of it afterwards.
//!
//! Every value shown or written comes from the tool's output, the web server's log or the lab itself; none is assumed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::lab::{Client, GATEWAY_V4, Lab};
use crate::namespace::run;
use crate::programs::{Agent, ask, hotspot, questions, users};
use crate::wait_until;

const SECRET: &str = "not-a-secret-in-a-demo";
/// Who logs in on which client; the last client never does.
const USERS: [Option<&str>; 4] = [Some("0912345678"), Some("0987654321"), Some("guest@hotel.example"), None];

/// What the demo found.
#[derive(Debug, Serialize)]
pub struct Findings {
    pub clients: Vec<ClientFinding>,
    pub who: Vec<WhoFinding>,
    pub balance: Vec<BalanceFinding>,
    pub verify: String,
}

#[derive(Debug, Serialize)]
pub struct ClientFinding {
    pub name: String,
    pub mac: String,
    /// What it calls itself.
    pub hostname: Option<String>,
    pub ips: Vec<String>,
    pub user: Option<String>,
    /// Since login.
    pub flows: usize,
    pub flows_with_user: usize,
    /// How sure the join is of these.
    pub attributions: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
pub struct WhoFinding {
    pub public_ip: String,
    pub public_port: u16,
    pub at: String,
    pub expected_user: Option<String>,
    pub found_user: Option<String>,
    /// How sure the join is, and what the device calls itself.
    pub attribution: Option<String>,
    pub hostname: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct BalanceFinding {
    pub interface: String,
    pub seen_packets: u64,
    pub seen_bytes: u64,
    pub flow_packets: u64,
    pub flow_bytes: u64,
    pub overflow_packets: u64,
    pub outcome_packets: u64,
}

/// A demo that ran: the lab, and where the archive is.
#[derive(Debug)]
pub struct Demo {
    pub lab: Lab,
    pub data_dir: PathBuf,
    pub findings: Findings,
}

/// Runs the demo, telling what happens.
pub fn run_demo(out: &mut impl Write) -> Result<Demo> {
    heading(out, "A venue with four devices, an access point, a gateway with NAT, and an Internet")?;
    let lab = Lab::new(USERS.len())?;
    let data_dir = lab.dir().join("data");
    let secret_file = lab.dir().join("radius.secret");
    std::fs::write(&secret_file, SECRET)?;
    run(std::process::Command::new("chmod").arg("600").arg(&secret_file))?;
    let listen = format!("{GATEWAY_V4}:1813");
    let secret = secret_file.display().to_string();
    let options = [
        "--rotate",
        "8",
        "--grace",
        "2",
        "--generation",
        "2",
        "--radius-listen",
        &listen,
        "--radius-secret-file",
        &secret,
    ];
    let agent = Agent::start(&lab.gateway, &data_dir, &options)?;
    writeln!(out, "hotspot-agent captures on the gateway (pid {})", agent.pid())?;

    heading(out, "Devices come, log in, and use the Internet")?;
    let mut logins = Vec::new();
    for (client, user) in lab.clients.iter().zip(USERS) {
        client.connect(&lab)?;
        let ips = client.addresses()?;
        if let Some(user) = user {
            log_in(&lab, client, user, &ips)?;
        }
        logins.push(now_ns()?);
        writeln!(
            out,
            "{:<3} {}  {:<40} {}",
            client.name,
            client.mac,
            ips.join(" "),
            user.unwrap_or("(does not log in)")
        )?;
    }
    for client in &lab.clients {
        client.browse().with_context(|| format!("{} browses", client.name))?;
    }
    let archive = data_dir.join("archive");
    wait_until("a segment is sealed", Duration::from_secs(60), || {
        std::fs::read_to_string(archive.join("manifest/gw1.jsonl")).is_ok_and(|text| text.lines().count() >= 1)
    })?;
    let status = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    writeln!(out, "the agent was stopped: it read what was left in the kernel, sealed it, and detached")?;

    let findings = investigate(out, &lab, &archive, &logins)?;
    Ok(Demo { lab, data_dir, findings })
}

/// The access point reports a login, with a real RADIUS client.
fn log_in(lab: &Lab, client: &Client, user: &str, ips: &[String]) -> Result<()> {
    use std::fmt::Write as _;

    let mac = client.mac.to_uppercase().replace(':', "-");
    let mut attributes = format!(
        "Acct-Status-Type = Start\nAcct-Session-Id = \"{}\"\nUser-Name = \"{user}\"\nCalling-Station-Id = \"{mac}\"\n\
         Called-Station-Id = \"02-00-00-00-FF-01:Cafe Wi-Fi\"\nNAS-Identifier = \"ap1\"\nAcct-Authentic = RADIUS\n",
        client.name
    );
    for ip in ips {
        let name = if ip.contains(':') { "Framed-IPv6-Address" } else { "Framed-IP-Address" };
        writeln!(attributes, "{name} = {ip}")?;
    }
    lab.account(&attributes, SECRET).map(drop)
}

fn investigate(out: &mut impl Write, lab: &Lab, archive: &Path, logins: &[i64]) -> Result<Findings> {
    let directory = archive.display().to_string();
    heading(out, "hotspot find user 0912345678")?;
    let log = questions(archive).display().to_string();
    show(out, &["find", "--archive", &directory, "--audit", &log, "--limit", "12", "user", "0912345678"])?;

    heading(out, "Every flow since login, and whose it is")?;
    let clients = clients(lab, archive, logins)?;
    for client in &clients {
        let user = client.user.as_deref().unwrap_or("unknown");
        let sure: Vec<String> = client.attributions.iter().map(|(name, flows)| format!("{name} {flows}")).collect();
        writeln!(
            out,
            "{:<9} {}  {:<20} {:>3} flows, {:>3} with a user: {}",
            client.hostname.as_deref().unwrap_or(&client.name),
            client.mac,
            user,
            client.flows,
            client.flows_with_user,
            sure.join(", ")
        )?;
    }

    heading(out, "Who was it? Address, port and time from the web server's own log")?;
    let who = who(out, lab, archive)?;

    heading(out, "Is the log whole?")?;
    show(out, &["verify", "--archive", &directory])?;
    let verify = ask("verify", archive, &[])?;
    let verify = verify.first().and_then(|answer| answer["verify"].as_str()).unwrap_or("no answer").to_owned();
    show(out, &["coverage", "--archive", &directory])?;
    let balance = ask("coverage", archive, &[])?.iter().map(balance).collect::<Result<Vec<_>>>()?;
    Ok(Findings { clients, who, balance, verify })
}

fn clients(lab: &Lab, archive: &Path, logins: &[i64]) -> Result<Vec<ClientFinding>> {
    let mut findings = Vec::new();
    for ((client, user), login_ns) in lab.clients.iter().zip(USERS).zip(logins) {
        let flows = ask("find", archive, &["mac", &client.mac])?;
        let from = format!("@{:.6}", *login_ns as f64 / 1e9);
        let since = ask("find", archive, &["--from", &from, "mac", &client.mac])?;
        // A flow that began before the login may still go on after it; it is not "since".
        let login = jiff_text(*login_ns);
        let since: Vec<&Value> = since.iter().filter(|flow| flow["start"].as_str() >= Some(login.as_str())).collect();
        ensure!(!flows.is_empty(), "{} has no flows", client.name);
        let named = |flow: &&&Value| match user {
            Some(user) => users(flow) == [user],
            None => !flow["user"].is_null(),
        };
        let mut attributions = BTreeMap::new();
        for attribution in since.iter().filter_map(|flow| flow["attribution"].as_str()) {
            *attributions.entry(attribution.to_owned()).or_default() += 1;
        }
        findings.push(ClientFinding {
            name: client.name.clone(),
            mac: client.mac.clone(),
            ips: client.addresses()?,
            user: user.map(str::to_owned),
            flows: since.len(),
            flows_with_user: since.iter().filter(named).count(),
            attributions,
            hostname: flows.iter().find_map(|flow| flow["hostname"].as_str()).map(str::to_owned),
        });
    }
    Ok(findings)
}

/// UTC with microseconds, as the tool writes times.
fn jiff_text(at_ns: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{:.6}", at_ns as f64 / 1e9), "+%Y-%m-%dT%H:%M:%S.%6NZ"])
        .output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn who(out: &mut impl Write, lab: &Lab, archive: &Path) -> Result<Vec<WhoFinding>> {
    let mut findings = Vec::new();
    for request in lab.web_log()? {
        let Some(name) = request.path.strip_prefix("/who/").and_then(|rest| rest.split('-').next()) else { continue };
        let position = lab.clients.iter().position(|client| client.name == name).context("a client nobody knows")?;
        let public = if request.ip.contains(':') {
            format!("[{}]:{}", request.ip, request.port)
        } else {
            format!("{}:{}", request.ip, request.port)
        };
        let at = format!("@{}", request.at);
        let candidates = ask("who", archive, &["--public", &public, "--at", &at])?;
        let found = |column: &str| candidates.first().and_then(|flow| flow[column].as_str()).map(str::to_owned);
        let (attribution, hostname) = (found("attribution"), found("hostname"));
        let found_user = candidates.first().map(|flow| users(flow).join(" or ")).filter(|users| !users.is_empty());
        writeln!(
            out,
            "{public:<28} at {} → {:<20} {:<14} {}",
            request.at,
            found_user.as_deref().unwrap_or("unknown"),
            attribution.as_deref().unwrap_or("-"),
            hostname.as_deref().unwrap_or("-")
        )?;
        if findings.is_empty() {
            let (directory, log) = (archive.display().to_string(), questions(archive).display().to_string());
            show(out, &["who", "--archive", &directory, "--audit", &log, "--public", &public, "--at", &at])?;
        }
        findings.push(WhoFinding {
            public_ip: request.ip,
            public_port: request.port,
            at: request.at,
            expected_user: USERS[position].map(str::to_owned),
            found_user,
            attribution,
            hostname,
        });
    }
    Ok(findings)
}

fn balance(row: &Value) -> Result<BalanceFinding> {
    let number = |name: &str| row[name].as_u64().with_context(|| format!("coverage without {name}"));
    Ok(BalanceFinding {
        interface: row["interface"].as_str().unwrap_or_default().to_owned(),
        seen_packets: number("seen_packets")?,
        seen_bytes: number("seen_bytes")?,
        flow_packets: number("flow_packets")?,
        flow_bytes: number("flow_bytes")?,
        overflow_packets: number("overflow_packets")?,
        outcome_packets: number("outcome_packets")?,
    })
}

impl Findings {
    /// Fails where the archive says something else than the lab knows.
    pub fn check(&self) -> Result<()> {
        for client in &self.clients {
            ensure!(client.flows >= 6, "{} has only {} flows since login", client.name, client.flows);
            let expected = if client.user.is_some() { client.flows } else { 0 };
            ensure!(client.flows_with_user == expected, "{client:?}: expected {expected} flows with a user");
        }
        ensure!(self.who.len() == 2 * USERS.len(), "{} requests in the web server's log", self.who.len());
        for who in &self.who {
            ensure!(who.found_user == who.expected_user, "{who:?}");
            let sure = if who.expected_user.is_some() { "authenticated" } else { "unknown" };
            ensure!(who.attribution.as_deref() == Some(sure) && who.hostname.is_some(), "{who:?}");
        }
        ensure!(self.verify == "ok", "verify: {}", self.verify);
        ensure!(!self.balance.is_empty(), "no coverage");
        for row in &self.balance {
            ensure!(
                row.seen_packets > 0
                    && row.seen_packets == row.flow_packets + row.overflow_packets + row.outcome_packets,
                "{row:?}"
            );
        }
        Ok(())
    }
}

fn heading(out: &mut impl Write, text: &str) -> Result<()> {
    Ok(writeln!(out, "\n── {text}\n")?)
}

fn show(out: &mut impl Write, arguments: &[&str]) -> Result<()> {
    let output = hotspot(arguments)?;
    out.write_all(&output.stdout)?;
    out.write_all(&output.stderr)?;
    Ok(writeln!(out)?)
}

fn now_ns() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}
