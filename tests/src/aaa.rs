//! The venue's authentication and accounting: `FreeRADIUS` beside the access switch, and wired 802.1X on the switch's ports with
//! hostapd and `wpa_supplicant`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Client, GATEWAY_V4, Lab};
use crate::programs::write_secret;
use crate::wait_until;

/// Between hotspot and whoever accounts to it.
pub const HOTSPOT_SECRET: &str = "secret-of-the-gateway";
/// Between `FreeRADIUS` and the access points.
pub const NAS_SECRET: &str = "secret-of-the-access-points";
/// Where access points and `FreeRADIUS` are.
pub const SWITCH_V4: &str = "10.20.0.2";

/// `FreeRADIUS`: authenticates users, forwards accounting to the gateway, and reports refused logins as `Failed`, and logins by a
/// controller whose own accounting does not say where they are.
#[derive(Debug)]
pub struct FreeRadius {
    log: PathBuf,
}

impl FreeRadius {
    /// Starts it for users and their passwords.
    pub fn start(lab: &Lab, users: &[(&str, &str)]) -> Result<Self> {
        let dir = lab.dir().join("freeradius");
        fs::create_dir_all(&dir)?;
        let mut known = String::new();
        for (user, password) in users {
            write!(
                known,
                "if (&User-Name == \"{user}\") {{\nupdate control {{\n&Cleartext-Password := \"{password}\"\n}}\n}}\n"
            )?;
        }
        let text = CONFIGURATION
            .replace("DIR", &dir.display().to_string())
            .replace("GATEWAY", GATEWAY_V4)
            .replace("SWITCH", SWITCH_V4)
            .replace("NAS_SECRET", NAS_SECRET)
            .replace("HOTSPOT_SECRET", HOTSPOT_SECRET)
            .replace("USERS", &known);
        // Others may not read it: it holds secrets.
        write_secret(&dir.join("radiusd.conf"), &text)?;
        let log = dir.join("log");
        let mut server = lab.switch.command("freeradius");
        server.arg("-d").arg(&dir).args(["-f", "-l"]).arg(&log).stdout(Stdio::null());
        lab.switch.spawn(&mut server)?;
        let server = Self { log };
        wait_until("FreeRADIUS listens", Duration::from_secs(20), || {
            server.log().contains("Ready to process requests")
        })
        .with_context(|| server.log())?;
        Ok(server)
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether nothing waits in the file of logins, which it reads once a second.
    #[must_use]
    pub fn has_forwarded(&self) -> bool {
        ["to_hotspot", "to_hotspot.work"].iter().all(|file| !self.log.with_file_name(file).exists())
    }
}

/// What is in it and not a default is what docs/identity.md tells operators to add.
const CONFIGURATION: &str = r#"
prefix = /usr
libdir = /usr/lib/freeradius
logdir = DIR
run_dir = DIR
db_dir = DIR
pidfile = DIR/pid
max_requests = 4096
proxy_requests = yes
client access_points {
  ipaddr = 10.20.0.0/24
  secret = NAS_SECRET
}
home_server hotspot {
  type = acct
  ipaddr = GATEWAY
  port = 1813
  secret = HOTSPOT_SECRET
  status_check = status-server
  check_interval = 6
}
home_server_pool hotspot {
  home_server = hotspot
}
realm hotspot {
  acct_pool = hotspot
}
modules {
  pap {
  }
  eap {
    default_eap_type = md5
    md5 {
    }
  }
  detail to_hotspot {
    filename = DIR/to_hotspot
    permissions = 0600
    suppress {
      User-Password
      EAP-Message
    }
  }
}
server logins {
  listen {
    type = auth
    ipaddr = SWITCH
    port = 1812
  }
  authorize {
    USERS
    eap {
      ok = return
    }
    pap
  }
  authenticate {
    eap
    pap
  }
  post-auth {
    update reply {
      &Class := "guests"
    }
    if (&NAS-Identifier == "controller") {
      update request {
        &Acct-Status-Type := Start
        &Event-Timestamp := "%l"
      }
      to_hotspot.accounting
    }
    Post-Auth-Type REJECT {
      update request {
        &Acct-Status-Type := Failed
        &Event-Timestamp := "%l"
      }
      to_hotspot.accounting
    }
  }
}
server accounting {
  listen {
    type = acct
    ipaddr = SWITCH
    port = 1813
  }
  preacct {
    update control {
      &Proxy-To-Realm := "hotspot"
    }
  }
  accounting {
  }
}
server to_hotspot {
  listen {
    type = detail
    filename = DIR/to_hotspot
    load_factor = 90
    poll_interval = 1
    retry_interval = 2
  }
  preacct {
    update control {
      &Proxy-To-Realm := "hotspot"
    }
  }
  accounting {
  }
}
"#;

/// hostapd on one port of the switch. The port stays open to everybody: it is about who says who it is, not about keeping out.
#[derive(Debug)]
pub struct Authenticator {
    log: PathBuf,
}

impl Authenticator {
    /// Starts it on a client's port: `FreeRADIUS` authenticates, and its accounting goes to the gateway.
    pub fn start(lab: &Lab, client: &Client) -> Result<Self> {
        let dir = lab.dir().join(format!("hostapd-{}", client.name));
        fs::create_dir_all(&dir)?;
        let configuration = format!(
            "interface={port}\ndriver=wired\nieee8021x=1\nuse_pae_group_addr=1\nlogger_stdout=-1\nlogger_stdout_level=2\n\
             own_ip_addr={SWITCH_V4}\nnas_identifier=switch1\n\
             auth_server_addr={SWITCH_V4}\nauth_server_port=1812\nauth_server_shared_secret={NAS_SECRET}\n\
             acct_server_addr={GATEWAY_V4}\nacct_server_port=1813\nacct_server_shared_secret={HOTSPOT_SECRET}\n\
             radius_acct_interim_interval=5\n",
            port = client.name
        );
        let path = dir.join("hostapd.conf");
        write_secret(&path, &configuration)?;
        let log = dir.join("log");
        let mut hostapd = lab.switch.command("hostapd");
        hostapd.arg("-t").arg(&path).stdout(fs::File::create(&log)?);
        lab.switch.spawn(&mut hostapd)?;
        let authenticator = Self { log };
        wait_until("hostapd is there", Duration::from_secs(20), || authenticator.log().contains("AP-ENABLED"))
            .with_context(|| authenticator.log())?;
        Ok(authenticator)
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A client says who it is, by EAP over its cable; it goes on until the client is gone.
pub fn supplicate(dir: &Path, client: &Client, user: &str, password: &str) -> Result<()> {
    let path = dir.join(format!("supplicant-{}.conf", client.name));
    let configuration = format!(
        "ap_scan=0\nnetwork={{\nkey_mgmt=IEEE8021X\neap=MD5\nidentity=\"{user}\"\npassword=\"{password}\"\neapol_flags=0\n}}\n"
    );
    write_secret(&path, &configuration)?;
    let mut supplicant = client.namespace.command("wpa_supplicant");
    supplicant.args(["-Dwired", "-ieth0", "-c"]).arg(&path).stdout(Stdio::null());
    client.namespace.spawn(&mut supplicant).map(drop)
}
