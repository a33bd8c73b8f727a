//! The account edge against a BMC with an account service.

use super::bmc::{ACCOUNT, Account, Manners, USER};
use super::server::{Reply, Server};
use async_trait::async_trait;
use farrier::bmc::{RedfishBmc, Settings};
use farrier::model::{BmcEndpoint, Channel, Fault, FaultClass, Identity, MachineId, Outcome};
use farrier::port::capability::BmcAccounts;
use farrier::port::{BmcTarget, Credential, Secret, Vault};
use std::sync::Arc;

const OLD: &str = "calvin-from-the-label";
const NEW: &str = "Xk7-mmQ2_wert.9a";
const APPLIED: Outcome = Outcome::Applied { handle: None };

struct Label;

#[async_trait]
impl Vault for Label {
    async fn credential(&self, _: &str) -> Result<Credential, Fault> {
        Ok(Credential { user: USER.into(), password: Secret::new(OLD) })
    }

    async fn ssh_key(&self, _: &str) -> Result<Secret, Fault> {
        Err(Fault::new(FaultClass::Bug, Channel::Host, "no-key", "none here"))
    }
}

fn edge() -> RedfishBmc {
    let settings =
        Settings { read_timeout_ms: 1_500, write_timeout_ms: 1_500, ..Settings::default() };
    RedfishBmc::new(Arc::new(Label), settings)
}

fn target(url: &str) -> BmcTarget {
    BmcTarget {
        machine: MachineId(1),
        name: "n1".into(),
        endpoint: BmcEndpoint {
            url: url.into(),
            credential: "bmc".into(),
            tls: "off".into(),
            ipmi: None,
            controllers: Default::default(),
        },
        identity: Identity::new(Some("S1001"), None, None),
    }
}

async fn bmc(manners: Manners) -> (Account, Server) {
    let account = Account::new(OLD, manners);
    let state = account.clone();
    (account, Server::start(move |r, _| state.answer(r)).await)
}

#[tokio::test]
async fn rules_and_accounts_are_read() {
    let (_, server) = bmc(Manners::default()).await;
    let (rules, accounts) = edge().accounts(&target(&server.url)).await.unwrap();
    assert_eq!((rules.min_length, rules.max_length), (Some(13), Some(20)));
    assert_eq!(rules.lockout_threshold, Some(3));
    let ours = accounts.iter().find(|a| a.user == USER).unwrap();
    assert_eq!((ours.uri.as_str(), ours.id.as_str(), ours.enabled), (ACCOUNT, "3", Some(true)));
    assert_eq!(accounts.len(), 3, "free slots are accounts too");
}

#[tokio::test]
async fn what_is_known_of_a_kind_narrows_what_its_bmc_says() {
    let quirks = |account: &str| {
        let text = format!(
            "schema = 1\n[[quirk]]\nname = \"acme\"\n[quirk.match]\nvendor = \"^Acme\"\n\
             [quirk.session]\nlockout_threshold = 2\nlockout = \"1h\"\n[quirk.account]\n{account}\n"
        );
        let (table, found) =
            farrier::config::quirks::parse(&farrier::config::Source::new("q.toml", text));
        assert!(found.is_empty());
        Arc::new(table)
    };
    let (_, server) = bmc(Manners::default()).await;
    for (account, min, max) in [
        ("password_max = 15", 13, 15),
        ("password_min = 18", 18, 20),
        ("password_min = 8\npassword_max = 40", 13, 20),
        // Another firmware's: the BMC speaks for itself.
        ("password_max = 12", 13, 20),
    ] {
        let edge = edge();
        edge.set_quirks(quirks(account));
        let (rules, _) = edge.accounts(&target(&server.url)).await.unwrap();
        assert_eq!((rules.min_length, rules.max_length), (Some(min), Some(max)), "{account}");
        assert_eq!((rules.lockout_threshold, rules.lockout_duration_s), (Some(2), Some(3_600)));
    }
    // An account that must change its password first sees none of the rules: the kind's count, as far
    // as the service root tells the kind.
    let (_, server) = bmc(Manners { change_first: true, ..Manners::default() }).await;
    let edge = edge();
    let of_root = |account: &str| {
        let text = format!(
            "schema = 1\n[[quirk]]\nname = \"any\"\n[quirk.match]\nproduct = \"^BMC of a test\"\n\
             [quirk.account]\n{account}\n"
        );
        farrier::config::quirks::parse(&farrier::config::Source::new("q.toml", text)).0
    };
    edge.set_quirks(Arc::new(of_root("password_min = 13\npassword_max = 20")));
    assert!(edge.accounts(&target(&server.url)).await.is_err());
    let rules = edge.known_rules(&target(&server.url)).await.unwrap();
    assert_eq!((rules.min_length, rules.max_length), (Some(13), Some(20)));
}

