//! 64 machines fetch an image of 200 MB at once: `farrier serve` against nginx, on the same cores, from
//! the same file, in the same run. Each machine has its own address and its own boot window.
//!
//!     apt-get install nginx-light; cargo bench --bench boot_http
//!
//! Wants 80 % of nginx or more, and a daemon that does not grow by 64 MB.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a benchmark: programs, sockets and a clock"
)]

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use farrier::boot::{BootServer, Settings};
use farrier::config::shipped::WORKFLOWS;
use farrier::model::{MachineId, Outcome};
use farrier::port::{Boot, WindowOrder};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tower::ServiceExt;

const CLIENTS: u8 = 64;
const IMAGE: u64 = 200_000_000;
const ROUNDS: usize = 5;
/// What the daemon may grow by while it serves them all, bytes.
const GROWTH: u64 = 64 << 20;

fn mac(n: u8) -> String {
    format!("52:54:00:79:00:{n:02x}")
}

fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, n)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One server: how it is asked, and its processes.
struct Server {
    name: &'static str,
    port: u16,
    path: fn(u8) -> String,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx's master takes its workers along.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
    }
}

fn image(file: &Path) {
    let mut out = fs::File::create(file).unwrap();
    let (mut state, mut piece) = (7_u64, vec![0_u8; 1_000_000]);
    for _ in 0..IMAGE / 1_000_000 {
        for eight in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            eight.copy_from_slice(&state.to_le_bytes());
        }
        out.write_all(&piece).unwrap();
    }
    out.sync_all().unwrap();
}

fn nginx(dir: &Path) -> Server {
    let found = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"];
    let Some(program) = found.iter().find(|p| Path::new(p).exists()) else {
        eprintln!("boot_http: there is no nginx here to compare with: apt-get install nginx-light");
        std::process::exit(1);
    };
    let port = free_port();
    let own = dir.join("nginx");
    fs::create_dir_all(&own).unwrap();
    // Workers of root's would be another user's, who may not read the directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|t| format!("{t}_temp_path {};\n", own.join(t).display()))
        .concat();
    let config = format!(
        "{user}\ndaemon off;\nworker_processes auto;\npid {own}/pid;\nerror_log {own}/log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n{temporary}access_log off;\nsendfile on;\ntcp_nopush on;\n\
         server {{ listen 127.0.0.1:{port} backlog=512; root {dir}/site/images; }} }}\n",
        own = own.display(),
        dir = dir.display(),
    );
    fs::write(own.join("conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(&own).arg("-c").arg(own.join("conf"));
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    Server { name: "nginx", port, path: |_| "/img/disk.raw".into(), child }
}

/// The daemon, with a boot window for each machine that its machine has been at.
fn daemon(dir: &Path) -> Server {
    let (site, port) = (dir.join("site"), free_port());
    let put = |name: &str, text: &str| {
        let path = site.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "farrier.toml",
        &format!(
            "schema = 1\n[paths]\nstate = \"state\"\n[listen.api]\nbind = \"127.0.0.1:{}\"\n\
             [listen.boot]\nbind = \"127.0.0.1:{port}\"\nadvertise_url = \"http://127.0.0.1:{port}\"\n\
             rack_files = {CLIENTS}\n",
            free_port()
        ),
    );
    put("inventory.toml", "schema = 1\n");
    for (name, text) in WORKFLOWS {
        put(&format!("workflows/{name}"), text);
    }
    fs::create_dir_all(site.join("firmware-catalog")).unwrap();
    windows(&site.join("state"));
    let log = fs::File::create(dir.join("daemon.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    command.args(["serve", "--config"]).arg(site.join("farrier.toml"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let path = |n| format!("/boot/{}/image/disk.raw", mac(n));
    Server { name: "farrier", port, path, child: command.spawn().unwrap() }
}

fn windows(state: &Path) {
    fs::create_dir_all(state).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (inbox, _heard) = tokio::sync::mpsc::channel(1000);
        let boot = BootServer::open(state, Settings::default(), inbox).unwrap();
        for n in 1..=CLIENTS {
            let order = WindowOrder {
                machine: MachineId(n.into()),
                name: format!("n{n}").into(),
                run: format!("0badcafe-m{n}-1"),
                image: "img".into(),
                mac: Some(mac(n)),
                allow_existing_data: false,
                base_url: "http://127.0.0.1".into(),
                keys: vec![],
                profile: "p".into(),
                network: None,
                install: None,
            };
            assert!(matches!(boot.open(&order).await, Outcome::Applied { .. }));
            let path = format!("/boot/{}/ipxe", mac(n));
            let mut fetch = Request::get(path).body(Body::empty()).unwrap();
            fetch.extensions_mut().insert(ConnectInfo(SocketAddr::from((address(n), 1))));
            assert!(boot.router().oneshot(fetch).await.unwrap().status().is_success());
        }
    });
}

/// Sends a request from the machine's own address; the connection behind the answer's headers, what of
/// the body came with them, and its length.
fn ask(server: &Server, n: u8) -> (TcpStream, Vec<u8>, u64) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address(n), 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let path = (server.path)(n);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: image\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let end = loop {
        let mut piece = [0; 4096];
        let got = stream.read(&mut piece).unwrap();
        assert!(got > 0, "{}: {}", server.name, String::from_utf8_lossy(&head));
        head.extend_from_slice(&piece[..got]);
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
    assert!(text.starts_with("http/1.1 200"), "{}: {text}", server.name);
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
    (stream, head.split_off(end), length.trim().parse().unwrap())
}

/// Fetches the image; bytes of it.
fn fetch(server: &Server, n: u8, buffer: &mut [u8]) -> u64 {
    let (mut stream, first, length) = ask(server, n);
    let mut got = first.len() as u64;
    loop {
        match stream.read(buffer).unwrap() {
            0 => break,
            n => got += n as u64,
        }
    }
    assert_eq!((got, length), (IMAGE, IMAGE), "{}", server.name);
    got
}

/// Is what comes the image?
fn compare(server: &Server, file: &Path) {
    let (mut stream, mut body, _) = ask(server, 1);
    stream.read_to_end(&mut body).unwrap();
    assert!(body == fs::read(file).unwrap(), "{} serves other bytes", server.name);
}

/// A process and its children.
fn processes(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|p| p.parse().ok());
    std::iter::once(pid).chain(children).collect()
}

/// CPU seconds so far.
fn cpu_s(pids: &[u32]) -> f64 {
    let ticks = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        fields.split(' ').skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>()
    };
    // USER_HZ is 100 on Linux, for every architecture that this runs on.
    pids.iter().map(ticks).sum::<f64>() / 100.0
}

