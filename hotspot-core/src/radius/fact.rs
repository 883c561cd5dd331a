//! What a request says about a session.

use std::net::{IpAddr, Ipv4Addr};

use super::packet::{AcctStatus, Request};
use super::station;
use crate::WallNs;
use crate::fact::{IdentitySource, SessionCounters, SessionDetails, SessionEvent, SessionFact};
use crate::text::hex;
use crate::{MacAddr, named_device};

const SECOND: WallNs = 1_000_000_000;
/// 2000-01-01: a NAS that sends an earlier Event-Timestamp has no clock.
const EPOCH_MIN_S: u32 = 946_684_800;
/// A longer Acct-Delay-Time was computed by a clock that was set meanwhile.
const DELAY_MAX_S: u32 = 24 * 3600;
/// The same of Acct-Session-Time, where no Start was seen to know better.
const SESSION_TIME_MAX_S: u32 = 31 * 24 * 3600;

impl Request {
    /// The report this request makes, received at `received_ns` from `sender` of what happened at `at_ns` ([`super::NasClock`]).
    #[must_use]
    pub fn fact(&self, sender: IpAddr, received_ns: WallNs, at_ns: WallNs) -> SessionFact {
        let attributes = &self.attributes;
        let nas = self.nas(sender);
        let event = match self.status {
            AcctStatus::Start => SessionEvent::Start,
            AcctStatus::Interim => SessionEvent::Interim,
            AcctStatus::Stop => SessionEvent::Stop,
            AcctStatus::On | AcctStatus::Off => SessionEvent::NasReset,
            AcctStatus::Failed => SessionEvent::Rejected,
        };
        let lasted_s = attributes.session_time_s.filter(|seconds| *seconds <= SESSION_TIME_MAX_S);
        let began = lasted_s.map(|seconds| at_ns - WallNs::from(seconds) * SECOND);
        let (ap_mac, ssid) = attributes.called_station.as_deref().map_or((None, None), station::called);
        let calling = attributes.calling_station.as_deref().and_then(station::calling);
        let client_mac = calling.or_else(|| self.device_in_a_name());
        SessionFact {
            event,
            source: IdentitySource::Radius,
            session_id: self.session_id(&nas, at_ns),
            user: attributes.user_name.clone().or_else(|| attributes.chargeable_user.clone()),
            auth_method: attributes.authentic.and_then(authentic),
            client_mac,
            client_ips: attributes.framed_ips.clone(),
            client_prefixes: attributes.prefixes.clone(),
            ap_mac,
            ssid,
            nas: Some(nas),
            nas_port: attributes.nas_port_id.clone().or_else(|| attributes.nas_port.map(|port| port.to_string())),
            at_ns,
            started_ns: if event == SessionEvent::Start { None } else { began },
            received_ns,
            counters: self.counters(),
            end_cause: attributes.terminate_cause.map(terminate_cause),
            // Some servers send 0 for "no updates".
            interim_interval_s: attributes.interim_interval_s.filter(|interval_s| *interval_s > 0),
            details: self.details(calling.is_some(), ap_mac.is_some()).shared(),
        }
    }

    /// The device that is named where a person would be, as access points do that let devices in by their addresses.
    fn device_in_a_name(&self) -> Option<MacAddr> {
        let names = [&self.attributes.user_name, &self.attributes.chargeable_user];
        let device = names.into_iter().flatten().find_map(|name| named_device(name, None));
        device.filter(|mac| mac.is_device())
    }

