//! deploy.sh on disks that are files, against an HTTP server with moods: the image on the one disk that
//! fits and its seed behind it, or a clear end and a disk that boots nothing.

use crate::world::{OTHER, SERIAL, UUID, World, find};
use farrier::model::deploy::{DiskKind, ImageFormat, RootDisk};
use farrier::port::Secret;
use farrier::port::deploy::{DeployOrder, SeedFile};
use farrier::shell::script;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const MIB: usize = 1 << 20;

/// How the server behaves.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Good,
    /// Closes each connection after so many bytes.
    Cuts(usize),
    /// The same, and answers the whole file to a Range.
    CutsAndKnowsNoRange(usize),
    Says(u16),
    /// Its file ends here.
    EndsAt(usize),
    /// Closes the first connection after so many bytes, and has a file with another ETag from then on.
    /// The second: goes on at the range all the same, as servers do that don't know If-Range.
    Changes(usize),
    ChangesUnasked(usize),
    /// Is gone after so many bytes, and back a second later.
    Dies(usize),
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) connections: Arc<AtomicUsize>,
}

pub(crate) fn serve(body: Vec<u8>, mood: Mood) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    std::thread::spawn(move || {
        let mut listener = listener;
        let address = listener.local_addr().unwrap();
        while let Ok((stream, _)) = listener.accept() {
            let before = count.fetch_add(1, Ordering::SeqCst);
            answer(stream, &body, mood, before).ok();
            if matches!(mood, Mood::Dies(_)) && before == 0 {
                drop(listener);
                std::thread::sleep(std::time::Duration::from_secs(1));
                listener = TcpListener::bind(address).unwrap();
            }
        }
    });
    Server { url, connections }
}

/// `before`: connections that came before this one.
fn answer(mut stream: TcpStream, body: &[u8], mood: Mood, before: usize) -> std::io::Result<()> {
    let (mut from, mut only_if) = (0, None);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        if let Some(tag) = line.strip_prefix("if-range: ") {
            only_if = Some(tag.to_string());
        }
        if line.is_empty() {
            break;
        }
    }
    let changed = before > 0 && matches!(mood, Mood::Changes(_) | Mood::ChangesUnasked(_));
    let etag = if changed { "\"new\"" } else { "\"old\"" };
    if only_if.is_some_and(|tag| tag != etag) && !matches!(mood, Mood::ChangesUnasked(_)) {
        from = 0;
    }
    let body = if let Mood::EndsAt(end) = mood { &body[..end] } else { body };
    if let Mood::Says(status) = mood {
        return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
    }
    if matches!(mood, Mood::CutsAndKnowsNoRange(_)) {
        from = 0;
    }
    let rest = &body[from..];
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\nETag: {etag}\r\nConnection: close\r\n\r\n",
        rest.len(),
        body.len() - 1,
        body.len()
    )?;
    let sent = match mood {
        Mood::Cuts(n) | Mood::CutsAndKnowsNoRange(n) => rest.len().min(n),
        Mood::Changes(n) | Mood::ChangesUnasked(n) | Mood::Dies(n) if before == 0 => {
            rest.len().min(n)
        }
        _ => rest.len(),
    };
    stream.write_all(&rest[..sent])
}

/// The tools of the ramdisk that this machine has; `None`, with a line that says so, where one lacks.
pub(crate) fn world() -> Option<World> {
    for tool in ["curl", "zstd", "sgdisk", "mkfs.vfat", "mcopy"] {
        if find(tool).is_none() {
            println!("skipped: no {tool} here (Debian: curl zstd gdisk dosfstools mtools)");
            return None;
        }
    }
    Some(World::new())
}

/// A whole-disk image of 8 MiB with a GPT and one partition of noise.
pub(crate) fn raw_image(w: &World) -> Vec<u8> {
    let path = w.dir.path().join("image.raw");
    let noise: Vec<u8> = (0..8 * 1_048_576_u32)
        .map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    fs::write(&path, &noise).unwrap();
    tool(w, "sgdisk", &["-Z", path.to_str().unwrap()]);
    tool(w, "sgdisk", &["-n", "1:2048:+4M", "-c", "1:root", path.to_str().unwrap()]);
    fs::read(path).unwrap()
}

