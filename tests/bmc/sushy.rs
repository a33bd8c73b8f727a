//! Against sushy-tools' emulator, which nobody here wrote: Basic login (it has no sessions), two
//! systems behind one address, power that takes 1–11 s, an override that reads back, and what its
//! fake driver lacks.

use super::{PASSWORD, edge, target};
use farrier::bmc::RedfishBmc;
use farrier::model::action::{BootTarget, Expect, Outcome, PowerOp};
use farrier::model::facts::{Power, SystemFacts};
use farrier::model::{FaultClass, Identity};
use farrier::port::{BmcCare, BmcPower, BmcRead, BmcTarget, BmcUpdate, UpdateOrder};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

const ONE: (&str, &str) = ("7e57ab1e-0000-4000-8000-000000000001", "02:00:5e:00:53:01");
const TWO: (&str, &str) = ("7e57ab1e-0000-4000-8000-000000000002", "02:00:5e:00:53:02");

fn emulator() -> PathBuf {
    let named = ["FARRIER_SUSHY_EMULATOR", "FARRIER_SUSHY_BIN"]
        .iter()
        .find_map(|v| std::env::var_os(v).map(PathBuf::from));
    let path = named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        cache.unwrap_or_default().join("farrier-tests/sushy-tools-2.2.0/bin/sushy-emulator")
    });
    assert!(
        path.exists(),
        "sushy-tools is not installed at {}: run `bash tests/run.sh --only sushy`, which installs it",
        path.display()
    );
    path
}

struct Emulator {
    child: tokio::process::Child,
    dir: tempfile::TempDir,
    url: String,
}

