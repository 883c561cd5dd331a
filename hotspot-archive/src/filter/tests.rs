//! Tests of the language: what words mean, what errors say, and that printing and parsing are inverse.

use hotspot_core::record::Attribution;
use proptest::prelude::*;

use super::*;
use crate::segment::tests::flow;
use crate::when::When;

fn origin() -> Origin {
    Origin { site: "cafe-1".into(), gateway: "gw1".into(), sequence: 1 }
}

fn is_match(text: &str) -> bool {
    parse(text).unwrap().matches(&origin(), &flow(2))
}

#[test]
fn every_word_finds_its_column() {
    for text in [
        "",
        "any",
        "user 0912345678",
        "user 09123*",
        "user in [nobody, 0912345678]",
        "mac 02-00-00-00-00-01",
        "ip 10.20.0.14",
        "host 10.20.0.14",
        "ip 203.0.113.7",
        "ip 198.51.100.1",
        "ip in [1.1.1.1 198.51.100.1]",
        "src ip 10.20.0.14 and dst ip 198.51.100.1",
        "net 198.51.100.0/24",
        "net 198.51.100.77/24",
        "port 443 or port 1",
        "dst port in [80, 443, 8000-9000]",
        "dst portrange 440-450",
        "dst port >= 443 and dst port<444 and dst port != 80",
        "src port 45678",
        "proto tcp",
        "proto 6",
        "tcp && ! udp || icmp",
        "ipv4",
        "public ip 203.0.113.7 port 45678",
        "public ip 203.0.113.7",
        "public ip 203.0.113.7 port 45678 at @1795392001",
        "public 203.0.113.7:45678 at 2026-11-23T00:00Z within 0s",
        "at 2026-11-23Z and at 2026-11-23T00Z and at 2026-11-22T23:00:00Z to 2026-11-23T00:00:00Z within 0s",
        "peer 198.51.100.1 and peer ip 198.51.100.1 and peer port 443 and client 10.20.0.14 and src 10.20.0.0/24",
        "peer 198.51.100.1:443 and not peer 198.51.100.1:80 and client net 10.20.0.0/16",
        "at 2026-11-23T07:00:01+07:00",
        "site cafe-1 and gateway gw* and interface lan",
        "ssid \"Café \\\"x\\\"\" and nat exact and attribution authenticated and end end_of_flow",
        "ap 02:00:00:00:01:01",
        "bytes > 1.6k and bytes = 1620 and src bytes 120 and dst bytes >= 1500",
        "packets 3 and src packets < 3",
        "duration = 1s and duration > 999ms and duration <= 0.001h",
        "not (user nobody or vlan 7)",
        "user \"0912345678\" and not proto udp",
        "user 0912345678 # the phone\n  and tcp # its flows",
    ] {
        assert!(is_match(text), "{text}");
    }
}

#[test]
fn what_is_elsewhere_is_not_found() {
    for text in [
        "user 091234567",
        "user \"09123*\"",
        "user in [a b c]",
        "dst ip 10.20.0.14",
        "src port 443",
        "proto udp",
        "ipv6",
        "public ip 203.0.113.7 port 1",
        "public ip 203.0.113.7 port 45678 at @1795391990",
        "at 2026-11-22Z within 0s",
        "at 2026-11-23T00:01Z within 0s",
        "peer 10.20.0.14",
        "public ip 10.20.0.14",
        "vlan 1",
        "hostname *",
        "bytes > 1620",
        "duration > 1s",
        "not mac 02:00:00:00:00:01",
    ] {
        assert!(!is_match(text), "{text}");
    }
}

#[test]
fn every_claimant_of_an_ambiguous_flow_is_found() {
    let mut flow = flow(2);
    flow.attribution = Attribution::Ambiguous;
    let who = std::sync::Arc::make_mut(flow.identity.as_mut().unwrap());
    who.users = vec!["anna".into(), "binh".into()];
    who.session_ids = vec!["nas/1".into(), "nas/2".into()];
    let is_match = |text: &str| parse(text).unwrap().matches(&origin(), &flow);
    assert!(is_match("user anna") && is_match("user binh") && !is_match("user \"anna, binh\""));
    assert!(is_match("session nas/1") && is_match("session nas/2") && !is_match("session nas/3"));
    assert!(is_match("not user chi") && !is_match("not user binh"));
}