pub(crate) fn tool(w: &World, name: &str, arguments: &[&str]) -> String {
    let out = w.run(Command::new(find(name).unwrap()).args(arguments), "");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

pub(crate) fn zstd(raw: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw");
    fs::write(&path, raw).unwrap();
    let out = Command::new(find("zstd").unwrap()).args(["-q", "-c"]).arg(path).output().unwrap();
    out.stdout
}

pub(crate) fn order(served: &[u8], raw_size: usize, format: ImageFormat, url: &str) -> DeployOrder {
    let file = |name: &str, text: &str| SeedFile { name: name.into(), content: Secret::new(text) };
    DeployOrder {
        image: "debian-12".into(),
        run: "run-7".into(),
        image_url: url.into(),
        format,
        sha256: hex::encode(Sha256::digest(served)),
        size: served.len() as u64,
        raw_size: raw_size as u64,
        root: RootDisk::default(),
        allow_existing_data: false,
        seed: vec![
            file("user-data", "#cloud-config\nssh_keys:\n  private: |\n    it's a $ECRET `key`\n"),
            file("meta-data", "instance-id: run-7\n"),
        ],
    }
}

pub(crate) fn disk(w: &World, name: &str, bytes: usize) -> PathBuf {
    let path = w.root.join("dev/disk").join(name);
    fs::File::create(&path).unwrap().set_len(bytes as u64).unwrap();
    path
}

pub(crate) fn deploy(w: &World, order: &DeployOrder) -> (Option<i32>, Value) {
    deploy_as(w, order, &[UUID, SERIAL], &[])
}

pub(crate) fn deploy_as(
    w: &World,
    order: &DeployOrder,
    who: &[&str],
    env: &[(&str, &str)],
) -> (Option<i32>, Value) {
    let job = w.dir.path().join("job");
    let _ = fs::remove_dir_all(&job);
    fs::create_dir(&job).unwrap();
    let (payload, result) = (job.join("payload.sh"), job.join("result"));
    fs::write(&payload, script::deploy(order)).unwrap();
    let mut command = Command::new("sh");
    command.arg(&payload).args(who).env("FARRIER_RESULT", &result);
    command.envs(env.iter().copied());
    let out = w.run(&mut command, "");
    let said =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(!said.contains("ECRET"), "the output tells the seed: {said}");
    assert!(!payload.exists(), "the order with its secrets is still there");
    assert!(!job.join("result.work").exists(), "scratch files are left: {said}");
    let text = fs::read_to_string(&result).unwrap_or_else(|e| panic!("{e}: {said}"));
    (out.status.code(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// Is the image held in memory before the disk is touched, or written as it comes?
const HELD: [(&str, &str); 2] = [("FARRIER_HOLD", "yes"), ("FARRIER_HOLD", "no")];

pub(crate) fn boots_nothing(path: &Path) -> bool {
    fs::read(path).unwrap().iter().take(MIB).all(|b| *b == 0)
}

#[test]
fn the_image_lies_on_the_disk_and_the_seed_behind_it() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    let formats = [(ImageFormat::Raw, raw.clone()), (ImageFormat::RawZst, zstd(&raw))];
    for ((format, served), held) in formats.iter().flat_map(|f| HELD.map(|h| (f, h))) {
        let server = serve(served.clone(), Mood::Good);
        let path = disk(&w, "vda", 64 * MIB + 512 * 5);
        let told = order(served, raw.len(), *format, &server.url);
        let (exit, v) = deploy_as(&w, &told, &[UUID, SERIAL], &[held]);
        assert_eq!(exit, Some(0), "{v}");
        assert_eq!((&v["ok"], &v["written"]), (&Value::Bool(true), &Value::from(raw.len())));
        assert_eq!((&v["disk"]["serial"], &v["run"]), (&"S-vda".into(), &"run-7".into()));
        let now = fs::read(&path).unwrap();
        assert_eq!(now.len(), 64 * MIB + 512 * 5, "the disk kept its size");
        assert!(now[MIB..raw.len() - MIB] == raw[MIB..raw.len() - MIB], "{format:?}");
        let gpt = tool(&w, "sgdisk", &["-v", "-p", path.to_str().unwrap()]);
        assert!(gpt.contains("No problems found"), "{gpt}");
        assert!(gpt.contains("root") && gpt.contains("CIDATA"), "{gpt}");
        // The seed, as cloud-init finds it.
        let about = tool(&w, "sgdisk", &["-i", "2", path.to_str().unwrap()]);
        let sector: usize = about
            .lines()
            .find_map(|l| l.strip_prefix("First sector: "))
            .and_then(|l| l.split(' ').next()?.parse().ok())
            .unwrap();
        let at = format!("{}@@{}", path.display(), sector * 512);
        let seed = tool(&w, "mtype", &["-i", &at, "::user-data"]);
        assert!(seed.ends_with("    it's a $ECRET `key`\n"), "{seed}");
        assert!(
            tool(&w, "mtype", &["-i", &at, "::farrier"]).contains("image=debian-12\nrun=run-7")
        );
        assert!(tool(&w, "mdir", &["-i", &at, "::"]).contains("Volume in drive : is CIDATA"));
    }
}

#[test]
fn a_connection_that_breaks_is_gone_on_with() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    for held in HELD {
        let server = serve(raw.clone(), Mood::Cuts(MIB + 12_345));
        let path = disk(&w, "vda", 32 * MIB);
        let told = order(&raw, raw.len(), ImageFormat::Raw, &server.url);
        let (exit, v) = deploy_as(&w, &told, &[UUID, SERIAL], &[held]);
        assert_eq!(exit, Some(0), "{held:?}: {v}");
        assert_eq!(server.connections.load(Ordering::SeqCst), 8, "{held:?}");
        assert!(fs::read(&path).unwrap()[MIB..7 * MIB] == raw[MIB..7 * MIB], "{held:?}");
    }
}

#[test]
fn a_server_that_dies_is_waited_for() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    let server = serve(raw.clone(), Mood::Dies(3 * MIB));
    let path = disk(&w, "vda", 32 * MIB);
    let (exit, v) = deploy(&w, &order(&raw, raw.len(), ImageFormat::Raw, &server.url));
    assert_eq!(exit, Some(0), "{v}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 2, "it went on where it was");
    assert!(fs::read(&path).unwrap()[MIB..7 * MIB] == raw[MIB..7 * MIB]);
}

/// What it is called, what is served, how, as which format, of which raw size, and the word for it.
type Case = (&'static str, Vec<u8>, Mood, ImageFormat, usize, &'static str);

/// Each mistake has its word, and leaves a disk on which no firmware finds anything. One that the file
/// itself tells is told before the disk is touched, where memory holds the file.
#[test]
fn what_is_wrong_never_boots() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    let packed = zstd(&raw);
    let mut flipped = raw.clone();
    flipped[5 * MIB] ^= 1;
    let cases: Vec<Case> = vec![
        ("another image", flipped.clone(), Mood::Good, ImageFormat::Raw, raw.len(), "wrong-sha256"),
        (
            "cut off",
            raw.clone(),
            Mood::EndsAt(3 * MIB),
            ImageFormat::Raw,
            raw.len(),
            "fetch-failed",
        ),
        ("gone", raw.clone(), Mood::Says(404), ImageFormat::Raw, raw.len(), "fetch-failed"),
        ("broken", raw.clone(), Mood::Says(503), ImageFormat::Raw, raw.len(), "fetch-failed"),
        (
            "no range",
            raw.clone(),
            Mood::CutsAndKnowsNoRange(2 * MIB),
            ImageFormat::Raw,
            raw.len(),
            "fetch-failed",
        ),
        (
            "another file half-way",
            raw.clone(),
            Mood::Changes(3 * MIB),
            ImageFormat::Raw,
            raw.len(),
            "image-changed",
        ),
        (
            "another file, and it does not ask",
            raw.clone(),
            Mood::ChangesUnasked(3 * MIB),
            ImageFormat::Raw,
            raw.len(),
            "image-changed",
        ),
        (
            "a packed image that was cut before it was taken in",
            packed[..packed.len() - 64].to_vec(),
            Mood::Good,
            ImageFormat::RawZst,
            raw.len(),
            "image-broken",
        ),
        ("smaller", packed.clone(), Mood::Good, ImageFormat::RawZst, 9 * MIB, "image-smaller"),
        ("larger", packed.clone(), Mood::Good, ImageFormat::RawZst, 4 * MIB, "image-larger"),
        ("not zstd", raw.clone(), Mood::Good, ImageFormat::RawZst, raw.len(), "image-broken"),
        ("no table", vec![7; 8 * MIB], Mood::Good, ImageFormat::Raw, 8 * MIB, "image-without-gpt"),
    ];
    let cases = cases.iter().flat_map(|case| HELD.map(|held| (case, held)));
    for ((what, served, mood, format, raw_size, code), held) in cases {
        let server = serve(served.clone(), *mood);
        let path = disk(&w, "vda", 32 * MIB);
        // What was there; the order allows it to go.
        fs::write(&path, vec![b'D'; 32 * MIB]).unwrap();
        let told = if *what == "another image" { &raw } else { served };
        let mut told = order(told, *raw_size, *format, &server.url);
        told.allow_existing_data = true;
        let env = [("FARRIER_FETCH_TRIES", "1"), held];
        let (exit, v) = deploy_as(&w, &told, &[UUID, SERIAL], &env);
        let what = format!("{what}, {held:?}");
        assert_eq!((exit, &v["ok"]), (Some(4), &Value::Bool(false)), "{what}: {v}");
        assert_eq!(v["error"].as_str(), Some(*code), "{what}: {v}");
        let is_told_by_the_file = ["wrong-sha256", "fetch-failed", "image-changed"].contains(code);
        if held.1 == "yes" && is_told_by_the_file {
            assert!(fs::read(&path).unwrap().iter().all(|b| *b == b'D'), "{what}: it was touched");
            continue;
        }
        assert!(boots_nothing(&path), "{what}: the disk starts with something");
        assert!(
            fs::read(&path).unwrap()[31 * MIB..].iter().all(|b| *b == 0),
            "{what}: a backup GPT"
        );
    }
}

#[test]
fn exactly_one_disk_fits_the_rule_or_none_is_touched() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    let server = serve(raw.clone(), Mood::Good);
    let [a, b] = [disk(&w, "vda", 32 * MIB), disk(&w, "vdb", 48 * MIB)];
    let all = order(&raw, raw.len(), ImageFormat::Raw, &server.url);
    let rules = [
        (RootDisk::default(), "several-root-disks"),
        (RootDisk { kind: Some(DiskKind::Virtio), ..RootDisk::default() }, "several-root-disks"),
        (RootDisk { kind: Some(DiskKind::Nvme), ..RootDisk::default() }, "no-root-disk"),
        (RootDisk { serial: Some("S-vd".into()), ..RootDisk::default() }, "no-root-disk"),
        (RootDisk { model: Some("test".into()), ..RootDisk::default() }, "no-root-disk"),
        (RootDisk { model: Some("test*".into()), ..RootDisk::default() }, "several-root-disks"),
        (RootDisk { min_bytes: Some(64 << 20), ..RootDisk::default() }, "no-root-disk"),
        (RootDisk { by_id: Some("no-such-link".into()), ..RootDisk::default() }, "no-root-disk"),
    ];
    for (root, code) in rules {
        let (exit, v) = deploy(&w, &DeployOrder { root: root.clone(), ..all.clone() });
        assert_eq!((exit, v["error"].as_str()), (Some(4), Some(code)), "{root:?}: {v}");
        let why = v["message"].as_str().unwrap();
        assert!(why.contains("vda") && why.contains("vdb"), "the disks are named: {why}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0, "nothing was fetched");
    assert!(boots_nothing(&a) && boots_nothing(&b));
    for root in [
        RootDisk { serial: Some("S-vdb".into()), ..RootDisk::default() },
        RootDisk { min_bytes: Some(40 << 20), ..RootDisk::default() },
        RootDisk { model: Some("test*".into()), min_bytes: Some(40 << 20), ..RootDisk::default() },
    ] {
        disk(&w, "vdb", 48 * MIB);
        let (exit, v) = deploy(&w, &DeployOrder { root: root.clone(), ..all.clone() });
        assert_eq!((exit, v["disk"]["name"].as_str()), (Some(0), Some("vdb")), "{root:?}: {v}");
        assert!(boots_nothing(&a), "the other disk is untouched");
    }
}

#[test]
fn data_is_kept_unless_the_order_says_otherwise() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    let server = serve(raw.clone(), Mood::Good);
    let mut told = order(&raw, raw.len(), ImageFormat::Raw, &server.url);
    let path = disk(&w, "vda", 32 * MIB);
    fs::write(&path, [vec![0; 4096], vec![9; 32 * MIB - 4096]].concat()).unwrap();
    let (exit, v) = deploy(&w, &told);
    assert_eq!((exit, v["error"].as_str()), (Some(4), Some("holds-data")), "{v}");
    assert_eq!(fs::read(&path).unwrap()[4096], 9);
    told.allow_existing_data = true;
    assert_eq!(deploy(&w, &told).0, Some(0));
    let path = disk(&w, "vda", 9 * MIB);
    let (exit, v) = deploy(&w, &told);
    assert_eq!((exit, v["error"].as_str()), (Some(4), Some("disk-too-small")), "{v}");
    assert!(boots_nothing(&path));
}

#[test]
fn another_machine_keeps_its_disk() {
    let Some(w) = world() else { return };
    let raw = raw_image(&w);
    let server = serve(raw.clone(), Mood::Good);
    let told = order(&raw, raw.len(), ImageFormat::Raw, &server.url);
    let path = disk(&w, "vda", 32 * MIB);
    for (who, why) in [
        ([OTHER, SERIAL], "another machine"),
        ([UUID, "FRR-0043"], "another machine"),
        (["-", "-"], "nobody can tell"),
    ] {
        let (exit, v) = deploy_as(&w, &told, &who, &[]);
        assert_eq!((exit, &v["ok"]), (Some(3), &Value::Bool(false)), "{v}");
        assert!(v["refused"].as_str().unwrap().contains(why), "{v}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
    assert!(boots_nothing(&path));
}

/// The job's directory is a file system of 2.5 MiB: room for the order and the seed volume, not for the
/// first MiB of the image beside them. Needs root, for the mount.
#[test]
fn a_full_ramdisk_is_a_clear_end() {
    let Some(w) = world() else { return };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a file system of a size needs root");
        return;
    }
    let raw = raw_image(&w);
    let server = serve(raw.clone(), Mood::Good);
    let told = order(&raw, raw.len(), ImageFormat::Raw, &server.url);
    // 4 MiB: for half of the image.
    for (kib, hold) in [(60, "no"), (600, "no"), (1400, "no"), (4096, "yes")] {
        let path = disk(&w, "vda", 32 * MIB);
        let job = w.dir.path().join("job");
        fs::create_dir_all(&job).unwrap();
        let text = w.dir.path().join("order.sh");
        fs::write(&text, script::deploy(&told)).unwrap();
        let out = w.dir.path().join("said");
        let script = format!(
            "mount -t tmpfs -o size={kib}k tmpfs '{job}' && cd '{job}' && \
             FARRIER_HOLD={hold} FARRIER_RESULT='{job}/result' sh '{text}' {UUID} {SERIAL} >/dev/null; cp '{job}/result' '{out}'",
            job = job.display(),
            text = text.display(),
            out = out.display()
        );
        let mut command = Command::new(find("unshare").unwrap());
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        w.run(&mut command, "");
        let said: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
        assert_eq!(said["error"], "ramdisk-full", "{kib} KiB: {said}");
        assert!(boots_nothing(&path), "{kib} KiB");
        fs::remove_file(out).unwrap();
    }
}