fn resident(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:").map(str::to_string));
        line.and_then(|l| l.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    pids.iter().map(of).sum()
}

struct Round {
    mb_per_s: f64,
    server_cpu_s: f64,
    client_cpu_s: f64,
    growth: u64,
}

fn round(server: &Server) -> Round {
    let (pids, own) = (processes(server.child.id()), [std::process::id()]);
    let start = Barrier::new(usize::from(CLIENTS) + 1);
    let (before, peak, over) = (resident(&pids), AtomicU64::new(0), AtomicBool::new(false));
    let cpu = (cpu_s(&pids), cpu_s(&own));
    let seconds = std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|n| {
                let start = &start;
                scope.spawn(move || {
                    let mut buffer = vec![0; 256 << 10];
                    start.wait();
                    fetch(server, n, &mut buffer)
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident(&pids), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        start.wait();
        let began = Instant::now();
        for client in clients {
            client.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        began.elapsed().as_secs_f64()
    });
    Round {
        mb_per_s: (IMAGE * u64::from(CLIENTS)) as f64 / 1e6 / seconds,
        server_cpu_s: cpu_s(&pids) - cpu.0,
        client_cpu_s: cpu_s(&own) - cpu.1,
        growth: peak.load(Ordering::Relaxed).saturating_sub(before),
    }
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("site/images/img/disk.raw");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    image(&file);
    let servers = Arc::new([nginx(dir.path()), daemon(dir.path())]);
    for server in servers.iter() {
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_err() {
            if Instant::now() > until {
                let log = fs::read_to_string(dir.path().join("daemon.log")).unwrap_or_default();
                panic!("{} does not listen\n{log}", server.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        compare(server, &file);
    }
    let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
    for n in 0..ROUNDS {
        // Each goes first as often as second.
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let done = round(&servers[which]);
            println!(
                "{:8} {:6.0} MB/s, CPU {:5.2} s server {:5.2} s clients, grew by {:5.1} MB",
                servers[which].name,
                done.mb_per_s,
                done.server_cpu_s,
                done.client_cpu_s,
                done.growth as f64 / 1e6
            );
            rounds[which].push(done);
        }
    }
    let [nginx, farrier] = &rounds;
    let speed = |rounds: &[Round]| median(rounds.iter().map(|r| r.mb_per_s));
    let share = speed(farrier) / speed(nginx);
    let growth = farrier.iter().map(|r| r.growth).max().unwrap_or(0);
    println!(
        "medians: farrier {:.0} MB/s, nginx {:.0} MB/s: {:.0} % (wanted: 80 % or more); \
         the daemon grew by {:.1} MB at most (wanted: {:.0} or less)",
        speed(farrier),
        speed(nginx),
        share * 100.0,
        growth as f64 / 1e6,
        GROWTH as f64 / 1e6
    );
    assert!(share >= 0.8, "{:.0} % of nginx", share * 100.0);
    assert!(growth <= GROWTH, "the daemon grew by {growth} bytes");
}
