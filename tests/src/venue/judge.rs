//! The judge: compares every row of the archive, and every answer to "who was it?", with the diary.
//!
//! A row is *right* where it names who was logged in on the device that sent it, or says that nobody was; *uncertain* where it says
//! so itself, and does not leave out who it was; else *wrong*. What nobody could doubt must not be uncertain either.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::diary::{Connection, Diary};
use super::site::Site;
use crate::lab::WebRequest;
use crate::programs::{ask, users};

/// What the lab found.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Rows of devices of the venue.
    pub flows: usize,
    pub right: usize,
    pub uncertain: usize,
    pub wrong: usize,
    /// Requests in the web server's log: who had that address and port then?
    pub who_asked: usize,
    pub who_right: usize,
    pub who_uncertain: usize,
    pub who_wrong: usize,
    /// Of the uncertain: the port changed hands within the millisecond of the server's log or the tick of the kernel's clock, and both
    /// were told.
    pub who_both: usize,
    /// Connections of which it was clear whose they were.
    pub clear: usize,
    /// Of these, with a row or an answer that is not sure of it.
    pub clear_but_uncertain: usize,
    /// Connections without a row.
    pub not_found: usize,
    /// Connections of which the row names another access point than the one where the device was.
    pub misplaced: usize,
    /// Rows by what they say of themselves.
    pub attributions: BTreeMap<String, usize>,
    /// What went wrong on purpose, and how often.
    pub disturbances: BTreeMap<String, usize>,
    /// What was wrong, in words.
    pub complaints: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Uncertain,
    Wrong,
}

/// Client's end, protocol and peer's end of a connection.
type Tuple = (SocketAddr, u8, SocketAddr);

struct Judge<'a> {
    site: &'a Site,
    diary: &'a Diary,
    by_mac: HashMap<&'a str, usize>,
    by_tuple: HashMap<Tuple, Vec<usize>>,
    findings: Findings,
}

/// Judges an archive.
pub(super) fn judge(site: &Site, diary: &Diary, archive: &Path) -> Result<Findings> {
    let mut by_tuple: HashMap<Tuple, Vec<usize>> = HashMap::new();
    for (position, connection) in diary.connections.iter().enumerate() {
        by_tuple.entry((connection.local, connection.protocol, connection.peer)).or_default().push(position);
    }
    let by_mac = site.devices.iter().enumerate().map(|(position, device)| (&*device.mac, position)).collect();
    let mut judge = Judge { site, diary, by_mac, by_tuple, findings: Findings::default() };
    let rows = ask("find", archive, &[])?;
    judge.rows(&rows)?;
    judge.answers(archive, &rows)?;
    judge.findings.disturbances = diary.happened.iter().map(|(what, times)| ((*what).to_owned(), *times)).collect();
    Ok(judge.findings)
}

