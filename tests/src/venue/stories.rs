//! Stories of an evening that need devices and access points of their own: two people behind a repeater, a portal that names little, a
//! clock that steps, access points of one name, and an agent that is restarted.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use super::Story;
use super::site::{Login, Says};
use crate::namespace::run;

/// The access point that names all addresses.
const AT_FIRST: usize = 0;
const REPEATER_V4: &str = "10.20.0.30";
const BEHIND_IT_V4: [&str; 2] = ["10.20.0.31", "10.20.0.32"];
/// By so much a clock is behind that was not kept while the power was off.
const BEHIND_S: u64 = 1200;
/// A time in whole seconds stands for all of its second.
const A_SECOND: Duration = Duration::from_millis(1200);

/// Who comes for these stories, and where; devices by their positions.
pub(super) struct Extras {
    behind_the_repeater: [usize; 2],
    at_the_portal: usize,
    /// At the access point whose clock steps.
    by_the_clock: usize,
    /// At one each of those that share a name.
    twins: [usize; 2],
}

impl Extras {
    /// Brings the devices and access points.
    pub(super) fn come<W: Write>(story: &mut Story<'_, W>) -> Result<Self> {
        let site = &mut story.site;
        let clock = site.add_access_point("clocked", Says::V4)?;
        let (left, right) = (site.add_access_point("twins", Says::V4)?, site.add_access_point("twins", Says::V4)?);
        let first = site.devices.len();
        for ap in [AT_FIRST, clock, left, right] {
            site.add_device_at(ap)?;
        }
        (first..first + 4).try_for_each(|device| site.connect_one(device))?;
        site.add_repeater(AT_FIRST, REPEATER_V4, &BEHIND_IT_V4)?;
        // The repeater itself lies between.
        Ok(Self {
            behind_the_repeater: [first + 5, first + 6],
            at_the_portal: first,
            by_the_clock: first + 1,
            twins: [first + 2, first + 3],
        })
    }

    /// Each is who holds the address; the repeater's MAC is both of theirs.
    pub(super) fn share_a_repeater<W: Write>(&self, story: &mut Story<'_, W>) -> Result<()> {
        story.tell("two people come by way of a repeater, which gives both of them its own MAC")?;
        let [anna, binh] = self.behind_the_repeater;
        ensure!(story.site.devices[anna].mac == story.site.devices[binh].mac);
        let first = enter(story, anna, "anna", "")?;
        story.diary.browse_v4(&story.site.devices, &[anna], None)?;
        let second = enter(story, binh, "binh", "")?;
        story.diary.browse_v4(&story.site.devices, &[anna, binh, anna], None)?;
        for login in [&first, &second] {
            story.site.report(login, "Interim-Update", "")?;
        }
        story.site.deliver(AT_FIRST)?;
        story.diary.browse_v4(&story.site.devices, &[binh, anna], None)?;
        story.diary.happened("people behind one MAC", 2);
        leave(story, &first, "")?;
        story.diary.browse_v4(&story.site.devices, &[binh], None)
    }

    /// What ends a session need not say more of it.
    pub(super) fn log_out_by_id_alone<W: Write>(&self, story: &mut Story<'_, W>) -> Result<()> {
        story.tell("a portal reports a login, and a logout that names nothing but the session")?;
        let (device, at) = (self.at_the_portal, story.site.devices[self.at_the_portal].v4()?);
        let (mac, ap) = (&story.site.devices[device].mac, &story.site.aps[story.site.devices[device].ap].bssid);
        let login = format!(
            r#"{{"user":"phuong","mac":"{mac}","ips":["{at}"],"ap_mac":"{ap}","ssid":"Hall","nas":"portal1"}}"#
        );
        story.diary.logs_in(device, "phuong");
        tell_portal(story, &["-X", "PUT", "-d", &login])?;
        browse_apart(story, &[device])?;
        tell_portal(story, &["-X", "DELETE"])?;
        story.diary.logs_out(device);
        story.diary.happened("logouts that named the session alone", 1);
        browse_apart(story, &[device])
    }

