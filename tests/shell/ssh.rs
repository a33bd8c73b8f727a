//! The edge against OpenSSH's sshd: its own configuration, port, host key and an unprivileged
//! user.

use crate::world::{OTHER, SERIAL, UUID, World, find, until};
use async_trait::async_trait;
use farrier::cluster::{Hook, HooksCluster, Place};
use farrier::model::action::{HookVerb, JobScript};
use farrier::model::facts::JobState;
use farrier::model::{
    Channel, Expect, Fault, FaultClass, HostEndpoint, Identity, MachineId, Outcome,
};
use farrier::port::command::{HostCommand, NotRun};
use farrier::port::{Cluster, Credential, HostTarget, Node, Secret, Shell, Vault};
use farrier::shell::{Settings, SshShell};
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The system user of the tests' sshd, where the tests run as root.
const USER: &str = "farrier-test";

struct Keys(BTreeMap<String, String>);

#[async_trait]
impl Vault for Keys {
    async fn credential(&self, name: &str) -> Result<Credential, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Engine, "no-credential", name.to_string()))
    }

    async fn ssh_key(&self, name: &str) -> Result<Secret, Fault> {
        self.0.get(name).map(Secret::new).ok_or_else(|| {
            Fault::new(FaultClass::Precondition, Channel::Engine, "no-key", name.to_string())
        })
    }
}

struct Sshd {
    child: Child,
    address: SocketAddr,
    user: String,
    host_keys: BTreeMap<&'static str, String>,
    vault: Arc<Keys>,
    world: World,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_string()
}

fn keygen(path: &Path, kind: &str) -> String {
    run(Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "test", "-t", kind, "-f"])
        .arg(path));
    fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_string()
}

/// `None`, with a line that says so, where there is no sshd.
fn sshd() -> Option<Sshd> {
    let Some(program) = find("sshd") else {
        println!("skipped: no sshd here (Debian: openssh-server)");
        return None;
    };
    let root = run(Command::new("id").arg("-u")) == "0";
    let user = if root { USER.to_string() } else { run(Command::new("id").arg("-un")) };
    if root && !Command::new("id").arg(USER).output().unwrap().status.success() {
        // Several tests may come here at once; one of them makes it.
        let _ = Command::new("useradd")
            .args(["--system", "--shell", "/bin/sh", "--home-dir", "/", USER])
            .output();
        until("the test user is there", || {
            Command::new("id").arg(USER).output().unwrap().status.success()
        });
    }
    let world = World::new();
    let dir = world.dir.path();
    let mut host_keys = BTreeMap::new();
    for kind in ["ed25519", "ecdsa"] {
        host_keys.insert(kind, keygen(&dir.join(format!("host_{kind}")), kind));
    }
    let allowed = keygen(&dir.join("user"), "ed25519");
    keygen(&dir.join("stranger"), "ed25519");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let keys = [("main", "user"), ("stranger", "stranger")];
    let mut vault: BTreeMap<_, _> = keys.map(|(k, f)| (k.to_string(), read(f))).into();
    vault.insert("garbage".into(), "-----BEGIN NOTHING-----".into());
    fs::write(dir.join("authorized"), format!("{allowed}\n")).unwrap();
    fs::set_permissions(dir.join("authorized"), fs::Permissions::from_mode(0o644)).unwrap();
    if root {
        run(Command::new("chown").arg("-R").arg(&user).arg(dir));
    }
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if let Some(child) = listen(&program, root.then_some(user.as_str()), &world, port) {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            return Some(Sshd {
                child,
                address,
                user,
                host_keys,
                vault: Arc::new(Keys(vault)),
                world,
            });
        }
    }
    panic!("sshd does not listen: {}", read("sshd.log"));
}