impl Judge<'_> {
    fn rows(&mut self, rows: &[Value]) -> Result<()> {
        let diary = self.diary;
        // Of each connection: the rows that are not sure of it, and whether a row of its own device is.
        let mut found: BTreeMap<usize, (bool, Vec<&Value>)> = BTreeMap::new();
        for row in rows {
            let start_ns = time(row, "start")?;
            let mac = row["client_mac"].as_str().unwrap_or_default();
            let Some(device) = self.by_mac.get(mac).copied() else {
                if !row["user"].is_null() {
                    self.complain(Verdict::Wrong, "no device of the venue, but a user", row);
                }
                continue;
            };
            let connections = self.connections(row, start_ns, time(row, "end")?);
            // Several have one MAC behind a repeater; the address tells them apart.
            let made = connections.iter().map(|position| diary.connections[*position].device);
            let device = made.into_iter().find(|made| self.site.devices[*made].mac == mac).unwrap_or(device);
            let truth_of = |connection: &Connection| diary.user(connection.device, connection.from_ns);
            let truth = match connections.first().map(|position| &diary.connections[*position]) {
                Some(connection) => truth_of(connection),
                None => diary.user(device, start_ns),
            };
            let verdict = self.verdict(row, truth, device, start_ns);
            self.findings.flows += 1;
            *self.findings.attributions.entry(text(row, "attribution").to_owned()).or_default() += 1;
            match verdict {
                Verdict::Right => self.findings.right += 1,
                Verdict::Uncertain => self.findings.uncertain += 1,
                Verdict::Wrong => {
                    self.findings.wrong += 1;
                    self.complain(verdict, truth.unwrap_or("nobody"), row);
                }
            }
            for position in connections {
                let connection = &diary.connections[position];
                let is_same = connection.device == device && truth_of(connection) == truth;
                let is_sure = is_same && verdict == Verdict::Right;
                let (is_found, unsure) = found.entry(position).or_default();
                *is_found |= is_sure;
                if !is_sure {
                    unsure.push(row);
                } else if truth.is_some() {
                    self.place(position, row);
                }
            }
        }
        for (position, connection) in diary.connections.iter().enumerate() {
            self.findings.clear += usize::from(connection.doubt.is_none());
            match found.get(&position) {
                None => {
                    self.findings.not_found += 1;
                    let near = with_port(rows, connection.local.port());
                    self.findings.complaints.push(format!("no row: {connection:?}; with this port: {near:?}"));
                }
                Some((false, unsure)) if connection.doubt.is_none() => self.hidden(connection, unsure),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn hidden(&mut self, connection: &Connection, unsure: &[&Value]) {
        self.findings.clear_but_uncertain += 1;
        let truth = self.diary.user(connection.device, connection.from_ns);
        let complaint = format!("clear, but nothing is sure of {truth:?}: {connection:?}; there is {unsure:?}");
        self.findings.complaints.push(complaint);
    }

    /// The access point in a row is the one where the device was.
    fn place(&mut self, position: usize, row: &Value) {
        let ap = &self.site.aps[self.diary.connections[position].ap];
        if text(row, "ap_mac") != ap.bssid {
            self.findings.misplaced += 1;
            self.complain(Verdict::Wrong, &ap.name, row);
        }
    }

    fn verdict(&self, row: &Value, truth: Option<&str>, device: usize, start_ns: i64) -> Verdict {
        let users = users(row);
        let user = if let [user] = users[..] { Some(user) } else { None };
        let is_right = match text(row, "attribution") {
            "authenticated" | "mac_only" | "ip_only" => return judged(user.is_some() && user == truth, Verdict::Right),
            "unknown" if truth.is_none() => return judged(users.is_empty(), Verdict::Right),
            "unknown" => users.is_empty(),
            // The first who logged in on it afterwards.
            "before_login" => user.is_some_and(|user| self.diary.comes_later(device, user, start_ns)),
            // It must not leave out who it was, and not invent who never was there.
            "ambiguous" | "conflict" => {
                !users.is_empty()
                    && users.iter().all(|user| self.diary.was_ever_in(user))
                    && truth.map_or_else(
                        || users.iter().any(|user| self.diary.was_ever_on(device, user)),
                        |truth| users.contains(&truth),
                    )
            }
            _ => false,
        };
        judged(is_right, Verdict::Uncertain)
    }

    /// The connections a row is about, first to last: a device may come upon a port again while its flow is still open.
    fn connections(&self, row: &Value, start_ns: i64, end_ns: i64) -> Vec<usize> {
        let Some(tuple) = tuple(row) else { return Vec::new() };
        let is_within = |connection: &Connection| {
            connection.from_ns - SECOND <= end_ns && start_ns <= connection.to_ns + 3 * SECOND
        };
        let same = self.by_tuple.get(&tuple).into_iter().flatten().copied();
        let mut found: Vec<usize> = same.filter(|position| is_within(&self.diary.connections[*position])).collect();
        found.sort_by_key(|position| self.diary.connections[*position].from_ns);
        found
    }

    /// Asks for every request that the web server logged; two at a time, because there are many.
    fn answers(&mut self, archive: &Path, rows: &[Value]) -> Result<()> {
        let by_path: HashMap<&str, usize> = (self.diary.connections.iter().enumerate())
            .filter_map(|(position, connection)| Some((connection.path.as_deref()?, position)))
            .collect();
        let requests: Vec<(WebRequest, usize)> = (self.site.lab.web_log()?.into_iter())
            .filter_map(|request| by_path.get(&*request.path).map(|position| (request.clone(), *position)))
            .collect();
        let middle = requests.len() / 2;
        let answers = std::thread::scope(|scope| {
            let halves = [&requests[..middle], &requests[middle..]];
            let workers = halves.map(|half| {
                scope
                    .spawn(move || half.iter().map(|(request, _)| answer(archive, request)).collect::<Result<Vec<_>>>())
            });
            let answers = workers.map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
            anyhow::Ok(answers.into_iter().collect::<Result<Vec<_>>>()?.concat())
        })?;
        ensure!(answers.len() == requests.len());
        for ((request, position), answer) in requests.into_iter().zip(answers) {
            self.answer(&request, position, &answer, rows);
        }
        Ok(())
    }

    /// Judges the candidates that were going on at that moment, the first of which is the answer.
    fn answer(&mut self, request: &WebRequest, position: usize, candidates: &[Value], rows: &[Value]) {
        let connection = &self.diary.connections[position];
        let truth = self.diary.user(connection.device, connection.from_ns);
        let verdict = |row: &Value| self.verdict(row, truth, connection.device, connection.from_ns);
        let first = candidates.first().map_or(Verdict::Wrong, verdict);
        let is_told = candidates.iter().skip(1).any(|other| verdict(other) != Verdict::Wrong);
        self.findings.who_asked += 1;
        match first {
            Verdict::Right => self.findings.who_right += 1,
            Verdict::Wrong if is_told => {
                self.findings.who_uncertain += 1;
                self.findings.who_both += 1;
            }
            Verdict::Uncertain => {
                self.findings.who_uncertain += 1;
                if connection.doubt.is_none() {
                    self.hidden(connection, &[&candidates[0]]);
                }
            }
            Verdict::Wrong => {
                self.findings.who_wrong += 1;
                let asked = format!(
                    "{request:?} was {}; it was {connection:?}; with this port: {:?}; said was",
                    truth.unwrap_or("nobody"),
                    with_port(rows, request.port)
                );
                self.complain(first, &asked, candidates.first().unwrap_or(&Value::Null));
            }
        }
    }

    fn complain(&mut self, verdict: Verdict, truth: &str, row: &Value) {
        self.findings.complaints.push(format!("{verdict:?}: in truth {truth}: {row}"));
    }
}

const SECOND: i64 = 1_000_000_000;

const fn judged(is_right: bool, as_what: Verdict) -> Verdict {
    if is_right { as_what } else { Verdict::Wrong }
}

/// The candidates that were going on at that moment; else the nearest.
fn answer(archive: &Path, request: &WebRequest) -> Result<Vec<Value>> {
    let public = SocketAddr::new(request.ip.parse()?, request.port).to_string();
    let mut candidates = ask("who", archive, &["--public", &public, "--at", &format!("@{}", request.at)])?;
    let then = candidates.iter().take_while(|candidate| candidate["at_that_moment"] == true).count();
    candidates.truncate(then.max(1));
    Ok(candidates)
}

/// Rows that could be taken for one with this port, inside or outside.
fn with_port(rows: &[Value], port: u16) -> Vec<&Value> {
    rows.iter().filter(|row| row["client_port"] == port || row["public_port"] == port).collect()
}

fn tuple(row: &Value) -> Option<Tuple> {
    let end = |ip: &str, port: &str| -> Option<SocketAddr> {
        let port = u16::try_from(row[port].as_u64()?).ok()?;
        Some(SocketAddr::new(row[ip].as_str()?.parse::<IpAddr>().ok()?, port))
    };
    let protocol = u8::try_from(row["protocol"].as_u64()?).ok()?;
    Some((end("client_ip", "client_port")?, protocol, end("peer_ip", "peer_port")?))
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn time(row: &Value, name: &str) -> Result<i64> {
    let time: jiff::Timestamp = text(row, name).parse().with_context(|| format!("{name} of {row}"))?;
    Ok(i64::try_from(time.as_nanosecond())?)
}

impl Findings {
    /// Fails where anything is not what the lab knows.
    pub fn check(&self) -> Result<()> {
        let complaints = || self.complaints.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        ensure!(self.wrong == 0 && self.who_wrong == 0, "wrong:\n{}", complaints());
        ensure!(self.not_found == 0 && self.misplaced == 0, "not found, or elsewhere:\n{}", complaints());
        ensure!(self.clear_but_uncertain == 0, "what is clear is not said:\n{}", complaints());
        ensure!(self.complaints.is_empty(), "{}", complaints());
        ensure!(self.flows == self.right + self.uncertain + self.wrong && self.flows > 0, "{self:?}");
        Ok(())
    }
}
