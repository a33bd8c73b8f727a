//! Consoles of boots: followed over a real wire, left to people, kept where a run failed, given back.

use super::fake::{Fake, WHOLE};
use super::openipmi::{Sim, known};
use super::{PASSWORD, edge, program, settings, target, until};
use async_trait::async_trait;
use farrier::app::consoles::{Consoles, Life, Now, Pace};
use farrier::ipmi::{Bounds, FollowEnd, Heard, IpmiBmc, Settings, Shelf};
use farrier::model::{Fault, MachineId};
use farrier::port::BmcTarget;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

const SILENT: Duration = Duration::from_secs(600);
const MACHINE: MachineId = MachineId(1);

/// A pseudo terminal with a host behind it that prints, also what it should not.
async fn talking_host(dir: &Path) -> (Child, PathBuf) {
    let link = dir.join("tty");
    let talk = format!(
        "import os, time, tty\nm, s = os.openpty()\ntty.setraw(s)\nos.symlink(os.ttyname(s), {:?})\n\
         while True:\n    os.write(m, b'\\x1b[31mkernel: \\x1b[0mstill here {PASSWORD}\\r\\n')\n    time.sleep(0.05)\n",
        link.display().to_string()
    );
    let host = Command::new(program("python3"))
        .args(["-c", &talk])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the terminal", async || link.exists(), |there| *there).await;
    (host, link)
}

fn real() -> Arc<IpmiBmc> {
    edge(Settings { program: program("ipmitool"), ..settings() })
}

/// Follows until something was heard; all of it.
async fn listen(edge: &IpmiBmc, bmc: &BmcTarget, wanted: &str) -> (bool, String) {
    listen_if_free(edge, bmc, wanted).await.expect("nobody else has it")
}

/// The same; `None`: somebody else has it.
async fn listen_if_free(edge: &IpmiBmc, bmc: &BmcTarget, wanted: &str) -> Option<(bool, String)> {
    let heard = Arc::new(Mutex::new((false, Vec::new())));
    let into = heard.clone();
    let mut hear = move |what: Heard<'_>| {
        let mut heard = into.lock().unwrap();
        match what {
            Heard::Open => heard.0 = true,
            Heard::Text(text) => heard.1.extend_from_slice(text),
        }
    };
    let text = || String::from_utf8_lossy(&heard.lock().unwrap().1).to_string();
    tokio::select! {
        end = edge.follow(bmc, false, SILENT, &mut hear) => match end {
            Ok(FollowEnd::Taken) => return None,
            end => panic!("{end:?} after {:?}", text()),
        },
        _ = until(wanted, async || text(), |text| text.contains(wanted)) => {}
    }
    let heard = heard.lock().unwrap();
    Some((heard.0, String::from_utf8_lossy(&heard.1).to_string()))
}

#[tokio::test]
async fn a_console_is_followed_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, link) = talking_host(dir.path()).await;
    let sim = Sim::start(Some(&link.display().to_string())).await;
    let (edge, bmc) = (real(), sim.bmc());
    let (open, text) = listen(&edge, &bmc, "still here …\r\n").await;
    assert!(open && !text.contains(PASSWORD) && !text.contains("SOL Session"), "{text}");
    edge.give_back(&bmc).await.unwrap();
    // Whoever comes next has it at once.
    listen(&edge, &bmc, "still here …\r\n").await;
    edge.give_back(&bmc).await.unwrap();
}

#[tokio::test]
async fn a_console_in_use_is_left_to_whoever_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, link) = talking_host(dir.path()).await;
    let sim = Sim::start(Some(&link.display().to_string())).await;
    let (edge, bmc) = (real(), sim.bmc());
    let port = bmc.endpoint.ipmi.as_ref().unwrap().port.to_string();
    let mut person = Command::new(program("ipmitool"))
        .args(["-I", "lanplus", "-C", "3", "-E", "-U", "admin", "-H", "127.0.0.1", "-p", &port])
        .args(["sol", "activate"])
        .env("IPMI_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = person.stdout.take().unwrap();
    let mut hear_person = async || {
        let mut buffer = [0; 4096];
        let n = out.read(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..n]).to_string()
    };
    until("the person's console", &mut hear_person, |t| t.contains("still here")).await;
    let mut heard = 0;
    let mut hear = |_: Heard<'_>| heard += 1;
    let end = edge.follow(&bmc, false, SILENT, &mut hear).await.unwrap();
    assert_eq!((end, heard), (FollowEnd::Taken, 0));
    assert!(person.try_wait().unwrap().is_none(), "the person lost the console");
    until("the person hears on", &mut hear_person, |t| t.contains("still here")).await;
    person.kill().await.unwrap();
}

/// The engine's word, as the test says it.
struct Said(Mutex<Option<Now>>);

#[async_trait]
impl Life for Said {
    async fn now(&self, machine: MachineId) -> Option<Now> {
        self.0.lock().unwrap().clone().filter(|_| machine == MACHINE)
    }

    fn enter(&self, target: &BmcTarget) -> Result<(Box<dyn Send + '_>, BmcTarget), Fault> {
        Ok((Box::new(()), target.clone()))
    }
}

impl Said {
    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(self.0.lock().unwrap().as_mut().unwrap());
    }
}

struct World {
    life: Arc<Said>,
    shelf: Shelf,
    consoles: Consoles,
}

