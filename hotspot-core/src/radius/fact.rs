//! What a request says about a session.

use std::net::IpAddr;

use super::packet::{AcctStatus, Request};
use crate::fact::{IdentitySource, SessionCounters, SessionEvent, SessionFact};
use crate::{MacAddr, WallNs};

const SECOND: WallNs = 1_000_000_000;
/// An Event-Timestamp further from the arrival than this is a clock that was never set.
const SKEW_MAX_NS: WallNs = 24 * 3600 * SECOND;

impl Request {
    /// The report this request makes, received at `received_ns` from `sender`.
    #[must_use]
    pub fn fact(&self, sender: IpAddr, received_ns: WallNs) -> SessionFact {
        let attributes = &self.attributes;
        let nas = attributes.nas_identifier.clone().unwrap_or_else(|| attributes.nas_ip.unwrap_or(sender).to_string());
        let event = match self.status {
            AcctStatus::Start => SessionEvent::Start,
            AcctStatus::Interim => SessionEvent::Interim,
            AcctStatus::Stop => SessionEvent::Stop,
            AcctStatus::On | AcctStatus::Off => SessionEvent::NasReset,
        };
        let (ap_mac, ssid) = attributes.called_station.as_deref().map_or((None, None), called_station);
        let at_ns = self.happened_ns(received_ns);
        let began = attributes.session_time_s.map(|seconds| at_ns - WallNs::from(seconds) * SECOND);
        let session_id = attributes.session_id.as_ref().map(|id| format!("{nas}/{id}")).unwrap_or_default();
        SessionFact {
            event,
            source: IdentitySource::Radius,
            session_id,
            user: attributes.user_name.clone().or_else(|| attributes.chargeable_user.clone()),
            auth_method: attributes.authentic.and_then(authentic),
            client_mac: attributes.calling_station.as_deref().and_then(|text| text.parse().ok()),
            client_ips: attributes.framed_ips.clone(),
            client_prefixes: attributes.framed_prefixes.clone(),
            ap_mac,
            ssid,
            nas: Some(nas),
            nas_port: attributes.nas_port_id.clone().or_else(|| attributes.nas_port.map(|port| port.to_string())),
            at_ns,
            started_ns: if event == SessionEvent::Start { None } else { began },
            received_ns,
            counters: self.counters(),
            end_cause: attributes.terminate_cause.map(terminate_cause),
            interim_interval_s: attributes.interim_interval_s,
        }
    }

    /// Event-Timestamp (RFC 2869 §5.3) where it is plausible, else the arrival minus Acct-Delay-Time.
    fn happened_ns(&self, received_ns: WallNs) -> WallNs {
        let delay_ns = WallNs::from(self.attributes.delay_s.unwrap_or(0)) * SECOND;
        let sent_ns = received_ns.saturating_sub(delay_ns);
        let stamp_ns = self.attributes.event_timestamp_s.map(|seconds| WallNs::from(seconds) * SECOND);
        stamp_ns.filter(|stamp| (received_ns - stamp).abs() <= SKEW_MAX_NS).unwrap_or(sent_ns)
    }

    /// "Input" is what the NAS received from the client (RFC 2866 §5.3): out, for us. Gigawords count 2^32 octets.
    fn counters(&self) -> Option<SessionCounters> {
        let attributes = &self.attributes;
        let (input, output) = (attributes.input_octets?, attributes.output_octets?);
        let octets = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        Some(SessionCounters {
            packets_out: attributes.input_packets.into(),
            bytes_out: octets(input, attributes.input_gigawords),
            packets_in: attributes.output_packets.into(),
            bytes_in: octets(output, attributes.output_gigawords),
        })
    }
}

/// Called-Station-Id: the access point's MAC, then `:` and the SSID (RFC 3580 §3.20).
fn called_station(text: &str) -> (Option<MacAddr>, Option<String>) {
    for len in [17, 14, 13, 12] {
        let Some((mac, rest)) = text.split_at_checked(len) else { continue };
        let Ok(mac) = mac.parse::<MacAddr>() else { continue };
        match rest.strip_prefix(':') {
            Some(ssid) => return (Some(mac), Some(ssid.to_owned()).filter(|ssid| !ssid.is_empty())),
            None if rest.is_empty() => return (Some(mac), None),
            None => {}
        }
    }
    (None, None)
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
    const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn octets_of_the_nas_are_turned_to_the_client() {
        let [input, output, giga, packets_in, packets_out] = [10u32, 20, 2, 3, 4].map(u32::to_be_bytes);
        let given: [(u8, &[u8]); 7] =
            [STOP, ID, (42, &input), (43, &output), (53, &giga), (47, &packets_in), (48, &packets_out)];
        let expected = SessionCounters { packets_out: 3, bytes_out: 10, packets_in: 4, bytes_in: (2 << 32) + 20 };
        assert_eq!(parsed(&given).fact(SENDER, 0).counters, Some(expected));
    }

    #[test]
    fn the_time_is_that_of_the_event() {
        let now_ns = 1_795_392_000 * SECOND;
        let [stamp, delay, lasted, unset] = [1_795_391_990u32, 7, 60, 60].map(u32::to_be_bytes);
        let fact = parsed(&[STOP, ID, (55, &stamp), (41, &delay), (46, &lasted)]).fact(SENDER, now_ns);
        assert_eq!(fact.at_ns, now_ns - 10 * SECOND);
        assert_eq!(fact.started_ns, Some(now_ns - 70 * SECOND));
        assert_eq!(parsed(&[STOP, ID, (55, &unset), (41, &delay)]).fact(SENDER, now_ns).at_ns, now_ns - 7 * SECOND);
    }

    #[test]
    fn access_point_and_network_are_read_in_every_usual_spelling() {
        let mac = Some(MacAddr([0x00, 0x10, 0xa4, 0x23, 0x19, 0xc0]));
        for text in ["00-10-A4-23-19-C0:Cafe", "00:10:a4:23:19:c0:Cafe", "0010A42319C0:Cafe", "0010.a423.19c0:Cafe"] {
            assert_eq!(called_station(text), (mac, Some("Cafe".to_owned())), "{text}");
        }
        assert_eq!(called_station("00-10-A4-23-19-C0"), (mac, None));
        assert_eq!(called_station("hotspot1"), (None, None));
    }

    #[test]
    fn a_session_is_known_by_its_nas_and_id() {
        assert_eq!(parsed(&[STOP, ID, (32, b"ap1")]).fact(SENDER, 0).session_id, "ap1/5f");
        assert_eq!(parsed(&[STOP, ID]).fact(SENDER, 0).session_id, "10.0.0.2/5f");
    }
}