/// Whether a question finds the flow of a user.
fn finds(question: &str, user: &str) -> bool {
    let mut flow = flow(2);
    std::sync::Arc::make_mut(flow.identity.as_mut().unwrap()).users = vec![user.into()];
    parse(question).unwrap().matches(&origin(), &flow)
}

#[test]
fn a_user_is_found_in_the_spellings_people_use_and_by_the_sign_in_one() {
    for question in ["user +84912345678", "user \"0912 345 678\"", "user 84912345678", "user in [x, 0912.345.678]"] {
        assert!(finds(question, "0912345678"), "{question}");
    }
    for question in ["user ANNA", "user \"Anna\"", "user AN*"] {
        assert!(finds(question, "anna"), "{question}");
    }
    for (question, user) in [
        ("user = 0912345678", "+84912345678"),
        ("user = Anna", "anna"),
        ("user == Anna", "anna"),
        ("user = AN*", "anna"),
    ] {
        assert!(!finds(question, user), "{question}");
    }
    assert!(finds("user = anna", "anna") && finds("user = an*", "anna") && !finds("user \"an*\"", "anna"));
    assert_eq!(parse("user = anna").unwrap().to_string(), "user = \"anna\"");
    assert_eq!(parse("user anna").unwrap().to_string(), "user \"anna\"");
}

