//! A small HTTP server whose answers a test scripts, down to the bytes. It logs every request that
//! arrived, which is what "sent once" is judged by.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) bytes: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.trim_end_matches('/') == path
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Json(u16, Vec<(&'static str, String)>, Value),
    /// Status, content type, body.
    Text(u16, &'static str, String),
    /// Says it sends the whole document, sends half and closes.
    Half(Value),
    /// Closes the connection without a word.
    Drop,
    /// Never answers.
    Hang,
}

impl Reply {
    pub(crate) fn ok(v: Value) -> Reply {
        Reply::Json(200, vec![], v)
    }

    pub(crate) fn status(s: u16) -> Reply {
        Reply::Json(s, vec![], json!({}))
    }

    pub(crate) fn said(status: u16, id: &str) -> Reply {
        Reply::Json(
            status,
            vec![],
            json!({"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [
                {"MessageId": format!("Base.1.8.{id}"), "Message": format!("{id} said")}]}}),
        )
    }

    pub(crate) fn with(self, name: &'static str, value: &str) -> Reply {
        match self {
            Reply::Json(s, mut h, v) => {
                h.push((name, value.to_string()));
                Reply::Json(s, h, v)
            }
            other => other,
        }
    }
}

type Script = dyn Fn(&Seen, &[Seen]) -> Reply + Send + Sync;

