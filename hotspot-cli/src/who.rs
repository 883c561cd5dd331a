//! `hotspot who`: the one question everything else is for.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::net::IpAddr;

use hotspot_archive::filter::{self, Filter, Side};
use hotspot_archive::search::{Hit, Interval};
use hotspot_archive::when::When;
use hotspot_core::MacAddr;
use hotspot_core::record::{Attribution, FlowRecord, NatState};

use crate::arguments::WhoArguments;
use crate::envelope::{Envelope, Form};
use crate::find::{endpoint, open, protocol, query_of, remark};
use crate::nat_map::{Mapped, NatMap};
use crate::output::{self, json_line, stdout};
use crate::progress::ProgressLine;
use crate::time::{Zone, duration, utc};
use crate::{Failure, Outcome, ask, columns};

/// Flows of one public address and port within some seconds; more would be no answer.
const CANDIDATES_MAX: usize = 100_000;
/// A flow's end is this coarse, at most: a tick of the kernel.
const COARSE_NS: i64 = 10_000_000;

pub(crate) fn run(arguments: &WhoArguments) -> Result<Outcome, Failure> {
    let zone = Zone::new(arguments.tz.as_deref())?;
    // What was written as 10:02:03 was any moment of that second.
    let moment = zone.moment(&arguments.at)?;
    let tolerance_ns = i64::from(arguments.tolerance) * 1_000_000_000;
    let interval = Interval {
        from_ns: moment.from_ns.saturating_sub(tolerance_ns),
        to_ns: moment.last_ns.saturating_add(tolerance_ns).saturating_add(1),
    };
    let public = Filter::Public(arguments.public.ip().to_canonical(), Some(arguments.public.port()));
    let map = arguments.nat_map.as_deref().map(|path| NatMap::read(path, &zone)).transpose()?;
    let mapped = map.map(|map| map.decode(arguments.public, moment.from_ns)).unwrap_or_default();
    let clients = mapped.iter().map(|mapped| Filter::Ip(Side::Source, mapped.client));
    let whoever = Filter::Any(std::iter::once(public.clone()).chain(clients).collect());
    let filter = match &arguments.proto {
        None => whoever,
        Some(name) => {
            let protocol =
                filter::parse(&format!("proto {name}")).map_err(|error| Failure::Usage(error.to_string()))?;
            whoever.and(protocol)
        }
    };
    ask::check_log(&arguments.asking, &arguments.archive)?;
    let archive = open(&arguments.archive, &arguments.identity, &arguments.trusting, &filter)?;
    let query = query_of(interval, &filter);
    ask::record_at(&arguments.asking, &arguments.archive, archive.root(), "who", query)?;
    let progress = ProgressLine::new();
    let mut candidates: Vec<Hit> = Vec::new();
    let seen = archive.search(
        interval,
        &filter,
        |hit| {
            let is_candidate =
                public.matches(&hit.origin, &hit.flow) || mapped.iter().any(|mapped| may_be(&hit.flow, *mapped));
            if is_candidate {
                candidates.push(hit);
            }
            candidates.len() < CANDIDATES_MAX
        },
        |done| progress.show(done),
    );
    progress.end();
    candidates.sort_by_key(|hit| likeness(&hit.flow, moment));
    let mut to = stdout();
    if arguments.json {
        for hit in &candidates {
            let mut object = columns::of_hit(hit);
            object.push("at_that_moment", (away_ns(&hit.flow, moment) == 0).into());
            if !hit.is_trusted {
                object.push("trusted", false.into());
            }
            json_line(&mut to, &object)?;
        }
    } else if !candidates.is_empty() {
        explain(&mut to, arguments, &candidates, &mapped, moment, &zone)?;
    }
    let mut envelope = Envelope::new("who", ["flow", "flows"], zone)
        .asked("public", arguments.public.to_string())
        .asked("at", arguments.at.as_str())
        .asked("at_from", utc(moment.from_ns))
        .asked("at_to", utc(moment.last_ns.saturating_add(1)))
        .asked("tolerance_s", arguments.tolerance)
        .asked_some("proto", arguments.proto.as_deref())
        .asked_some("tz", arguments.tz.as_deref())
        .asked_some("case", arguments.asking.case.as_deref())
        .over(&archive, interval, &filter);
    envelope.see(candidates.len(), &seen);
    envelope.is_cut = candidates.len() == CANDIDATES_MAX;
    if !candidates.is_empty() && candidates.iter().all(|hit| away_ns(&hit.flow, moment) > 0) {
        let near =
            format!("nobody had it at that moment; what is shown was going on within {} s of it", arguments.tolerance);
        envelope.remarks.push(near);
    }
    // Whom a map gives an address to need not have it in any row.
    if mapped.is_empty() {
        remark(&mut envelope, &archive, &public);
    }
    envelope.end(to, if arguments.json { Form::Json } else { Form::Other }, None)
}