    /// An access point without a clock of its own boots with the time of twenty minutes ago, and learns the right one later.
    pub(super) fn step_a_clock<W: Write>(&self, story: &mut Story<'_, W>) -> Result<()> {
        story.tell("an access point reboots with an old clock, and sets it while somebody is there")?;
        let (device, ap) = (self.by_the_clock, story.site.devices[self.by_the_clock].ap);
        enter(story, device, "chi", &clock(0)?)?;
        browse_apart(story, &[device])?;
        story.diary.logs_out(device);
        story.site.aps[ap].restart();
        story.site.aps[ap].report("Accounting-On", &clock(BEHIND_S)?);
        story.site.deliver(ap)?;
        std::thread::sleep(A_SECOND);
        let login = enter(story, device, "dung", &clock(BEHIND_S)?)?;
        browse_apart(story, &[device])?;
        // As it was counted from one clock to the other.
        let counted = format!("Acct-Session-Time = {}\n{}", login.began.elapsed().as_secs() + BEHIND_S, clock(0)?);
        story.site.report_as_counted(&login, "Interim-Update", &counted)?;
        story.site.deliver(ap)?;
        browse_apart(story, &[device])?;
        leave(story, &login, &clock(0)?)?;
        story.diary.happened("clocks of access points that stepped", 2);
        std::thread::sleep(A_SECOND);
        browse_apart(story, &[device])
    }

    /// They count their sessions alike, too: the device tells these apart, and a reset is that of the one which says so.
    pub(super) fn share_a_name<W: Write>(&self, story: &mut Story<'_, W>) -> Result<()> {
        story.tell("two access points have one name, and give their sessions the same numbers")?;
        let [left, right] = self.twins;
        let first = enter(story, left, "lan", "")?;
        let second = enter(story, right, "minh", "")?;
        ensure!(first.id == second.id && first.ap != second.ap);
        browse_apart(story, &[left, right])?;
        leave(story, &first, "")?;
        browse_apart(story, &[left, right])?;
        story.site.aps[first.ap].report("Accounting-On", "");
        story.site.deliver(first.ap)?;
        browse_apart(story, &[right])?;
        story.diary.happened("access points that share a name", 2);
        leave(story, &second, "")?;
        browse_apart(story, &[right])
    }

    /// Who was logged in before is so afterwards.
    pub(super) fn restart_the_agent<W: Write>(&self, story: &mut Story<'_, W>) -> Result<()> {
        story.tell("the agent is stopped in order, and started again")?;
        story.stop_agent()?;
        story.start_agent()?;
        story.diary.happened("restarts of the agent", 1);
        story.diary.browse_v4(&story.site.devices, &self.behind_the_repeater[1..], None)
    }
}

fn browse_apart<W: Write>(story: &mut Story<'_, W>, who: &[usize]) -> Result<()> {
    story.browse(who, 1, None)
}

/// Somebody logs in, and that is reported at once, with what else belongs to it.
fn enter<W: Write>(story: &mut Story<'_, W>, device: usize, user: &str, more: &str) -> Result<Login> {
    story.diary.logs_in(device, user);
    let login = story.site.log_in_with(device, user, more)?;
    story.site.deliver(login.ap)?;
    Ok(login)
}

/// Somebody logs out, and that is reported at once.
fn leave<W: Write>(story: &mut Story<'_, W>, login: &Login, more: &str) -> Result<()> {
    story.site.report(login, "Stop", &format!("Acct-Terminate-Cause = User-Request\n{more}"))?;
    story.site.deliver(login.ap)?;
    story.diary.logs_out(login.device);
    Ok(())
}

/// What an access point's clock says that is this much behind.
fn clock(behind_s: u64) -> Result<String> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(format!("Event-Timestamp = {}\n", now_s - behind_s))
}

fn tell_portal<W: Write>(story: &Story<'_, W>, request: &[&str]) -> Result<()> {
    let mut curl = story.site.lab.gateway.command("curl");
    curl.args(["-s", "--unix-socket"]).arg(story.site.lab.dir().join("portal.sock"));
    let said = run(curl.args(request).arg("http://hotspot/v1/sessions/t2"))?;
    ensure!(said.trim() == r#"{"recorded":1}"#, "{said}");
    Ok(())
}
