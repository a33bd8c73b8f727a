//! `farrier image add|list|verify` with real tools, and how the ramdisk reads its seed.
#![allow(clippy::disallowed_methods, reason = "tests touch the world")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn has(program: &str) -> bool {
    let here =
        ["/usr/bin", "/usr/sbin", "/bin"].iter().any(|d| Path::new(d).join(program).exists());
    if !here {
        println!("skipped: no {program} here");
    }
    here
}

/// `farrier image …` in `dir`; whether it went well, and what it said.
fn image(dir: &Path, words: &[&str]) -> (bool, String) {
    let program =
        std::env::var_os("FARRIER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_farrier").into());
    let out = Command::new(program)
        .args(["--json", "image"])
        .args(words)
        .current_dir(dir)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.success(), said)
}

fn list(dir: &Path) -> Value {
    let (ok, said) = image(dir, &["list"]);
    assert!(ok, "{said}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn images_are_taken_in_listed_and_found_out() {
    if !(has("zstd") && has("qemu-img")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let raw: Vec<u8> = (0..3 << 20).map(|i: u32| u8::try_from(i % 253).unwrap()).collect();
    fs::write(at("disk.img"), &raw).unwrap();
    let run = |program: &str, words: &[&str]| {
        let ok = Command::new(program).args(words).current_dir(dir.path()).status().unwrap();
        assert!(ok.success(), "{program} {words:?}");
    };
    run("zstd", &["-q", "disk.img", "-o", "packed"]);
    run("qemu-img", &["convert", "-O", "qcow2", "disk.img", "cloud.qcow2"]);
    for (file, id) in [("disk.img", "plain"), ("packed", "packed"), ("cloud.qcow2", "cloud")] {
        let (ok, said) = image(dir.path(), &["add", file, "--id", id]);
        assert!(ok, "{file}: {said}");
    }
    let all = list(dir.path());
    let formats: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            assert_eq!(i["image"]["raw_size"], raw.len(), "{i}");
            (i["id"].as_str().unwrap(), i["image"]["format"].as_str().unwrap())
        })
        .collect();
    assert_eq!(formats, [("cloud", "raw-zst"), ("packed", "raw-zst"), ("plain", "raw")]);
    // What a qcow2 was made of is what is served.
    run("zstd", &["-q", "-d", "images/cloud/disk.raw.zst", "-o", "back"]);
    assert!(fs::read(at("back")).unwrap() == raw);
    assert!(image(dir.path(), &["verify"]).0);

    let (ok, said) = image(dir.path(), &["add", "disk.img", "--id", "plain"]);
    assert!(!ok && said.contains("there is an image `plain` already"), "{said}");
    assert!(image(dir.path(), &["add", "disk.img", "--id", "plain", "--replace"]).0);
    let mut bent = raw.clone();
    bent[7] ^= 1;
    fs::write(at("images/plain/disk.raw"), &bent).unwrap();
    let (ok, said) = image(dir.path(), &["verify"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(!ok);
    let sound: Vec<_> = said.as_array().unwrap().iter().map(|i| i["sound"] == true).collect();
    assert_eq!(sound, [true, true, false], "{said}");
}

#[test]
fn what_is_no_disk_image_is_not_taken_in() {
    if !has("zstd") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.gz"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0]).unwrap();
    fs::write(at("small"), b"hello").unwrap();
    fs::write(at("odd"), vec![1; (1 << 20) + 7]).unwrap();
    fs::write(at("cut.zst"), [0x28, 0xb5, 0x2f, 0xfd, 0x24, 9, 9, 9]).unwrap();
    for (file, id, why) in [
        ("a.gz", "a", "is gzip"),
        ("small", "b", "no disk image"),
        ("odd", "c", "no disk image"),
        ("cut.zst", "d", "can't be unpacked"),
        ("gone", "e", "reading"),
        ("odd", "../f", "no id for an image"),
        ("odd", "farrier-ramdisk", "no id for an image"),
    ] {
        let (ok, said) = image(dir.path(), &["add", file, "--id", id]);
        assert!(!ok && said.contains(why), "{file}: {said}");
    }
    assert_eq!(list(dir.path()), Value::Array(vec![]));
    let left: Vec<_> = fs::read_dir(at("images")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The seed as the boot server gives it, read by the awk of the ramdisk and by Debian's.
#[test]
fn the_ramdisk_reads_its_seed() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app/image/ramdisk/json.awk");
    let mut readers = vec![];
    if has("busybox") {
        readers.push(vec!["busybox", "awk"]);
    }
    if has("awk") {
        readers.push(vec!["awk"]);
    }
    let read = |reader: &[&str], text: &str| {
        let mut child = Command::new(reader[0])
            .args(&reader[1..])
            .arg("-f")
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    for reader in readers {
        let seed = r#"{"kind":"ramdisk","name":"n\u0031","run":"run-1","token":"a\/b\"c","z":null,
            "callback":"http://10.0.0.1:80/boot/x/callback","empty":[],"n":{"deep":[true,1.5e3]},
            "authorized_keys":["ssh-ed25519 AAAA ops@x","ssh-ed25519 BBBB"],"evil":"a\nrun=other"}"#;
        let (ok, said) = read(&reader, seed);
        assert!(ok, "{reader:?}");
        assert_eq!(
            said,
            "kind=ramdisk\nname=n1\nrun=run-1\ntoken=a/b\"c\n\
             callback=http://10.0.0.1:80/boot/x/callback\nn.deep.0=true\nn.deep.1=1.5e3\n\
             authorized_keys.0=ssh-ed25519 AAAA ops@x\nauthorized_keys.1=ssh-ed25519 BBBB\n\
             evil=arun=other\n",
            "{reader:?}"
        );
        for bad in ["", "{", r#"{"a":}"#, r#"{"a" 1}"#, r#"{"a":1} x"#, "[1,", r#"{"a":"x"#] {
            assert!(!read(&reader, bad).0, "{reader:?}: {bad}");
        }
    }
}
