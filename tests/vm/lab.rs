//! A rack without hardware: virtual machines under a libvirtd of the test's own, each with a sushy-tools
//! BMC, on a network that only they and the test are on. All of it lives in a network namespace and in
//! a temporary directory, and goes with the [`Lab`].

use crate::machine::{Machine, Plan};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The test's side of the machines' network.
pub(crate) const GATEWAY: &str = "10.77.0.1";
/// The site's own DHCP server, where there is one.
pub(crate) const NEIGHBOUR: &str = "10.77.0.2";
/// For the BMCs' credential.
pub(crate) const BMC_USER: &str = "admin";
pub(crate) const BMC_PASSWORD: &str = "lab-password-1";

/// What must be on this machine, by Debian's package.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("libvirtd", "libvirt-daemon"),
    ("virsh", "libvirt-clients"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("ssh-keygen", "openssh-client"),
];

/// How the names of all labs' namespaces begin; the number of the process comes next.
const PREFIX: &str = "fvm";

pub(crate) struct Lab {
    dir: tempfile::TempDir,
    netns: String,
    children: Vec<Child>,
    machines: u32,
}

/// Is KVM here, and of the kind that runs any kernel? A software KVM hangs (field notes, lab §1).
pub(crate) fn kvm() -> bool {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpus.split_whitespace().any(|w| w == "vmx" || w == "svm")
        && fs::File::options().write(true).open("/dev/kvm").is_ok()
}

/// Deadlines are for software emulation on busy cores; with KVM the same waits just end sooner.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(crate) fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_string()
}

/// No lab here. Whoever named an emulator asked for the tests; else it is said where it is seen: what a
/// test prints is kept from people while it passes, what goes to the descriptor is not.
pub(crate) fn skip(why: &str) {
    let asked = std::env::var_os("FARRIER_SUSHY_LIBVIRT").is_some();
    assert!(!asked, "{why}; `tests/run.sh --only vm` sees to all that is needed");
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    let said = format!("SKIPPED {test}: {why}; `tests/run.sh --only vm` runs it\n");
    std::io::stderr().write_all(said.as_bytes()).ok();
}

fn installed(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|d| Path::new(d).join(program).exists())
}

