//! Firmware updates by push (DSP0268 UpdateService: MultipartHttpPushUri, HttpPushUri): the image is
//! streamed from the disk with its length said in advance and the login in the first request, because
//! OpenBMC reads 4 KiB of a body at most before it knows who sends it (field notes §3.1, R7, R21).

use super::conn::Bmc;
use super::guard::{self, Stop};
use super::http::{Answer, NoAnswer, Upload};
use super::{fault, json, patch, task};
use crate::model::facts::Component;
use crate::model::quirks::{PushForm, Quirks, UpdateQuirks};
use crate::model::{Fault, FaultClass, Outcome};
use crate::port::ImageFile;
use aws_lc_rs::digest::{Context, SHA256};
use futures_util::{StreamExt, stream};
use reqwest::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read from the disk at a time.
const CHUNK: usize = 64 * 1024;

/// Where an image is pushed to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Multipart(String),
    Raw(String),
}

/// Where this service takes images that are pushed.
fn place(service: &Value, form: PushForm) -> Option<Place> {
    let multipart = || json::text(service, &["MultipartHttpPushUri"]).map(Place::Multipart);
    let raw = || json::text(service, &["HttpPushUri"]).map(Place::Raw);
    match form {
        PushForm::Found => multipart().or_else(raw),
        PushForm::Multipart => multipart(),
        PushForm::Raw => raw(),
        PushForm::None => None,
    }
}

/// How this image is pushed: as the catalog says, else as the BMC's quirks do. What this vendor's push
/// is none of is not asked for.
fn form(quirks: &UpdateQuirks, image: &ImageFile) -> PushForm {
    match (quirks.push, image.form) {
        (PushForm::None, _) => PushForm::None,
        (_, Some(form)) => form,
        (form, None) => form,
    }
}

/// Can an image be pushed at all?
pub(super) fn is_offered(service: &Value, quirks: &UpdateQuirks, image: &ImageFile) -> bool {
    place(service, form(quirks, image)).is_some()
}

/// Pushes `image` for `member`. The caller holds the BMC's write permit and has checked what is
/// expected.
pub(super) async fn push(
    bmc: &Bmc<'_>,
    quirks: &Quirks,
    service: (&str, &Value),
    member: &Component,
    image: &ImageFile,
) -> Result<Outcome, Stop> {
    let (service_path, service) = service;
    let Some(place) = place(service, form(&quirks.update, image)) else {
        let f = fault::unsupported("no-push", "the BMC takes no images that are pushed");
        return Ok(Outcome::Failed { fault: f });
    };
    whole(image).await?;
    if !quirks.update.busy_flag {
        return send(bmc, quirks, &place, member, image).await;
    }
    // Lenovo: the service is taken, used and given back, even where the upload fails.
    if let Some(outcome) = take(bmc, service_path, member, &place).await? {
        return Ok(outcome);
    }
    let outcome = send(bmc, quirks, &place, member, image).await;
    give_back(bmc, service_path).await;
    outcome
}

/// Is the file on the disk the one that was approved? Read to its end before anything is sent.
async fn whole(image: &ImageFile) -> Result<(), Fault> {
    let shown = image.path.display();
    let unreadable = |e: std::io::Error| {
        fault::precondition("image-unreadable", format!("the image `{shown}` can't be read: {e}"))
    };
    let mut file = File::open(&image.path).await.map_err(unreadable)?;
    let mut digest = Context::new(&SHA256);
    let mut size = 0u64;
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = file.read(&mut chunk).await.map_err(unreadable)?;
        let Some(read) = chunk.get(..n).filter(|r| !r.is_empty()) else { break };
        digest.update(read);
        size += u64::try_from(n).unwrap_or(u64::MAX);
    }
    if size == image.size && hex::encode(digest.finish().as_ref()) == image.sha256 {
        return Ok(());
    }
    Err(fault::precondition(
        "image-changed",
        format!("the image `{shown}` is not the one that the catalog names: {size} bytes"),
    )
    .hint("put back the file whose SHA-256 the catalog has"))
}

