//! One run of ipmitool: its secrets, its suites, its end.

use super::fake::{Fake, WHOLE};
use super::{PASSWORD, edge, expect, target, until};
use farrier::ipmi::{Proof, Settings};
use farrier::model::action::{BootTarget, PowerOp};
use farrier::model::facts::Power;
use farrier::model::{BmcEndpoint, Expect, FaultClass, Identity, MachineId, Outcome};
use farrier::port::capability::{BmcConsole, BmcLog, CaptureEnd, CaptureOrder};
use farrier::port::{BmcCare, BmcPower, BmcTarget};
use std::time::{Duration, Instant};

const APPLIED: Outcome = Outcome::Applied { handle: None };

fn s1() -> Identity {
    Identity::new(Some("S1"), None, None)
}

fn bmc() -> BmcTarget {
    target("192.0.2.1", 623, s1())
}

#[tokio::test]
async fn the_password_is_in_the_environment_and_nowhere_else() {
    let fake = Fake::new(&format!("echo \"echoed $IPMI_PASSWORD\" >&2\n{WHOLE}"));
    let edge = edge(fake.settings());
    let look = edge.look(&bmc()).await.unwrap();
    assert_eq!((look.power, look.proof), (Power::On, Proof::Same(s1())));
    assert_eq!(fake.read("password").trim(), PASSWORD);
    let argv = fake.read("argv");
    assert!(!argv.contains(PASSWORD), "{argv}");
    assert!(argv.contains("-I lanplus -E -H 192.0.2.1 -p 623 -U admin"), "{argv}");
    // Nor does a failure tell it, though the program echoes it.
    let fault = edge.log(&bmc(), 5).await.unwrap_err();
    assert!(!format!("{fault:?}").contains(PASSWORD), "{fault:?}");
    assert!(fault.evidence.is_some_and(|e| e.contains("echoed …")));
}

#[tokio::test]
async fn suites_are_tried_from_the_best_and_the_one_that_works_is_remembered() {
    let fake = Fake::new(&format!(
        "[ $suite = 17 ] && {{ echo 'Error in open session response message : no matching cipher suite' >&2; exit 1; }}\n\
         [ $suite = 3 ] && {{ echo 'Error in open session response message : invalid role' >&2; exit 1; }}\n{WHOLE}"
    ));
    let edge = edge(fake.settings());
    edge.look(&bmc()).await.unwrap();
    edge.look(&bmc()).await.unwrap();
    let suites: Vec<String> =
        fake.calls().iter().map(|c| c.split(' ').next().unwrap().to_string()).collect();
    assert_eq!(suites, ["17", "3", "listed", "listed", "listed", "listed"]);

    // The inventory's word stands above the ladder.
    let mut told = bmc();
    told.machine = MachineId(2);
    told.endpoint.ipmi.as_mut().unwrap().cipher = Some(3);
    fake.forget();
    let fault = edge.look(&told).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_ref()), (FaultClass::Precondition, "no-cipher"));
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_refused_login_is_not_repeated() {
    let fake = Fake::new("echo 'RAKP 2 HMAC is invalid' >&2; exit 1");
    let edge = edge(fake.settings());
    let fault = edge.look(&bmc()).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_ref()), (FaultClass::Auth, "bad-credentials"));
    assert!(fault.retry_after_ms.is_none());
    match edge.power(&bmc(), &expect(s1()), PowerOp::On).await {
        Outcome::Failed { fault } => {
            assert_eq!(fault.class, FaultClass::Auth);
            assert!(fault.retry_after_ms.is_some_and(|ms| (1..=180_000).contains(&ms)));
        }
        o => panic!("{o:?}"),
    }
    assert_eq!(fake.calls().len(), 1, "one try, whatever is asked for");
}

#[tokio::test]
async fn an_operators_account_does_what_an_operator_may() {
    let fake = Fake::new(&format!(
        "[ $level = ADMINISTRATOR ] && {{ echo 'Set Session Privilege Level to ADMINISTRATOR failed' >&2; exit 1; }}\n\
         {WHOLE}"
    ));
    let edge = edge(fake.settings());
    assert_eq!(edge.power(&bmc(), &expect(s1()), PowerOp::ForceOff).await, APPLIED);
    match edge.reset_bmc(&bmc(), &expect(s1())).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "insufficient-privilege"),
        o => panic!("{o:?}"),
    }
    assert!(
        !fake.calls().iter().any(|c| c.ends_with("mc reset cold")),
        "nobody would hear its refusal"
    );
}