/// How far a flow was from going on at a moment; 0 where it was.
pub(crate) fn away_ns(flow: &FlowRecord, moment: When) -> i64 {
    let since_end_ns = moment.from_ns.saturating_sub(flow.end_ns).saturating_sub(COARSE_NS);
    flow.start_ns.saturating_sub(moment.last_ns).max(since_end_ns).max(0)
}

/// Nearest first. Of flows that went on then the surest first, because the answers to a forged address are another flow of the same
/// connection; then the one that began last, because a port that changed hands belonged to the earlier one no longer.
fn likeness(flow: &FlowRecord, moment: When) -> impl Ord + use<> {
    (away_ns(flow, moment), flow.attribution.lists_claimants(), Reverse(flow.start_ns))
}

/// Whether a flow may be one of those the map gives to a client: of which no other translation was reported.
fn may_be(flow: &FlowRecord, mapped: Mapped) -> bool {
    let is_elsewhere = flow.public.is_some() && flow.nat == Some(NatState::Exact);
    flow.client_ip == mapped.client && !is_elsewhere && mapped.port.is_none_or(|port| flow.client_port == Some(port))
}

fn explain(
    to: &mut impl Write,
    arguments: &WhoArguments,
    candidates: &[Hit],
    mapped: &[Mapped],
    moment: When,
    zone: &Zone,
) -> io::Result<()> {
    writeln!(to, "{} at {}", arguments.public, shown(moment, zone))?;
    let then: Vec<&FlowRecord> =
        candidates.iter().map(|hit| &hit.flow).filter(|flow| away_ns(flow, moment) == 0).collect();
    if let Some(doubt) = doubt(&then) {
        writeln!(to, "  NOT SURE: {doubt}")?;
    }
    if then.is_empty() {
        writeln!(to, "  NOT AT THAT MOMENT: nobody had it then; who had it shortly before or after is shown")?;
    }
    for mapped in mapped {
        writeln!(to, "  by the NAT map it was {}", endpoint(Some(mapped.client), mapped.port))?;
    }
    for (position, hit) in candidates.iter().enumerate() {
        if candidates.len() > 1 {
            writeln!(to, "\ncandidate {} of {}", position + 1, candidates.len())?;
        }
        describe(to, hit, moment, zone)?;
    }
    Ok(())
}

/// A moment as people write it: its beginning, and how long it is where that is more than a second.
fn shown(moment: When, zone: &Zone) -> String {
    let (from, end_ns) = (zone.show(moment.from_ns), moment.last_ns.saturating_add(1));
    if end_ns - moment.from_ns <= 1_000_000_000 { from } else { format!("{from} to {}", zone.show(end_ns)) }
}

/// Why it is not sure whose it was, of those whose flows were going on; `None` where it is.
fn doubt(then: &[&FlowRecord]) -> Option<String> {
    let devices: HashSet<_> = then.iter().map(|flow| (flow.client_mac, flow.client_ip)).collect();
    if devices.len() < 2 {
        return None;
    }
    let mut by_address: HashMap<IpAddr, HashSet<MacAddr>> = HashMap::new();
    for (mac, ip) in &devices {
        by_address.entry(*ip).or_default().insert(*mac);
    }
    let claimed = by_address.into_iter().find(|(_, macs)| macs.len() > 1);
    Some(match claimed {
        Some((ip, macs)) => format!(
            "{} devices claim the address {ip}; all but one took it, by forged ARP or by setting it by hand: no more exact time tells \
             them apart. Who was given the address is named by `decode` of devices and of sessions",
            macs.len()
        ),
        None => format!("{} devices had it within that time; a more exact time tells them apart", devices.len()),
    })
}

