//! Against OpenIPMI's ipmi_sim, which speaks cipher suite 3 and no other. Its chassis is a script that
//! notes what it was told.

use super::{PASSWORD, edge, expect, program, settings, target, udp_port, until, with_credential};
use farrier::ipmi::{IpmiBmc, Proof, Settings};
use farrier::model::action::{BootTarget, PowerOp};
use farrier::model::facts::Power;
use farrier::model::{Expect, FaultClass, Identity, Outcome};
use farrier::port::capability::{BmcConsole, BmcLog, CaptureEnd, CaptureOrder};
use farrier::port::{BmcCare, BmcPower, BmcTarget};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

const APPLIED: Outcome = Outcome::Applied { handle: None };
const SERIAL: &str = "PSN0001";
/// As the simulator's configuration has it.
const GUID: &str = "a1234567-89ab-cdef-a123-456789abcdef";

/// `get` and `set` of power and boot device, notes of the rest.
const CHASSIS: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
shift; op=$1; shift
echo "$op $*" >> calls
case $op in
get) while [ $# -gt 0 ]; do case $1 in
    power) echo "power:$(cat power 2>/dev/null || echo 0)" ;;
    boot) echo "boot:$(cat boot 2>/dev/null || echo none)" ;;
    *) exit 1 ;; esac; shift; done ;;
set) while [ $# -gt 0 ]; do case $1 in
    power|boot) echo "$2" > "$1" ;;
    esac; shift 2; done ;;
esac
exit 0
"#;

/// A FRU area (IPMI Platform Management FRU Information Storage 1.0, 8–12): version, length, body,
/// end, filling, checksum.
fn area(body: &[u8]) -> Vec<u8> {
    let units = (2 + body.len() + 1 + 1).div_ceil(8);
    let mut area = vec![1, u8::try_from(units).unwrap()];
    area.extend_from_slice(body);
    area.push(0xc1);
    area.resize(units * 8 - 1, 0);
    area.push(checksum(&area));
    area
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0xc0 | u8::try_from(text.len()).unwrap());
    out.extend_from_slice(text.as_bytes());
}

/// Board and product of a machine.
fn fru() -> Vec<u8> {
    let mut board = vec![0x19, 0, 0, 0];
    for field in ["ACME", "GPU-8U", "BSN0001", "BPN0001"] {
        text(&mut board, field);
    }
    board.push(0xc0);
    let mut product = vec![0x19];
    for field in ["ACME", "SRV-8GPU", "PN-1", "1.0", SERIAL, "AT1"] {
        text(&mut product, field);
    }
    product.push(0xc0);
    let (board, product) = (area(&board), area(&product));
    let mut all = vec![1, 0, 0, 1, u8::try_from(1 + board.len() / 8).unwrap(), 0, 0];
    all.push(checksum(&all));
    all.extend(board);
    all.extend(product);
    all
}

pub(super) struct Sim {
    child: tokio::process::Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Sim {
    /// With `console`, its Serial over LAN is that terminal.
    pub(super) async fn start(console: Option<&str>) -> Sim {
        let bin = program("ipmi_sim");
        let dir = tempfile::tempdir().unwrap();
        // Its records are added again at every start: the state is fresh.
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let chassis = dir.path().join("chassis.sh");
        std::fs::write(&chassis, CHASSIS).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&chassis, PermissionsExt::from_mode(0o755)).unwrap();
        let port = udp_port("127.0.0.1");
        let auths: String = ["callback", "user", "operator", "admin"]
            .iter()
            .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"))
            .collect();
        let sol = console.map(|tty| format!("  sol \"{tty}\" 115200\n")).unwrap_or_default();
        let lan = format!(
            "name \"bmc1\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    \
             priv_limit admin\n{auths}    guid {}\n  endlan\n  chassis_control \"{} 0x20\"\n{sol}  \
             user 1 true \"\" \"test\" user 10 none md2 md5 straight\n  \
             user 2 true \"admin\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n",
            GUID.replace('-', ""),
            chassis.display(),
        );
        std::fs::write(dir.path().join("lan.conf"), lan).unwrap();
        // Every byte has its 0x: without, some are read as octal.
        let bytes: Vec<String> = fru().iter().map(|b| format!("0x{b:02x}")).collect();
        let emu = format!(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
             sel_enable 0x20 1000 0x0a\nmc_add_fru_data 0x20 0 {} data {}\nmc_enable 0x20\n",
            bytes.len(),
            bytes.join(" ")
        );
        std::fs::write(dir.path().join("bmc.emu"), emu).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = tokio::process::Command::new(bin)
            .current_dir(dir.path())
            .args(["-c", "lan.conf", "-f", "bmc.emu", "-s", "state", "-n"])
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut sim = Sim { child, dir, port };
        let (edge, bmc) = (sim.edge(), sim.bmc());
        let up = until("ipmi_sim to answer", async || edge.look(&bmc).await, |l| l.is_ok()).await;
        assert!(up.is_ok());
        assert!(sim.child.try_wait().unwrap().is_none(), "{}", sim.read("log"));
        sim
    }