    /// NAS-Identifier, or its address where it has none; an address that every machine has for itself names none.
    #[must_use]
    pub fn nas(&self, sender: IpAddr) -> String {
        let attributes = &self.attributes;
        let names_one = |ip: &IpAddr| {
            let ip = ip.to_canonical();
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST)
        };
        let identifier = attributes.nas_identifier.as_ref();
        let identifier = identifier.filter(|name| name.parse().map_or(true, |ip: IpAddr| names_one(&ip)));
        identifier.cloned().unwrap_or_else(|| attributes.nas_ip.filter(names_one).unwrap_or(sender).to_string())
    }

    /// When the NAS sent what arrived at `received_ns`, or first tried to, by Acct-Delay-Time. More than a day is no delay.
    #[must_use]
    pub fn sent_ns(&self, received_ns: WallNs) -> WallNs {
        let delay_s = self.attributes.delay_s.filter(|seconds| *seconds <= DELAY_MAX_S);
        received_ns.saturating_sub(WallNs::from(delay_s.unwrap_or(0)) * SECOND)
    }

    /// How far Event-Timestamp (RFC 2869 §5.3) is behind when it was sent; `None` without one, or from a clock that was never set.
    pub(super) fn lag_ns(&self, sent_ns: WallNs) -> Option<WallNs> {
        let stamp_s = self.attributes.event_timestamp_s.filter(|stamp| *stamp >= EPOCH_MIN_S)?;
        Some(sent_ns - WallNs::from(stamp_s) * SECOND)
    }

    /// Ids count per NAS. A login that failed is no life of the session it may name: it gets an id of its own.
    fn session_id(&self, nas: &str, at_ns: WallNs) -> String {
        let id = self.attributes.session_id.as_deref();
        match self.status {
            AcctStatus::Failed => {
                let id = id.map_or_else(|| hex(&self.content[..8]), str::to_owned);
                format!("{nas}/{id}/failed-{}", at_ns / SECOND)
            }
            // A NAS that comes up or goes down has no session, even where it names an id.
            AcctStatus::On | AcctStatus::Off => String::new(),
            AcctStatus::Start | AcctStatus::Stop | AcctStatus::Interim => {
                id.map(|id| format!("{nas}/{id}")).unwrap_or_default()
            }
        }
    }

    /// "Input" is what the NAS received from the client (RFC 2866 §5.3): out, for us. Gigawords count 2^32 octets.
    fn counters(&self) -> Option<SessionCounters> {
        let attributes = &self.attributes;
        let (input, output) = (attributes.input_octets?, attributes.output_octets?);
        let octets = |low: u32, high: Option<u32>| u64::from(high.unwrap_or(0)) << 32 | u64::from(low);
        Some(SessionCounters {
            packets_out: attributes.input_packets.unwrap_or(0).into(),
            bytes_out: octets(input, attributes.input_gigawords),
            packets_in: attributes.output_packets.unwrap_or(0).into(),
            bytes_in: octets(output, attributes.output_gigawords),
        })
    }

    fn details(&self, calling_is_read: bool, called_is_read: bool) -> SessionDetails {
        let attributes = &self.attributes;
        let joined = |parts: Vec<String>| Some(parts.join(" ")).filter(|joined| !joined.is_empty());
        let place = [&attributes.location_id, &attributes.location_name];
        SessionDetails {
            nas_port_type: attributes.nas_port_type.map(port_type),
            multi_session_id: attributes.multi_session_id.clone(),
            chargeable_user: attributes.chargeable_user.clone(),
            class: joined(attributes.classes.iter().map(|class| class.replace(' ', "\\x20")).collect()),
            location: joined(place.into_iter().flatten().cloned().collect()),
            calling_station: attributes.calling_station.clone().filter(|_| !calling_is_read),
            called_station: attributes.called_station.clone().filter(|_| !called_is_read),
        }
    }
}

/// Names of NAS-Port-Type (RFC 2865 §5.41); of the many there are those of access networks, others by number.
fn port_type(value: u32) -> String {
    let name = match value {
        0 => "Async",
        5 => "Virtual",
        15 => "Ethernet",
        16 => "xDSL",
        17 => "Cable",
        18 => "Wireless-Other",
        19 => "Wireless-802.11",
        _ => return value.to_string(),
    };
    name.to_owned()
}

fn authentic(value: u32) -> Option<String> {
    let name = match value {
        1 => "radius",
        2 => "local",
        3 => "remote",
        4 => "diameter",
        _ => return None,
    };
    Some(name.to_owned())
}

