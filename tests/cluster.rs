//! The `hooks` provider beside the daemon: answers, refusals, garbage, silence. Hooks on the
//! machine are tested in tests/shell over OpenSSH.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the world")]

use async_trait::async_trait;
use farrier::cluster::{Hook, HooksCluster, Place};
use farrier::model::action::HookVerb;
use farrier::model::{Expect, Fault, FaultClass, HostEndpoint, Identity, MachineId, Outcome};
use farrier::port::command::{HostCommand, NotRun, Ran};
use farrier::port::{Cluster, HostTarget, Node};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No host here.
struct Nowhere;

#[async_trait]
impl HostCommand for Nowhere {
    async fn run(
        &self,
        _: &HostTarget,
        _: Option<&Identity>,
        _: &[String],
        _: &[u8],
        _: Duration,
    ) -> Result<Ran, NotRun> {
        Err(NotRun::NotSent(Fault::no_answer(farrier::model::Channel::Host, "no host")))
    }
}

fn node() -> Node {
    Node {
        machine: MachineId::default(),
        name: "gpu-42".into(),
        cluster: "k8s".into(),
        host: HostTarget {
            machine: MachineId::default(),
            name: "gpu-42".into(),
            endpoint: HostEndpoint {
                address: "10.1.2.3".into(),
                user: "root".into(),
                host_key: None,
            },
            host_key: None,
        },
    }
}

fn hooks(command: &[&str], place: Place, timeout_ms: u64) -> HooksCluster {
    let hook = Hook {
        command: command.iter().map(ToString::to_string).collect(),
        place,
        timeout: Duration::from_millis(timeout_ms),
    };
    HooksCluster::new([("k8s".to_string(), hook)].into(), Arc::new(Nowhere))
}

fn sh(text: &str) -> HooksCluster {
    hooks(&["sh", "-c", text], Place::Local, 20_000)
}

async fn probe(text: &str) -> Fault {
    sh(text).membership(&node()).await.unwrap_err()
}

async fn join(text: &str) -> Outcome {
    sh(text).act(&node(), &Expect::default(), HookVerb::Join).await
}

#[tokio::test]
async fn the_hook_gets_the_question_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("question");
    let answer = r#"{"member":true,"ready":true,"cordoned":true,"workloads":3,"detail":"pods"}"#;
    let c = sh(&format!("cat >'{}'; echo 'a log line' >&2; echo '{answer}'", file.display()));
    let m = c.membership(&node()).await.unwrap();
    assert_eq!((m.member, m.ready, m.cordoned, m.workloads), (true, true, true, 3));
    assert_eq!(m.detail.as_deref(), Some("pods"));
    let read =
        |f: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(f).unwrap()).unwrap();
    let q = read(&file);
    assert_eq!(
        (&q["verb"], &q["machine"], &q["cluster"], &q["address"]),
        (&"probe".into(), &"gpu-42".into(), &"k8s".into(), &"10.1.2.3".into())
    );

    let expect = Expect {
        identity: Identity::new(Some("FRR-1"), None, Some("aa:bb:cc:dd:ee:ff")),
        ..Expect::default()
    };
    let c = sh(&format!("cat >'{}'; echo '{{\"ok\":true}}'", file.display()));
    for verb in [HookVerb::Join, HookVerb::Cordon, HookVerb::Uncordon, HookVerb::Leave] {
        assert_eq!(c.act(&node(), &expect, verb).await, Outcome::Applied { handle: None });
        let q = read(&file);
        assert_eq!(q["verb"], verb.name());
        assert_eq!(q["identity"]["serial"], "FRR-1");
        assert_eq!(q["identity"]["uuid"], serde_json::Value::Null);
    }
    // An answer without reading the question is one.
    assert_eq!(join("exec <&-; echo '{\"ok\":true}'").await, Outcome::Applied { handle: None });
}

#[tokio::test]
async fn a_clear_no_did_not_happen() {
    let Outcome::Failed { fault } = join(r#"echo '{"ok":false,"error":"quorum"}'"#).await else {
        panic!()
    };
    assert_eq!(fault.code, "hook-said-no");
    assert!(fault.message.contains("quorum"));
}