#[test]
fn a_name_with_a_backslash_is_found_as_it_is_said_and_as_it_is_spelled() {
    for user in [r"CORP\\anna", r"CORP\anna"] {
        for question in
            [r"user CORP\anna", r#"user "CORP\anna""#, r"user = CORP\anna", r#"user = "CORP\anna""#, r"user = CORP\*"]
        {
            assert!(finds(question, user), "{question} {user}");
        }
    }
    assert!(
        finds(r"user = CORP\\anna", r"CORP\\anna") && !finds(r"user = CORP\\anna", r"CORP\anna"),
        "in the archive's spelling"
    );
    assert!(finds("user = \"a\u{202e}b\"", r"a\u{202e}b") && !finds(r"user = CORP\anna", r"CORP\\bob"));
}

#[test]
fn a_flow_that_is_not_translated_has_its_own_address() {
    assert!(parse("public ip 2001:db8::14 port 40000").unwrap().matches(&origin(), &flow(1)));
}

#[test]
fn device_names_are_found_in_any_case() {
    let mut flow = flow(2);
    flow.hostname = Some("Annas-iPhone".into());
    assert!(parse("hostname *IPHONE").unwrap().matches(&origin(), &flow));
    assert!(!parse("hostname iphone").unwrap().matches(&origin(), &flow));
}

#[test]
fn a_filter_knows_the_times_it_asks_for() {
    let second = 1_000_000_000;
    assert_eq!(parse("user x").unwrap().times(), (WallNs::MIN, WallNs::MAX));
    assert_eq!(parse("user x and at @10").unwrap().times(), (8 * second, 13 * second));
    assert_eq!(parse("at @10 within 1s or at @20 within 0s").unwrap().times(), (9 * second, 21 * second));
    assert_eq!(parse("not at @10").unwrap().times(), (WallNs::MIN, WallNs::MAX));
}

#[test]
fn errors_point_at_the_place_and_say_what_to_write() {
    for (text, at, what) in [
        ("user x and prot tcp", 11, "did you mean 'proto'"),
        ("usr x", 0, "did you mean 'user'"),
        ("user", 4, "expected a value"),
        ("ip 10.0.0", 3, "expected an address"),
        ("ip 10.0.0.0/8", 3, "write 'net'"),
        ("10.0.0.1", 0, "write 'ip'"),
        ("02:00:00:00:00:01", 0, "write 'mac'"),
        ("port 99999", 5, "expected a port"),
        ("port > 65535", 7, "no port is beyond"),
        ("port in 80", 8, "expected '['"),
        ("port in [80, 443", 16, "expected ']'"),
        ("port in [80, x]", 13, "expected a port"),
        ("port 90-80", 5, "expected a port"),
        ("(user x", 7, "expected ')'"),
        ("user x)", 6, "no '('"),
        ("and", 0, "missing before 'and'"),
        ("user x an user y", 7, "did you mean 'and'"),
        ("user x user y", 7, "'and' or 'or'"),
        ("user x tcp", 7, "'and' or 'or'"),
        ("ssid Cafe 2 and user x", 10, "'ssid \"Cafe 2\"'"),
        ("user x --json", 7, "options go before the filter"),
        ("--json", 0, "options go before the filter"),
        ("at @10 to @9", 10, "before the time it follows"),
        ("user x and", 10, "missing here"),
        ("proto nonsense", 6, "expected a protocol"),
        ("public port 5", 7, "expected an address"),
        ("duration > 30", 11, "unit"),
        ("bytes > much", 8, "10k"),
        ("at 2026-11-23T10:02:03", 3, "zone"),
        ("vlan 5000", 5, "0 to 4095"),
        ("src user x", 4, "after 'src'"),
        ("user \"open", 5, "not closed"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.what.contains(what), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
    let error = parse("user x and prot tcp").unwrap_err().to_string();
    assert!(error.ends_with("\n  user x and prot tcp\n             ^"), "{error}");
    let error = parse("user x\n  and prot tcp # comment").unwrap_err().to_string();
    assert!(error.ends_with("\n    and prot tcp # comment\n        ^"), "{error}");
}

#[test]
fn nesting_and_length_are_bounded() {
    assert!(parse(&format!("{}tcp{}", "(".repeat(60), ")".repeat(60))).is_ok());
    assert!(parse(&format!("{}tcp", "not ".repeat(100_000))).is_err());
    assert!(parse(&"(".repeat(2_000_000)).is_err());
    let long = format!("port in [{}]", (0..50_000).map(|port| port.to_string()).collect::<Vec<_>>().join(", "));
    assert!(parse(&long).unwrap().matches(&origin(), &flow(2)));
}

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Source, Side::Destination, Side::Either])
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        prop::sample::select(vec!["10.20.0.14", "203.0.113.7", "198.51.100.1", "2001:db8::14"])
            .prop_map(|ip| ip.parse().unwrap()),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|ip| IpAddr::from(ip).to_canonical()),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        prop::sample::select(vec!["0912345678", "lan", "authenticated", "exact", "idle"])
            .prop_map(|text| Pattern::Exact(text.into())),
        any::<String>().prop_map(Pattern::Exact),
        "[a-z0-9]{0,3}\\*[a-z0-9*]{0,3}".prop_map(Pattern::Glob),
    ]
}

fn user() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        pattern(),
        prop::sample::select(vec!["0912345678", "+84 912 345 678", "ANNA", "Lan", "x"])
            .prop_map(|name| Pattern::Alike(Alike::new(name))),
        any::<String>().prop_map(|name| Pattern::Alike(Alike::new(&name))),
        "[a-zA-Z0-9]{0,3}\\*[a-z0-9*]{0,3}".prop_map(|glob| Pattern::Alike(Alike::glob(&glob))),
    ]
}