impl Emulator {
    async fn start() -> Emulator {
        let bin = emulator();
        let dir = tempfile::tempdir().unwrap();
        let python = bin.with_file_name("python");
        let hash = tokio::process::Command::new(&python)
            .args(["-c", "import bcrypt, sys; print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())"])
            .stdin({
                let file = dir.path().join("password");
                std::fs::write(&file, PASSWORD).unwrap();
                Stdio::from(std::fs::File::open(file).unwrap())
            })
            .output()
            .await
            .unwrap();
        assert!(hash.status.success(), "{}", String::from_utf8_lossy(&hash.stderr));
        let hash = String::from_utf8(hash.stdout).unwrap();
        let auth = dir.path().join("htpasswd");
        std::fs::write(&auth, format!("farrier:{hash}")).unwrap();
        let systems: String = [ONE, TWO]
            .iter()
            .map(|(uuid, mac)| {
                format!(
                    "{{'uuid': '{uuid}', 'name': 'n{}', 'power_state': 'Off', \
                     'external_notifier': False, 'nics': [{{'mac': '{mac}', 'ip': '192.0.2.9'}}]}},",
                    &uuid[35..]
                )
            })
            .collect();
        let config = dir.path().join("conf.py");
        std::fs::write(
            &config,
            format!(
                "SUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_STATE_DIR = '{}'\n\
                 SUSHY_EMULATOR_FAKE_SYSTEMS = [{systems}]\n",
                auth.display(),
                dir.path().display(),
            ),
        )
        .unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = tokio::process::Command::new(&bin)
            .arg("--config")
            .arg(&config)
            .args(["--fake", "-i", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Emulator { child, dir, url: format!("http://127.0.0.1:{port}") }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn bmc(&self, (uuid, _): (&str, &str)) -> BmcTarget {
        BmcTarget { identity: Identity::new(None, Some(uuid), None), ..target(&self.url) }
    }

    /// Polls the system until `good`, or says what it last read.
    async fn until(
        &mut self,
        edge: &RedfishBmc,
        bmc: &BmcTarget,
        what: &str,
        good: impl Fn(&SystemFacts) -> bool,
    ) -> SystemFacts {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let read = edge.system(bmc).await;
            match &read {
                Ok(facts) if good(facts) => return facts.clone(),
                _ if Instant::now() > deadline => panic!("{what}: {read:?}\n{}", self.log()),
                _ => {}
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the emulator ended with {status}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

const APPLIED: Outcome = Outcome::Applied { handle: None };

#[tokio::test]
async fn sushy_tools() {
    let mut sushy = Emulator::start().await;
    let edge = edge();
    let bmc = sushy.bmc(ONE);
    let facts = sushy.until(&edge, &bmc, "an answer", |_| true).await;

    // Identity: UUID and MAC; it has no serial.
    assert_eq!(facts.identity, Identity::new(None, Some(ONE.0), Some(ONE.1)));
    assert_eq!((facts.power, facts.manufacturer.as_deref()), (Power::Off, Some("Sushy Emulator")));
    let nobody = BmcTarget { machine: farrier::model::MachineId(2), ..target(&sushy.url) };
    let f = edge.system(&nobody).await.unwrap_err();
    assert_eq!(f.code, "ambiguous-system", "two systems, and nothing says which");
    let other = BmcTarget { machine: farrier::model::MachineId(3), ..sushy.bmc(TWO) };
    let facts = edge.system(&other).await.unwrap();
    assert_eq!(facts.identity.mac.as_deref(), Some(TWO.1));
    let inventory = edge.inventory(&bmc).await.unwrap();
    assert_eq!(inventory.nics[0].mac.as_deref(), Some(ONE.1));
    assert!(!inventory.warnings.is_empty(), "its storage answers 500: a warning, no more");

    // Power: taken at once, seen seconds later.
    let expect = |power| Expect {
        identity: Identity::new(None, Some(ONE.0), Some(ONE.1)),
        power: Some(power),
        ..Expect::default()
    };
    assert_eq!(edge.power(&bmc, &expect(Power::Off), PowerOp::On).await, APPLIED);
    sushy.until(&edge, &bmc, "power on", |f| f.power == Power::On).await;
    match edge.power(&bmc, &expect(Power::Off), PowerOp::On).await {
        Outcome::Refused { wrong_machine: false, .. } => {}
        o => panic!("{o:?}"),
    }
    let stranger = Expect { identity: Identity::new(None, Some(TWO.0), None), ..Expect::default() };
    match edge.power(&bmc, &stranger, PowerOp::ForceOff).await {
        Outcome::Refused { wrong_machine: true, .. } => {}
        o => panic!("{o:?}"),
    }
    assert_eq!(edge.power(&bmc, &expect(Power::On), PowerOp::ForceOff).await, APPLIED);
    sushy.until(&edge, &bmc, "power off", |f| f.power == Power::Off).await;
    assert_eq!(edge.system(&other).await.unwrap().power, Power::Off);

    // Boot override: read back. It says Continuous whatever is asked for.
    assert_eq!(edge.set_boot(&bmc, &expect(Power::Off), BootTarget::Pxe).await, APPLIED);
    let facts = edge.system(&bmc).await.unwrap();
    assert_eq!(facts.boot_target.as_deref(), Some("Pxe"));
    assert_eq!(facts.boot_enabled.as_deref(), Some("Continuous"));
    assert_eq!(edge.set_boot(&bmc, &expect(Power::Off), BootTarget::Disk).await, APPLIED);
    assert_eq!(edge.system(&bmc).await.unwrap().boot_target.as_deref(), Some("Hdd"));

    // What it lacks is unsupported, not broken.
    let f = edge.firmware(&bmc).await.unwrap_err();
    assert_eq!(f.class, FaultClass::Unsupported, "{f:?}");
    let f = edge.tasks(&bmc, None).await.unwrap_err();
    assert_eq!(f.class, FaultClass::Unsupported, "{f:?}");
    let order = UpdateOrder {
        image_url: "http://192.0.2.1/bios.bin".into(),
        inventory_id: "BIOS".into(),
        from: "1.0.0".into(),
        to: "1.1.0".into(),
        file: None,
    };
    for outcome in [
        edge.update(&bmc, &expect(Power::Off), &order).await,
        edge.reset_bmc(&bmc, &expect(Power::Off)).await,
    ] {
        match outcome {
            Outcome::Failed { fault } => {
                assert_eq!(fault.class, FaultClass::Unsupported, "{fault:?}");
            }
            o => panic!("{o:?}"),
        }
    }
    assert_eq!(edge.end_sessions(&bmc).await, APPLIED);
}