#[tokio::test]
async fn a_hung_program_is_ended_in_time_with_all_that_it_started() {
    let fake = Fake::new("sleep 600 & echo $! > child; wait");
    let edge = edge(Settings { run_ms: 500, budget_ms: 1_000, ..fake.settings() });
    let since = Instant::now();
    let fault = edge.look(&bmc()).await.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert!(fault.is_no_answer(), "{fault:?}");
    let child = until("the child's number", async || fake.read("child"), |c| !c.is_empty()).await;
    let stat = std::path::PathBuf::from(format!("/proc/{}/stat", child.trim()));
    let gone = |stat: &String| stat.is_empty() || stat.contains(") Z ");
    until(
        "the grandchild to be gone",
        async || std::fs::read_to_string(&stat).unwrap_or_default(),
        gone,
    )
    .await;
}

#[tokio::test]
async fn a_write_that_hangs_has_an_unknown_outcome() {
    let fake =
        Fake::new(&format!("[ \"$words\" = 'chassis power off' ] && exec sleep 600\n{WHOLE}"));
    let edge = edge(Settings { run_ms: 1_000, ..fake.settings() });
    match edge.power(&bmc(), &expect(s1()), PowerOp::ForceOff).await {
        Outcome::Unknown { fault } => assert!(fault.message.contains("killed"), "{fault:?}"),
        o => panic!("{o:?}"),
    }
    let sent = fake.calls().iter().filter(|c| c.ends_with("power off")).count();
    assert_eq!(sent, 1, "an action is sent once");
}

#[tokio::test]
async fn all_runs_of_one_operation_share_its_budget() {
    // Each run alone would be within its time.
    let fake = Fake::new(&format!("sleep 0.4\n{WHOLE}"));
    let edge = edge(Settings { budget_ms: 1_000, ..fake.settings() });
    match edge.set_boot(&bmc(), &expect(s1()), BootTarget::Pxe).await {
        Outcome::Failed { .. } | Outcome::Unknown { .. } => {}
        o => panic!("{o:?}"),
    }
    assert!(fake.calls().len() < 5, "{:?}", fake.calls());
}

#[tokio::test]
async fn the_site_runs_no_more_programs_at_once_than_it_may() {
    let fake = Fake::new(&format!(
        "mkdir run.$$; ls -d run.* | wc -l >> most; sleep 0.2; rmdir run.$$\n{WHOLE}"
    ));
    let edge = edge(Settings { at_once: 3, ..fake.settings() });
    let looks = (1..=9).map(|n| {
        let edge = edge.clone();
        async move {
            let bmc = BmcTarget { machine: MachineId(n), ..bmc() };
            edge.look(&bmc).await.unwrap();
        }
    });
    futures_util::future::join_all(looks).await;
    let most = fake.read("most").lines().filter_map(|l| l.trim().parse::<u32>().ok()).max();
    assert!(most.is_some_and(|n| (2..=3).contains(&n)), "{most:?}");
}

#[tokio::test]
async fn one_bmc_is_asked_one_thing_at_a_time() {
    let fake = Fake::new(&format!(
        "mkdir one 2>/dev/null || echo two >> broken; sleep 0.1; rmdir one\n{WHOLE}"
    ));
    let edge = edge(fake.settings());
    let looks = (0..3).map(|_| async { edge.look(&bmc()).await.unwrap() });
    futures_util::future::join_all(looks).await;
    assert_eq!(fake.read("broken"), "");
    assert!(fake.calls().len() >= 6);
}

#[tokio::test]
async fn nothing_is_written_to_another_machine() {
    let fake = Fake::new(WHOLE);
    let edge = edge(fake.settings());
    let other = Identity::new(Some("S2"), None, None);
    match edge.power(&bmc(), &expect(other), PowerOp::ForceOff).await {
        Outcome::Refused { wrong_machine: true, saw } => assert!(saw.contains("`S1`"), "{saw}"),
        o => panic!("{o:?}"),
    }
    let doubtful = Identity::new(Some("S1"), Some("99999999-4455-6677-8899-aabbccddeeff"), None);
    let unproven = Identity::new(None, None, Some("00:00:5e:00:53:01"));
    for identity in [doubtful, unproven] {
        match edge.reset_bmc(&bmc(), &expect(identity)).await {
            Outcome::Refused { wrong_machine: false, .. } => {}
            o => panic!("{o:?}"),
        }
    }
    let off = Expect { power: Some(Power::Off), ..expect(s1()) };
    match edge.power(&bmc(), &off, PowerOp::On).await {
        Outcome::Refused { wrong_machine: false, saw } => assert!(saw.contains("power"), "{saw}"),
        o => panic!("{o:?}"),
    }
    let writes = ["power on", "power off", "mc reset", "bootdev"];
    let wrote = fake.calls().into_iter().filter(|c| writes.iter().any(|w| c.contains(w)));
    assert_eq!(wrote.collect::<Vec<_>>(), Vec::<String>::new());
    // Both byte orders of the GUID are the machine.
    let swapped = Identity::new(None, Some("33221100-5544-7766-8899-aabbccddeeff"), None);
    assert_eq!(edge.power(&bmc(), &expect(swapped), PowerOp::ForceOff).await, APPLIED);
}