#[tokio::test]
async fn a_name_that_is_longer_than_the_bmc_has_them_is_told_so() {
    let rules = "schema = 1\n[[quirk]]\nname = \"any\"\n[quirk.match]\nvendor = \"^Acme\"\n\
                 [quirk.account]\nuser_max = 16\n";
    let (table, found) =
        farrier::config::quirks::parse(&farrier::config::Source::new("q.toml", rules));
    assert!(found.is_empty());
    let (_, server) = bmc(Manners::default()).await;
    let edge = edge();
    edge.set_quirks(Arc::new(table));
    let target = target(&server.url);
    assert_eq!(edge.accounts(&target).await.unwrap().0.user_max, Some(16));
    for (user, says) in [("provisioning-robot", "16 characters at most"), ("nobody", "no account")]
    {
        match edge.set_password(&target, user, &Secret::new(NEW)).await {
            Outcome::Failed { fault } => {
                assert_eq!(fault.code, "no-account");
                assert!(fault.message.contains(says), "{fault:?}");
            }
            o => panic!("{o:?}"),
        }
    }
}

#[tokio::test]
async fn a_password_is_set_once_and_tried_in_a_session_of_its_own() {
    for manners in [
        Manners::default(),
        Manners { wants_etag: true, ..Manners::default() },
        Manners { no_sessions: true, ..Manners::default() },
        Manners { change_first: true, ..Manners::default() },
        Manners { change_first: true, wants_etag: true, no_sessions: true, cuts: false },
    ] {
        let (account, server) = bmc(manners).await;
        let (edge, t, new) = (edge(), target(&server.url), Secret::new(NEW));
        let f = edge.verify(&t, USER, &new).await.unwrap_err();
        assert_eq!(
            (f.class, f.code.as_ref()),
            (FaultClass::Auth, "bad-credentials"),
            "{manners:?}"
        );
        assert_eq!(account.look(|s| s.refused), 1, "one try is one login: {manners:?}");
        assert_eq!(edge.set_password(&t, USER, &new).await, APPLIED, "{manners:?}");
        assert_eq!(account.look(|s| s.set.clone()), [NEW], "{manners:?}");
        edge.verify(&t, USER, &new).await.unwrap();
        let old = Secret::new(OLD);
        assert_eq!(edge.verify(&t, USER, &old).await.unwrap_err().class, FaultClass::Auth);
        let seen = server.seen();
        let made =
            seen.iter().filter(|s| s.method == "POST" && s.path.contains("Sessions")).count();
        let ended = seen.iter().filter(|s| s.method == "DELETE").count();
        // Two tries were refused, and the edge's own session is kept.
        assert!(manners.no_sessions || made <= ended + 3, "{made} made, {ended} ended");
        assert!(seen.iter().all(|s| !s.path.contains(NEW)));
    }
}

#[tokio::test]
async fn another_machines_password_is_never_set() {
    let (account, server) = bmc(Manners::default()).await;
    let mut t = target(&server.url);
    t.identity = Identity::new(Some("S2002"), None, None);
    match edge().set_password(&t, USER, &Secret::new(NEW)).await {
        Outcome::Refused { wrong_machine: true, .. } => {}
        o => panic!("{o:?}"),
    }
    match edge().set_password(&target(&server.url), "nobody", &Secret::new(NEW)).await {
        Outcome::Failed { fault } => assert_eq!(fault.code, "no-account"),
        o => panic!("{o:?}"),
    }
    assert!(account.look(|s| s.set.is_empty()));
    assert_eq!(server.seen().iter().filter(|s| s.method == "PATCH").count(), 0);
}

#[tokio::test]
async fn an_answer_that_proves_nothing_is_unknown_and_holds_no_password() {
    type Case = (Reply, fn(&Outcome) -> bool);
    let echo = Reply::Text(500, "text/plain", format!("could not set {NEW} for {OLD}"));
    let cases: Vec<Case> = vec![
        (Reply::Drop, |o| matches!(o, Outcome::Unknown { .. })),
        (Reply::Hang, |o| matches!(o, Outcome::Unknown { .. })),
        (echo, |o| matches!(o, Outcome::Unknown { .. })),
        (Reply::said(400, "PropertyValueFormatError"), |o| matches!(o, Outcome::Failed { .. })),
        (
            Reply::Json(
                200,
                vec![],
                serde_json::json!({"error": {"@Message.ExtendedInfo": [{
                    "MessageId": "Base.1.2.PropertyValueNotInList", "MessageSeverity": "Warning",
                    "Message": "no"}]}}),
            ),
            |o| matches!(o, Outcome::Unknown { .. }),
        ),
    ];
    for (reply, is) in cases {
        let account = Account::new(OLD, Manners::default());
        let answer = reply.clone();
        let server = Server::start(move |r, _| match r.method.as_str() {
            "PATCH" => answer.clone(),
            _ => account.answer(r),
        })
        .await;
        let outcome = edge().set_password(&target(&server.url), USER, &Secret::new(NEW)).await;
        assert!(is(&outcome), "{reply:?}: {outcome:?}");
        let shown = format!("{outcome:?}");
        assert!(!shown.contains(NEW) && !shown.contains(OLD), "{shown}");
        assert_eq!(server.count("PATCH", ACCOUNT), 1, "{reply:?}");
    }
}
