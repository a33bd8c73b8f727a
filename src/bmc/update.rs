//! Firmware updates: SimpleUpdate where the BMC fetches images (DSP0268 UpdateService), else a push.
//! Sent once; what came of it is seen in tasks and versions.

use super::conn::Bmc;
use super::guard::{self, Action, Stop};
use super::{fault, firmware, jobs, json, push, task};
use crate::model::action::Expect;
use crate::model::facts::Component;
use crate::model::quirks::{Quirks, UpdateWay};
use crate::model::{Fault, FaultClass, Outcome};
use crate::port::UpdateOrder;
use serde_json::{Value, json};

pub(super) async fn update(
    bmc: &Bmc<'_>,
    expect: &Expect,
    order: &UpdateOrder,
) -> Result<Outcome, Stop> {
    let _one = bmc.conn.write().await;
    let (_, system) = guard::check(bmc, expect).await?;
    send(bmc, &system, expect, order).await
}

/// The same where the caller holds the permit to write and has proven the BMC; `system` was just read.
pub(super) async fn send(
    bmc: &Bmc<'_>,
    system: &Value,
    expect: &Expect,
    order: &UpdateOrder,
) -> Result<Outcome, Stop> {
    let quirks = bmc.quirks_of(system).await?;
    let service_path = firmware::update_service_link(bmc).await?;
    let service = bmc.get(&service_path).await?;
    let member = member(bmc, &service, &order.inventory_id).await?;
    let from = expect.from_version.as_ref().unwrap_or(&order.from);
    if member.version.as_ref() != Some(from) {
        return Err(Stop::Refused {
            saw: format!(
                "{} has version `{}`, expected `{from}`",
                member.id,
                member.version.as_deref().unwrap_or("unknown")
            ),
            wrong_machine: false,
        });
    }
    if json::at(&service, &["ServiceEnabled"]) == Some(&Value::Bool(false)) {
        let f = fault::precondition("update-service-off", "the BMC's update service is disabled");
        return Ok(Outcome::Failed { fault: f.hint("enable it on the BMC") });
    }
    if let (Some(image), Some(most)) =
        (&order.file, json::at(&service, &["MaxImageSizeBytes"]).and_then(Value::as_u64))
        && most > 0
        && image.size > most
    {
        let f = fault::precondition(
            "image-too-large",
            format!("the image has {} bytes, and the BMC takes {most} at most", image.size),
        );
        return Ok(Outcome::Failed { fault: f.hint("take the vendor's image for this BMC alone") });
    }
    let simple = Action::find(bmc, &service, "#UpdateService.SimpleUpdate").await?;
    let pushed = order.file.as_ref().is_some_and(|image| {
        image.form.is_some()
            || (quirks.update.way == UpdateWay::PushFirst
                && push::is_offered(&service, &quirks.update, image))
    });
    let pull = match simple {
        Some(action) if !pushed && quirks.update.way != UpdateWay::Push => {
            Pull::new(&quirks, action, &member, order)
        }
        _ => Err(no_simple_update()),
    };
    match (pull, &order.file) {
        (Ok(pull), _) => Ok(jobs::explained(bmc, pull.send(bmc).await?).await),
        (Err(_), Some(image))
            if quirks.update.way != UpdateWay::Pull
                && push::is_offered(&service, &quirks.update, image) =>
        {
            let place = (&*service_path, &service);
            let outcome = push::push(bmc, &quirks, place, &member, image).await?;
            Ok(jobs::explained(bmc, outcome).await)
        }
        (Err(fault), _) => Ok(Outcome::Failed { fault }),
    }
}

fn no_simple_update() -> Fault {
    fault::unsupported("no-simple-update", "the BMC cannot fetch images by itself")
        .hint("this family needs a pushed image, and none is at hand or no place to push it to")
}

/// A SimpleUpdate, ready to be sent.
struct Pull {
    target: String,
    body: Value,
}

impl Pull {
    fn new(
        quirks: &Quirks,
        action: Action,
        member: &Component,
        order: &UpdateOrder,
    ) -> Result<Pull, Fault> {
        let scheme = order.image_url.split(':').next().unwrap_or_default().to_ascii_uppercase();
        let mut body = json!({"ImageURI": order.image_url});
        match action.allowed("TransferProtocol") {
            Some(list) if list.contains(&scheme) => {
                body["TransferProtocol"] = Value::from(scheme);
            }
            Some(list) => {
                return Err(fault::unsupported(
                    "transfer-protocol",
                    format!("the BMC does not fetch by {scheme}, but by {}", list.join(", ")),
                )
                .hint("serve the images to BMCs with one of these"));
            }
            // Not listed: the URI's scheme says it.
            None => {}
        }
        if let (Some(uri), false) = (&member.uri, action.lacks("Targets")) {
            body["Targets"] = json!([uri]);
        }
        let target = quirks.update.simple_update.clone().unwrap_or(action.target);
        Ok(Pull { target, body })
    }

    async fn send(&self, bmc: &Bmc<'_>) -> Result<Outcome, Stop> {
        Ok(match guard::post(bmc, &self.target, &self.body).await? {
            Ok(answer) => Outcome::Applied { handle: task::handle(bmc, &answer) },
            Err(outcome) => outcome,
        })
    }
}

/// The firmware inventory member with this id, read now.
async fn member(bmc: &Bmc<'_>, service: &Value, id: &str) -> Result<Component, Stop> {
    // Where it was last: the id it shows decides.
    if let Some(path) = bmc.conn.member(id)
        && let Ok(v) = bmc.get(&path).await
    {
        let found = firmware::component(&path, &v);
        if found.id == id {
            return Ok(found);
        }
    }
    let link = firmware::inventory_link(service)?;
    let paths: Vec<String> =
        bmc.members(&link, false).await?.iter().filter_map(json::link_of).collect();
    let named = paths.iter().find(|p| json::last_segment(p) == id);
    if let Some(path) = named {
        let v = bmc.get(path).await?;
        let found = firmware::component(path, &v);
        if found.id == id {
            return Ok(found);
        }
    }
    // The id is not the path's end: ask every member.
    let mut unread = None;
    for (path, read) in bmc.resources(&link).await? {
        match read {
            Ok(v) => {
                let found = firmware::component(&path, &v);
                if found.id == id {
                    return Ok(found);
                }
            }
            // Listed and not there.
            Err(f) if f.class == FaultClass::Unsupported => {}
            Err(f) => unread = Some(f),
        }
    }
    if let Some(f) = unread {
        return Err(f.into());
    }
    Err(Stop::Refused { saw: format!("no firmware inventory member `{id}`"), wrong_machine: false })
}
