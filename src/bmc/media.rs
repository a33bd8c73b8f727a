//! Virtual media: an image that the BMC shows its host as a drive (DSP0268 VirtualMedia; field
//! notes §4).
//!
//! What is in a drive is taken out first, whatever the BMC says of it, because some go on saying
//! `Inserted` for seconds after an eject and others show an image that is no longer there. The host
//! should be off meanwhile; whoever orders it sees to that.

use super::conn::Bmc;
use super::guard::{self, Action, Stop};
use super::{around, discover, fault, json, patch, system};
use crate::model::action::Expect;
use crate::model::hardware::MediaSlot;
use crate::model::quirks::{MediaBody, MediaField, MediaFirst, MediaQuirks};
use crate::model::{Fault, FaultClass, Outcome};
use crate::port::capability::MediaOrder;
use reqwest::Url;
use serde_json::{Value, json};
use std::time::Duration;

/// Reads that wait for a change to show, besides those of the BMC's own settle time.
const LOOKS: u32 = 2;

/// Tries of one insert that the BMC answers with 5xx right after an eject: it means "not yet".
const TRIES: u32 = 3;

const INSERT: &str = "#VirtualMedia.InsertMedia";
const EJECT: &str = "#VirtualMedia.EjectMedia";

#[derive(Debug)]
struct Slot {
    facts: MediaSlot,
    document: Value,
}

impl Slot {
    fn of(uri: &str, document: Value) -> Slot {
        let facts = MediaSlot {
            id: json::text(&document, &["Id"])
                .unwrap_or_else(|| json::last_segment(uri).to_string()),
            uri: uri.to_string(),
            kinds: json::texts(&document, &["MediaTypes"]),
            image: json::text(&document, &["Image"])
                .or_else(|| json::text(&document, &["ImageName"])),
            inserted: json::at(&document, &["Inserted"]).and_then(Value::as_bool),
        };
        Slot { facts, document }
    }

    fn has(&self, action: &str) -> bool {
        json::text(&self.document, &["Actions", action, "target"]).is_some()
    }

    /// Known to be empty.
    fn is_empty(&self) -> bool {
        self.facts.inserted == Some(false)
            || self.facts.inserted.is_none() && self.facts.image.is_none()
    }

    fn takes(&self, kind: &str) -> bool {
        let optical = |k: &str| k.eq_ignore_ascii_case("cd") || k.eq_ignore_ascii_case("dvd");
        self.facts.kinds.is_empty()
            || self
                .facts
                .kinds
                .iter()
                .any(|k| k.eq_ignore_ascii_case(kind) || optical(k) && optical(kind))
    }
}

pub(super) async fn read(bmc: &Bmc<'_>) -> Result<Vec<MediaSlot>, Fault> {
    let (_, v) = system::fetch(bmc).await?;
    let quirks = bmc.quirks_of(&v).await?;
    Ok(slots(bmc, &v, &quirks.media).await?.into_iter().map(|s| s.facts).collect())
}

/// The drives of the managers, then those of the system, or the other way round: where a vendor has
/// both, its quirks say which are the ones that work.
async fn slots(bmc: &Bmc<'_>, system: &Value, quirks: &MediaQuirks) -> Result<Vec<Slot>, Fault> {
    let managers = around::managers(bmc, system).await?;
    let mut collections: Vec<String> =
        managers.iter().filter_map(|(_, m)| json::link(m, &["VirtualMedia"])).collect();
    collections.extend(json::link(system, &["VirtualMedia"]));
    if quirks.first == MediaFirst::Systems {
        collections.reverse();
    }
    // Supermicro's system links to the manager's.
    let mut once: Vec<String> = Vec::new();
    collections.retain(|c| {
        let new = !once.iter().any(|o| json::uri_eq(o, c));
        once.extend(new.then(|| c.clone()));
        new
    });
    if collections.is_empty() {
        return Err(fault::unsupported("no-virtual-media", "the BMC has no virtual media")
            .hint("on some it needs a licence"));
    }
    let mut found = Vec::new();
    let mut lost = None;
    for collection in collections {
        match bmc.resources(&collection).await {
            Ok(read) => found.extend(around::readable(bmc, read)),
            Err(f) if discover::is_fatal(&f) => return Err(f),
            Err(f) => lost = Some(f),
        }
    }
    match lost {
        Some(f) if found.is_empty() => Err(f),
        _ => Ok(found.into_iter().map(|(uri, v)| Slot::of(&uri, v)).collect()),
    }
}

