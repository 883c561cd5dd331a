//! What an index says about a filter: the rows that can match, never fewer than those that do.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::filter::{Filter, Pattern, Side, TextField, spelled};
use crate::index::{Index, IndexError, Rows};

/// Whether an index can say anything about a filter at all.
pub(super) fn can_help(filter: &Filter) -> bool {
    match filter {
        Filter::Text(TextField::User, Pattern::Exact(_) | Pattern::Alike(_))
        | Filter::Mac(_)
        | Filter::Ip(..)
        | Filter::Net(..)
        | Filter::Public(..) => true,
        Filter::All(parts) => parts.iter().any(can_help),
        Filter::Any(parts) => parts.iter().all(can_help),
        Filter::Everything
        | Filter::Text(..)
        | Filter::Port(..)
        | Filter::Protocol(_)
        | Filter::IsV4(_)
        | Filter::Vlan(_)
        | Filter::Number(..)
        | Filter::At { .. }
        | Filter::Not(_) => false,
    }
}

/// The rows of a segment that can match.
pub(super) fn rows(filter: &Filter, index: &Index) -> Result<Rows, IndexError> {
    match filter {
        Filter::Text(TextField::User, Pattern::Exact(user)) => {
            let found = index.user(user)?;
            match spelled(user) {
                None => Ok(found),
                Some(spelled) => Ok(found.or(index.user(&spelled)?)),
            }
        }
        Filter::Text(TextField::User, Pattern::Alike(user)) => index.user_alike(user),
        Filter::Mac(mac) => index.mac(*mac),
        Filter::Ip(side, ip) => addresses(*side, IpNet::from(*ip), index),
        Filter::Net(side, net) => addresses(*side, *net, index),
        Filter::Public(ip, port) => public(*ip, *port, index),
        Filter::All(parts) => parts
            .iter()
            .try_fold(Rows::All, |all, part| if all.is_none() { Ok(all) } else { Ok(all.and(rows(part, index)?)) }),
        Filter::Any(parts) => parts
            .iter()
            .try_fold(Rows::NONE, |any, part| if any == Rows::All { Ok(any) } else { Ok(any.or(rows(part, index)?)) }),
        Filter::Everything
        | Filter::Text(..)
        | Filter::Port(..)
        | Filter::Protocol(_)
        | Filter::IsV4(_)
        | Filter::Vlan(_)
        | Filter::Number(..)
        | Filter::At { .. }
        | Filter::Not(_) => Ok(Rows::All),
    }
}

fn addresses(side: Side, net: IpNet, index: &Index) -> Result<Rows, IndexError> {
    let mut found = Rows::NONE;
    if side != Side::Source && index.has_peer(net)? {
        found = Rows::All;
    }
    if side != Side::Destination {
        found = found.or(if index.has_translated(net)? { Rows::All } else { index.client(net)? });
    }
    Ok(found)
}

/// Where nothing was translated to an address, only its own client can have it.
fn public(ip: IpAddr, port: Option<u16>, index: &Index) -> Result<Rows, IndexError> {
    match index.public(ip, port)? {
        None => Ok(Rows::NONE),
        Some(true) => Ok(Rows::All),
        Some(false) => index.client(IpNet::from(ip)),
    }
}
