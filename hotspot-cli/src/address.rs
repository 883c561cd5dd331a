//! Whether a public address that was asked for was ever one of these gateways'.
//!
//! "Nobody" is the wrong answer to a wrong address. That an address is none of theirs is said only where the archive can know it:
//! where every gateway's translations were reported, or none took place, and every segment could be asked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hotspot_archive::filter::{self, Filter, Pattern, TextField};
use hotspot_archive::search::{Archive, By, Interval, Totals};

/// How far back it is looked whether translations are reported: a venue may be closed at night.
const DAY_NS: i64 = 86_400 * 1_000_000_000;
/// Gateways that are asked one by one because they are not in the last day of the archive.
const ALONE_MAX: usize = 16;
/// Clients of IPv6 have their addresses in a network of this length, and take others of it all the time.
const V6_NETWORK: u8 = 64;

/// Those of some public addresses that no row of the archive has; none where that cannot be known.
pub(crate) fn strangers(archive: &Archive, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let unknown: Vec<IpAddr> = addresses.iter().copied().filter(|ip| is_unknown(archive, *ip)).collect();
    if unknown.len() == addresses.len() && !unknown.is_empty() && knows_its_addresses(archive) {
        unknown
    } else {
        Vec::new()
    }
}

fn is_unknown(archive: &Archive, ip: IpAddr) -> bool {
    let filter = match ip {
        IpAddr::V4(_) => Filter::Public(ip, None),
        IpAddr::V6(_) => match filter::parse(&format!("src net {ip}/{V6_NETWORK}")) {
            Ok(net) => net,
            Err(_) => return false,
        },
    };
    let mut is_found = false;
    let seen = archive.search(
        Interval::ALWAYS,
        &filter,
        |_| {
            is_found = true;
            false
        },
        |_| {},
    );
    !is_found && seen.damage.is_empty()
}

/// Whether each gateway has rows of which it is known how, or that they were not, translated.
fn knows_its_addresses(archive: &Archive) -> bool {
    let extents = archive.extents(Interval::ALWAYS, &Filter::Everything);
    let Some(last_ns) = extents.iter().map(|extent| extent.to_ns).max() else { return false };
    let known = |to_ns: i64, filter: Filter| {
        let interval = Interval { from_ns: to_ns.saturating_sub(DAY_NS), to_ns: to_ns.saturating_add(1) };
        let mut totals = Totals::new(By::Gateway);
        archive.sum(interval, &filter, &mut totals, |_| {});
        totals.sorted(|sums| sums.flows).into_iter().filter_map(|(gateway, _)| gateway).collect::<BTreeSet<_>>()
    };
    let of_last_day = known(last_ns, is_translation_known());
    let others: Vec<_> = extents.iter().filter(|extent| !of_last_day.contains(extent.gateway.as_str())).collect();
    others.len() <= ALONE_MAX
        && others.iter().all(|extent| {
            let of_gateway = Filter::Text(TextField::Gateway, Pattern::Exact(extent.gateway.clone()));
            !known(extent.to_ns, of_gateway.and(is_translation_known())).is_empty()
        })
}

fn is_translation_known() -> Filter {
    let nat = |label: &str| Filter::Text(TextField::Nat, Pattern::Exact(label.to_owned()));
    Filter::Any(vec![nat("exact"), nat("none")])
}