fn describe(to: &mut impl Write, hit: &Hit, moment: When, zone: &Zone) -> io::Result<()> {
    let flow = &hit.flow;
    let who = flow.identity.as_deref();
    let mut line = |name: &str, value: &str| output::line(to, format!("  {name:<9} {value}"));
    let users = who.map_or(&[][..], |who| &who.users);
    if users.is_empty() {
        line("user", "unknown")?;
    }
    users.iter().try_for_each(|user| line("user", user))?;
    line("sure", sureness(flow.attribution))?;
    if !hit.is_trusted {
        line("but", "NOT TRUSTED: the segment was written after the last line its gateway is trusted until")?;
    }
    if let Some(who) = who {
        let method =
            who.auth_method.as_deref().map(|method| format!(", authenticated by {method}")).unwrap_or_default();
        who.session_ids.iter().try_for_each(|id| line("session", &format!("{id}{method}")))?;
        let access_point = [who.ap_mac.map(|mac| mac.to_string()), who.ssid.as_deref().map(str::to_owned)];
        let attached: Vec<String> = access_point.into_iter().flatten().collect();
        if !attached.is_empty() {
            line("attached", &attached.join(", "))?;
        }
    }
    line("device", &device(flow))?;
    line("client", &endpoint(Some(flow.client_ip), flow.client_port))?;
    line("public", &translation(hit))?;
    line("peer", &format!("{} {}", protocol(flow), endpoint(flow.peer_ip, flow.peer_port)))?;
    line("from", &zone.show(flow.start_ns))?;
    line("to", &zone.show(flow.end_ns))?;
    if let Some(away) = away(flow, moment) {
        line("but", &away)?;
    }
    line("venue", &format!("site {}, gateway {}, interface {}", hit.origin.site, hit.origin.gateway, flow.interface))
}

/// That a flow was not going on at a moment, in words.
fn away(flow: &FlowRecord, moment: When) -> Option<String> {
    if away_ns(flow, moment) == 0 {
        return None;
    }
    let since_end_ns = moment.from_ns.saturating_sub(flow.end_ns);
    Some(if since_end_ns > 0 {
        format!("NOT GOING ON at that moment: it had ended {} before", duration(since_end_ns))
    } else {
        format!(
            "NOT GOING ON at that moment: it began {} after",
            duration(flow.start_ns.saturating_sub(moment.last_ns))
        )
    })
}

/// Name, address and maker, as far as they are known.
fn device(flow: &FlowRecord) -> String {
    let name = flow.hostname.as_deref().map(|name| format!("{name}, ")).unwrap_or_default();
    let maker = match (&flow.device_vendor, flow.client_mac.is_random()) {
        (Some(vendor), _) => format!(" ({vendor})"),
        (None, true) => " (a random address)".to_owned(),
        (None, false) => String::new(),
    };
    format!("{name}{}{maker}", flow.client_mac)
}

fn sureness(attribution: Attribution) -> &'static str {
    match attribution {
        Attribution::Authenticated => "authenticated: a session held this device and address at that moment",
        Attribution::MacOnly => "the device is certain: a session held it; its address was not confirmed",
        Attribution::IpOnly => "the session held this address, and named no device",
        Attribution::BeforeLogin => "NOT SURE: the device logged in only after this flow began",
        Attribution::Ambiguous => "AMBIGUOUS: several sessions claim it; all are named",
        Attribution::Conflict => "CONFLICT: another device had this address too; the users of both are named",
        Attribution::Unknown => "nobody was logged in with this device",
    }
}

fn translation(hit: &Hit) -> String {
    let flow = &hit.flow;
    match (flow.public, flow.nat) {
        (Some(public), Some(NatState::Exact)) => {
            format!("{} (translation reported)", endpoint(Some(public.ip), public.port))
        }
        (Some(public), Some(NatState::Uncertain | NatState::None) | None) => endpoint(Some(public.ip), public.port),
        (None, Some(NatState::None)) => "not translated".to_owned(),
        (None, Some(NatState::Uncertain | NatState::Exact)) => {
            "UNCERTAIN: reports of translations were lost".to_owned()
        }
        (None, None) => "translations were not watched".to_owned(),
    }
}