/// Any filter that a person could have written.
pub(crate) fn filter() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        Just(Filter::Everything),
        (prop::sample::select(TextField::ALL), pattern()).prop_map(|(field, pattern)| Filter::Text(field, pattern)),
        user().prop_map(|pattern| Filter::Text(TextField::User, pattern)),
        (0u8..6).prop_map(|last| Filter::Mac(MacAddr([2, 0, 0, 0, 0, last]))),
        (side(), ip()).prop_map(|(side, ip)| Filter::Ip(side, ip)),
        (side(), ip(), 0u8..=128).prop_map(|(side, ip, prefix)| {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            Filter::Net(side, IpNet::new(ip, prefix.min(most)).unwrap().trunc())
        }),
        (side(), prop::sample::select(vec![(443, 443), (40_000, 50_000), (0, 1024), (0, 65_535)]))
            .prop_map(|(side, (from, to))| Filter::Port(side, from..=to)),
        prop::sample::select(vec![1u8, 6, 17, 58, 200]).prop_map(Filter::Protocol),
        any::<bool>().prop_map(Filter::IsV4),
        (ip(), prop::option::of(prop::sample::select(vec![45_678u16, 40_000, 1])))
            .prop_map(|(ip, port)| Filter::Public(ip, port)),
        prop::sample::select(vec![100u16, 1]).prop_map(Filter::Vlan),
        (
            side(),
            prop::sample::select(NumberField::ALL),
            prop::sample::select(Compare::ALL),
            prop::sample::select(vec![0u64, 60, 1500, 1560, 1_000_000_000]),
        )
            .prop_map(|(side, field, compare, value)| {
                // A duration has no side.
                let side = if field == NumberField::Duration { Side::Either } else { side };
                Filter::Number(side, field, compare, value)
            }),
        (0i64..60_000, prop::sample::select(vec![0i64, 1, 999, 60_000]), 0i64..3_000).prop_map(
            |(at_ms, long_ms, within_ms)| Filter::At {
                when: When {
                    from_ns: 1_795_392_000_000_000_000 + at_ms * 1_000_000,
                    last_ns: 1_795_392_000_000_000_000 + (at_ms + long_ms) * 1_000_000,
                },
                within_ns: within_ms * 1_000_000,
            }
        ),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Any),
            inner.prop_map(|inner| Filter::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_parsed_back(filter in filter()) {
        let text = filter.to_string();
        prop_assert_eq!(parse(&text), Ok(filter), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_fall(text in any::<String>()) {
        if let Err(error) = parse(&text) {
            prop_assert!(error.at <= text.chars().count());
            let _ = error.to_string();
        }
    }

    #[test]
    fn no_words_make_the_parser_fall(words in prop::collection::vec(prop::sample::select(vec![
        "user", "x", "in", "[", "]", ",", "(", ")", "not", "and", "or", "port", "80", ">", "at", "@1", "within", "2s", "public",
        "ip", "10.0.0.1", "net", "peer", "to", "2026-11-23", "10:02", "198.51.100.9:443", "--json", "src", "dst", "bytes", "1k", "\"", "#", "\n", "tcp",
    ]), 0..12)) {
        let _ = parse(&words.join(" "));
    }

    /// The time a filter says it asks for holds every match.
    #[test]
    fn matches_lie_in_the_times_of_the_filter(filter in filter(), number in 0u64..50) {
        let flow = flow(number);
        if filter.matches(&origin(), &flow) {
            let (from_ns, to_ns) = filter.times();
            prop_assert!(flow.start_ns < to_ns && flow.end_ns >= from_ns);
        }
    }
}

#[test]
fn no_name_is_somebody_elses_whatever_is_in_it() {
    let hostile = [
        "x, victim",
        "victim, x",
        ",victim",
        "x;victim",
        "x|victim",
        "x (victim)",
        "victim (x)",
        r"x \\(victim)",
        "[\"victim\"]",
        "\"victim\"",
        "x\tvictim",
        r"x\x0avictim",
        "",
    ];
    for name in hostile {
        assert!(!finds("user victim", name) && !finds("user = victim", name), "{name}");
        assert!(!finds("user x", name) && !finds("user = x", name), "{name}");
        let asked = name.replace('\\', r"\\").replace('"', r#"\""#);
        assert!(finds(&format!("user = \"{asked}\""), name), "{name}");
    }
}

#[test]
fn whom_a_nas_names_twice_is_found_by_either_name_and_by_both() {
    for question in [
        "user anonymous@uni.example",
        "user cui-anna",
        "user = cui-anna",
        "user = \"anonymous@uni.example (cui-anna)\"",
        r#"user = "anonymous@uni.example \\(cui-anna)""#,
    ] {
        assert!(finds(question, r"anonymous@uni.example \(cui-anna)"), "{question}");
    }
    assert!(!finds("user cui", r"anonymous@uni.example \(cui-anna)"));
}