/// sshd on `port`; `None` when somebody else took it meanwhile.
fn listen(program: &Path, user: Option<&str>, world: &World, port: u16) -> Option<Child> {
    let dir = world.dir.path();
    let config = dir.join("sshd_config");
    fs::write(
        &config,
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host_ecdsa\nHostKey {d}/host_ed25519\n\
             AuthorizedKeysFile {d}/authorized\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n\
             SetEnv FARRIER_ROOT={r} PATH={p}\n",
            d = dir.display(),
            r = world.root.display(),
            p = world.path,
        ),
    )
    .unwrap();
    let mut command = match user {
        Some(user) => {
            let mut c = Command::new("setpriv");
            c.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
            c
        }
        None => Command::new(program),
    };
    let log = dir.join("sshd.log");
    command.args(["-D", "-e", "-f"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let mut listens = false;
    until("sshd listens or ends", || {
        listens = fs::read_to_string(&log).unwrap_or_default().contains("Server listening on");
        listens || child.try_wait().unwrap().is_some()
    });
    listens.then_some(child)
}

impl Sshd {
    fn settings(&self) -> Settings {
        Settings::new("main", &self.user)
    }

    fn shell(&self) -> SshShell {
        SshShell::new(self.vault.clone(), self.settings())
    }

    fn host(&self) -> HostTarget {
        self.host_at(self.address)
    }

    fn host_at(&self, address: SocketAddr) -> HostTarget {
        HostTarget {
            machine: MachineId::default(),
            name: "gpu-42".into(),
            endpoint: HostEndpoint {
                address: address.to_string().into(),
                user: "".into(),
                host_key: None,
            },
            host_key: Some(self.host_keys["ed25519"].as_str().into()),
        }
    }
}

fn expect(uuid: &str) -> Expect {
    Expect { identity: Identity::new(Some(SERIAL), Some(uuid), None), ..Expect::default() }
}

async fn finished(shell: &SshShell, host: &HostTarget, name: &str) -> (i32, serde_json::Value) {
    let end = tokio::time::Instant::now() + Duration::from_secs(40);
    loop {
        let job = shell.job(host, name).await.unwrap();
        if let JobState::Finished { exit, result } = job.state {
            return (exit, result.unwrap_or_default());
        }
        assert!(tokio::time::Instant::now() < end, "{job:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_and_jobs_over_openssh() {
    let Some(s) = sshd() else { return };
    let (shell, host) = (s.shell(), s.host());
    let facts = shell.facts(&host).await.unwrap();
    assert_eq!(facts.identity, expect(UUID).identity);
    assert_eq!(facts.hostname.as_deref(), Some("gpu-42"));

    s.world.shim(
        "nvidia-smi",
        &format!(
            "echo one >>'{}/calls'\ncat <<'X'\n{}X",
            s.world.root.display(),
            crate::dcgm::smi(8, "")
        ),
    );
    assert_eq!(shell.job(&host, "smoke-1").await.unwrap().state, JobState::Absent);
    let other = shell.start_job(&host, &expect(OTHER), JobScript::Smoke, "smoke-0", 60_000).await;
    assert!(matches!(other, Outcome::Refused { wrong_machine: true, .. }), "{other:?}");
    let me = expect(UUID);
    // Four at once, one job.
    let start = || shell.start_job(&host, &me, JobScript::Smoke, "smoke-1", 60_000);
    let (a, b, c, d) = tokio::join!(start(), start(), start(), start());
    for outcome in [a, b, c, d] {
        assert_eq!(outcome, Outcome::Applied { handle: None });
    }
    let (exit, result) = finished(&shell, &host, "smoke-1").await;
    assert_eq!((exit, &result["ok"], &result["gpus"]), (0, &true.into(), &8.into()), "{result}");
    assert_eq!(s.world.read("calls"), "one\n");
    let tail = shell.tail(&host, "smoke-1", 20).await.unwrap();
    assert_eq!(tail.len(), 20);

    let bad = shell.start_job(&host, &me, JobScript::Smoke, "../x", 1).await;
    assert!(matches!(bad, Outcome::Failed { fault } if fault.code == "bad-job-name"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wipe_over_openssh() {
    let Some(s) = sshd() else { return };
    let (shell, host) = (s.shell(), s.host());
    s.world.file("dev/disk/nvme0n1", vec![9; 1024 * 1024 + 512]);
    let disk = s.world.root.join("dev/disk/nvme0n1");
    if s.user == USER {
        run(Command::new("chown").arg(&s.user).arg(&disk));
    }
    let other = shell.start_job(&host, &expect(OTHER), JobScript::Wipe, "wipe-1", 60_000).await;
    assert!(matches!(other, Outcome::Refused { wrong_machine: true, .. }), "{other:?}");
    // Nobody knows who is meant: the start has no objection, the wipe has.
    let unknown = Expect::default();
    let started = shell.start_job(&host, &unknown, JobScript::Wipe, "wipe-2", 60_000).await;
    assert_eq!(started, Outcome::Applied { handle: None });
    let (exit, result) = finished(&shell, &host, "wipe-2").await;
    assert_eq!(exit, 3);
    assert!(result["refused"].is_string(), "{result}");
    assert_eq!(fs::read(&disk).unwrap(), vec![9; 1024 * 1024 + 512]);

    shell.start_job(&host, &expect(UUID), JobScript::Wipe, "wipe-3", 60_000).await;
    let (exit, result) = finished(&shell, &host, "wipe-3").await;
    assert_eq!((exit, &result["verified"]), (0, &true.into()), "{result}");
    assert_eq!(fs::read(&disk).unwrap(), vec![0; 1024 * 1024 + 512]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_pinned_host_and_the_right_key_get_in() {
    let Some(s) = sshd() else { return };
    let shell = s.shell();
    let mut host = s.host();

    host.host_key = None;
    let fault = shell.facts(&host).await.unwrap_err();
    assert!(fault.is_no_answer() && fault.message.contains("no host key is pinned yet"), "{fault}");

    // The host has two keys; whichever is pinned is asked for.
    host.host_key = Some(s.host_keys["ecdsa"].as_str().into());
    shell.facts(&host).await.unwrap();

    let stranger = fs::read_to_string(s.world.dir.path().join("stranger.pub")).unwrap();
    host.host_key = Some(stranger.as_str().into());
    let fault = shell.facts(&host).await.unwrap_err();
    assert_eq!((fault.class, &*fault.code), (FaultClass::Identity, "host-key-changed"));
    assert!(fault.evidence.as_ref().unwrap().contains("SHA256:"), "{fault:?}");
    let outcome = shell.start_job(&host, &expect(UUID), JobScript::Smoke, "smoke-1", 1000).await;
    assert!(matches!(outcome, Outcome::Failed { fault } if fault.class == FaultClass::Identity));
    assert!(!s.world.root.join("var").exists());

    host.host_key = Some("ssh-ed25519 nonsense".into());
    assert_eq!(shell.facts(&host).await.unwrap_err().code, "host-key-unusable");

    let with = |key: &str| SshShell::new(s.vault.clone(), Settings::new(key, &s.user));
    let fault = with("stranger").facts(&s.host()).await.unwrap_err();
    assert_eq!((fault.class, &*fault.code), (FaultClass::Auth, "bad-credentials"));
    let fault = with("garbage").facts(&s.host()).await.unwrap_err();
    assert_eq!(fault.code, "ssh-key-unreadable");
    assert!(!fault.to_string().contains("NOTHING"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_no_answer() {
    let Some(s) = sshd() else { return };
    let mut settings = s.settings();
    settings.connect_deadline = Duration::from_millis(400);
    let shell = SshShell::new(s.vault.clone(), settings);
    // Nobody listens; somebody listens and says nothing; somebody says something else.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let web_address = web.local_addr().unwrap();
    std::thread::spawn(move || {
        if let Ok((mut stream, _)) = web.accept() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    for address in [free, mute.local_addr().unwrap(), web_address] {
        let fault = shell.facts(&s.host_at(address)).await.unwrap_err();
        assert!(fault.is_no_answer(), "{fault:?}");
        assert_eq!(fault.channel, Channel::Host);
    }
    let outcome = shell.start_job(&s.host_at(free), &expect(UUID), JobScript::Smoke, "j", 1).await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "nothing was sent: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_bounded_in_time_and_output() {
    let Some(s) = sshd() else { return };
    let (shell, host) = (s.shell(), s.host());
    let words = |w: &[&str]| w.iter().map(ToString::to_string).collect::<Vec<_>>();
    let long = Duration::from_secs(20);
    let argv = words(&["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; echo no >&2; exit 7"]);
    let ran = shell.run(&host, None, &argv, b"", long).await.unwrap();
    assert_eq!((ran.exit, ran.stdout.len(), ran.truncated), (Some(7), 65536, true));
    assert!(ran.stderr.ends_with("no\n"), "{}", ran.stderr);

    let odd = "it's \"odd\" $HOME `id` \\ *";
    let argv = words(&["sh", "-c", "cat; printf %s \"$1\"", "x", odd]);
    let ran = shell.run(&host, Some(&expect(UUID).identity), &argv, b"in:", long).await.unwrap();
    assert_eq!((ran.exit, ran.stdout, ran.truncated), (Some(0), format!("in:{odd}"), false));

    let killed = words(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(shell.run(&host, None, &killed, b"", long).await.unwrap().exit, None);

    let touched = s.world.root.join("touched");
    let touch = words(&["touch", &touched.display().to_string()]);
    let refused = shell.run(&host, Some(&expect(OTHER).identity), &touch, b"", long).await;
    assert!(matches!(refused, Err(NotRun::Refused { .. })), "{refused:?}");
    assert!(!touched.exists());

    let late =
        shell.run(&host, None, &words(&["sleep", "60"]), b"", Duration::from_millis(600)).await;
    let Err(NotRun::NoAnswer(fault)) = late else { panic!("{late:?}") };
    assert!(fault.is_no_answer(), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_put_whole() {
    let Some(s) = sshd() else { return };
    let (shell, host) = (s.shell(), s.host());
    let path = s.world.root.join("it's a file");
    let content: Vec<u8> = (0..1_500_000_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    shell.put(&host, &path.display().to_string(), 0o640, &content).await.unwrap();
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let fault = shell.put(&host, "/nowhere/at/all", 0o600, b"x").await.unwrap_err();
    assert_eq!(fault.code, "command-failed");
}

/// Forwards to sshd until told to cut everything.
fn cuttable(to: SocketAddr) -> (SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (cut, seen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut seen = seen.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = seen.wait_for(|cut| *cut) => {}
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_start_lost_its_connection_is_found() {
    let Some(s) = sshd() else { return };
    s.world.shim("nvidia-smi", &format!("echo one >>'{}/calls'", s.world.root.display()));
    // `id` is asked between the job's directory and its launch: here the connection breaks.
    let go = s.world.root.join("go");
    let id = find("id").unwrap();
    s.world.shim(
        "id",
        &format!(
            "while [ ! -e '{}' ]; do sleep 0.1; done\nexec {} \"$@\"",
            go.display(),
            id.display()
        ),
    );
    let (address, cut) = cuttable(s.address);
    let (shell, near) = (Arc::new(s.shell()), s.host_at(address));
    let started = tokio::spawn({
        let shell = shell.clone();
        async move { shell.start_job(&near, &expect(UUID), JobScript::Smoke, "smoke-1", 60_000).await }
    });
    let dir = s.world.job("smoke-1").join("runner.sh");
    tokio::task::spawn_blocking(move || until("the directory is there", || dir.exists()))
        .await
        .unwrap();
    cut.send(true).unwrap();
    let outcome = started.await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. }), "sent, no answer: {outcome:?}");
    // It was about to be launched, and is: found by its name, and not started again.
    let job = shell.job(&s.host(), "smoke-1").await.unwrap();
    assert!(matches!(job.state, JobState::Running { .. }), "{job:?}");
    fs::write(&go, "").unwrap();
    let again =
        shell.start_job(&s.host(), &expect(UUID), JobScript::Smoke, "smoke-1", 60_000).await;
    assert_eq!(again, Outcome::Applied { handle: None });
    let (exit, _) = finished(&shell, &s.host(), "smoke-1").await;
    assert_eq!(exit, 0);
    assert_eq!(s.world.read("calls"), "one\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_runs_on_the_host() {
    let Some(s) = sshd() else { return };
    s.world.shim("hook", &format!(
        "cat >'{r}/question'\ncase $(cat '{r}/question') in *probe*) echo '{{\"member\":true,\"ready\":true,\"workloads\":2}}' ;; *) echo '{{\"ok\":true}}' ;; esac",
        r = s.world.root.display()));
    let hook = |program: &str| Hook {
        command: vec![program.into(), "an argument".into()],
        place: Place::Host,
        timeout: Duration::from_secs(10),
    };
    let hooks = [("k8s".to_string(), hook("hook")), ("gone".to_string(), hook("no-such-hook"))];
    let cluster = HooksCluster::new(hooks.into(), Arc::new(s.shell()));
    let node = |cluster: &str| Node {
        machine: MachineId::default(),
        name: "gpu-42".into(),
        cluster: cluster.into(),
        host: s.host(),
    };
    let seen = cluster.membership(&node("k8s")).await.unwrap();
    assert_eq!((seen.member, seen.ready, seen.cordoned, seen.workloads), (true, true, false, 2));
    let done = cluster.act(&node("k8s"), &expect(UUID), HookVerb::Join).await;
    assert_eq!(done, Outcome::Applied { handle: None });
    let question: serde_json::Value = serde_json::from_str(&s.world.read("question")).unwrap();
    assert_eq!(question["verb"], "join");
    assert_eq!(question["identity"]["uuid"], UUID);
    let other = cluster.act(&node("k8s"), &expect(OTHER), HookVerb::Leave).await;
    assert!(matches!(other, Outcome::Refused { wrong_machine: true, .. }), "{other:?}");
    assert!(s.world.read("question").contains("join"), "the hook was not run");
    let gone = cluster.act(&node("gone"), &expect(UUID), HookVerb::Join).await;
    assert!(matches!(gone, Outcome::Failed { fault } if fault.code == "hook-missing"));
}