/// `Some`: not taken, and why.
async fn take(
    bmc: &Bmc<'_>,
    service: &str,
    member: &Component,
    place: &Place,
) -> Result<Option<Outcome>, Stop> {
    let read = patch::read(bmc, service).await?;
    if json::at(&read.document, &["HttpPushUriTargetsBusy"]) == Some(&Value::Bool(true)) {
        let f = Fault::new(
            FaultClass::Throttled,
            crate::model::Channel::Bmc,
            "busy",
            "another client holds the BMC's update service",
        )
        .retry_after(60_000)
        .hint("one that died holding it keeps it: set `HttpPushUriTargetsBusy` to false by hand");
        return Ok(Some(Outcome::Failed { fault: f }));
    }
    let mut body = json!({"HttpPushUriTargetsBusy": true});
    if let (Place::Raw(_), Some(uri)) = (place, &member.uri) {
        body["HttpPushUriTargets"] = json!([uri]);
    }
    Ok(match patch::patch(bmc, &read, &body).await? {
        Ok(_) => None,
        // Nothing was uploaded, so nothing is unknown; and it may be ours to give back.
        Err(Outcome::Unknown { fault }) => {
            give_back(bmc, service).await;
            Some(Outcome::Failed { fault })
        }
        Err(outcome) => Some(outcome),
    })
}

async fn give_back(bmc: &Bmc<'_>, service: &str) {
    let given = async {
        let read = patch::read(bmc, service).await?;
        patch::patch(bmc, &read, &json!({"HttpPushUriTargetsBusy": false})).await
    };
    match given.await {
        Ok(Ok(_)) => {}
        why => tracing::warn!(
            machine = %bmc.target.name, ?why,
            "the BMC's update service was not given back; set `HttpPushUriTargetsBusy` to false"
        ),
    }
}

