//! A vendor between the wire and the clean tree: what it refuses is refused here, what it takes is
//! put into the clean tree's words, and what that answers is told as this vendor tells it. Nothing
//! here changes the physics; only the clean tree does.

mod edit;
mod etag;
mod hgx;
mod jobs;
mod login;
mod names;
mod power;
mod say;
mod start;
mod task;

pub(super) use jobs::{Queued, refused as queue_refuses};
pub(super) use login::Logins;
pub(super) use start::{Phase, phase};

use super::World;
use super::profile::{Profile, Said, TaskMode};
use super::redfish;
use super::seat::Seat;
use crate::model::EngineTime;
use crate::sim::physics::PowerState;
use axum::body::{Body as Bytes, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use login::Proof;
use power::Fate;
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest document of the clean tree, bytes.
const DOCUMENT_MAX: usize = 16 << 20;

/// One request, answered as the seat's vendor would.
pub(super) async fn answer(
    world: &Arc<World>,
    seat: &Arc<Seat>,
    parts: &Parts,
    path: &[&str],
    body: &[u8],
) -> Response {
    if seat.plain {
        return redfish::clean(world, seat, parts, path, body).await;
    }
    let talk = Talk { world, seat, profile: &seat.profile, parts, now: world.now() };
    talk.answer(path, body).await
}

struct Talk<'a> {
    world: &'a Arc<World>,
    seat: &'a Arc<Seat>,
    profile: &'a Profile,
    parts: &'a Parts,
    now: EngineTime,
}

