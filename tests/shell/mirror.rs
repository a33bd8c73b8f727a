//! deploy.sh onto an md mirror. `mdadm` is a program of the test's: its array is a plain file that lies on
//! both disks once it is stopped, with a superblock behind it. The real one: `tests/vm/mirror.rs`.

use crate::deploy::{MIB, Mood, boots_nothing, deploy, disk, order, raw_image, serve, tool, world};
use crate::world::World;
use farrier::model::deploy::{DiskKind, ImageFormat, RootDisk};
use farrier::port::deploy::DeployOrder;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// What it does to the disks when it is stopped is `$1` the array, `$2` and `$3` the disks.
const MDADM: &str = r#"
echo "$*" >>"$FARRIER_ROOT/calls"
case $1 in
    --create)
        array=$2
        while [ $# -gt 2 ]; do shift; done
        printf '%s\n' "$1" "$2" >"$FARRIER_ROOT/members"
        small=$(stat -c %s "$1" "$2" | sort -n | head -n 1)
        head -c $((small - 131072)) "$1" >"$array"
        echo "mdadm: array $array started."
        ;;
    --stop)
        while read -r member; do
            dd if="$2" of="$member" bs=1M conv=notrunc LOSES 2>/dev/null
            printf 'md superblock' | dd of="$member" bs=1 conv=notrunc oflag=seek_bytes \
                seek=$(($(stat -c %s "$member") - 8192)) 2>/dev/null
        done <"$FARRIER_ROOT/members"
        rm "$2" "$FARRIER_ROOT/members"
        ;;
    *) exit 1 ;;
esac
"#;

fn mirrors() -> RootDisk {
    RootDisk { kind: Some(DiskKind::Virtio), mirror: true, ..RootDisk::default() }
}

fn setting() -> Option<(World, Vec<u8>, DeployOrder)> {
    let w = world()?;
    w.shim("mdadm", &MDADM.replace("LOSES", ""));
    let raw = raw_image(&w);
    let server = serve(raw.clone(), Mood::Good);
    let told = order(&raw, raw.len(), ImageFormat::Raw, &server.url);
    Some((w, raw, DeployOrder { root: mirrors(), ..told }))
}

fn code(v: &Value) -> &str {
    v["error"].as_str().unwrap_or("none")
}

fn ends_blank(path: &Path) -> bool {
    fs::read(path).unwrap().iter().rev().take(MIB).all(|b| *b == 0)
}

#[test]
fn each_disk_of_a_mirror_starts_alone() {
    let Some((w, raw, told)) = setting() else { return };
    // Two makers' idea of one size.
    let disks = [disk(&w, "vda", 64 * MIB + 512 * 5), disk(&w, "vdb", 64 * MIB)];
    let (exit, v) = deploy(&w, &told);
    assert_eq!(exit, Some(0), "{v}");
    let serials: Vec<&Value> =
        v["mirror"]["disks"].as_array().unwrap().iter().map(|d| &d["serial"]).collect();
    assert_eq!(serials, ["S-vda", "S-vdb"], "{v}");
    assert_eq!((&v["disk"]["serial"], &v["ok"]), (&"S-vda".into(), &true.into()), "{v}");
    let size = usize::try_from(v["mirror"]["bytes"].as_u64().unwrap()).unwrap();
    assert_eq!(size, 64 * MIB - 131_072);
    let calls = w.read("calls");
    assert_eq!(calls.lines().count(), 2, "made and stopped:\n{calls}");
    assert!(calls.contains("--metadata=1.0") && calls.contains("--level=1"), "{calls}");
    assert!(!calls.contains("assume-clean"), "nobody knows that both are alike: {calls}");
    let [a, b] = disks.each_ref().map(|d| fs::read(d).unwrap());
    assert!(a[..size] == b[..size], "the same on both");
    assert!(a[MIB..raw.len() - MIB] == raw[MIB..raw.len() - MIB]);
    // As firmware sees one alone, and as the array is seen.
    let shown = tool(&w, "sgdisk", &["-p", disks[1].to_str().unwrap()]);
    assert!(shown.contains("root") && shown.contains("CIDATA"), "{shown}");
    let array = w.dir.path().join("array");
    fs::write(&array, &b[..size]).unwrap();
    let gpt = tool(&w, "sgdisk", &["-v", array.to_str().unwrap()]);
    assert!(gpt.contains("No problems found"), "{gpt}");
}

