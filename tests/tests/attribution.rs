//! Who it was, on a venue where everything goes wrong that goes wrong in real ones; judged by what the devices did.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hotspot_tests::venue::run_venue;

#[test]
fn nobody_is_taken_for_somebody_else_whatever_happens_at_the_venue() {
    let mut told = Vec::new();
    let evening = run_venue(&mut told).unwrap_or_else(|error| panic!("{error:?}\n{}", String::from_utf8_lossy(&told)));
    let findings = &evening.findings;
    findings.check().unwrap();

    // Each of these really happened, as the devices, their DHCP clients, the gateway's neighbours and the web server saw it.
    for (what, at_least) in [
        ("devices with several privacy addresses", 30),
        ("devices that browsed before their login", 4),
        ("late Starts", 1),
        ("lost Starts", 1),
        ("devices that roamed", 12),
        ("renewed leases", 6),
        ("devices that swapped addresses", 4),
        ("devices whose answers passed a forger", 1),
        ("connections from a forged address", 3),
        ("lost Stops", 8),
        ("access points that rebooted", 1),
        ("session numbers used again by another user", 5),
        ("ports that changed hands within a second", 2),
    ] {
        let times = findings.disturbances.get(what).copied().unwrap_or_default();
        assert!(times >= at_least, "{what}: {times} of {at_least}");
    }
    // And left its mark: what nobody can tell is said to be so.
    for mark in ["before_login", "ambiguous", "conflict", "unknown"] {
        assert!(findings.attributions.get(mark).is_some_and(|rows| *rows > 0), "{mark}: {:?}", findings.attributions);
    }
    assert!(findings.clear > 500 && findings.who_asked > 400, "{findings:?}");
    // How much a device says by itself before its user logs in is its own affair; of the rest nearly all is right.
    let before_login = findings.attributions["before_login"];
    assert!((findings.right + before_login) * 10 > findings.flows * 9, "{findings:?}");
    assert!(findings.who_right * 100 > findings.who_asked * 95, "{findings:?}");
    // It takes chance that a port changes hands within a millisecond.
    assert!(findings.who_both < 5, "{findings:?}");
}