/// The drives that are written to: each id once, since XCC lists the same drive in two places.
async fn writable(bmc: &Bmc<'_>, system: &Value, quirks: &MediaQuirks) -> Result<Vec<Slot>, Fault> {
    let mut once: Vec<Slot> = Vec::new();
    for slot in slots(bmc, system, quirks).await? {
        if !once.iter().any(|s| s.facts.id == slot.facts.id) {
            once.push(slot);
        }
    }
    Ok(once)
}

pub(super) async fn insert(
    bmc: &Bmc<'_>,
    expect: &Expect,
    order: &MediaOrder,
) -> Result<Outcome, Stop> {
    let url = plain(&order.image_url)?;
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    let all = bmc.quirks_of(&system).await?;
    let quirks = &all.media;
    if !quirks.protocols.is_empty() && !quirks.protocols.iter().any(|p| p == url.scheme()) {
        let f = fault::unsupported(
            "media-protocol",
            format!(
                "the BMC does not fetch by {}, but by {}",
                url.scheme(),
                quirks.protocols.join(", ")
            ),
        );
        return Ok(Outcome::Failed { fault: f.hint("serve the image with one of these") });
    }
    let slots = writable(bmc, &system, quirks).await?;
    let mut fitting: Vec<Slot> = slots.into_iter().filter(|s| s.takes(&order.kind)).collect();
    // The one that this BMC's quirks prefer, an empty one, else the first: what it holds is taken
    // out.
    let preferred = |s: &Slot| {
        let named = |id: &String| id.eq_ignore_ascii_case(&s.facts.id);
        quirks.slots.iter().position(named).unwrap_or(usize::MAX)
    };
    fitting.sort_by_key(|s| (preferred(s), !s.is_empty()));
    let Some(slot) = fitting.into_iter().next() else {
        let f = fault::unsupported(
            "no-media-slot",
            format!("the BMC has no virtual drive for a {}", order.kind),
        );
        return Ok(Outcome::Failed { fault: f });
    };
    if let Err(outcome) = empty(bmc, &slot).await? {
        return Ok(outcome);
    }
    // Some have InsertMedia only while the drive is empty.
    let (slot, emptied) = look(bmc, slot, quirks, Slot::is_empty).await?;
    let sent = if slot.has(INSERT) {
        by_action(bmc, &slot, quirks, order, &url).await?
    } else {
        by_patch(bmc, &slot, quirks, order, &url).await?
    };
    let unclear = match sent {
        Ok(()) => None,
        Err(outcome @ Outcome::Unknown { .. }) => Some(outcome),
        Err(outcome) => return Ok(outcome),
    };
    let shows = |s: &Slot| shows(&s.facts, &order.image_url, emptied);
    let (slot, shown) = look(bmc, slot, quirks, shows).await?;
    Ok(match unclear {
        _ if shown => Outcome::Applied { handle: None },
        Some(outcome) => outcome,
        None => {
            let f = Fault::new(
                FaultClass::OutcomeUnknown,
                crate::model::Channel::Bmc,
                "media-not-shown",
                format!("{} took the image and does not show it", slot.facts.id),
            );
            Outcome::Unknown { fault: f.hint("can the BMC reach the image's address?") }
        }
    })
}

/// Is the image in the drive? Some rewrite its address; what came into a drive that was seen empty
/// is what was put there.
fn shows(slot: &MediaSlot, url: &str, emptied: bool) -> bool {
    let named =
        |image: &String| image == url || json::last_segment(image) == json::last_segment(url);
    match (slot.inserted, &slot.image) {
        (Some(true), None) => true,
        (Some(true), Some(image)) => emptied || named(image),
        (None, Some(image)) => named(image),
        _ => false,
    }
}

