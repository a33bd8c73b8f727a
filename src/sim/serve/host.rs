//! A virtual host: SSH with the host key of its installation, let in by the site's one public key,
//! and real programs in the host's sandbox. While no operating system runs, its connections end
//! without a word.

use super::seat::{Counters, Seat};
use super::{Hosts, World, sandbox, scripted, wire};
use crate::model::{Action, JobScript};
use crate::sim::physics::{HostState, VirtualMachine};
use crate::sim::rng::mix;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) async fn serve(world: Arc<World>, listener: TcpListener) {
    loop {
        let (stream, seat) = wire::accept(&world, &listener).await;
        match seat.host_life(world.now()) {
            0 => wire::refuse(&seat, stream),
            boot => drop(tokio::spawn(session(world.clone(), seat, stream, boot))),
        }
    }
}

async fn session(world: Arc<World>, seat: Arc<Seat>, stream: TcpStream, boot: u32) {
    let gone = seat.host_gone(boot);
    let Some(key) = seat.with(world.now(), |b| host_key(&b.vm)) else { return };
    let config = Arc::new(server::Config {
        keys: vec![key],
        nodelay: true,
        auth_rejection_time: Duration::from_millis(50),
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: Some(Duration::from_secs(300)),
        ..Default::default()
    });
    let handler = Guest { world, seat, stdin: BTreeMap::new() };
    let talk = async {
        if let Ok(session) = server::run_stream(config, stream, handler).await {
            // How a client ends its session interests nobody.
            drop(session.await);
        }
    };
    tokio::select! {
        () = talk => {}
        () = gone => {}
    }
}

/// The key of the installation on the disk: made from what the physics drew for it, so a new
/// installation has a new one.
fn host_key(vm: &VirtualMachine) -> Option<PrivateKey> {
    let mut word = vm.host_key.bytes().fold(u64::from(vm.id.0), |h, b| mix(h ^ u64::from(b)));
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        word = mix(word);
        part.copy_from_slice(&word.to_be_bytes());
    }
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), "virtual-host").ok()
}

/// The public half in OpenSSH form, as the host's `/etc/ssh` has it.
pub fn public_host_key(vm: &VirtualMachine) -> Option<String> {
    host_key(vm)?.public_key().to_openssh().ok()
}

struct Guest {
    world: Arc<World>,
    seat: Arc<Seat>,
    /// Where the client's bytes go, by channel.
    stdin: BTreeMap<u32, mpsc::UnboundedSender<Vec<u8>>>,
}

impl server::Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let allowed: &PublicKey = &self.world.authorized;
        let same = key.public_key.key_data() == allowed.key_data();
        Ok(if user == "root" && same { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        Counters::count(&self.seat.counters.execs);
        let (send, stdin) = mpsc::unbounded_channel();
        self.stdin.insert(id.into(), send);
        let command = String::from_utf8_lossy(command).into_owned();
        // Not here: while a handler runs, the session reads nothing.
        let (world, seat, handle) = (self.world.clone(), self.seat.clone(), session.handle());
        tokio::spawn(async move {
            let status = match world.hosts {
                Hosts::Programs => {
                    let status = run(&seat, &command, stdin, id, &handle).await;
                    watch_jobs(&world, &seat).await;
                    status
                }
                Hosts::Scripted => recite(&world, &seat, stdin, id, &handle).await,
            };
            // A client that has gone needs no answer.
            let _ = handle.exit_status_request(id, status).await;
            let _ = handle.eof(id).await;
            let _ = handle.close(id).await;
        });
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(stdin) = self.stdin.get(&id.into()) {
            // A command that reads no more lets its input go.
            drop(stdin.send(data.to_vec()));
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.stdin.remove(&id.into());
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.stdin.remove(&id.into());
        Ok(())
    }
}

/// Runs `command` in the sandbox and sends its output; returns its exit status.
async fn run(
    seat: &Seat,
    command: &str,
    mut stdin: mpsc::UnboundedReceiver<Vec<u8>>,
    id: ChannelId,
    handle: &Handle,
) -> u32 {
    let has_gpus = seat.with(crate::model::EngineTime::ZERO, |b| b.vm.gpus > 0);
    let path = match has_gpus {
        true => format!("{}:{SYSTEM_PATH}", seat.shims.display()),
        false => SYSTEM_PATH.to_string(),
    };
    let spawned = Command::new("sh")
        .arg("-c")
        .arg(command)
        .env_clear()
        .env("PATH", path)
        .env("HOME", seat.root.join("root"))
        .env("TMPDIR", seat.root.join("tmp"))
        .env("USER", "root")
        .env("LANG", "C.UTF-8")
        .env("FARRIER_ROOT", &seat.root)
        .current_dir(seat.root.join("root"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let why = format!("sh: {error}\n");
            let _ = handle.extended_data(id, 1, why.into_bytes()).await;
            return 127;
        }
    };
    if let Some(mut pipe) = child.stdin.take() {
        tokio::spawn(async move {
            while let Some(bytes) = stdin.recv().await {
                if pipe.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let out = async {
        if let Some(mut out) = out {
            pump(&mut out, |bytes| handle.data(id, bytes)).await;
        }
    };
    let err = async {
        if let Some(mut err) = err {
            pump(&mut err, |bytes| handle.extended_data(id, 1, bytes)).await;
        }
    };
    tokio::join!(out, err);
    child.wait().await.ok().and_then(|s| s.code()).map_or(255, i32::unsigned_abs)
}

/// Reads the text to its end and answers without running anything.
async fn recite(
    world: &World,
    seat: &Seat,
    mut stdin: mpsc::UnboundedReceiver<Vec<u8>>,
    id: ChannelId,
    handle: &Handle,
) -> u32 {
    let mut text = Vec::new();
    while let Some(bytes) = stdin.recv().await {
        text.extend(bytes);
    }
    let (out, status) = scripted::answer(world, seat, &String::from_utf8_lossy(&text));
    // A client that has gone needs no answer.
    let _ = handle.data(id, out.into_bytes()).await;
    status
}

async fn pump<R, F, E>(from: &mut R, mut send: impl FnMut(Vec<u8>) -> F)
where
    R: tokio::io::AsyncRead + Unpin,
    F: Future<Output = Result<(), E>>,
{
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        // Without a client the pipe closes, and the program meets that when it writes again.
        if n == 0 || send(buffer[..n].to_vec()).await.is_err() {
            break;
        }
    }
}

/// Tells the physics what the commands started and what has ended since.
pub(super) async fn watch_jobs(world: &World, seat: &Seat) {
    for (name, ended) in sandbox::jobs(&seat.root).await {
        let script =
            if name.contains(JobScript::Wipe.name()) { JobScript::Wipe } else { JobScript::Smoke };
        let now = world.now();
        seat.with(now, |b| {
            if b.vm.host == HostState::Running && b.told_jobs.insert(name.clone()) {
                let action = Action::StartJob { script, name: name.clone(), timeout_ms: 0 };
                let seq = world.draw() >> 40;
                b.vm.apply(now, seq, &action);
            }
            if ended {
                b.vm.job_ended(now, &name);
            }
        });
    }
}