/// Labs stand side by side, each in namespaces of its own: as many as the test harness runs tests, and
/// that is one a core.
static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// `None`, with a line that says what is missing ([`skip`]), where there can be no lab.
    pub(crate) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("the lab of virtual machines needs root (namespaces, libvirtd)");
            return None;
        }
        for (program, package) in PROGRAMS {
            if !installed(program) {
                skip(&format!("no {program} here (Debian: {package})"));
                return None;
            }
        }
        let number = LABS.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            sweep();
        }
        let mut lab = Self {
            dir: tempfile::Builder::new().prefix("farrier-vm-").tempdir().unwrap(),
            netns: format!("{PREFIX}{}-{number}", std::process::id()),
            children: Vec::new(),
            machines: 0,
        };
        lab.network();
        lab.libvirtd();
        Some(lab)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn netns(&self) -> &str {
        &self.netns
    }

    /// A program that sees the lab's network.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, program]);
        command
    }

    /// Runs `work` on a thread that is on the lab's network, with all that it starts.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.netns);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn network(&self) {
        run(Command::new("ip").args(["netns", "add", &self.netns]));
        let ip = |arguments: &str| {
            run(Command::new("ip").args(["-n", &self.netns]).args(arguments.split(' ')));
        };
        ip("link set lo up");
        ip("link add lab0 type bridge");
        ip(&format!("addr add {GATEWAY}/24 dev lab0"));
        ip("link set lab0 up");
        // So that a switch's word about itself passes: bridges keep it to themselves otherwise.
        let mask = "echo 0x4000 >/sys/class/net/lab0/bridge/group_fwd_mask";
        run(self.command("sh").args(["-c", mask]));
    }

    /// A libvirtd with every file of its own; nothing outside of the lab's directory is touched.
    fn libvirtd(&mut self) {
        for sub in ["etc", "run", "lib/dnsmasq", "log", "cache", "pool", "console"] {
            fs::create_dir_all(self.path(sub)).unwrap();
        }
        fs::write(
            self.path("etc/qemu.conf"),
            "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\n\
             security_driver = \"none\"\ncgroup_controllers = []\nnamespaces = []\n\
             stdio_handler = \"file\"\n",
        )
        .unwrap();
        let run_dir = self.path("run").display().to_string();
        fs::write(
            self.path("etc/libvirtd.conf"),
            format!(
                "unix_sock_dir = \"{run_dir}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
                 listen_tls = 0\nlisten_tcp = 0\nlog_outputs = \"2:file:{}\"\n",
                self.path("log/libvirtd.log").display()
            ),
        )
        .unwrap();
        // It insists on its compiled-in account, which another package makes: it gets a copy with it.
        for (file, line) in [
            ("passwd", "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"),
            ("group", "libvirt-qemu:x:64055:\nlibvirt:x:64056:"),
        ] {
            let mut text = fs::read_to_string(format!("/etc/{file}")).unwrap();
            if !text.contains("libvirt-qemu:") {
                text.push_str(line);
                text.push('\n');
            }
            fs::write(self.path(file), text).unwrap();
        }
        let script = "set -e\nmkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt\n\
             for d in etc run; do mount --bind \"$1/$d\" \"/$d/libvirt\"; done\n\
             for d in lib log cache; do mount --bind \"$1/$d\" \"/var/$d/libvirt\"; done\n\
             for f in passwd group; do mount --bind \"$1/$f\" \"/etc/$f\"; done\n\
             exec /usr/sbin/libvirtd -f /etc/libvirt/libvirtd.conf -p \"$1/run/libvirtd.pid\"";
        let log = fs::File::create(self.path("log/stdout")).unwrap();
        let child = self
            .command("nice")
            .args([
                "-n",
                "5",
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
        let socket = self.path("run/libvirt-sock");
        until("libvirtd listens", Duration::from_secs(60), || socket.exists().then_some(()));
        // sushy-tools keeps the media that it inserts in this pool.
        let pool = self.path("pool").display().to_string();
        self.virsh(&["pool-define-as", "default", "dir", "--target", &pool]);
        self.virsh(&["pool-start", "default"]);
    }

    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.path("run/libvirt-sock").display())
    }

    pub(crate) fn virsh(&self, arguments: &[&str]) -> String {
        run(Command::new("virsh").args(["-q", "-c", &self.uri()]).args(arguments))
    }

    /// Defines a machine that is off and blank, and starts its BMC.
    pub(crate) fn machine(&mut self, plan: &Plan) -> Machine {
        self.machines += 1;
        let (machine, bmc) = Machine::define(self, self.machines, plan);
        self.children.push(bmc);
        machine
    }

    /// DHCP and TFTP as a site's own server would have them: addresses by MAC, iPXE by TFTP, and for
    /// iPXE the script at `script` (`{mac}` is left to iPXE).
    pub(crate) fn dhcp(&mut self, script: &str) {
        let dir = self.path("dhcp");
        fs::create_dir_all(dir.join("tftp")).unwrap();
        for name in ["undionly.kpxe", "snponly.efi"] {
            fs::copy(Path::new("/usr/lib/ipxe").join(name), dir.join("tftp").join(name)).unwrap();
        }
        let config = format!(
            "enable-tftp\ntftp-root={dir}/tftp\n{hosts}\
             dhcp-match=set:bios,option:client-arch,0\ndhcp-match=set:efi64,option:client-arch,7\n\
             dhcp-match=set:efi64,option:client-arch,9\ndhcp-userclass=set:ipxe,iPXE\n\
             dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe\ndhcp-boot=tag:efi64,tag:!ipxe,snponly.efi\n\
             dhcp-boot=tag:ipxe,{script}\n",
            dir = dir.display(),
            hosts = reservations(1..=9),
        );
        let netns = self.netns.clone();
        self.dnsmasq(&netns, "lab0", &config);
    }

    /// A site's own DHCP server, on a host of its own: addresses and nothing to boot. The machines with
    /// these numbers have a reservation, all others get what is free.
    pub(crate) fn neighbour(&mut self, reserved: &[u32]) {
        let netns = self.neighbour_netns();
        let ip = |arguments: &str| {
            run(Command::new("ip").args(arguments.split(' ')));
        };
        ip(&format!("netns add {netns}"));
        ip(&format!("-n {} link add dhcp0 type veth peer name eth0 netns {netns}", self.netns));
        ip(&format!("-n {} link set dhcp0 master lab0 up", self.netns));
        ip(&format!("-n {netns} addr add {NEIGHBOUR}/24 dev eth0"));
        ip(&format!("-n {netns} link set eth0 up"));
        fs::create_dir_all(self.path("dhcp")).unwrap();
        let hosts = reservations(reserved.iter().copied());
        self.dnsmasq(&netns, "eth0", &format!("{hosts}dhcp-option=3,{GATEWAY}\n"));
    }

    fn neighbour_netns(&self) -> String {
        format!("{}-dhcp", self.netns)
    }

    fn dnsmasq(&mut self, netns: &str, interface: &str, more: &str) {
        let dir = self.path("dhcp");
        let config = format!(
            "port=0\ninterface={interface}\nbind-interfaces\nexcept-interface=lo\nuser=root\nlog-dhcp\n\
             log-facility={dir}/log\ndhcp-leasefile={dir}/leases\n\
             dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0,1h\n{more}",
            dir = dir.display()
        );
        fs::write(dir.join("dnsmasq.conf"), config).unwrap();
        let file = format!("--conf-file={}", dir.join("dnsmasq.conf").display());
        let child = Command::new("ip")
            .args(["netns", "exec", netns, "dnsmasq", "--keep-in-foreground", &file])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    /// What the site's own DHCP server wrote down.
    pub(crate) fn neighbour_log(&self) -> String {
        fs::read_to_string(self.path("dhcp/log")).unwrap_or_default()
    }
}