/// Runs until dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    log: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `script` gets the request and those before it.
    pub(crate) async fn start(
        script: impl Fn(&Seen, &[Seen]) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Self::run(script, None).await
    }

    pub(crate) async fn start_tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Seen, &[Seen]) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Self::run(script, Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn run(
        script: impl Fn(&Seen, &[Seen]) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Server {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), script, tls)
    }

    /// On a socket that the test has: where another server was before.
    #[allow(dead_code, reason = "not every test that has this file needs it")]
    pub(crate) fn over(
        listener: TcpListener,
        tls: Option<rustls::ServerConfig>,
        script: impl Fn(&Seen, &[Seen]) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        Self::serve(listener, script, tls)
    }

    fn serve(
        listener: TcpListener,
        script: impl Fn(&Seen, &[Seen]) -> Reply + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Server {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let task = tokio::spawn({
            let log = log.clone();
            async move {
                let mut serving = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    // Head and body are two writes: without this, each answer waits for an ACK.
                    stream.set_nodelay(true).ok();
                    let (script, log, tls) = (script.clone(), log.clone(), tls.clone());
                    serving.spawn(async move {
                        match tls {
                            None => serve(stream, &*script, &log).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(stream, &*script, &log).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Server { url, log, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.seen().iter().filter(|s| s.is(method, path)).count()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    script: &Script,
    log: &Mutex<Vec<Seen>>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let reply = {
            let mut log = log.lock().unwrap();
            let reply = script(&request, &log);
            log.push(request);
            reply
        };
        let (status, kind, headers, body, promised) = match reply {
            Reply::Json(204, h, _) => (204, "application/json", h, Vec::new(), 0),
            Reply::Json(s, h, v) => {
                let body = v.to_string().into_bytes();
                let n = body.len();
                (s, "application/json", h, body, n)
            }
            Reply::Text(s, kind, t) => {
                let n = t.len();
                (s, kind, vec![], t.into_bytes(), n)
            }
            Reply::Half(v) => {
                let whole = v.to_string().into_bytes();
                let n = whole.len();
                (200, "application/json", vec![], whole[..n / 2].to_vec(), n)
            }
            Reply::Drop => return,
            Reply::Hang => return std::future::pending().await,
        };
        let mut head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {promised}\r\n"
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let cut = body.len() < promised;
        if stream.write_all(head.as_bytes()).await.is_err()
            || stream.write_all(&body).await.is_err()
            || stream.flush().await.is_err()
            || cut
        {
            return;
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_string(), first.next()?.to_string());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_string()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while buffer.len() < end + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let bytes = buffer[end + 4..end + 4 + length].to_vec();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    buffer.drain(..end + 4 + length);
    Some(Seen { method, path, headers, body, bytes })
}

pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";

/// A BMC in order: what a script answers where it has nothing to say.
pub(crate) fn calm(request: &Seen) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let link = |p: &str| json!({ "@odata.id": p });
    let found = match (request.method.as_str(), path) {
        ("GET", "/redfish/v1") => json!({
            "Systems": link("/redfish/v1/Systems"),
            "Managers": link("/redfish/v1/Managers"),
            "UpdateService": link("/redfish/v1/UpdateService"),
            "Tasks": link("/redfish/v1/TaskService"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")},
        }),
        ("POST", "/redfish/v1/SessionService/Sessions") => {
            return Reply::Json(201, vec![], json!({}))
                .with("X-Auth-Token", "token-0001")
                .with("Location", "/redfish/v1/SessionService/Sessions/1");
        }
        _ if request.header("x-auth-token") != Some("token-0001")
            && request.header("authorization").is_none() =>
        {
            return Reply::status(401);
        }
        ("DELETE", "/redfish/v1/SessionService/Sessions/1") => return Reply::status(204),
        ("GET", "/redfish/v1/Systems") => json!({"Members": [link(SYSTEM)]}),
        ("GET", SYSTEM) => json!({
            "Id": "1", "SerialNumber": "S1001", "UUID": "8d0a0f6e-7a2f-4a5e-9d1e-0a1b2c3d4e5f",
            "Manufacturer": "Acme", "Model": "G8", "PowerState": "On",
            "Status": {"Health": "OK", "HealthRollup": "Warning"},
            "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"},
            "Links": {"ManagedBy": [link("/redfish/v1/Managers/1")]},
            "Actions": {"#ComputerSystem.Reset": {
                "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues":
                    ["On", "ForceOff", "GracefulShutdown", "ForceRestart"]}},
        }),
        ("PATCH", SYSTEM) => return Reply::status(204),
        ("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset") => {
            return Reply::status(204);
        }
        ("GET", "/redfish/v1/Managers/1") => json!({
            "Actions": {"#Manager.Reset": {
                "target": "/redfish/v1/Managers/1/Actions/Manager.Reset",
                "ResetType@Redfish.AllowableValues": ["ForceRestart"]}},
        }),
        ("POST", "/redfish/v1/Managers/1/Actions/Manager.Reset") => return Reply::status(204),
        ("GET", "/redfish/v1/UpdateService") => json!({
            "ServiceEnabled": true,
            "FirmwareInventory": link("/redfish/v1/UpdateService/FirmwareInventory"),
            "Actions": {"#UpdateService.SimpleUpdate": {
                "target": "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate",
                "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"]}},
        }),
        ("GET", "/redfish/v1/UpdateService/FirmwareInventory") => json!({"Members": [
            link("/redfish/v1/UpdateService/FirmwareInventory/BIOS"),
            link("/redfish/v1/UpdateService/FirmwareInventory/BMC"),
        ]}),
        ("GET", "/redfish/v1/UpdateService/FirmwareInventory/BIOS") => {
            json!({"Id": "BIOS", "Name": "System BIOS", "Version": "1.0", "Updateable": true})
        }
        ("GET", "/redfish/v1/UpdateService/FirmwareInventory/BMC") => {
            json!({"Id": "BMC", "Version": "7.10", "Updateable": true})
        }
        ("POST", "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate") => {
            return Reply::status(202).with("Location", "/redfish/v1/TaskService/Tasks/7");
        }
        ("GET", "/redfish/v1/TaskService") => {
            json!({"Tasks": link("/redfish/v1/TaskService/Tasks")})
        }
        ("GET", "/redfish/v1/TaskService/Tasks") => {
            json!({"Members": [link("/redfish/v1/TaskService/Tasks/7")]})
        }
        ("GET", "/redfish/v1/TaskService/Tasks/7") => {
            json!({"Id": "7", "TaskState": "Running", "TaskStatus": "OK", "PercentComplete": 40})
        }
        _ => return Reply::said(404, "ResourceMissingAtURI"),
    };
    Reply::ok(found)
}
