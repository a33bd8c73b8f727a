//! What the files say of credentials and certificates.

use farrier::config::{self, Source, Sources, daemon, inventory};
use farrier::model::time::Span;

fn daemon_of(text: &str) -> Result<daemon::Daemon, String> {
    let (daemon, found) =
        daemon::parse(&Source::new("farrier.toml", format!("schema = 1\n{text}")));
    daemon.ok_or_else(|| config::render(&found))
}

fn lines(pool: &str, defaults: &str, bmc: &str, more: &str) -> String {
    format!(
        "schema = 1\n[[site]]\nname = \"s\"\n[[rack]]\nname = \"r\"\nsite = \"s\"\n[[profile]]\nname \
         = \"p\"\nworkflow = \"w\"\n[[pool]]\nname = \"all\"\nprofile = \"p\"\n{pool}\n[defaults]\n\
         credential = \"bmc\"\n{defaults}\n[[machine]]\nname = \"n1\"\nrack = \"r\"\npool = \
         \"all\"\n{more}\nbmc = {{ {bmc} }}\n"
    )
}

fn machine(pool: &str, defaults: &str, bmc: &str, more: &str) -> Result<(String, String), String> {
    let text = lines(pool, defaults, bmc, more);
    let (inventory, found) = inventory::parse(&[Source::new("inventory.toml", text)]);
    if found.iter().any(|d| d.severity == config::Severity::Error) {
        return Err(config::render(&found));
    }
    let bmc = &inventory.machines[0].bmc;
    Ok((bmc.tls.to_string(), bmc.credential.to_string()))
}

#[test]
fn the_machine_says_how_its_bmc_proves_itself_then_the_pool_then_the_file() {
    let url = "url = \"https://10.0.0.1\"";
    let tls = |pool: &str, defaults: &str, bmc: &str| machine(pool, defaults, bmc, "").unwrap().0;
    let pin = format!("{url}, tls = \"pin\"");
    assert_eq!(tls("", "", url), "ca");
    assert_eq!(tls("", "tls = \"off\"", url), "off");
    assert_eq!(tls("tls = \"pin\"", "tls = \"off\"", url), "pin");
    assert_eq!(tls("tls = \"off\"", "", &pin), "pin");
    assert_eq!(tls("tls = \"pin\"", "", "url = \"http://10.0.0.1\""), "off", "there is no TLS");
    let one = format!("tls = \"sha256:{}\"", "ab".repeat(32));
    let why = machine(&one, "", url, "").unwrap_err();
    assert!(why.contains("don't share a certificate"), "{why}");
    let why = machine("tls = \"on\"", "", url, "").unwrap_err();
    assert!(why.contains("`pin`"), "{why}");
}

#[test]
fn factory_means_the_password_of_that_serial() {
    let url = "url = \"https://10.0.0.1\", credential = \"factory\"";
    let (_, credential) = machine("", "", url, "serial = \"S1\"").unwrap();
    assert_eq!(credential, "factory/S1");
    let why = machine("", "", url, "").unwrap_err();
    assert!(why.contains("by the machine's serial"), "{why}");
    // Without a table there is nothing sealed.
    let sources = |secrets: &str| Sources {
        daemon: Source::new("farrier.toml", format!("schema = 1\n{secrets}")),
        inventory: vec![Source::new("i.toml", lines("", "", url, "serial = \"S1\""))],
        ..Sources::default()
    };
    let why = |secrets| config::render(&config::load(&sources(secrets), &|_| true).unwrap_err());
    assert!(why("").contains("kept in the secrets table"), "{}", why(""));
    let with = why("[secrets]\nkey_env = \"KEY\"\n");
    assert!(!with.contains("secrets table") && !with.contains("credential"), "{with}");
}

#[test]
fn the_daemons_file_says_who_keeps_passwords_and_whose_are_never_touched() {
    let text = "[secrets]\nkey_env = \"FARRIER_KEY\"\n[escrow]\ncommand = [\"/bin/keep\", \"bmc\"]\n\
                [rotation]\nevery = \"90d\"\nbreak_glass = [\"root\", \"Admin\"]\n";
    let d = daemon_of(text).unwrap();
    assert_eq!(d.secrets, Some(daemon::SecretsKey::Env("FARRIER_KEY".into())));
    let escrow = d.escrow.unwrap();
    assert_eq!((escrow.command.len(), escrow.timeout), (2, Span(30_000)));
    assert_eq!((d.rotation.every, d.rotation.at_once), (Some(Span(90 * 86_400_000)), 8));
    assert!(d.rotation.is_break_glass("ROOT") && d.rotation.is_break_glass("admin"));
    assert!(!d.rotation.is_break_glass("farrier"));
    let off = daemon_of("").unwrap();
    assert_eq!((off.rotation.every, off.escrow, off.secrets), (None, None, None));
    for (text, says) in [
        ("[rotation]\nevery = \"1h\"\n", "at most, not every"),
        ("[rotation]\nat_once = 0\n", "from 1 to 256"),
        ("[escrow]\n", "`command` is missing"),
        ("[escrow]\ncommand = [\"x\"]\ntimeout = \"1h\"\n", "at most"),
        ("[secrets]\nkey_file = \"k\"\nkey_env = \"K\"\n", "ways to say the same"),
    ] {
        let why = daemon_of(text).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[test]
fn a_vault_reference_names_its_place_and_no_token() {
    let reference = |vault: &str| {
        daemon_of(&format!(
            "[[credential]]\nname = \"bmc\"\nuser = \"root\"\nfrom = {{ vault = {{ {vault} }} }}\n"
        ))
    };
    let d = reference(
        "address = \"https://v.example:8200\", path = \"bmc/n1\", token_file = \"/run/token\", \
         namespace = \"ops\", ca_file = \"ca.pem\"",
    )
    .unwrap();
    let daemon::SecretFrom::Vault(v) = &d.credentials["bmc"].from else { panic!("{d:?}") };
    assert_eq!((v.mount.as_str(), v.field.as_str()), ("secret", "password"));
    assert_eq!((v.namespace.as_deref(), v.path.as_str()), (Some("ops"), "bmc/n1"));
    for (vault, says) in [
        ("address = \"https://v\", path = \"x\"", "`token_file` is missing"),
        ("address = \"http://10.0.0.9\", path = \"x\", token_file = \"t\"", "unencrypted"),
        ("address = \"v:8200\", path = \"x\", token_file = \"t\"", "http"),
        ("address = \"https://v\", path = \"x\", token_file = \"t\", token = \"s\"", "unknown key"),
    ] {
        let why = reference(vault).unwrap_err();
        assert!(why.contains(says), "{vault}: {why}");
        assert!(!why.contains("exactly one"), "said once: {why}");
    }
    let local = "address = \"http://127.0.0.1:8100\", path = \"x\", token_file = \"t\"";
    assert!(reference(local).is_ok(), "an agent on this machine");
}