impl Talk<'_> {
    async fn answer(&self, called: &[&str], body: &[u8]) -> Response {
        let mut path = names::inward(self.profile, called);
        let phase = phase(self.world, self.seat, self.now);
        if let Some(out) = start::answer(self.profile, phase, &path) {
            return out;
        }
        if let [service, kind, id] = path.as_mut_slice()
            && service == "TaskService"
            && kind == "TaskMonitors"
            && task::mode(self.seat, self.world.seed, id) != TaskMode::Normal
        {
            // The monitor knows no more than the task does.
            *kind = "Tasks".into();
        }
        let method = &self.parts.method;
        let proof = login::proof(method, &path, &self.parts.headers);
        if let Some(said) = login::refused(self.seat, self.now, proof) {
            return self.refuse(&said);
        }
        let open = path.is_empty() || proof == Proof::Login;
        if !open && login::must_change(self.seat, self.now, &path) {
            let own = self.seat.with(self.now, |b| {
                let own = b.accounts.list.iter().find(|a| a.user == self.seat.user);
                own.map_or_else(|| "1".into(), |a| a.id.clone())
            });
            return self.if_let_in(self.refuse(&must_change(&own))).await;
        }
        let read = matches!(*method, Method::GET | Method::HEAD);
        let settings = self.is_settings(&path);
        if settings {
            path.pop();
        }
        if read && let Some(out) = self.made_here(&path, settings, phase).await {
            return out;
        }
        let mut json = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
        let mut bytes = body.to_vec();
        if !read && json.is_object() {
            names::body_inward(self.profile, &mut json);
            bytes = json.to_string().into_bytes();
        }
        if !read && !open {
            match self.write(&path, &json).await {
                Ok(None) => {}
                Ok(Some(changed)) => bytes = changed.to_string().into_bytes(),
                Err(out) => return *out,
            }
        }
        let out = self.forward(method, &path, &bytes, self.parts.uri.query()).await;
        let changes_password = *method == Method::PATCH && json.get("Password").is_some();
        login::note(self.seat, self.now, proof, out.status().as_u16(), changes_password);
        self.tell(&path, phase, out).await
    }

    fn refuse(&self, said: &Said) -> Response {
        say::refusal(&self.profile.errors, said, false)
    }

    /// `out` for those who are logged in, a 401 for the others.
    async fn if_let_in(&self, out: Response) -> Response {
        let service = ["SessionService".to_string()];
        let asked = self.forward(&Method::GET, &service, &[], None).await;
        if asked.status() != StatusCode::UNAUTHORIZED {
            return out;
        }
        let proof = login::proof(&Method::GET, &service, &self.parts.headers);
        login::note(self.seat, self.now, proof, 401, false);
        self.tell(&service, Phase::Up, asked).await
    }

    /// Asks the clean tree. What this vendor thinks of `If-Match` has been said before.
    async fn forward(
        &self,
        method: &Method,
        path: &[String],
        body: &[u8],
        query: Option<&str>,
    ) -> Response {
        let mut headers = self.parts.headers.clone();
        headers.remove(header::IF_MATCH);
        let mut uri = format!("/redfish/v1/{}", path.join("/"));
        if let Some(query) = query {
            uri = format!("{uri}?{query}");
        }
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers;
        *request.uri_mut() = uri.parse().unwrap_or_else(|_| Uri::from_static("/redfish/v1"));
        let (parts, ()) = request.into_parts();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Box::pin(redfish::clean(self.world, self.seat, &parts, &path, body)).await
    }

    /// The clean tree's document, or its answer where it gives none.
    async fn ask(&self, path: &[String]) -> Result<(HeaderMap, Value), Box<Response>> {
        let out = self.forward(&Method::GET, path, &[], None).await;
        if !out.status().is_success() {
            return Err(Box::new(out));
        }
        let (parts, body) = out.into_parts();
        let bytes = to_bytes(body, DOCUMENT_MAX).await.unwrap_or_default();
        Ok((parts.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// The clean tree's document, for who is logged in; this vendor's refusal otherwise.
    async fn clean(&self, path: &[String]) -> Result<(HeaderMap, Value), Box<Response>> {
        match self.ask(path).await {
            Ok(found) => Ok(found),
            Err(out) => Err(Box::new(self.tell(path, Phase::Up, *out).await)),
        }
    }

    fn is_settings(&self, path: &[String]) -> bool {
        let Some(name) = &self.profile.boot.settings else { return false };
        matches!(path, [a, b, c] if a == "Systems" && b == "1" && c == name)
    }

    /// Resources that only this vendor has.
    async fn made_here(&self, path: &[String], settings: bool, phase: Phase) -> Option<Response> {
        let made = if settings {
            self.clean(path).await.map(|(headers, mut system)| {
                power::show(self.profile, path, &mut system);
                let name = self.profile.boot.settings.as_deref().unwrap_or_default();
                Some((headers, power::settings_object(name, &system)))
            })
        } else if let Some(info) = power::action_info(self.profile, path) {
            self.clean(&["SessionService".to_string()])
                .await
                .map(|_| Some((HeaderMap::new(), info)))
        } else if let Some(hgx) = &self.profile.hgx
            && let Some(source) = hgx::source(hgx, path)
        {
            self.clean(&source).await.map(|(headers, mut from)| {
                edit::apply(self.profile, &source, &mut from);
                let off = self.seat.with(self.now, |b| b.vm.power != PowerState::On);
                hgx::baseboard(hgx, path, from, off).map(|made| (headers, made))
            })
        } else if path.first().is_some_and(|s| s == "JobService") && self.has_jobs() {
            self.jobs(path).await.map(|made| made.map(|v| (HeaderMap::new(), v)))
        } else {
            return None;
        };
        Some(match made {
            Err(refusal) => *refusal,
            Ok(None) => self.refuse(&not_there()),
            Ok(Some((mut headers, mut body))) => {
                start::thin_out(phase, path, &mut body);
                names::rewrite(self.profile, &[], &mut body);
                etag::spell(self.profile, &mut headers, Some(&mut body));
                let mut out = redfish::document(StatusCode::OK, &body);
                for etag in headers.get_all(header::ETAG) {
                    out.headers_mut().append(header::ETAG, etag.clone());
                }
                out
            }
        })
    }

    fn has_jobs(&self) -> bool {
        self.profile.jobs.is_some()
            || self.profile.tasks.modes.get(&TaskMode::ToJob).is_some_and(|n| *n > 0)
    }

    async fn jobs(&self, path: &[String]) -> Result<Option<Value>, Box<Response>> {
        let list = ["TaskService".to_string(), "Tasks".to_string()];
        let (_, tasks) = self.clean(&list).await?;
        let ids: Vec<String> = ids(&tasks)
            .filter(|id| task::mode(self.seat, self.world.seed, id) == TaskMode::ToJob)
            .collect();
        let prefix = &self.profile.ids.task_prefix;
        let queued = self.seat.with(self.now, |b| b.jobs.clone());
        Ok(match path {
            [_] => Some(json!({
                "@odata.id": "/redfish/v1/JobService",
                "@odata.type": "#JobService.v1_1_1.JobService",
                "Id": "JobService", "Name": "Job Service", "ServiceEnabled": true,
                "ServiceCapabilities": {
                    "MaxJobs": self.profile.jobs.as_ref().map(|j| j.max).filter(|max| *max > 0),
                },
                "Jobs": {"@odata.id": "/redfish/v1/JobService/Jobs"},
            })),
            [_, _] => {
                let link = |id: &String| json!({"@odata.id": format!("/redfish/v1/JobService/Jobs/{prefix}{id}")});
                let others = queued.iter().map(|job| job.id.to_string());
                let all: Vec<String> = ids.iter().cloned().chain(others).collect();
                let members: Vec<Value> = all.iter().map(link).collect();
                Some(json!({
                    "@odata.id": "/redfish/v1/JobService/Jobs",
                    "@odata.type": "#JobCollection.JobCollection", "Name": "Job Collection",
                    "Members@odata.count": members.len(), "Members": members,
                }))
            }
            [_, _, id] => match ids.iter().find(|n| *id == format!("{prefix}{n}")) {
                Some(n) => {
                    let (_, task) =
                        self.clean(&[&list[..], std::slice::from_ref(n)].concat()).await?;
                    Some(task::job(self.profile, n, &task))
                }
                None => queued
                    .iter()
                    .find(|job| *id == format!("{prefix}{}", job.id))
                    .map(|job| jobs::shown(prefix, job)),
            },
            _ => None,
        })
    }

    /// What becomes of a write before the clean tree sees it: another body, or an answer at once.
    async fn write(&self, path: &[String], body: &Value) -> Result<Option<Value>, Box<Response>> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let headers = &self.parts.headers;
        let boot = body.get("Boot").is_some();
        let is_bmc_reset = names.last() == Some(&"Manager.Reset");
        if self.parts.method == Method::PATCH {
            // Whoever is not logged in learns no more than that.
            let (found, _) = self.clean(path).await?;
            let current = found.get(header::ETAG).and_then(|h| h.to_str().ok());
            let current = current.unwrap_or_default();
            if let Some(said) = etag::refused(self.profile, headers, current) {
                return Err(Box::new(self.refuse(&said)));
            }
        } else if let Some(said) = etag::refused_on_action(self.profile, headers, is_bmc_reset) {
            return Err(Box::new(self.if_let_in(self.refuse(&said)).await));
        }
        let is_job = match (&self.parts.method, names.as_slice()) {
            (&Method::POST, [.., "UpdateService.SimpleUpdate"]) => true,
            (&Method::PATCH, ["Systems", "1", "Bios", ..]) => self.profile.tasks.bios_job,
            _ => false,
        };
        if is_job && let Some(said) = jobs::refused(self.seat, self.world.seed, self.now) {
            return Err(Box::new(self.if_let_in(self.refuse(&said)).await));
        }
        let fate = match (&self.parts.method, names.as_slice()) {
            (&Method::PATCH, ["Systems", "1"]) if boot => {
                power::set_boot(self.seat, self.now, body)
            }
            (&Method::POST, ["Systems", "1", "Actions", "ComputerSystem.Reset"]) => {
                power::reset(self.seat, self.now, self.world.seed, body)
            }
            (&Method::POST, ["Managers", "1", "Actions", "Manager.Reset"]) => {
                power::reset_bmc(self.profile, body)
            }
            _ => return Ok(None),
        };
        match fate {
            Fate::Pass(changed) => Ok(Some(changed)),
            Fate::Refused(said) => Err(Box::new(self.if_let_in(self.refuse(&said)).await)),
            Fate::Done => {
                Err(Box::new(self.if_let_in(StatusCode::NO_CONTENT.into_response()).await))
            }
        }
    }

    /// The clean tree's answer as this vendor gives it.
    async fn tell(&self, path: &[String], phase: Phase, out: Response) -> Response {
        let (mut head, body) = out.into_parts();
        let Ok(bytes) = to_bytes(body, DOCUMENT_MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut body = serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object);
        if head.status.is_client_error() || head.status.is_server_error() {
            let said = say::said_by(head.status.as_u16(), body.as_ref().unwrap_or(&Value::Null));
            let mut out = self.refuse(&said);
            for kept in [header::WWW_AUTHENTICATE, header::RETRY_AFTER] {
                if let Some(value) = head.headers.get(&kept) {
                    out.headers_mut().insert(kept, value.clone());
                }
            }
            return out;
        }
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        let read = matches!(self.parts.method, Method::GET | Method::HEAD);
        match names.as_slice() {
            [.., "ComputerSystem.Reset"] if !read => self.seat.with(self.now, |b| {
                let count = b.power_changed.map_or(0, |(n, _)| n) + 1;
                b.power_changed = Some((count, self.now));
            }),
            [.., "UpdateService.SimpleUpdate"] if !read => {
                task::accept(self.profile, &mut head.status, &mut head.headers, &mut body);
            }
            ["Systems", "1"] if !read => self.acknowledge(&mut head.status, &mut body),
            _ => {}
        }
        if let Some(v) = body.as_mut()
            && (read || v.get("@odata.id").is_some())
            && !self.show(path, phase, v).await
        {
            return self.refuse(&not_there());
        }
        if let Some(v) = body.as_mut() {
            names::rewrite(self.profile, path, v);
        }
        let location = head.headers.get(header::LOCATION).and_then(|h| h.to_str().ok());
        let location = location.and_then(|l| names::outward(self.profile, l));
        if let Some(location) = location.and_then(|l| HeaderValue::from_str(&l).ok()) {
            head.headers.insert(header::LOCATION, location);
        }
        etag::spell(self.profile, &mut head.headers, body.as_mut());
        head.headers.remove(header::CONTENT_LENGTH);
        let bytes = match body {
            Some(v) => Bytes::from(v.to_string()),
            // Nothing, or what is no JSON: the metadata document.
            None if head.status == StatusCode::NO_CONTENT => Bytes::empty(),
            None => Bytes::from(bytes),
        };
        Response::from_parts(head, bytes)
    }

    /// A boot override that was taken, in this vendor's words.
    fn acknowledge(&self, status: &mut StatusCode, body: &mut Option<Value>) {
        let errors = &self.profile.errors;
        if let Some(said) = &errors.in_success {
            *status = StatusCode::OK;
            *body = Some(say::body(errors, errors.shape, said));
        } else if let Some(id) = &errors.success {
            *status = StatusCode::OK;
            *body = Some(json!({"Success": {
                "code": id, "Message": "Successfully Completed Request.",
                "@Message.ExtendedInfo": [{
                    "MessageId": id, "Message": "Successfully Completed Request.", "Severity": "OK",
                }],
            }}));
        }
    }

    /// Changes a document of the clean tree into this vendor's; `false`: it does not have it.
    async fn show(&self, path: &[String], phase: Phase, v: &mut Value) -> bool {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names.as_slice() {
            [] if self.has_jobs() => {
                v["JobService"] = json!({"@odata.id": "/redfish/v1/JobService"});
            }
            ["TaskService", "Tasks"] => self.hide_gone(path, v).await,
            ["TaskService", "Tasks", id] => {
                let mode = task::mode(self.seat, self.world.seed, id);
                if let task::Told::Gone = task::tell(self.profile, mode, id, v) {
                    return false;
                }
            }
            _ => {}
        }
        if let Some(hgx) = &self.profile.hgx
            && !hgx::host(hgx, path, v)
        {
            return false;
        }
        power::show(self.profile, path, v);
        edit::apply(self.profile, path, v);
        start::thin_out(phase, path, v);
        true
    }

    /// Tasks that are gone are not listed either.
    async fn hide_gone(&self, path: &[String], list: &mut Value) {
        let mut gone = Vec::new();
        for id in ids(list) {
            let own = [path, std::slice::from_ref(&id)].concat();
            if task::mode(self.seat, self.world.seed, &id) == TaskMode::GoneWhenDone
                && let Ok((_, mut shown)) = self.ask(&own).await
                && let task::Told::Gone =
                    task::tell(self.profile, TaskMode::GoneWhenDone, &id, &mut shown)
            {
                gone.push(format!("/redfish/v1/TaskService/Tasks/{id}"));
            }
        }
        if let Some(members) = list.get_mut("Members").and_then(Value::as_array_mut) {
            members.retain(|m| !gone.iter().any(|g| m["@odata.id"] == g.as_str()));
            let count = members.len();
            list["Members@odata.count"] = count.into();
        }
    }
}

/// The ids of a collection's members.
fn ids(list: &Value) -> impl Iterator<Item = String> {
    let members = list["Members"].as_array().into_iter().flatten();
    let all: Vec<String> = members
        .filter_map(|m| m["@odata.id"].as_str())
        .filter_map(|p| p.rsplit('/').next())
        .map(String::from)
        .collect();
    all.into_iter()
}

fn not_there() -> Said {
    say::base(404, "ResourceMissingAtURI", "The resource at the URI was not found.")
}

fn must_change(account: &str) -> Said {
    let mut said = say::base(
        403,
        "PasswordChangeRequired",
        "The password provided for this account must be changed before access is granted.",
    );
    said.args = vec![format!("/redfish/v1/AccountService/Accounts/{account}")];
    said
}