/// Names of Acct-Terminate-Cause (RFC 2866 §5.10).
fn terminate_cause(value: u32) -> String {
    const NAMES: [&str; 18] = [
        "User-Request",
        "Lost-Carrier",
        "Lost-Service",
        "Idle-Timeout",
        "Session-Timeout",
        "Admin-Reset",
        "Admin-Reboot",
        "Port-Error",
        "NAS-Error",
        "NAS-Request",
        "NAS-Reboot",
        "Port-Unneeded",
        "Port-Preempted",
        "Port-Suspended",
        "Service-Unavailable",
        "Callback",
        "User-Error",
        "Host-Request",
    ];
    let index = usize::try_from(value).unwrap_or(usize::MAX).wrapping_sub(1);
    NAMES.get(index).map_or_else(|| value.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::parsed;
    use super::*;

    const STOP: (u8, &[u8]) = (40, &[0, 0, 0, 2]);
    const ID: (u8, &[u8]) = (44, b"5f");
    const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn octets_of_the_nas_are_turned_to_the_client() {
        let [input, output, giga, packets_in, packets_out] = [10u32, 20, 2, 3, 4].map(u32::to_be_bytes);
        let given: [(u8, &[u8]); 7] =
            [STOP, ID, (42, &input), (43, &output), (53, &giga), (47, &packets_in), (48, &packets_out)];
        let expected = SessionCounters { packets_out: 3, bytes_out: 10, packets_in: 4, bytes_in: (2 << 32) + 20 };
        assert_eq!(parsed(&given).fact(SENDER, 0, 0).counters, Some(expected));
    }

    #[test]
    fn the_time_is_that_of_the_event() {
        let now_ns = 1_795_392_000 * SECOND;
        let [stamp, delay, lasted, unset] = [1_795_391_990u32, 7, 60, 60].map(u32::to_be_bytes);
        let request = parsed(&[STOP, ID, (55, &stamp), (41, &delay), (46, &lasted)]);
        assert_eq!(request.lag_ns(request.sent_ns(now_ns)), Some(3 * SECOND));
        let fact = request.fact(SENDER, now_ns, now_ns - 10 * SECOND);
        assert_eq!((fact.at_ns, fact.started_ns), (now_ns - 10 * SECOND, Some(now_ns - 70 * SECOND)));
        assert_eq!(parsed(&[STOP, ID, (55, &unset)]).lag_ns(now_ns), None, "1970 is no time to report");
    }

    #[test]
    fn an_interval_of_no_seconds_promises_no_updates() {
        let [none, some] = [0u32, 300].map(u32::to_be_bytes);
        assert_eq!(parsed(&[STOP, ID, (85, &none)]).fact(SENDER, 0, 0).interim_interval_s, None);
        assert_eq!(parsed(&[STOP, ID, (85, &some)]).fact(SENDER, 0, 0).interim_interval_s, Some(300));
    }

    #[test]
    fn a_session_is_known_by_its_nas_and_id() {
        assert_eq!(parsed(&[STOP, ID, (32, b"ap1")]).fact(SENDER, 0, 0).session_id, "ap1/5f");
        assert_eq!(parsed(&[STOP, ID]).fact(SENDER, 0, 0).session_id, "10.0.0.2/5f");
    }

    #[test]
    fn an_address_that_every_machine_has_for_itself_names_no_nas() {
        let nas = |given: &[(u8, &[u8])]| parsed(&[&[STOP, ID], given].concat()).nas(SENDER);
        for own in [[127, 0, 0, 1], [127, 0, 1, 1], [0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]] {
            assert_eq!(nas(&[(4, &own)]), "10.0.0.2", "{own:?}");
        }
        let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        for own in ["::1", "::", "::ffff:127.0.0.1", "ff02::1"] {
            assert_eq!(nas(&[(95, &v6(own))]), "10.0.0.2", "{own}");
        }
        for own in ["127.0.0.1", "::1", "0.0.0.0"] {
            assert_eq!(nas(&[(32, own.as_bytes()), (4, &[10, 0, 0, 9])]), "10.0.0.9", "{own}");
        }
        assert_eq!(nas(&[(95, &v6("2001:db8::9"))]), "2001:db8::9");
        assert_eq!(nas(&[(32, b"10.0.0.7"), (4, &[10, 0, 0, 9])]), "10.0.0.7");
    }

    #[test]
    fn a_device_is_found_where_a_person_would_be_named_and_no_other() {
        let mac = |given: &[(u8, &[u8])]| parsed(&[&[STOP, ID], given].concat()).fact(SENDER, 0, 0).client_mac;
        let device = Some(MacAddr([0x02, 0xaa, 0xbb, 0xcc, 0x13, 0x01]));
        for spelling in [&b"02aabbcc1301"[..], b"02-AA-BB-CC-13-01", b"02aa.bbcc.1301", b"T-02:AA:BB:CC:13:01"] {
            assert_eq!(mac(&[(1, spelling)]), device);
            assert_eq!(mac(&[(1, b"anonymous"), (89, spelling)]), device);
            assert_eq!(
                mac(&[(1, spelling), (31, b"02-AA-BB-CC-13-99")]),
                Some(MacAddr([2, 0xaa, 0xbb, 0xcc, 0x13, 0x99]))
            );
        }
        for nobody in [&b"00-00-00-00-00-00"[..], b"ff:ff:ff:ff:ff:ff", b"01005e000001", b"447911123456", b"ann"] {
            assert_eq!(mac(&[(1, nobody)]), None);
            assert_eq!(mac(&[(1, b"ann"), (31, nobody)]).filter(|mac| !mac.is_device()), None);
        }
    }

    #[test]
    fn a_length_of_years_says_nothing_of_a_beginning() {
        let began = |seconds: u32| parsed(&[STOP, ID, (46, &seconds.to_be_bytes())]).fact(SENDER, 0, 0).started_ns;
        assert_eq!(began(31 * 86_400), Some(-31 * 86_400 * SECOND));
        for absurd in [31 * 86_400 + 1, 39 * 86_400, 1_795_392_000, u32::MAX] {
            assert_eq!(began(absurd), None, "{absurd} s");
        }
    }

    #[test]
    fn a_failed_login_is_no_life_of_a_session() {
        let failed: (u8, &[u8]) = (40, &[0, 0, 0, 15]);
        let fact = parsed(&[failed, ID, (32, b"ap1"), (1, b"mallory")]).fact(SENDER, 5 * SECOND, 5 * SECOND);
        assert_eq!((fact.event, fact.session_id.as_str()), (SessionEvent::Rejected, "ap1/5f/failed-5"));
        let nameless = [b"mallory", b"charlie"]
            .map(|user| parsed(&[failed, (1, user)]).fact(SENDER, 5 * SECOND, 5 * SECOND).session_id);
        assert_ne!(nameless[0], nameless[1]);
    }

    #[test]
    fn what_else_the_nas_says_is_kept() {
        let place = [&14_122u32.to_be_bytes()[..], &[1, 4], b"id", &[2, 6], b"Cafe"].concat();
        let wireless = 19u32.to_be_bytes();
        let given: [(u8, &[u8]); 9] = [
            STOP,
            ID,
            (61, &wireless),
            (50, b"m1"),
            (89, b"cui"),
            (25, b"a b"),
            (25, b"c"),
            (26, &place),
            (30, b"hotspot1"),
        ];
        let text = |text: &str| Some(text.to_owned());
        let fact = parsed(&[&given[..], &[(31, b"0912345678")]].concat()).fact(SENDER, 0, 0);
        let expected = SessionDetails {
            nas_port_type: text("Wireless-802.11"),
            multi_session_id: text("m1"),
            chargeable_user: text("cui"),
            class: text("a\\x20b c"),
            location: text("id Cafe"),
            calling_station: text("0912345678"),
            called_station: text("hotspot1"),
        };
        assert_eq!(fact.details.as_deref(), Some(&expected));
        assert_eq!(fact.user.as_deref(), Some("cui"), "where there is no User-Name");
    }
}
