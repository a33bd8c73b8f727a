//! The order to write a disk image: its description, the seed for this machine, the host key that was
//! made for it.

use super::render::{DeployedSeed, here};
use super::server::{Shared, bug};
use super::window::{MadeKey, Window};
use crate::model::deploy::ImageFormat;
use crate::model::{Channel, Fault, FaultClass};
use crate::port::Secret;
use crate::port::deploy::{DeployOrder, DeployRequest, SeedFile};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

/// Bytes of an image, packed or not.
const MOST: u64 = 1 << 60;

/// `<images>/<id>/image.toml`, as `farrier image add` writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    schema: u32,
    kind: String,
    pub(super) file: String,
    pub(super) format: ImageFormat,
    pub(super) sha256: String,
    pub(super) size: u64,
    pub(super) raw_size: u64,
}

impl About {
    /// What a person wrote by hand is refused here, not by the ramdisk when the disk is written.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let about: About = toml::from_str(text).map_err(|e| e.message().to_string())?;
        if (about.schema, about.kind.as_str()) != (1, "disk") {
            return Err("it does not describe a disk image".into());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
        let (file, sha256) = (&about.file, &about.sha256);
        if file.is_empty() || file.starts_with('.') || file.len() > 128 || !file.chars().all(fits) {
            return Err("`file` is not the plain name of a file beside the description".into());
        }
        if sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("`sha256` is not 64 hex digits in lower case".into());
        }
        // The ramdisk's shell adds to them, in 63 bits; a TOML of ours can't hold more either.
        if about.size > MOST || about.raw_size > MOST {
            return Err(
                "`size` and `raw_size` are bytes, and no disk has more than an exbibyte".into()
            );
        }
        Ok(about)
    }
}

/// A new ed25519 host key from the system's randomness.
pub(super) fn make_key() -> Result<MadeKey, Fault> {
    let mut seed = [0u8; 32];
    aws_lc_rs::rand::fill(&mut seed)
        .map_err(|_| bug("no-randomness", "the system gave no random bytes for a host key"))?;
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let made = PrivateKey::new(pair, "").and_then(|key| {
        let public = key.public_key().to_openssh()?.trim().to_string();
        let private = Secret::new(key.to_openssh(LineEnding::LF)?.as_str());
        Ok(MadeKey { public, private: Some(private) })
    });
    made.map_err(|e| bug("host-key", format!("a host key could not be made: {e}")))
}

/// See [`crate::port::Boot::deploy_order`]. From here on the window hands out this image.
pub(super) async fn order(
    shared: &Arc<Shared>,
    request: &DeployRequest,
) -> Result<DeployOrder, Fault> {
    let gone = || {
        Fault::new(
            FaultClass::Transient,
            Channel::Boot,
            "window-gone",
            format!(
                "`{}` has no open boot window of this run with the pinned host key",
                request.name
            ),
        )
    };
    let slot = shared.by_run(&request.run).ok_or_else(gone)?;
    let about = describe(shared.settings.images.as_deref(), &request.image).await?;
    let (wanted, image) = (request.host_key.clone(), request.image.clone());
    let window: Option<Window> = shared
        .change(slot, move |w| {
            let fits = w.open && w.made.as_ref().is_some_and(|m| m.public == wanted);
            if !fits {
                return (None, None);
            }
            let next = Window { deploys: Some(image), ..w.clone() };
            (Some(next.clone()), Some(next))
        })
        .await?;
    let window = window.ok_or_else(gone)?;
    let private = window.made.as_ref().and_then(|m| m.private.clone()).ok_or_else(gone)?;
    let seed = DeployedSeed {
        image: &request.image,
        profile: &request.profile,
        public: &request.host_key,
        private: &private,
        keys: &request.authorized_keys,
        network: request.network.as_deref(),
    };
    let mut files = Vec::new();
    for (name, made) in shared.templates().deployed(&window, &seed) {
        let content = Secret::new(made.map_err(|why| why.fault(&request.name))?);
        files.push(SeedFile { name: name.into(), content });
    }
    Ok(DeployOrder {
        image: request.image.clone(),
        run: request.run.clone(),
        image_url: format!("{}/disk/{}", here(&window), about.file),
        format: about.format,
        sha256: about.sha256,
        size: about.size,
        raw_size: about.raw_size,
        root: request.root.clone(),
        allow_existing_data: request.allow_existing_data,
        seed: files,
    })
}

async fn describe(images: Option<&Path>, id: &str) -> Result<About, Fault> {
    let refuse = |what: String| {
        Fault::new(FaultClass::Precondition, Channel::Boot, "no-image", what)
            .hint("`farrier image list` shows what there is; `farrier image add` takes one in")
    };
    let Some(images) = images else {
        return Err(refuse("the daemon has no directory of images".into()));
    };
    let path = images.join(id).join("image.toml");
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(|e| refuse(format!("image `{id}` has no description {}: {e}", path.display())))?;
    About::read(&text).map_err(|why| refuse(format!("{}: {why}", path.display())))
}