    /// Suite 3 is named, as an inventory would for such a BMC.
    pub(super) fn bmc(&self) -> BmcTarget {
        let mut bmc = self.unnamed();
        bmc.endpoint.ipmi.as_mut().unwrap().cipher = Some(3);
        bmc
    }

    fn unnamed(&self) -> BmcTarget {
        target("127.0.0.1", self.port, Identity::new(Some(SERIAL), Some(GUID), None))
    }

    fn edge(&self) -> Arc<IpmiBmc> {
        edge(Settings { program: program("ipmitool"), ..settings() })
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// What the chassis was told to do.
    pub(super) fn set(&self) -> Vec<String> {
        self.read("calls").lines().filter(|l| l.starts_with("set ")).map(Into::into).collect()
    }
}

pub(super) fn known() -> Identity {
    Identity::new(Some(SERIAL), Some(GUID), None)
}

#[tokio::test]
async fn power_is_read_and_changed() {
    let sim = Sim::start(None).await;
    let (edge, bmc) = (sim.edge(), sim.bmc());
    let look = edge.look(&bmc).await.unwrap();
    assert_eq!(look.power, Power::Off);
    assert_eq!(look.proof, Proof::Same(known()), "the FRU's serial and the GUID are both there");
    let power = async |op, from| {
        let expect = Expect { power: Some(from), ..expect(known()) };
        edge.power(&bmc, &expect, op).await
    };
    assert_eq!(power(PowerOp::On, Power::Off).await, APPLIED);
    assert_eq!(edge.look(&bmc).await.unwrap().power, Power::On);
    match power(PowerOp::On, Power::Off).await {
        Outcome::Refused { wrong_machine: false, .. } => {}
        o => panic!("{o:?}"),
    }
    assert_eq!(power(PowerOp::ForceRestart, Power::On).await, APPLIED);
    assert_eq!(power(PowerOp::GracefulShutdown, Power::On).await, APPLIED);
    assert_eq!(power(PowerOp::ForceOff, Power::On).await, APPLIED);
    assert_eq!(edge.look(&bmc).await.unwrap().power, Power::Off);
    let set = sim.set();
    for wanted in ["set power 1", "set reset 1", "set shutdown 1", "set power 0"] {
        assert_eq!(set.iter().filter(|l| *l == wanted).count(), 1, "{wanted}: {set:?}");
    }
    // Another machine's orders are refused, and nothing reaches the chassis.
    let other = Identity::new(Some("PSN0002"), None, None);
    match edge.power(&bmc, &expect(other), PowerOp::On).await {
        Outcome::Refused { wrong_machine: true, .. } => {}
        o => panic!("{o:?}"),
    }
    assert_eq!(sim.set().len(), set.len());
}

#[tokio::test]
async fn boot_log_fru_and_cold_reset() {
    let sim = Sim::start(None).await;
    let (edge, bmc) = (sim.edge(), sim.bmc());
    // It drops the EFI bit and calls its own flags invalid: taken all the same.
    assert_eq!(edge.set_boot(&bmc, &expect(known()), BootTarget::Pxe).await, APPLIED);
    assert_eq!(sim.read("boot").trim(), "pxe");
    assert_eq!(edge.set_boot(&bmc, &expect(known()), BootTarget::Disk).await, APPLIED);
    assert_eq!(sim.read("boot").trim(), "default", "its word for the disk");
    edge.boot_flags(&bmc).await.unwrap();

    let fru = edge.fru(&bmc).await.unwrap();
    assert_eq!(fru.product_serial.as_deref(), Some(SERIAL));
    assert_eq!(fru.board_serial.as_deref(), Some("BSN0001"));
    assert_eq!(fru.product_name.as_deref(), Some("SRV-8GPU"));

    assert_eq!(edge.log(&bmc, 10).await.unwrap(), []);
    let added = tokio::process::Command::new(program("ipmitool"))
        .args(["-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-p", &sim.port.to_string()])
        // Add SEL Entry (IPMI 2.0, 31.6): an asserted upper critical threshold of a temperature.
        .args(["-U", "admin", "-E", "raw", "0x0a", "0x44", "0", "0", "2", "0", "0", "0", "0"])
        .args(["0x20", "0", "4", "1", "1", "1", "9", "0xff", "0xff"])
        .env("IPMI_PASSWORD", PASSWORD)
        .output()
        .await
        .unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let log = edge.log(&bmc, 10).await.unwrap();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].severity.as_deref(), Some("Critical"), "{log:?}");
    assert!(log[0].message.contains("Upper Critical going high"), "{log:?}");

    assert_eq!(edge.reset_bmc(&bmc, &expect(known())).await, APPLIED);
    let back = async || edge.look(&bmc).await;
    assert!(until("the BMC after its reset", back, |l| l.is_ok()).await.is_ok());
}

