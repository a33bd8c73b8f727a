//! KV references against a small server of the test's own that speaks version 2 of that API. A real
//! Vault was not at hand.

use super::server::{Reply, Seen, Server};
use farrier::port::Vault;
use farrier::store::kv::Kv;
use farrier::store::vault::{From, Reference, References, SiteVault};
use farrier::store::{Settings, SqliteStore};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

const TOKEN: &str = "hvs.the-token-of-the-test";
const PASSWORD: &str = "kept-by-the-vault";

fn answers(r: &Seen) -> Reply {
    if r.header("x-vault-token") != Some(TOKEN) {
        return Reply::Json(403, vec![], json!({"errors": [format!("permission denied {TOKEN}")]}));
    }
    match (r.path.as_str(), r.header("x-vault-namespace")) {
        ("/v1/secret/data/bmc/n1", None) => Reply::ok(json!({
            "data": {"data": {"password": PASSWORD, "number": 7}, "metadata": {"version": 3}}})),
        ("/v1/kv/team/data/bmc/n2", Some("ops")) => {
            Reply::ok(json!({"data": {"data": {"pw": PASSWORD}}}))
        }
        ("/v1/old/data/bmc/n1", _) => Reply::ok(json!({"data": {"password": PASSWORD}})),
        ("/v1/sealed/data/x", _) => Reply::status(503),
        ("/v1/moved/data/x", _) => Reply::status(307).with("Location", "http://192.0.2.1/"),
        _ => Reply::Json(404, vec![], json!({"errors": []})),
    }
}

fn kv(server: &Server, dir: &Path, mount: &str, path: &str, field: &str) -> Kv {
    Kv {
        address: server.url.clone(),
        mount: mount.into(),
        path: path.into(),
        field: field.into(),
        token_file: dir.join("token"),
        namespace: None,
        ca_file: None,
    }
}

async fn vault(dir: &Path, all: impl IntoIterator<Item = (&'static str, Kv)>) -> SiteVault {
    let store = SqliteStore::open(&dir.join("db"), Settings::default()).await.unwrap();
    let secrets = store.secrets(None).await.unwrap();
    let credentials = all
        .into_iter()
        .map(|(name, kv)| (name.into(), Reference { user: "root".into(), from: From::Vault(kv) }));
    let credentials = credentials.collect();
    SiteVault::new(secrets, References { credentials, ssh_keys: BTreeMap::new() })
}

#[tokio::test]
async fn a_field_is_read_each_time_and_every_failure_names_its_place() {
    let server = Server::start(|r, _| answers(r)).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let kv = |mount, path, field| kv(&server, dir.path(), mount, path, field);
    let vault = vault(
        dir.path(),
        [
            ("good", kv("secret", "bmc/n1", "password")),
            ("space", Kv { namespace: Some("ops".into()), ..kv("kv/team", "bmc/n2", "pw") }),
            ("field", kv("secret", "bmc/n1", "passwort")),
            ("number", kv("secret", "bmc/n1", "number")),
            ("gone", kv("secret", "bmc/n9", "password")),
            ("v1", kv("old", "bmc/n1", "password")),
            ("sealed", kv("sealed", "x", "password")),
            ("moved", kv("moved", "x", "password")),
        ],
    )
    .await;
    for _ in 0..2 {
        let c = vault.credential("good").await.unwrap();
        assert_eq!((c.user.as_str(), c.password.expose()), ("root", PASSWORD));
    }
    assert_eq!(server.count("GET", "/v1/secret/data/bmc/n1"), 2, "read each time");
    assert_eq!(vault.credential("space").await.unwrap().password.expose(), PASSWORD);
    for (name, says) in [
        ("field", vec!["/v1/secret/data/bmc/n1", "no field `passwort`"]),
        ("number", vec!["`number` is no text"]),
        ("gone", vec!["/v1/secret/data/bmc/n9", "404", "nothing there"]),
        ("v1", vec!["`data.data`", "version 2"]),
        ("sealed", vec!["503", "sealed"]),
        ("moved", vec!["307", "redirect"]),
    ] {
        let f = vault.credential(name).await.unwrap_err();
        assert_eq!(f.code, "unreadable-secret");
        let shown = format!("{f:?}");
        for word in says {
            assert!(shown.contains(word), "{name}: {shown}");
        }
        assert!(!shown.contains(TOKEN) && !shown.contains(PASSWORD), "{shown}");
    }
    // A token that is renewed counts at once; a wrong one is in no message.
    std::fs::write(dir.path().join("token"), "expired-token\n").unwrap();
    let shown = format!("{:?}", vault.credential("good").await.unwrap_err());
    assert!(shown.contains("403") && shown.contains("/v1/secret/data/bmc/n1"), "{shown}");
    assert!(!shown.contains("expired-token") && !shown.contains(TOKEN), "{shown}");
    std::fs::remove_file(dir.path().join("token")).unwrap();
    let shown = format!("{:?}", vault.credential("good").await.unwrap_err());
    assert!(shown.contains("the token's file"), "{shown}");
}

#[tokio::test]
async fn its_certificate_is_checked_against_the_ca_that_is_named() {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
    let (der, pem) = (signed.cert.der().clone(), signed.cert.pem());
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    let server = Server::start_tls(config, |r, _| answers(r)).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
    let without = kv(&server, dir.path(), "secret", "bmc/n1", "password");
    let with = Kv { ca_file: Some(dir.path().join("ca.pem")), ..without.clone() };
    let vault = vault(dir.path(), [("with", with), ("without", without)]).await;
    assert_eq!(vault.credential("with").await.unwrap().password.expose(), PASSWORD);
    let seen = server.seen().len();
    assert_eq!(vault.credential("without").await.unwrap_err().code, "unreadable-secret");
    assert_eq!(server.seen().len(), seen, "the token went to nobody");
}