/// Addresses of these machines, by MAC alone: client identifiers differ from loader to loader.
fn reservations(numbers: impl IntoIterator<Item = u32>) -> String {
    let line = |n| format!("dhcp-host=52:54:00:77:00:{n:02x},id:*,10.77.0.{}\n", 10 + n);
    numbers.into_iter().map(line).collect()
}

/// Command lines that name this path.
fn processes_with(path: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = all.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    let lines = lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
    lines.filter(|l| l.contains(path)).collect()
}

/// Ends what still runs in the namespace, and the namespace.
fn remove(netns: &str) {
    let out = Command::new("ip").args(["netns", "pids", netns]).output();
    let pids = out.map(|o| String::from_utf8_lossy(&o.stdout).to_string()).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|p| p.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
    Command::new("ip").args(["netns", "del", netns]).stderr(Stdio::null()).status().ok();
}

/// What a test run left that was killed before it could clear up.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().to_string();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let gone = |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
        if owner.is_some_and(gone) {
            println!("removing {name}, which an earlier run left");
            remove(&name);
        }
    }
}

pub(crate) fn enter(netns: &str) {
    let file = fs::File::open(format!("/run/netns/{netns}")).unwrap();
    rustix::thread::move_into_link_name_space(
        file.as_fd(),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )
    .unwrap();
}

impl Drop for Lab {
    fn drop(&mut self) {
        let virsh = |arguments: &[&str]| {
            let out =
                Command::new("virsh").args(["-q", "-c", &self.uri()]).args(arguments).output();
            out.map(|o| String::from_utf8_lossy(&o.stdout).to_string()).unwrap_or_default()
        };
        for name in virsh(&["list", "--name"]).split_whitespace() {
            virsh(&["destroy", name]);
        }
        for child in self.children.iter_mut().rev() {
            // libvirtd and the emulators end by themselves when asked.
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(50));
            }
            child.kill().ok();
            child.wait().ok();
        }
        let mine = [self.neighbour_netns(), self.netns.clone()];
        mine.iter().for_each(|netns| remove(netns));
        if !std::thread::panicking() {
            let dir = self.dir.path().display().to_string();
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            assert!(!mounts.contains(&dir), "the lab left mounts behind:\n{mounts}");
            let left = mine.iter().find(|n| Path::new("/run/netns").join(n).exists());
            assert_eq!(left, None, "the lab left a namespace behind");
            let left = processes_with(&dir);
            assert!(left.is_empty(), "the lab left processes behind:\n{left:#?}");
        } else {
            for console in fs::read_dir(self.path("console")).into_iter().flatten().flatten() {
                let text = fs::read(console.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().rev().take(40).collect();
                println!("-- the end of {}", console.file_name().display());
                lines.iter().rev().for_each(|line| println!("{line}"));
            }
        }
    }
}
