//! A private wire: network namespaces joined by a bridge, made for one test and gone with it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A namespace, and what was started in it.
pub(super) struct Host {
    pub(super) ns: String,
    children: Vec<Child>,
}

/// One wire. Everything on it is removed when it is dropped.
pub(super) struct Lab {
    wire: Host,
    hosts: u32,
    tag: String,
}

static LABS: AtomicU32 = AtomicU32::new(0);

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output();
    let out = out.unwrap_or_else(|e| panic!("`{program}`: {e}"));
    let (text, trouble) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "`{program} {}`: {trouble}{text}", arguments.join(" "));
    text.into_owned()
}

fn ip(words: &str) {
    run("ip", &words.split_whitespace().collect::<Vec<_>>());
}

impl Lab {
    /// Panics with what is missing where it can't be made.
    pub(super) fn new() -> Self {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test makes network namespaces: run it as root");
        let n = LABS.fetch_add(1, Ordering::Relaxed);
        let tag = format!("fd{}-{n}", std::process::id());
        let wire = Host::make(&format!("{tag}-w"));
        ip(&format!("-n {} link add br0 type bridge forward_delay 0", wire.ns));
        ip(&format!("-n {} link set br0 up", wire.ns));
        Self { wire, hosts: 0, tag }
    }

    /// A host on the wire: interface `eth0`, with this address unless it is empty.
    pub(super) fn host(&mut self, mac: &str, address: &str) -> Host {
        self.hosts += 1;
        let host = Host::make(&format!("{}-{}", self.tag, self.hosts));
        self.join(&host, "eth0", mac, address);
        host
    }

    /// A (further) interface of a host, on this wire.
    pub(super) fn join(&mut self, host: &Host, interface: &str, mac: &str, address: &str) {
        self.hosts += 1;
        let (end, ns, wire) = (format!("v{}", self.hosts), &host.ns, &self.wire.ns);
        ip(&format!("-n {wire} link add {end} type veth peer name {interface} netns {ns}"));
        ip(&format!("-n {wire} link set {end} master br0 up"));
        ip(&format!("-n {ns} link set {interface} address {mac}"));
        if !address.is_empty() {
            ip(&format!("-n {ns} addr add {address} dev {interface}"));
        }
        ip(&format!("-n {ns} link set {interface} up"));
    }
}

impl Host {
    fn make(ns: &str) -> Self {
        ip(&format!("netns add {ns}"));
        ip(&format!("-n {ns} link set lo up"));
        Self { ns: ns.into(), children: Vec::new() }
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns, program]);
        command
    }

    /// Starts a program that ends with this value. Its output goes to a file.
    pub(super) fn start(&mut self, command: &mut Command, log: &Path) {
        let out = std::fs::File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        self.children.push(child);
    }

    /// Ends what was started, `kill -9`.
    pub(super) fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Whether what was started still runs.
    pub(super) fn runs(&mut self) -> bool {
        self.children.iter_mut().all(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Runs `work` in this namespace, on a thread and a runtime of its own.
    pub(super) fn within<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> T {
        let path = format!("/run/netns/{}", self.ns);
        std::thread::spawn(move || {
            enter(&path);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work())
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A socket here, bound to this port on `eth0`, that hears and says broadcasts.
    pub(super) fn socket(&self, port: u16) -> UdpSocket {
        self.within(async move || {
            let socket = farrier::dhcp::open_socket("eth0", port).unwrap().into_std().unwrap();
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        })
    }

    /// One try of a real DHCP client: its lease as the words of its script, or `None`.
    pub(super) fn udhcpc(&self, extra: &[&str]) -> Option<Lease> {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        let words = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
                     for w in ip subnet router dns serverid siaddr boot_file lease domain mtu; do\n\
                     eval \"echo $w=\\$$w\"; done\n";
        std::fs::write(&script, words).unwrap();
        run("chmod", &["+x", script.to_str().unwrap()]);
        let out = self
            .command("busybox")
            .args(["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "3", "-T", "1", "-A", "1", "-s"])
            .arg(&script)
            .args(extra)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        out.status.success().then_some(Lease(text))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        Command::new("ip").args(["netns", "del", &self.ns]).output().ok();
    }
}

/// What `udhcpc` told its script.
#[derive(Debug)]
pub(super) struct Lease(String);

impl Lease {
    pub(super) fn word(&self, name: &str) -> &str {
        let of = |line: &'_ str| -> Option<usize> {
            line.starts_with(&format!("{name}=")).then_some(name.len() + 1)
        };
        self.0.lines().find_map(|line| line.get(of(line)?..)).unwrap_or("")
    }

    pub(super) fn ip(&self) -> Ipv4Addr {
        self.word("ip").parse().unwrap_or_else(|_| panic!("no address in {:?}", self.0))
    }
}

fn enter(path: &str) {
    let file = std::fs::File::open(path).unwrap();
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind)).unwrap();
}

/// Waits until `look` sees it; the words are for who reads the failure.
pub(super) fn until<T>(what: &str, limit_s: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(limit_s);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {limit_s} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a packet to all and gathers what comes back for so long.
pub(super) fn ask(
    socket: &UdpSocket,
    to: SocketAddr,
    bytes: &[u8],
    listen_ms: u64,
) -> Vec<(SocketAddr, Vec<u8>)> {
    socket.send_to(bytes, to).unwrap();
    gather(socket, listen_ms)
}

pub(super) fn gather(socket: &UdpSocket, listen_ms: u64) -> Vec<(SocketAddr, Vec<u8>)> {
    let end = Instant::now() + Duration::from_millis(listen_ms);
    let mut found = Vec::new();
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            found.push((peer, buffer[..length].to_vec()));
        }
    }
    found
}

/// A DHCP message: these options behind header and cookie.
pub(super) fn message(mac: [u8; 6], kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![0_u8; 240];
    out[..3].copy_from_slice(&[1, 1, 6]);
    out[4..8].copy_from_slice(&[7, 7, 7, kind]);
    out[10] = 0x80;
    out[28..34].copy_from_slice(&mac);
    out[236..].copy_from_slice(&[99, 130, 83, 99]);
    out.extend([53, 1, kind]);
    for (code, data) in options {
        out.extend([*code, u8::try_from(data.len()).unwrap()]);
        out.extend_from_slice(data);
    }
    out.push(255);
    out
}

/// A reply, taken apart by hand: no code of the server's.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) yiaddr: Ipv4Addr,
    pub(super) siaddr: Ipv4Addr,
    pub(super) file: String,
    pub(super) options: Vec<(u8, Vec<u8>)>,
}

impl Answer {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let four = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
        let file: Vec<u8> = bytes[108..236].iter().copied().take_while(|b| *b != 0).collect();
        let (mut options, mut rest) = (Vec::new(), &bytes[240..]);
        while let [code, length, tail @ ..] = rest {
            if *code == 255 {
                break;
            }
            let (data, next) = tail.split_at(usize::from(*length));
            options.push((*code, data.to_vec()));
            rest = next;
        }
        Self {
            yiaddr: four(16),
            siaddr: four(20),
            file: String::from_utf8_lossy(&file).into_owned(),
            options,
        }
    }

    pub(super) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(c, _)| *c == code).map(|(_, d)| d.as_slice())
    }

    pub(super) fn server(&self) -> String {
        let data = self.option(54).and_then(|d| <[u8; 4]>::try_from(d).ok());
        data.map(|d| Ipv4Addr::from(d).to_string()).unwrap_or_default()
    }
}
