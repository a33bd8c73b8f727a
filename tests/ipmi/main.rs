//! The IPMI edge against servers that nobody here wrote (ipmi_sim, pyghmi) and against programs that
//! misbehave in ipmitool's place; and what goes out over IPMI when Redfish is wedged.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests start programs and wait for conditions with a deadline"
)]

mod console;
mod engine;
mod fake;
mod fallback;
mod openipmi;
mod pyghmi;
mod tool;

use async_trait::async_trait;
use farrier::ipmi::{IpmiBmc, Settings};
use farrier::model::{
    BmcEndpoint, Channel, Expect, Fault, FaultClass, Identity, IpmiEndpoint, MachineId,
};
use farrier::port::{BmcTarget, Credential, Secret, Vault};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PASSWORD: &str = "s3cret-of-the-bmc";

/// A credential by name: `user` or `user:password`.
struct ByName;

#[async_trait]
impl Vault for ByName {
    async fn credential(&self, name: &str) -> Result<Credential, Fault> {
        let (user, password) = name.split_once(':').unwrap_or((name, PASSWORD));
        Ok(Credential { user: user.into(), password: Secret::new(password) })
    }

    async fn ssh_key(&self, _name: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "none here"))
    }
}

fn edge(settings: Settings) -> Arc<IpmiBmc> {
    Arc::new(IpmiBmc::new(Arc::new(ByName), settings))
}

/// With resends that do not wait for a wide network.
fn settings() -> Settings {
    Settings { resend_s: 1, resends: 2, ..Settings::default() }
}

fn target(address: &str, port: u16, identity: Identity) -> BmcTarget {
    let ipmi = IpmiEndpoint { address: address.into(), port, ..IpmiEndpoint::default() };
    BmcTarget {
        machine: MachineId(1),
        name: "node-1".into(),
        endpoint: BmcEndpoint {
            url: "http://127.0.0.1:9".into(),
            credential: "admin".into(),
            tls: "off".into(),
            ipmi: Some(Box::new(ipmi)),
            ..BmcEndpoint::default()
        },
        identity,
    }
}

/// The same BMC under another credential.
fn with_credential(bmc: &BmcTarget, name: &str) -> BmcTarget {
    let mut other = bmc.clone();
    other.endpoint.credential = name.into();
    other.machine = MachineId(bmc.machine.0 + 1);
    other
}

fn expect(identity: Identity) -> Expect {
    Expect { identity, ..Expect::default() }
}

/// A UDP port that is free now.
fn udp_port(address: &str) -> u16 {
    std::net::UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn cached(variable: &str, path: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        cache.unwrap_or_default().join("farrier-tests").join(path)
    })
}

/// A program of the system; its absence is a failure, as silence is never a pass.
fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin"])
        .map(|dir| PathBuf::from(dir).join(name))
        .find(|p| p.exists())
        .unwrap_or_else(|| {
            panic!("no `{name}` here: run `bash tests/run.sh --only ipmi`, which installs it")
        })
}

/// Asks until the answer is good; says what it last was when it never is.
async fn until<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    good: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let got = ask().await;
        if good(&got) {
            return got;
        }
        assert!(Instant::now() < end, "not within 40 s: {what}: {got:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