#[tokio::test]
async fn a_board_without_hard_reset_is_cycled() {
    let fake = Fake::new(&format!(
        "[ \"$words\" = 'chassis power reset' ] && {{ echo 'Set Chassis Power Control to Reset failed: Invalid data field in request' >&2; exit 1; }}\n{WHOLE}"
    ));
    let edge = edge(fake.settings());
    assert_eq!(edge.power(&bmc(), &expect(s1()), PowerOp::ForceRestart).await, APPLIED);
    assert!(fake.calls().last().is_some_and(|c| c.ends_with("chassis power cycle")));
}

#[tokio::test]
async fn the_boot_device_is_set_for_uefi_and_read_back() {
    let fake = Fake::new(WHOLE);
    let ipmi = edge(fake.settings());
    assert_eq!(ipmi.set_boot(&bmc(), &expect(s1()), BootTarget::Pxe).await, APPLIED);
    let calls = fake.calls();
    let at = |words: &str| calls.iter().position(|c| c.ends_with(words)).unwrap();
    let set = at("chassis bootdev pxe options=efiboot");
    assert!(at("raw 0x00 0x08 0x03 0x08") < set, "the 60 s are lifted before the flags are set");
    assert!(set < at("chassis bootparam get 5"));
    // Another device than the one that was set is no success.
    match ipmi.set_boot(&bmc(), &expect(s1()), BootTarget::Disk).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "did-not-take"),
        o => panic!("{o:?}"),
    }
    match ipmi.set_boot(&bmc(), &expect(s1()), BootTarget::UefiHttp).await {
        Outcome::Failed { fault } => assert_eq!(fault.class, FaultClass::Unsupported),
        o => panic!("{o:?}"),
    }
    // Flags that are called invalid, and a board that can't lift the 60 s, are both in use.
    let fake = Fake::new(&format!(
        "case \"$words\" in 'chassis bootparam get 5') echo 'Boot parameter data: 0000000000'; exit 0;;\n\
         'raw 0x00 0x08 '*) echo 'Unable to send RAW command: Invalid data field in request' >&2; exit 1;; esac\n{WHOLE}"
    ));
    assert_eq!(
        edge(fake.settings()).set_boot(&bmc(), &expect(s1()), BootTarget::Cd).await,
        APPLIED
    );
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let gone = edge(Settings { program: "/nonexistent/ipmitool".into(), ..Settings::default() });
    let fault = gone.look(&bmc()).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_ref()), (FaultClass::Precondition, "no-ipmitool"));
    assert!(fault.hint.is_some());
    let none = BmcTarget { endpoint: BmcEndpoint::default(), ..bmc() };
    assert_eq!(gone.look(&none).await.unwrap_err().code, "no-ipmi");
    let mut long = bmc();
    long.endpoint.credential = "admin:a-password-of-21-bytes".into();
    assert_eq!(gone.look(&long).await.unwrap_err().code, "password-too-long");
}

#[tokio::test]
async fn a_console_is_taken_down_within_its_bounds() {
    let fake = Fake::new(&format!(
        "case \"$words\" in 'sol deactivate') echo 'Info: SOL payload already de-activated' >&2; exit 1;;\n\
         'sol activate') echo '[SOL Session operational.  Use ~? for help]'; printf 'login: root\\nPassword: %s\\n' \"$IPMI_PASSWORD\"\n\
         while :; do echo panic: no init found; sleep 0.05; done;; esac\n{WHOLE}"
    ));
    let edge = edge(fake.settings());
    let order =
        |name: &str, for_ms, max_bytes| CaptureOrder { into: fake.path(name), for_ms, max_bytes };
    let got = edge.capture(&bmc(), &order("timed", 1_500, 1 << 20)).await.unwrap();
    assert_eq!(got.end, CaptureEnd::Time);
    let text = fake.read("timed");
    assert_eq!(text.len() as u64, got.bytes);
    assert!(text.contains("panic: no init found") && text.contains("Password: …"), "{text}");
    assert!(!text.contains(PASSWORD));
    let got = edge.capture(&bmc(), &order("sized", 60_000, 100)).await.unwrap();
    assert_eq!((got.end, got.bytes), (CaptureEnd::Size, 100));
    // The console is taken away from whoever has it, and given back.
    let sol: Vec<String> = fake.calls().into_iter().filter(|c| c.contains("sol ")).collect();
    assert_eq!(sol.len(), 6, "{sol:?}");
    assert!(
        sol[0].ends_with("deactivate")
            && sol[1].ends_with("sol activate")
            && sol[2].ends_with("deactivate")
    );
    // Nothing is written over.
    let fault = edge.capture(&bmc(), &order("timed", 100, 100)).await.unwrap_err();
    assert_eq!(fault.code, "no-file");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(fake.path("timed")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