#[test]
fn a_mirror_takes_exactly_two_disks_of_one_size() {
    let Some((w, _, told)) = setting() else { return };
    let mut there: Vec<PathBuf> = Vec::new();
    let refused = |there: &[PathBuf], root: RootDisk, word: &str| {
        let (exit, v) = deploy(&w, &DeployOrder { root, ..told.clone() });
        assert_eq!((exit, code(&v)), (Some(4), word), "{v}");
        let why = v["message"].as_str().unwrap();
        for path in there {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(why.contains(name), "{name} is named: {why}");
            assert!(boots_nothing(path));
        }
    };
    there.push(disk(&w, "vda", 32 * MIB));
    refused(&there, mirrors(), "one-root-disk");
    refused(&there, RootDisk { kind: Some(DiskKind::Nvme), ..mirrors() }, "no-root-disk");
    there.push(disk(&w, "vdb", 33 * MIB));
    refused(&there, mirrors(), "unequal-root-disks");
    refused(&there, RootDisk { mirror: false, ..mirrors() }, "several-root-disks");
    there.push(disk(&w, "vdc", 32 * MIB));
    refused(&there, mirrors(), "several-root-disks");
    for path in &there {
        disk(&w, path.file_name().unwrap().to_str().unwrap(), 10 * MIB);
    }
    fs::remove_file(&there[2]).unwrap();
    refused(&there[..1], mirrors(), "disk-too-small");
    assert_eq!(w.read("calls"), "", "no array was made");
}

#[test]
fn data_on_either_disk_of_a_mirror_is_kept() {
    let Some((w, _, told)) = setting() else { return };
    let blank = disk(&w, "vda", 32 * MIB);
    let held = disk(&w, "vdb", 32 * MIB);
    let data = [vec![0; 4096], vec![9; 32 * MIB - 4096]].concat();
    fs::write(&held, &data).unwrap();
    let (exit, v) = deploy(&w, &told);
    assert_eq!((exit, code(&v)), (Some(4), "holds-data"), "{v}");
    assert!(fs::read(&held).unwrap() == data && boots_nothing(&blank));
    let (exit, v) = deploy(&w, &DeployOrder { allow_existing_data: true, ..told });
    assert_eq!(exit, Some(0), "{v}");
}

/// A wrong image leaves neither a start nor a superblock on any of the two.
#[test]
fn a_mirror_that_was_not_finished_is_none() {
    let Some((w, raw, told)) = setting() else { return };
    let mut flipped = raw.clone();
    flipped[5 * MIB] ^= 1;
    for (served, mood, word) in [
        (flipped, Mood::Good, "wrong-sha256"),
        (raw.clone(), Mood::EndsAt(3 * MIB), "fetch-failed"),
        (raw.clone(), Mood::Changes(3 * MIB), "image-changed"),
    ] {
        let server = serve(served, mood);
        let disks = [disk(&w, "vda", 32 * MIB), disk(&w, "vdb", 32 * MIB)];
        let wrong = DeployOrder { image_url: server.url.clone(), ..told.clone() };
        let (exit, v) = deploy(&w, &wrong);
        assert_eq!((exit, code(&v)), (Some(4), word), "{v}");
        for path in &disks {
            assert!(boots_nothing(path) && ends_blank(path), "{word}: {}", path.display());
        }
        assert!(!w.root.join("members").exists(), "{word}: the array still runs");
    }
}

/// A disk that took its half of the mirror's writes for granted.
#[test]
fn a_disk_that_does_not_give_back_the_mirror_boots_nothing() {
    let Some((w, _, told)) = setting() else { return };
    // The second one keeps all but the first MiB.
    let loses = "$(case $member in *vdb) echo seek=1 skip=1 ;; esac)";
    w.shim("mdadm", &MDADM.replace("LOSES", loses));
    let disks = [disk(&w, "vda", 32 * MIB), disk(&w, "vdb", 32 * MIB)];
    let (exit, v) = deploy(&w, &told);
    assert_eq!((exit, code(&v)), (Some(4), "read-back"), "{v}");
    assert!(v["message"].as_str().unwrap().contains("vdb (S-vdb)"), "{v}");
    for path in &disks {
        assert!(boots_nothing(path) && ends_blank(path), "{}", path.display());
    }
}
