//! Against pyghmi's BMC, which OpenStack's virtualbmc is made of: another reading of the same
//! specification. It has no FRU, no log and no suite 17, and listens on IPv6.

use super::{PASSWORD, cached, edge, expect, program, settings, target, udp_port, until};
use farrier::ipmi::Settings;
use farrier::model::action::{BootTarget, PowerOp};
use farrier::model::facts::Power;
use farrier::model::{FaultClass, Identity, Outcome};
use farrier::port::capability::BmcLog;
use farrier::port::{BmcCare, BmcPower};
use std::process::Stdio;

const APPLIED: Outcome = Outcome::Applied { handle: None };

const BMC: &str = r"
import sys
from pyghmi.ipmi.bmc import Bmc
class B(Bmc):
    p, b = 'off', 'default'
    def say(self, *what): print(*what, flush=True)
    def get_boot_device(self): return self.b
    def set_boot_device(self, d): self.b = d; self.say('boot', d)
    def cold_reset(self): self.say('cold_reset'); return 0
    def get_power_state(self): return self.p
    def power_off(self): self.p = 'off'; self.say('off')
    def power_on(self): self.p = 'on'; self.say('on')
    def power_reset(self): self.say('reset')
    def power_shutdown(self): self.p = 'off'; self.say('soft')
    def power_cycle(self): self.say('cycle')
    def is_active(self): return self.p == 'on'
B({'admin': sys.argv[2]}, port=int(sys.argv[1]), address='::1').listen()
";

#[tokio::test]
async fn pyghmi() {
    let python = cached("FARRIER_PYGHMI_PYTHON", "pyghmi-1.6.19/bin/python");
    assert!(
        python.exists(),
        "pyghmi is not installed at {}: run `bash tests/run.sh --only ipmi`, which installs it",
        python.display()
    );
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    let port = udp_port("::1");
    let mut child = tokio::process::Command::new(python)
        .args(["-c", BMC, &port.to_string(), PASSWORD])
        .stdin(Stdio::null())
        .stdout(Stdio::from(out.try_clone().unwrap()))
        .stderr(Stdio::from(out))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let edge = edge(Settings { program: program("ipmitool"), ..settings() });
    // Nothing of its identity is known: it has neither serial nor GUID to give.
    let bmc = target("::1", port, Identity::default());
    let look = until("pyghmi to answer", async || edge.look(&bmc).await, |l| l.is_ok()).await;
    assert!(child.try_wait().unwrap().is_none(), "{}", said());
    assert_eq!(look.unwrap().power, Power::Off, "17 was refused, 3 was taken");

    let nobody = expect(Identity::default());
    assert_eq!(edge.power(&bmc, &nobody, PowerOp::On).await, APPLIED);
    assert_eq!(edge.look(&bmc).await.unwrap().power, Power::On);
    assert_eq!(edge.power(&bmc, &nobody, PowerOp::ForceRestart).await, APPLIED);
    assert_eq!(edge.power(&bmc, &nobody, PowerOp::GracefulShutdown).await, APPLIED);
    assert_eq!(edge.look(&bmc).await.unwrap().power, Power::Off);
    assert_eq!(edge.set_boot(&bmc, &nobody, BootTarget::Pxe).await, APPLIED);
    let flags = edge.boot_flags(&bmc).await.unwrap();
    assert_eq!((flags.valid, flags.device), (true, farrier::ipmi::BootFlags::PXE), "{flags:?}");
    assert_eq!(edge.reset_bmc(&bmc, &nobody).await, APPLIED);
    // ipmitool waits for no answer to a cold reset.
    until("the reset to be noted", async || said(), |s| s.contains("cold_reset")).await;
    let words = said();
    for word in ["on", "reset", "soft", "boot network", "cold_reset"] {
        assert_eq!(words.lines().filter(|l| *l == word).count(), 1, "{word}: {words}");
    }

    // A machine that must be proven can't be, here.
    let known = Identity::new(Some("S1"), None, None);
    match edge.power(&bmc, &expect(known), PowerOp::On).await {
        Outcome::Refused { wrong_machine: false, saw } => {
            assert!(saw.contains("nothing that proves"), "{saw}");
        }
        o => panic!("{o:?}"),
    }
    let fault = edge.log(&bmc, 5).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unsupported, "{fault:?}");
    let fault = edge.fru(&bmc).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Unsupported, "{fault:?}");
}
