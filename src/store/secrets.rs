//! The encrypted table: AES-256-GCM with a random nonce for each secret, bound to its name and
//! user, so that a sealed value can't be moved to another row.

use super::error::reading;
use super::key::Key;
use super::writer::Order;
use super::{SqliteStore, uint};
use crate::port::Secret;
use crate::port::store::StoreError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use sqlx::SqliteConnection;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretLine {
    pub name: String,
    /// Login name that the value is the password of; empty for keys.
    pub user: String,
    /// Wall clock in ms since 1970 when it was set.
    pub set_ms: u64,
}

/// User and sealed value by name.
type Sealed = BTreeMap<String, (String, Vec<u8>)>;

/// The table and its key, if there is one.
#[derive(Clone)]
pub struct Secrets {
    store: SqliteStore,
    key: Option<Key>,
    /// What the table holds, still sealed, by name: each login of a site asks for one, and this
    /// process alone writes the table.
    sealed: Arc<RwLock<Sealed>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl SqliteStore {
    /// The secrets table. Refused when it holds secrets that `key` does not open: a daemon
    /// without its credentials would see a site full of login failures.
    pub async fn secrets(&self, key: Option<Key>) -> Result<Secrets, StoreError> {
        let rows: Vec<(String, String, Vec<u8>)> =
            sqlx::query_as("SELECT name, user, sealed FROM secret")
                .fetch_all(&self.readers)
                .await
                .map_err(reading)?;
        let first = rows.first().cloned();
        let by_name = rows.into_iter().map(|(name, user, sealed)| (name, (user, sealed))).collect();
        let secrets = Secrets { store: self.clone(), key, sealed: Arc::new(RwLock::new(by_name)) };
        let Some((name, user, sealed)) = first else { return Ok(secrets) };
        match &secrets.key {
            None => Err(StoreError::Unusable(
                "the database holds secrets, and there is no key to open them; give \
                 `[secrets] key_file` (or `systemd_credential`) in farrier.toml the key they \
                 were sealed with"
                    .into(),
            )),
            Some(key) => match unseal(key, &name, &user, sealed) {
                Some(_) => Ok(secrets),
                None => Err(StoreError::Unusable(format!(
                    "the key from {} does not open this database's secrets; give the key they \
                     were sealed with",
                    key.from
                ))),
            },
        }
    }
}

impl Secrets {
    /// The key that new secrets are sealed with.
    pub(super) fn key(&self) -> Result<&Key, StoreError> {
        self.key.as_ref().ok_or_else(|| {
            StoreError::Unusable(
                "there is no key to seal secrets with; `[secrets] key_file` in farrier.toml names \
                 its file, and `farrier secret set` makes it"
                    .into(),
            )
        })
    }

    pub(super) fn store(&self) -> &SqliteStore {
        &self.store
    }

    /// Takes over what was written, user and sealed value by name.
    pub(super) fn remember(&self, kept: impl IntoIterator<Item = (String, (String, Vec<u8>))>) {
        self.sealed.write().unwrap_or_else(PoisonError::into_inner).extend(kept);
    }

    /// Secrets can be kept: there is a key.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn can_keep(&self) -> Result<(), StoreError> {
        self.key().map(drop)
    }

    /// Is there a secret of this name? It is not opened.
    pub fn has(&self, name: &str) -> bool {
        self.sealed.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Adds a secret or replaces its value.
    pub async fn set(&self, name: &str, user: &str, value: &Secret) -> Result<(), StoreError> {
        let key = self.key()?;
        let sealed = seal(key, name, user, value).ok_or_else(|| {
            StoreError::Unusable(format!("the secret `{name}` could not be sealed"))
        })?;
        let set_ms = super::wall_ms();
        let kept = (name.to_string(), (user.to_string(), sealed.clone()));
        let (name, user) = (name.to_string(), user.to_string());
        self.store.order(|reply| Order::SetSecret { name, user, sealed, set_ms, reply }).await?;
        self.remember([kept]);
        Ok(())
    }

    /// All of them, by name, without their values.
    pub async fn list(&self) -> Result<Vec<SecretLine>, StoreError> {
        let rows: Vec<(String, String, i64)> =
            sqlx::query_as("SELECT name, user, set_ms FROM secret ORDER BY name")
                .fetch_all(&self.store.readers)
                .await
                .map_err(reading)?;
        let line = |(name, user, set_ms)| SecretLine { name, user, set_ms: uint(set_ms) };
        Ok(rows.into_iter().map(line).collect())
    }

    /// Answers whether there was one.
    pub async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let kept = name.to_string();
        let name = name.to_string();
        let was = self.store.order(|reply| Order::RemoveSecret { name, reply }).await?;
        self.sealed.write().unwrap_or_else(PoisonError::into_inner).remove(&kept);
        Ok(was)
    }

    /// User and value of a secret.
    pub fn get(&self, name: &str) -> Result<Option<(String, Secret)>, StoreError> {
        let kept = self.sealed.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let Some((user, sealed)) = kept else { return Ok(None) };
        let value = self.key.as_ref().and_then(|key| unseal(key, name, &user, sealed));
        match value {
            Some(value) => Ok(Some((user, value))),
            None => Err(StoreError::Unusable(format!(
                "the secret `{name}` can't be opened with this key; set it again with `farrier \
                 secret set {name}`"
            ))),
        }
    }
}

/// Every sealed secret that `key` opens.
pub(super) async fn open_all(
    conn: &mut SqliteConnection,
    key: &Key,
) -> Result<Vec<(String, Secret)>, StoreError> {
    let rows: Vec<(String, String, Vec<u8>)> =
        sqlx::query_as("SELECT name, user, sealed FROM secret")
            .fetch_all(conn)
            .await
            .map_err(reading)?;
    let open = |(name, user, sealed): (String, String, Vec<u8>)| {
        unseal(key, &name, &user, sealed).map(|value| (name, value))
    };
    Ok(rows.into_iter().filter_map(open).collect())
}

fn aad(name: &str, user: &str) -> Aad<Vec<u8>> {
    // The length keeps (`a`, `bc`) and (`ab`, `c`) apart.
    Aad::from(format!("farrier secret 1:{}:{name}:{user}", name.len()).into_bytes())
}

/// Nonce, then ciphertext and tag.
pub(super) fn seal(key: &Key, name: &str, user: &str, value: &Secret) -> Option<Vec<u8>> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key.bytes).ok()?;
    let mut boxed = value.expose().as_bytes().to_vec();
    let nonce = cipher.seal_in_place_append_tag(aad(name, user), &mut boxed).ok()?;
    let mut out = nonce.as_ref().to_vec();
    out.append(&mut boxed);
    Some(out)
}

pub(super) fn unseal(key: &Key, name: &str, user: &str, mut sealed: Vec<u8>) -> Option<Secret> {
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key.bytes).ok()?;
    let (nonce, boxed) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let plain = cipher.open_in_place(nonce, aad(name, user), boxed).ok()?;
    std::str::from_utf8(plain).ok().map(Secret::new)
}