#[tokio::test]
async fn the_suite_is_found_where_nobody_names_it() {
    let sim = Sim::start(None).await;
    let edge = sim.edge();
    let bmc = sim.unnamed();
    // 17 is refused ("invalid authentication algorithm"), 3 is taken, and remembered.
    edge.look(&bmc).await.unwrap();
    let since = Instant::now();
    edge.look(&bmc).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}: it searched again", since.elapsed());
    let mut only = bmc.clone();
    only.machine = farrier::model::MachineId(7);
    only.endpoint.ipmi.as_mut().unwrap().cipher = Some(17);
    let fault = edge.look(&only).await.unwrap_err();
    assert_eq!(fault.code, "no-cipher", "{fault:?}");
}

#[tokio::test]
async fn refused_logins_are_told_from_silence() {
    let sim = Sim::start(None).await;
    let edge = sim.edge();
    let wrong = with_credential(&sim.bmc(), "admin:not-the-password");
    let fault = edge.look(&wrong).await.unwrap_err();
    assert_eq!(
        (fault.class, fault.code.as_ref()),
        (FaultClass::Auth, "bad-credentials"),
        "{fault:?}"
    );
    let nobody = with_credential(&wrong, "nobody");
    let fault = edge.look(&nobody).await.unwrap_err();
    assert_eq!(fault.class, FaultClass::Auth, "{fault:?}");
}

#[tokio::test]
async fn a_dead_address_costs_seconds_and_is_no_answer() {
    let edge = edge(Settings { program: program("ipmitool"), ..settings() });
    let bmc = target("127.0.0.1", udp_port("127.0.0.1"), known());
    let since = Instant::now();
    let fault = edge.look(&bmc).await.unwrap_err();
    assert!(fault.is_no_answer(), "{fault:?}");
    assert!(since.elapsed() < Duration::from_secs(45), "{:?}", since.elapsed());
    match edge.power(&bmc, &expect(known()), PowerOp::On).await {
        Outcome::Failed { fault } => assert!(fault.is_no_answer(), "nothing was sent: {fault:?}"),
        o => panic!("{o:?}"),
    }
    let nowhere = target("bmc-7.invalid", 623, known());
    assert!(edge.look(&nowhere).await.unwrap_err().is_no_answer());
}

#[tokio::test]
async fn a_console_is_captured_over_the_wire() {
    // A pseudo terminal with a host behind it that talks.
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("tty");
    let talk = format!(
        "import os, time, tty\nm, s = os.openpty()\ntty.setraw(s)\nos.symlink(os.ttyname(s), {:?})\n\
         while True:\n    os.write(m, b'kernel: still here {PASSWORD}\\r\\n')\n    time.sleep(0.05)\n",
        link.display().to_string()
    );
    let mut host = tokio::process::Command::new(program("python3"))
        .args(["-c", &talk])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the terminal", async || link.exists(), |there| *there).await;
    let sim = Sim::start(Some(&link.display().to_string())).await;
    let edge = sim.edge();
    let into = dir.path().join("console.log");
    let order = CaptureOrder { into: into.clone(), for_ms: 4_000, max_bytes: 1 << 20 };
    let got = edge.capture(&sim.bmc(), &order).await.unwrap();
    let text = std::fs::read_to_string(&into).unwrap();
    assert_eq!(got.end, CaptureEnd::Time, "{text}");
    assert!(text.contains("kernel: still here …"), "{text}");
    assert!(!text.contains(PASSWORD));
    // It was given back: the next one gets it.
    let again = CaptureOrder { into: dir.path().join("again.log"), for_ms: 2_000, max_bytes: 200 };
    assert_eq!(edge.capture(&sim.bmc(), &again).await.unwrap().end, CaptureEnd::Size);
    host.kill().await.ok();
}