/// What comes before the image's bytes, and after them.
struct Frame {
    kind: String,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Frame {
    fn of(place: &Place, parameters: &Value, image: &ImageFile) -> Frame {
        match place {
            Place::Raw(_) => Frame {
                kind: "application/octet-stream".into(),
                head: Vec::new(),
                tail: Vec::new(),
            },
            Place::Multipart(_) => {
                let name = image.path.file_name().unwrap_or_default().to_string_lossy();
                // Between the parts stands what no image has in it: its own digest.
                let boundary = format!("farrier-{}", image.sha256.get(..32).unwrap_or("image"));
                // The catalog lets none of these into a name; a quote would end the header.
                let name: String =
                    name.chars().filter(|c| !matches!(c, '"' | '\r' | '\n')).collect();
                let head = format!(
                    "--{boundary}\r\n\
                     Content-Disposition: form-data; name=\"UpdateParameters\"\r\n\
                     Content-Type: application/json\r\n\r\n{parameters}\r\n\
                     --{boundary}\r\n\
                     Content-Disposition: form-data; name=\"UpdateFile\"; filename=\"{name}\"\r\n\
                     Content-Type: application/octet-stream\r\n\r\n"
                );
                Frame {
                    kind: format!("multipart/form-data; boundary={boundary}"),
                    head: head.into_bytes(),
                    tail: format!("\r\n--{boundary}--\r\n").into_bytes(),
                }
            }
        }
    }

    fn length(&self, image: &ImageFile) -> u64 {
        let of = |part: &Vec<u8>| u64::try_from(part.len()).unwrap_or(u64::MAX);
        image.size + of(&self.head) + of(&self.tail)
    }
}

/// `UpdateParameters` (DSP0266 §"Multipart HTTP push updates").
fn parameters(quirks: &UpdateQuirks, member: &Component) -> Value {
    let named = quirks.targets.iter().find(|t| t.member.is_match(&member.id));
    let targets: Vec<&String> = match named {
        // An empty target: the BMC finds out by the image.
        Some(t) => Some(&t.target).filter(|t| !t.is_empty()).into_iter().collect(),
        None => member.uri.iter().collect(),
    };
    let mut out = json!({ "Targets": targets });
    if let Some(oem) = named.and_then(|t| t.oem.as_ref()) {
        out["Oem"] = oem.clone();
    } else if quirks.oem {
        out["Oem"] = json!({});
    }
    out
}

async fn send(
    bmc: &Bmc<'_>,
    quirks: &Quirks,
    place: &Place,
    member: &Component,
    image: &ImageFile,
) -> Result<Outcome, Stop> {
    let (Place::Multipart(uri) | Place::Raw(uri)) = place;
    let url = bmc.conn.url(uri)?;
    let what = format!("POST {}", url.path());
    let frame = Frame::of(place, &parameters(&quirks.update, member), image);
    let unsent = |fault| NoAnswer { fault, sent: false, cut: false };
    let upload = async {
        let (mut login, mut round) = bmc.login().await.map_err(unsent)?;
        let mut again = true;
        loop {
            let handed = Arc::new(AtomicU64::new(0));
            let upload = Upload {
                url: url.clone(),
                login: &login,
                kind: &frame.kind,
                length: frame.length(image),
                body: body(&frame, image, handed.clone()).await.map_err(unsent)?,
                handed,
                deadline_ms: image.push_deadline_ms(),
            };
            let answer = bmc.edge.clients.upload(bmc.conn.policy, upload).await?;
            if answer.status != 401 {
                return Ok(answer);
            }
            // A 401 says that nothing was done.
            (login, round) = bmc.login_refused(round, again, &what).await.map_err(unsent)?;
            again = false;
        }
    };
    let sent: Result<Answer, NoAnswer> = upload.await;
    match sent {
        Ok(answer) => Ok(match guard::taken(bmc, &what, answer) {
            Ok(answer) => Outcome::Applied { handle: task::handle(bmc, &answer) },
            Err(outcome) => outcome,
        }),
        Err(NoAnswer { fault, sent: false, .. }) => Err(bmc.scrubbed(fault).into()),
        Err(NoAnswer { fault, .. }) => {
            Ok(Outcome::Unknown { fault: guard::unknown(bmc.scrubbed(fault)) })
        }
    }
}

/// Head, image, tail; `handed` counts what the connection took.
async fn body(frame: &Frame, image: &ImageFile, handed: Arc<AtomicU64>) -> Result<Body, Fault> {
    let file = File::open(&image.path).await.map_err(|e| {
        let shown = image.path.display();
        fault::precondition("image-unreadable", format!("the image `{shown}` can't be read: {e}"))
    })?;
    // No longer than was said: a file that grows meanwhile is another one.
    let bytes = chunks(file.take(image.size));
    let head = stream::iter([Ok(frame.head.clone())]);
    let tail = stream::iter([Ok(frame.tail.clone())]);
    let all = head.chain(bytes).chain(tail).inspect(move |chunk: &std::io::Result<Vec<u8>>| {
        if let Ok(chunk) = chunk {
            handed.fetch_add(u64::try_from(chunk.len()).unwrap_or(0), Ordering::Relaxed);
        }
    });
    Ok(Body::wrap_stream(all))
}

fn chunks<R>(reader: R) -> impl stream::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static
where
    R: AsyncRead + Unpin + Send + 'static,
{
    stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = vec![0; CHUNK];
        let n = reader.read(&mut chunk).await?;
        chunk.truncate(n);
        Ok((n > 0).then_some((chunk, reader)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quirks::PushTarget;

    #[test]
    fn the_place_is_the_one_that_the_service_names() {
        let both = json!({"MultipartHttpPushUri": "/m", "HttpPushUri": "/r"});
        let raw = json!({"MultipartHttpPushUri": null, "HttpPushUri": "/r"});
        assert_eq!(place(&both, PushForm::Found), Some(Place::Multipart("/m".into())));
        assert_eq!(place(&raw, PushForm::Found), Some(Place::Raw("/r".into())));
        assert_eq!(place(&both, PushForm::Raw), Some(Place::Raw("/r".into())));
        assert_eq!(place(&raw, PushForm::Multipart), None);
        assert_eq!(place(&both, PushForm::None), None);
    }

    #[test]
    fn targets_are_the_member_unless_the_vendor_wants_others() {
        let member = |id: &str| Component {
            id: id.into(),
            uri: Some(format!("/fw/{id}")),
            ..Component::default()
        };
        let target = |re: &str, target: &str| PushTarget {
            member: regex::Regex::new(re).expect("a regex"),
            target: target.into(),
            oem: None,
        };
        let plain = UpdateQuirks::default();
        assert_eq!(parameters(&plain, &member("BIOS")), json!({"Targets": ["/fw/BIOS"]}));
        let hgx = UpdateQuirks { targets: vec![target("^HGX_", "/hgx")], ..plain.clone() };
        assert_eq!(parameters(&hgx, &member("HGX_FW_GPU_0")), json!({"Targets": ["/hgx"]}));
        assert_eq!(parameters(&hgx, &member("BMC")), json!({"Targets": ["/fw/BMC"]}));
        let dell = UpdateQuirks { targets: vec![target("", "")], oem: true, ..plain };
        assert_eq!(parameters(&dell, &member("x")), json!({"Targets": [], "Oem": {}}));
        let keep = PushTarget { oem: Some(json!({"Acme": {"Keep": true}})), ..target("^B", "/b") };
        let keeps = UpdateQuirks { targets: vec![keep], ..dell };
        let said = json!({"Targets": ["/b"], "Oem": {"Acme": {"Keep": true}}});
        assert_eq!(parameters(&keeps, &member("BIOS")), said);
    }
}
