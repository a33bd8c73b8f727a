//! Delivery notes: `farrier inventory import --csv`.

use super::bmc::{Account, Manners};
use super::site::{OLD, OWN, Site, farrier, inventory, sealed};
use farrier::app::inventory_import::read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn import(dir: &Path, text: &str, mode: u32, more: &[&str]) -> Output {
    let csv = dir.join("note.csv");
    std::fs::write(&csv, text).unwrap();
    std::fs::set_permissions(&csv, std::fs::Permissions::from_mode(mode)).unwrap();
    Command::new(farrier())
        .args(["inventory", "import", "--config"])
        .arg(dir.join("farrier.toml"))
        .arg("--csv")
        .arg(csv)
        .args(more)
        .output()
        .unwrap()
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let workflows = concat!(env!("CARGO_MANIFEST_DIR"), "/workflows");
    let config = format!(
        "schema = 1\n[paths]\nstate = \"state\"\nworkflows = \"{workflows}\"\n[secrets]\nkey_file \
         = \"key\"\n"
    );
    std::fs::write(dir.path().join("farrier.toml"), config).unwrap();
    let lines = "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r7\"\nsite = \"s\"\n\
                 [[profile]]\nname = \"p\"\nworkflow = \"cpu-node\"\nimage = \"i\"\n\
                 [[pool]]\nname = \"all\"\nprofile = \"p\"\n[[machine]]\nname = \"n1\"\nserial = \
                 \"S1\"\nrack = \"r7\"\nposition = 4\npool = \"all\"\nbmc = { url = \
                 \"https://10.0.0.1\", credential = \"factory\" }\n";
    std::fs::write(dir.path().join("inventory.toml"), lines).unwrap();
    std::fs::write(
        dir.path().join("farrier.toml"),
        std::fs::read_to_string(dir.path().join("farrier.toml")).unwrap()
            + "[listen.boot]\nbind = \"127.0.0.1:0\"\nadvertise_url = \"http://127.0.0.1\"\n",
    )
    .unwrap();
    dir
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn spreadsheets_are_read_as_they_come() {
    let note = "\u{feff}Serial,BMC MAC,Username,Password,Rack,Position,Asset Tag\r\n\
                S1,0c:42:a1:00:00:01,ADMIN,\"pass,with \"\"quotes\"\"\",r7,4,A-1\r\n\
                \r\n\
                S2,0C42A1000002,root, blanks count ,,,\r\n";
    let note = read(note.as_bytes()).unwrap();
    assert!(note.bad.is_empty(), "{:?}", note.bad);
    assert_eq!(note.extra, ["Asset Tag"]);
    let [(one, first), (two, second)] = &note.good[..] else { panic!("{note:?}") };
    assert_eq!((*one, first.serial.as_str(), first.user.as_str()), (2, "S1", "ADMIN"));
    assert_eq!(first.password.expose(), "pass,with \"quotes\"");
    assert_eq!((first.rack.as_deref(), first.position), (Some("r7"), Some(4)));
    assert_eq!((*two, second.bmc_mac.as_str()), (4, "0c:42:a1:00:00:02"));
    assert_eq!(second.password.expose(), " blanks count ");
    assert_eq!((second.rack.as_deref(), second.position), (None, None));
}

#[test]
fn every_bad_line_is_named_and_no_password_is() {
    let note = "serial,bmc_mac,user,password,rack,position\n\
                S1,0c:42:a1:00:00:01,root,canary-1,r7,4\n\
                0000,nonsense,,canary-2,r7,top\n\
                S1,0c:42:a1:00:00:03,root,canary-3,r7,6\n\
                S4,0c:42:a1:00:00:01,root,canary-4,r7,7\n\
                S5,0c:42:a1:00:00:05,root\n\
                S6,0c:42:a1:00:00:06,root,,r7,8\n";
    let note = read(note.as_bytes()).unwrap();
    let bad: Vec<String> = note.bad.iter().map(|b| format!("{}: {}", b.line, b.why)).collect();
    assert_eq!(
        bad,
        [
            "3: `serial` can't be `0000`",
            "3: `bmc_mac` can't be `nonsense`",
            "3: `user` is empty",
            "3: `position` can't be `top`",
            "4: the serial `S1` is in line 2 too",
            "5: the BMC MAC `0c:42:a1:00:00:01` is in line 2 too",
            "6: 3 fields, and 6 columns",
            "7: `password` is empty, too long, or holds control characters",
        ]
    );
    assert_eq!(note.good.len(), 1);
    assert!(!format!("{note:?}").contains("canary"));
    assert!(read(b"serial,password\nS1,x\n").unwrap_err().contains("bmc_mac, user"));
    assert!(read(b"serial,serial\n").unwrap_err().contains("twice"));
    assert!(read(b"").is_err());
    let open = read(b"serial,bmc_mac,user,password\nS1,\"canary\n").unwrap();
    assert!(open.good.is_empty() && !open.bad.is_empty());
}

#[tokio::test]
async fn nothing_is_kept_of_a_note_with_a_bad_line_unless_a_person_says_so() {
    let dir = place();
    let good = "serial,bmc_mac,user,password,rack,position,po\n\
                S1,0c:42:a1:00:00:01,root,canary-1,r8,5,77\n\
                S2,0c:42:a1:00:00:02,root,canary-2,,,\n";
    let bad = format!("{good}S3,x,root,canary-3,r7,6,\n");
    let out = import(dir.path(), &bad, 0o600, &[]);
    let (said, err) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(said.contains("0 machines kept"), "{said}");
    assert!(err.contains("line 4") && err.contains("--partial"), "{err}");
    assert!(!dir.path().join("state").exists(), "nothing was written");

    let out = import(dir.path(), &bad, 0o640, &["--partial"]);
    let (said, err) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("2 machines kept, 1 lines bad"), "{said} {err}");
    for word in [
        "others may read",
        "mode 0640",
        "`po` is not used",
        "line 3: no machine of the inventory has the serial S2",
        "n1 is in rack r7 there, and in r8 here",
        "n1 is at position 4 there, and at 5 here",
        "shred -u",
    ] {
        assert!(err.contains(word), "no `{word}`: {err}");
    }
    assert!(!said.contains("canary") && !err.contains("canary"), "a password was printed");
    assert_eq!(sealed(dir.path(), "factory/S1").await.as_deref(), Some("canary-1"));
    assert_eq!(sealed(dir.path(), "factory/S3").await, None);

    // Again, corrected: what is known is replaced.
    let out = import(dir.path(), &good.replace("canary-2", "other"), 0o600, &["--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(!text(&out.stderr).contains("others may read"));
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((said["kept"].as_u64(), said["bad"].as_array().map(Vec::len)), (Some(2), Some(0)));
    assert_eq!(sealed(dir.path(), "factory/S2").await.as_deref(), Some("other"));
    for name in ["state/farrier.db", "state/farrier.db-wal"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap_or_default();
        let clear = bytes.windows(6).any(|w| w == b"canary");
        assert!(!clear, "a password in the clear in {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_reached_with_the_password_on_its_label_and_keeps_it_for_a_reset() {
    let mut site = Site::new(Account::new("on-the-label-42", Manners::default()), "").await;
    let url = site.server.url.clone();
    std::fs::write(site.path("inventory.toml"), inventory(&url, "factory", "off")).unwrap();
    let note = "serial,bmc_mac,user,password\nS1001,0c:42:a1:00:00:01,farrier,on-the-label-42\n";
    let out = import(site.dir.path(), note, 0o600, &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    site.ready();
    let said = site.farrier(&["bmc", "rotate", "n1", "--why", "as delivered"]);
    assert!(said.contains("kept"), "{said}");
    assert_eq!(site.account.look(|s| s.refused), 0);
    let asked = site.server.seen().len();
    let deadline = Instant::now() + Duration::from_secs(60);
    while site.server.seen().len() == asked {
        assert!(Instant::now() < deadline, "{}", site.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    site.stop();
    let password = site.account.password();
    let own = "bmc/serial/S1001";
    assert_eq!(sealed(site.dir.path(), own).await.as_deref(), Some(password.as_str()));
    assert_eq!(sealed(site.dir.path(), OWN).await, None);
    let label = sealed(site.dir.path(), "factory/S1001").await;
    assert_eq!(label.as_deref(), Some("on-the-label-42"), "right again after a factory reset");
    assert_ne!(OLD, password);
}
