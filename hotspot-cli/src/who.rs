//! `hotspot who`: the one question everything else is for.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io::{self, Write};

use hotspot_archive::filter::{self, Filter, Side};
use hotspot_archive::search::{Hit, Interval};
use hotspot_core::record::{Attribution, FlowRecord, NatState};

use crate::arguments::WhoArguments;
use crate::find::{conclude, endpoint, open, protocol, query_of};
use crate::nat_map::{Mapped, NatMap};
use crate::output::{self, json_line, stdout};
use crate::progress::ProgressLine;
use crate::time::{Zone, precision_ns};
use crate::{Failure, Outcome, ask, columns};

/// Flows of one public address and port within some seconds; more would be no answer.
const CANDIDATES_MAX: usize = 100_000;
/// A flow's end is this coarse, at most: a tick of the kernel.
const COARSE_NS: i64 = 10_000_000;

pub(crate) fn run(arguments: &WhoArguments) -> Result<Outcome, Failure> {
    let zone = Zone::new(arguments.tz.as_deref())?;
    let at_ns = zone.parse(&arguments.at)?;
    // What was written as 10:02:03 was any moment of that second.
    let last_ns = at_ns.saturating_add(precision_ns(&arguments.at) - 1);
    let tolerance_ns = i64::from(arguments.tolerance) * 1_000_000_000;
    let interval = Interval {
        from_ns: at_ns.saturating_sub(tolerance_ns),
        to_ns: last_ns.saturating_add(tolerance_ns).saturating_add(1),
    };
    let public = Filter::Public(arguments.public.ip().to_canonical(), Some(arguments.public.port()));
    let map = arguments.nat_map.as_deref().map(|path| NatMap::read(path, &zone)).transpose()?;
    let mapped = map.map(|map| map.decode(arguments.public, at_ns)).unwrap_or_default();
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
    let moment = Moment { from_ns: at_ns, last_ns };
    candidates.sort_by_key(|hit| moment.likeness(&hit.flow));
    let mut to = stdout();
    if arguments.json {
        for hit in &candidates {
            let mut object = columns::of_hit(hit);
            object.push("at_that_moment", (moment.away_ns(&hit.flow) == 0).into());
            if !hit.is_trusted {
                object.push("trusted", false.into());
            }
            json_line(&mut to, &object)?;
        }
    } else if !candidates.is_empty() {
        explain(&mut to, arguments, &candidates, &mapped, moment, &zone)?;
    }
    to.flush()?;
    Ok(conclude(candidates.len(), &seen))
}

/// When the other side saw it.
#[derive(Clone, Copy)]
struct Moment {
    from_ns: i64,
    last_ns: i64,
}

impl Moment {
    /// How far a flow was from going on then; 0 where it was.
    fn away_ns(self, flow: &FlowRecord) -> i64 {
        let since_end_ns = self.from_ns.saturating_sub(flow.end_ns).saturating_sub(COARSE_NS);
        flow.start_ns.saturating_sub(self.last_ns).max(since_end_ns).max(0)
    }

    /// Nearest first. Of flows that went on then the surest first, because the answers to a forged address are another flow of the same
    /// connection; then the one that began last, because a port that changed hands belonged to the earlier one no longer.
    fn likeness(self, flow: &FlowRecord) -> impl Ord + use<> {
        (self.away_ns(flow), flow.attribution.lists_claimants(), Reverse(flow.start_ns))
    }
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
    moment: Moment,
    zone: &Zone,
) -> io::Result<()> {
    writeln!(to, "{} at {}", arguments.public, zone.show(moment.from_ns))?;
    let then = candidates.iter().filter(|hit| moment.away_ns(&hit.flow) == 0);
    let devices: HashSet<_> = then.map(|hit| (hit.flow.client_mac, hit.flow.client_ip)).collect();
    if devices.len() > 1 {
        writeln!(
            to,
            "  NOT SURE: {} devices had it within that time; a more exact time tells them apart",
            devices.len()
        )?;
    }
    for mapped in mapped {
        writeln!(to, "  by the NAT map it was {}", endpoint(Some(mapped.client), mapped.port))?;
    }
    for (position, hit) in candidates.iter().enumerate() {
        if candidates.len() > 1 {
            writeln!(to, "\ncandidate {} of {}", position + 1, candidates.len())?;
        }
        describe(to, hit, zone)?;
    }
    Ok(())
}

fn describe(to: &mut impl Write, hit: &Hit, zone: &Zone) -> io::Result<()> {
    let flow = &hit.flow;
    let who = flow.identity.as_deref();
    let mut line = |name: &str, value: &str| output::line(to, format!("  {name:<9} {value}"));
    line("user", who.and_then(|who| who.user.as_deref()).unwrap_or("unknown"))?;
    line("sure", sureness(flow.attribution))?;
    if !hit.is_trusted {
        line("but", "NOT TRUSTED: the segment was written after the last line its gateway is trusted until")?;
    }
    if let Some(who) = who {
        let method =
            who.auth_method.as_deref().map(|method| format!(", authenticated by {method}")).unwrap_or_default();
        line("session", &format!("{}{method}", who.session_id))?;
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
    line("venue", &format!("site {}, gateway {}, interface {}", hit.origin.site, hit.origin.gateway, flow.interface))
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
        Attribution::MacOnly => "the session held this device; nothing says whose this address was",
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