#[tokio::test]
async fn without_a_clear_answer_the_outcome_is_unknown() {
    for (text, code) in [
        ("echo oops >&2; exit 3", "hook-failed"),
        ("kill -9 $$", "hook-failed"),
        ("echo hello", "hook-garbage"),
        ("true", "hook-garbage"),
        ("echo '{\"ok\":true}'; echo '{\"ok\":true}'", "hook-garbage"),
        ("head -c 500000 /dev/zero | tr '\\0' x", "hook-garbage"),
    ] {
        let Outcome::Unknown { fault } = join(text).await else { panic!("{text}") };
        assert_eq!(fault.code, code, "{text}");
        assert!(fault.evidence.as_ref().is_none_or(|e| e.len() <= 2000));
        assert_eq!(probe(text).await.code, code, "{text}");
    }
    assert!(probe("echo oops >&2; exit 3").await.evidence.unwrap().contains("oops"));
    assert_eq!(probe("echo '{\"member\":\"yes\"}'").await.code, "hook-garbage");
    assert_eq!(probe("echo '{\"member\":true,\"workloads\":-1}'").await.code, "hook-garbage");
}

#[tokio::test]
async fn a_hook_that_cannot_run_did_not_run() {
    let act = |c: HooksCluster| async move {
        match c.act(&node(), &Expect::default(), HookVerb::Join).await {
            Outcome::Failed { fault } => fault,
            other => panic!("{other:?}"),
        }
    };
    let missing = act(hooks(&["/no/such/hook"], Place::Local, 1000)).await;
    assert_eq!((missing.class, &*missing.code), (FaultClass::Precondition, "hook-missing"));
    assert_eq!(act(hooks(&[], Place::Local, 1000)).await.code, "hook-missing");
    assert!(act(hooks(&["x"], Place::Host, 1000)).await.is_no_answer());
    let mut other = node();
    other.cluster = "slurm".into();
    let fault = sh("true").membership(&other).await.unwrap_err();
    assert_eq!((fault.class, &*fault.code), (FaultClass::Precondition, "no-provider"));
}

/// Neither the timeout nor a caller that gives up leaves the hook's children behind.
#[tokio::test]
async fn a_hook_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let text =
        format!("sleep 600 & echo $! >'{p}.new'; mv '{p}.new' '{p}'; wait", p = pid.display());
    let gone = |pid: &Path| {
        let n = fs::read_to_string(pid).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", n.trim())).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            assert!(Instant::now() < end, "the child still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_file(pid).unwrap();
    };
    let c = hooks(&["sh", "-c", &text], Place::Local, 700);
    let Outcome::Unknown { fault } = c.act(&node(), &Expect::default(), HookVerb::Join).await
    else {
        panic!()
    };
    assert!(fault.is_no_answer(), "{fault}");
    gone(&pid);
    let c = hooks(&["sh", "-c", &text], Place::Local, 60_000);
    {
        let expect = Expect::default();
        let machine = node();
        let mut call = Box::pin(c.act(&machine, &expect, HookVerb::Join));
        while !pid.exists() {
            let _ = tokio::time::timeout(Duration::from_millis(20), &mut call).await;
        }
    } // dropped, as the engine's deadline does
    gone(&pid);
}

#[tokio::test]
async fn a_site_of_questions_does_not_start_a_site_of_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (at, go) = (dir.path().join("running"), dir.path().join("go"));
    fs::create_dir(&at).unwrap();
    // Each says how many run beside it, after all that may have started are held up together.
    let text = format!(
        "touch '{at}'/$$; while ! [ -e '{go}' ]; do sleep 0.05; done; \
         n=$(ls '{at}' | wc -l); rm '{at}'/$$; \
         echo \"{{\\\"member\\\":true,\\\"workloads\\\":$n}}\"",
        at = at.display(),
        go = go.display(),
    );
    let cluster = Arc::new(sh(&text));
    let mut questions = tokio::task::JoinSet::new();
    for _ in 0..120 {
        let cluster = cluster.clone();
        questions.spawn(async move { cluster.membership(&node()).await.unwrap().workloads });
    }
    let running = || fs::read_dir(&at).unwrap().count();
    while running() < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::write(&go, "").unwrap();
    let beside: Vec<u32> = questions.join_all().await;
    assert_eq!(beside.len(), 120);
    assert!(beside.iter().all(|n| *n <= 24), "{beside:?}");
}