/// Plain and short, or it is not fetched by every BMC (R22).
fn plain(image_url: &str) -> Result<Url, Fault> {
    let bad = |why: &str| {
        fault::precondition("bad-image-url", format!("`{image_url}`: {why}"))
            .hint("BMCs fetch plain addresses: http://192.0.2.1/image.iso")
    };
    let url = Url::parse(image_url).map_err(|e| bad(&e.to_string()))?;
    if url.host_str().is_none() {
        return Err(bad("it names no server"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(bad("it has a query, a fragment or a user name"));
    }
    Ok(url)
}

/// Sends the forms of a body until one is taken. `Err(Unknown)`: what the drive shows decides.
async fn by_action(
    bmc: &Bmc<'_>,
    slot: &Slot,
    quirks: &MediaQuirks,
    order: &MediaOrder,
    url: &Url,
) -> Result<Result<(), Outcome>, Stop> {
    let Some(action) = Action::find(bmc, &slot.document, INSERT).await? else {
        let f = fault::unsupported("no-insert", format!("{} has no InsertMedia", slot.facts.id));
        return Ok(Err(Outcome::Failed { fault: f }));
    };
    let mut first: Option<Outcome> = None;
    // A form that the BMC's own list of parameters rules out is not sent.
    let lacks =
        |body: &Value| body.as_object().is_some_and(|o| o.keys().any(|name| action.lacks(name)));
    for form in quirks.bodies.iter().filter(|b| !b.patch).map(|b| body(b, order, url)) {
        if lacks(&form) {
            continue;
        }
        let mut tries = 0;
        let outcome = loop {
            tries += 1;
            match guard::post(bmc, &action.target, &form).await? {
                Ok(_) => return Ok(Ok(())),
                Err(Outcome::Unknown { fault }) if !fault.is_no_answer() => {
                    // A 5xx: the drive tells whether it has taken hold all the same.
                    pause(bmc).await;
                    let now = reread(bmc, &slot.facts.uri).await?;
                    if shows(&now.facts, &order.image_url, true) {
                        return Ok(Ok(()));
                    }
                    if tries >= TRIES {
                        return Ok(Err(Outcome::Failed {
                            fault: fault.hint("can the BMC reach the image's address?"),
                        }));
                    }
                }
                Err(outcome) => break outcome,
            }
        };
        match &outcome {
            Outcome::Failed { fault } if is_about_the_form(fault) => {
                first.get_or_insert(outcome);
            }
            _ => return Ok(Err(outcome)),
        }
    }
    Ok(Err(match first {
        // A few say so too where they could not fetch the image (sushy-tools, SMC).
        Some(Outcome::Failed { fault }) if fault.hint.is_none() => {
            Outcome::Failed { fault: fault.hint("can the BMC reach the image's address?") }
        }
        Some(outcome) => outcome,
        None => Outcome::Failed {
            fault: fault::unsupported("no-insert", "the BMC takes no form of InsertMedia"),
        },
    }))
}

async fn by_patch(
    bmc: &Bmc<'_>,
    slot: &Slot,
    quirks: &MediaQuirks,
    order: &MediaOrder,
    url: &Url,
) -> Result<Result<(), Outcome>, Stop> {
    let mut first: Option<Outcome> = None;
    for form in quirks.bodies.iter().filter(|b| b.patch) {
        let read = patch::read(bmc, &slot.facts.uri).await?;
        match patch::patch(bmc, &read, &body(form, order, url)).await? {
            Ok(_) => return Ok(Ok(())),
            Err(outcome) => match &outcome {
                Outcome::Failed { fault } if is_about_the_form(fault) => {
                    first.get_or_insert(outcome);
                }
                _ => return Ok(Err(outcome)),
            },
        }
    }
    let none = || Outcome::Failed { fault: fault::unsupported("no-insert", "nothing to send") };
    Ok(Err(first.unwrap_or_else(none)))
}

/// Turned down for what it said, so that nothing was done: another form may be taken.
fn is_about_the_form(f: &Fault) -> bool {
    matches!(f.code.as_ref(), "rejected" | "not-supported" | "bmc-error")
}

fn body(form: &MediaBody, order: &MediaOrder, url: &Url) -> Value {
    let mut body = json!({"Image": order.image_url});
    for field in &form.fields {
        match field {
            MediaField::Inserted => body["Inserted"] = Value::from(true),
            MediaField::WriteProtected => body["WriteProtected"] = Value::from(true),
            MediaField::TransferProtocolType => {
                body["TransferProtocolType"] = Value::from(url.scheme().to_ascii_uppercase());
            }
            MediaField::TransferMethod => body["TransferMethod"] = Value::from("Stream"),
            // Without a login for the image's server, yet some ask for the properties.
            MediaField::Credentials => {
                (body["UserName"], body["Password"]) = (Value::from(""), Value::from(""));
            }
        }
    }
    body
}

pub(super) async fn eject(bmc: &Bmc<'_>, expect: &Expect) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    let all = bmc.quirks_of(&system).await?;
    let full = writable(bmc, &system, &all.media).await?.into_iter().filter(|s| !s.is_empty());
    for slot in full.collect::<Vec<_>>() {
        if let Err(outcome) = empty(bmc, &slot).await? {
            return Ok(outcome);
        }
        let (slot, empty) = look(bmc, slot, &all.media, Slot::is_empty).await?;
        if !empty {
            let f = Fault::new(
                FaultClass::OutcomeUnknown,
                crate::model::Channel::Bmc,
                "media-still-shown",
                format!("{} was ejected and still shows an image", slot.facts.id),
            );
            return Ok(Outcome::Unknown { fault: f.hint("look again; a BMC reset clears it") });
        }
    }
    Ok(Outcome::Applied { handle: None })
}

/// Takes out what may be in the drive. An empty drive may refuse.
async fn empty(bmc: &Bmc<'_>, slot: &Slot) -> Result<Result<(), Outcome>, Stop> {
    let sent = if let Some(action) = Action::find(bmc, &slot.document, EJECT).await? {
        // `{}`: HPE wants a body.
        guard::post(bmc, &action.target, &json!({})).await?
    } else if slot.has(INSERT) {
        if slot.is_empty() {
            return Ok(Ok(()));
        }
        let f = fault::unsupported("no-eject", format!("{} has no EjectMedia", slot.facts.id));
        return Ok(Err(Outcome::Failed { fault: f }));
    } else {
        let read = patch::read(bmc, &slot.facts.uri).await?;
        match patch::patch(bmc, &read, &json!({"Image": null, "Inserted": false})).await? {
            Err(Outcome::Failed { fault }) if fault.code == "rejected" => {
                patch::patch(bmc, &read, &json!({"Image": null})).await?
            }
            sent => sent,
        }
    };
    Ok(match sent {
        Err(outcome @ Outcome::Failed { .. }) if !slot.is_empty() => Err(outcome),
        Err(Outcome::Unknown { fault }) if fault.is_no_answer() => Err(Outcome::Unknown { fault }),
        _ => Ok(()),
    })
}

async fn reread(bmc: &Bmc<'_>, uri: &str) -> Result<Slot, Fault> {
    Ok(Slot::of(uri, bmc.get(uri).await?))
}

/// Reads the drive until it shows what is waited for, or long enough.
async fn look(
    bmc: &Bmc<'_>,
    mut slot: Slot,
    quirks: &MediaQuirks,
    good: impl Fn(&Slot) -> bool,
) -> Result<(Slot, bool), Fault> {
    // A pause is a second.
    for n in 0..LOOKS + quirks.settle_s {
        if n > 0 {
            pause(bmc).await;
        }
        match reread(bmc, &slot.facts.uri).await {
            Ok(now) => slot = now,
            Err(f) if discover::is_fatal(&f) => return Err(f),
            Err(_) => continue,
        }
        if good(&slot) {
            return Ok((slot, true));
        }
    }
    Ok((slot, false))
}

/// A pause between two reads that wait for a change to show.
async fn pause(bmc: &Bmc<'_>) {
    tokio::time::sleep(Duration::from_millis(bmc.edge.settings.settle_ms)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_addresses_are_plain() {
        assert!(plain("http://192.0.2.1/a.iso").is_ok());
        for bad in ["", "a.iso", "http://h/a?x=1", "http://u:p@h/a", "file:///a"] {
            assert_eq!(plain(bad).unwrap_err().code, "bad-image-url", "{bad}");
        }
    }

    #[test]
    fn a_drive_shows_an_image_by_name_or_because_it_was_empty() {
        let slot = |inserted, image: Option<&str>| MediaSlot {
            inserted,
            image: image.map(str::to_string),
            ..MediaSlot::default()
        };
        let url = "http://192.0.2.1/x/a.iso";
        assert!(shows(&slot(Some(true), Some(url)), url, false));
        assert!(shows(&slot(Some(true), Some("//share/a.iso")), url, false));
        assert!(!shows(&slot(Some(true), Some("http://192.0.2.1/old.iso")), url, false), "stale");
        assert!(shows(&slot(Some(true), Some("mapped")), url, true));
        assert!(!shows(&slot(Some(false), Some(url)), url, true));
        assert!(!shows(&slot(None, None), url, true));
    }
}