impl World {
    fn new(dir: &Path, edge: Arc<IpmiBmc>, target: BmcTarget) -> Self {
        let now = Now {
            target,
            run: "abc-m1-7".into(),
            step: Some("provision/install".into()),
            attempt: 0,
            quarantined: false,
            aborted: false,
        };
        let life = Arc::new(Said(Mutex::new(Some(now))));
        let bounds = Bounds { bytes: 4096, runs: 5, age: SILENT };
        let shelf = Shelf::new(dir.join("consoles"), bounds).unwrap();
        let pace = Pace {
            look: Duration::from_millis(50),
            again: Duration::from_millis(50),
            refused: Duration::from_millis(50),
            ..Pace::default()
        };
        let consoles = Consoles::new(edge, life.clone(), shelf.clone(), 1, pace);
        Self { life, shelf, consoles }
    }

    /// What is to be seen of the machine's console; nothing where there is none.
    fn shown(&self) -> (bool, String) {
        let console = self.shelf.find("node-1", Some("abc-m1-7"));
        console
            .map_or((false, String::new()), |c| (c.live, self.shelf.read(&c).unwrap_or_default()))
    }
}

fn marks(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("consoles")).unwrap().flatten();
    files.filter(|f| f.path().extension().is_some_and(|e| e == "open")).count()
}

#[tokio::test]
async fn a_failed_boot_keeps_its_console_and_a_good_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, link) = talking_host(dir.path()).await;
    let sim = Sim::start(Some(&link.display().to_string())).await;
    let w = World::new(dir.path(), real(), sim.bmc());
    w.consoles.boots(MACHINE);
    w.consoles.boots(MACHINE);
    let told = |(live, text): &(bool, String)| *live && text.contains("kernel: still here …\n");
    until("the boot is followed", async || w.shown(), told).await;
    assert_eq!(marks(dir.path()), 1, "an end in the middle would be seen");
    w.life.change(|now| now.attempt = 1);
    until(
        "the next attempt",
        async || w.shown(),
        |(_, text)| text.contains("-- farrier: attempt 1"),
    )
    .await;
    w.life.change(|now| now.quarantined = true);
    let kept = |(live, text): &(bool, String)| !live && text.contains("still here …");
    let (_, text) = until("it is kept", async || w.shown(), kept).await;
    assert!(!text.contains(PASSWORD) && !text.contains('\x1b') && text.len() <= 4096, "{text}");
    assert_eq!(marks(dir.path()), 0);
    // Released, it boots again: the same run's console goes on, and a good end takes it away.
    w.life.change(|now| now.quarantined = false);
    until("it is followed again", async || (w.consoles.boots(MACHINE), w.shown()).1, told).await;
    w.life.change(|now| now.step = Some("provision/first-boot".into()));
    let nothing = |shown: &(bool, String)| *shown == (false, String::new());
    until("nothing is left", async || w.shown(), nothing).await;
    assert_eq!(std::fs::read_dir(dir.path().join("consoles")).unwrap().count(), 0);
    // Given back each time, a moment after what was kept of it went.
    let (edge, bmc) = (real(), sim.bmc());
    let free = async || listen_if_free(&edge, &bmc, "still here").await;
    until("it is given back", free, Option::is_some).await;
}

#[tokio::test]
async fn a_hung_program_and_a_silent_bmc_hold_nothing_up() {
    let hangs = "case \"$words\" in \"sol activate\") echo $$ > pid; sleep 1000 & wait ;; \
                 \"sol deactivate\") exit 0 ;; esac\n";
    let fake = Fake::new(&format!("{hangs}{WHOLE}"));
    let dir = tempfile::tempdir().unwrap();
    let w = World::new(dir.path(), edge(fake.settings()), target("192.0.2.1", 623, known()));
    w.consoles.boots(MACHINE);
    let pid = until("the program hangs", async || fake.read("pid"), |p| p.ends_with('\n')).await;
    tokio::time::timeout(Duration::from_secs(20), w.consoles.stop()).await.expect("it stops");
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z "));
    until("the program is gone", async || alive(), |alive| !alive).await;
    assert!(!fake.read("argv").contains(PASSWORD));
    // Nothing new is begun.
    fake.forget();
    w.consoles.boots(MACHINE);
    assert_eq!(fake.calls(), Vec::<String>::new());
    drop(w);

    // And where nobody answers at all.
    let fake = Fake::new("echo 'Error: Unable to establish IPMI v2 / RMCP+ session' >&2; exit 1");
    let dir = tempfile::tempdir().unwrap();
    let w = World::new(dir.path(), edge(fake.settings()), target("192.0.2.1", 623, known()));
    w.consoles.boots(MACHINE);
    let told = |shown: &(bool, String)| shown.1.contains("-- farrier: no console: ");
    until("it is said", async || w.shown(), told).await;
    until("it is tried again", async || fake.calls().len(), |n| *n > 3).await;
    assert_eq!(w.shown().1.lines().count(), 1, "once: {}", w.shown().1);
    w.consoles.stop().await;
}

#[tokio::test]
async fn what_a_crash_left_open_is_given_back_at_the_next_start() {
    let fake =
        Fake::new(&format!("case \"$words\" in \"sol deactivate\") exit 0 ;; esac\n{WHOLE}"));
    let dir = tempfile::tempdir().unwrap();
    let w = World::new(dir.path(), edge(fake.settings()), target("192.0.2.1", 623, known()));
    let mut live = w.shelf.follow("node-1", "abc-m1-7").unwrap();
    live.push(b"GRUB loading\n").unwrap();
    live.set_open(true);
    drop(live);
    // The run is over: nobody follows it any more.
    w.life.change(|now| now.step = None);
    w.consoles.resume(|name| (name == "node-1").then_some(MACHINE)).await;
    assert!(fake.calls().iter().any(|c| c.ends_with("sol deactivate")), "{:?}", fake.calls());
    assert_eq!(w.shown(), (false, "GRUB loading\n".to_string()));
    assert_eq!(marks(dir.path()), 0);
}
