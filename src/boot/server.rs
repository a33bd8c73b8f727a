//! The set of boot windows, and the `Boot` port on it.

use super::deploy;
use super::files::Files;
use super::preseed::{self, Preseed};
use super::render::{Login, Templates, is_plain, is_plain_url};
use super::throttle::Throttle;
use super::window::{Mac, VERSION, Window};
use crate::model::deploy::{RAMDISK, is_public_key};
use crate::model::facts::WindowFacts;
use crate::model::template::Recipes;
use crate::model::{Channel, Fault, FaultClass, MachineId, Outcome};
use crate::port::deploy::{DeployOrder, DeployRequest};
use crate::port::netboot::Roster;
use crate::port::{Boot, Inbox, Inward, Secret, WindowOrder};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex as AsyncMutex;

/// What the boot server needs besides its state directory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// OS images: `<images>/<image id>/vmlinuz` and `initrd.img`. `None`: only scripts and seeds.
    pub images: Option<PathBuf>,
    /// Farrier's own public SSH keys, OpenSSH form: the ramdisk and deployed systems let them in.
    pub ssh_keys: Vec<String>,
    /// The user whom deployed systems let in with them.
    pub user: String,
    /// Days after which the file of a run's window is removed.
    pub keep_days: u32,
    /// The operator's templates; see [`BootServer::set_recipes`].
    pub recipes: Recipes,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            images: None,
            ssh_keys: Vec::new(),
            user: "root".into(),
            keep_days: 30,
            recipes: Recipes::default(),
        }
    }
}

/// The boot server. Clones share one state.
#[derive(Clone, Debug)]
pub struct BootServer(pub(super) Arc<Shared>);

pub(super) type Slot = Arc<AsyncMutex<Window>>;

#[derive(Debug)]
pub(super) struct Shared {
    files: Files,
    pub(super) settings: Settings,
    inbox: Inbox,
    index: Mutex<Index>,
    templates: RwLock<Arc<Templates>>,
    pub(super) throttle: Mutex<Throttle>,
}

#[derive(Debug, Default)]
struct Index {
    by_run: BTreeMap<String, Slot>,
    /// Open windows, and those that are being opened.
    by_mac: BTreeMap<Mac, Claim>,
    by_machine: BTreeMap<MachineId, Lane>,
    /// When files of old runs were last looked for, in s since 1970.
    swept_at: u64,
}

#[derive(Clone, Debug)]
struct Claim {
    run: String,
    machine: MachineId,
    name: String,
}

/// What is done to the windows of one machine goes one after the other; a slow disk under one
/// machine's file keeps no other waiting.
#[derive(Clone, Debug, Default)]
struct Lane {
    turn: Arc<AsyncMutex<()>>,
    /// The run whose window is open, and its MAC.
    open: Option<(String, Mac)>,
}

/// How often files of old runs are looked for.
const SWEEP_S: u64 = 86_400;

impl BootServer {
    /// Reads the windows back from `<state_dir>/boot-windows`; blocks for as long as that takes.
    pub fn open(state_dir: &Path, settings: Settings, inbox: Inbox) -> Result<Self, Fault> {
        let files = Files::open(state_dir)?;
        let templates = parse(&settings, &settings.recipes)?;
        let mut windows = files.load()?;
        // The youngest first: should two claim one MAC, it is the one that is waited for.
        windows.sort_by_key(|w| std::cmp::Reverse((w.opened_at, w.changed_at)));
        let mut index = Index { swept_at: now_s(), ..Index::default() };
        for mut w in windows {
            if is_old(&w, &settings) {
                files.remove(&w.run)?;
                continue;
            }
            if w.open && index.by_mac.contains_key(&w.mac) {
                tracing::warn!(machine = w.name, run = w.run, mac = %w.mac,
                    "closed a boot window: a younger one has its MAC");
                w = w.closed();
                files.write(&w)?;
            }
            if w.open {
                index.claim(&w.mac, &w.run, w.machine, &w.name);
            }
            index.by_run.insert(w.run.clone(), Arc::new(AsyncMutex::new(w)));
        }
        Ok(Self(Arc::new(Shared {
            files,
            settings,
            inbox,
            index: Mutex::new(index),
            templates: RwLock::new(Arc::new(templates)),
            throttle: Mutex::default(),
        })))
    }

    /// The configuration was reloaded: from now on files are made with these.
    ///
    /// # Errors
    /// One of them does not parse; those from before stay.
    pub fn set_recipes(&self, recipes: &Recipes) -> Result<(), Fault> {
        let fresh = Arc::new(parse(&self.0.settings, recipes)?);
        *self.0.templates.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Closes windows of runs that no machine is in (a database older than they are was restored), so
    /// that a host that boots by chance is not installed by them. One that a host has been at stays:
    /// an installation may be under way. Returns how many were closed.
    ///
    /// # Errors
    /// A window's file can't be written.
    pub async fn close_strays(
        &self,
        is_current: impl Fn(MachineId, &str) -> bool,
    ) -> Result<usize, Fault> {
        let slots: Vec<Slot> = self.0.index().by_run.values().cloned().collect();
        let mut closed = 0;
        for slot in slots {
            let (run, name, untouched) = {
                let w = slot.lock().await;
                if !w.open || is_current(w.machine, &w.run) {
                    continue;
                }
                (w.run.clone(), w.name.clone(), w.untouched())
            };
            if untouched {
                tracing::info!(machine = name, run, "closed a boot window that no run waits for");
                self.0.close_window(&run).await?;
                closed += 1;
            } else {
                tracing::warn!(
                    machine = name,
                    run,
                    "a host uses the boot window of a run that this database does not know; it stays open"
                );
            }
        }
        Ok(closed)
    }

    /// The boot listener's routes. Serve it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`: the peer's address is what a window
    /// is bound to, and no header can say another.
    pub fn router(&self) -> axum::Router {
        super::http::router(self.0.clone())
    }

    /// `GET /media/{run}.iso`: the ramdisk's medium for the BMC of the machine that the run waits for.
    /// To be merged into the images listener's routes, which is where BMCs fetch. `roster` knows the
    /// address that the machine is to have without DHCP.
    pub fn media_router(&self, roster: Arc<dyn Roster>) -> axum::Router {
        super::media::router(self.0.clone(), roster)
    }
}

#[async_trait]
impl Boot for BootServer {
    async fn window(&self, machine: MachineId, run: &str) -> Result<WindowFacts, Fault> {
        let slot = {
            let index = self.0.index();
            let open = || index.by_machine.get(&machine)?.open.as_ref().map(|(run, _)| run);
            let own = index.by_run.get(run);
            own.or_else(|| index.by_run.get(open()?)).cloned()
        };
        match slot {
            Some(slot) => Ok(slot.lock().await.facts()),
            None => Ok(WindowFacts::default()),
        }
    }

    async fn open(&self, order: &WindowOrder) -> Outcome {
        let (shared, order) = (self.0.clone(), order.clone());
        outcome(finish(async move { shared.open_window(&order).await }).await)
    }

    async fn deploy_order(&self, request: &DeployRequest) -> Result<DeployOrder, Fault> {
        deploy::order(&self.0, request).await
    }

    async fn close(&self, run: &str) -> Outcome {
        let (shared, run) = (self.0.clone(), run.to_string());
        outcome(finish(async move { shared.close_window(&run).await }).await)
    }
}

impl Index {
    /// The run's window answers this MAC, and no other one.
    fn claim(&mut self, mac: &Mac, run: &str, machine: MachineId, name: &str) {
        let lane = self.by_machine.entry(machine).or_default();
        if let Some((_, before)) = lane.open.replace((run.into(), mac.clone())) {
            self.by_mac.remove(&before);
        }
        let claim = Claim { run: run.into(), machine, name: name.into() };
        self.by_mac.insert(mac.clone(), claim);
    }

    fn release(&mut self, machine: MachineId, run: &str) {
        let Some(lane) = self.by_machine.get_mut(&machine) else { return };
        if let Some((_, mac)) = lane.open.take_if(|(open, _)| open == run) {
            self.by_mac.remove(&mac);
        }
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Nothing panics while it is held; and a map is whole between two calls anyway.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn templates(&self) -> Arc<Templates> {
        self.templates.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn by_run(&self, run: &str) -> Option<Slot> {
        self.index().by_run.get(run).cloned()
    }

    pub(super) fn by_mac(&self, mac: &Mac) -> Option<Slot> {
        let index = self.index();
        index.by_run.get(&index.by_mac.get(mac)?.run).cloned()
    }

    async fn open_window(self: &Arc<Self>, order: &WindowOrder) -> Result<(), Fault> {
        let mac = check(order)?;
        let preseed = match self.templates().recipe(&order.image) {
            Some(_) if order.install.is_none() => None,
            _ => preseed::prepare(&self.settings, order).await?,
        };
        self.rehearse(order, &mac, preseed.as_ref())?;
        let turn = self.index().by_machine.entry(order.machine).or_default().turn.clone();
        let _turn = turn.lock().await;
        let older = {
            let mut index = self.index();
            if let Some(other) = index.by_mac.get(&mac).filter(|c| c.machine != order.machine) {
                return Err(mac_in_use(order, &mac, other));
            }
            let older = index.by_machine.get(&order.machine).and_then(|l| l.open.clone());
            // Before anything is written: no other machine can take the MAC meanwhile.
            index.claim(&mac, &order.run, order.machine, &order.name);
            older.filter(|(run, _)| *run != order.run)
        };
        // A run that ended without closing its window. Closed first, so that a kill in between
        // can't leave two windows for one machine.
        if let Some((run, mac)) = older
            && let Err(fault) = self.close_window(&run).await
        {
            self.index().claim(&mac, &run, order.machine, &order.name);
            return Err(fault);
        }
        if let Err(fault) = self.put_window(order, &mac, preseed).await {
            self.index().release(order.machine, &order.run);
            return Err(fault);
        }
        self.warn_without_kernel(order).await;
        self.sweep().await;
        Ok(())
    }

    /// Makes once what this window will serve: a template that fails does so before the machine is
    /// powered off for it.
    fn rehearse(
        &self,
        order: &WindowOrder,
        mac: &Mac,
        preseed: Option<&Preseed>,
    ) -> Result<(), Fault> {
        if order.image == RAMDISK {
            return Ok(());
        }
        let templates = self.templates();
        let window = Window { preseed: preseed.cloned(), ..new_window(order, mac, None)? };
        for document in templates.served(&window) {
            templates.render(document, &window).map_err(|why| why.fault(&order.name))?;
        }
        Ok(())
    }

    async fn put_window(
        &self,
        order: &WindowOrder,
        mac: &Mac,
        preseed: Option<Preseed>,
    ) -> Result<(), Fault> {
        match self.by_run(&order.run) {
            Some(slot) => {
                let mut held = slot.lock().await;
                // Nobody was here: opening twice is opening once. Else this is a new attempt, and
                // what an earlier one started must not be able to answer for it.
                let token = held.token.clone().filter(|_| held.untouched() && held.mac == *mac);
                let window = Window { preseed, ..new_window(order, mac, token)? };
                self.write(&window).await?;
                *held = window;
            }
            None => {
                let window = Window { preseed, ..new_window(order, mac, None)? };
                self.write(&window).await?;
                let slot = Arc::new(AsyncMutex::new(window));
                self.index().by_run.insert(order.run.clone(), slot);
            }
        }
        Ok(())
    }

    /// A run without a window has none open.
    async fn close_window(self: &Arc<Self>, run: &str) -> Result<(), Fault> {
        let Some(slot) = self.by_run(run) else { return Ok(()) };
        let mut slot = slot.lock().await;
        if slot.open {
            let closed = Window { changed_at: now_s(), ..slot.closed() };
            self.write(&closed).await?;
            *slot = closed;
        }
        self.index().release(slot.machine, run);
        Ok(())
    }

    /// Removes what is left of runs of long ago.
    async fn sweep(&self) {
        let slots: Vec<Slot> = {
            let mut index = self.index();
            let now = now_s();
            if now.saturating_sub(index.swept_at) < SWEEP_S {
                return;
            }
            index.swept_at = now;
            index.by_run.values().cloned().collect()
        };
        for slot in slots {
            let old = {
                let w = slot.lock().await;
                (!w.open && is_old(&w, &self.settings)).then(|| w.run.clone())
            };
            if let Some(run) = old {
                self.forget(&run).await;
            }
        }
    }

    async fn forget(&self, run: &str) {
        let (files, name) = (self.files.clone(), run.to_string());
        match tokio::task::spawn_blocking(move || files.remove(&name)).await {
            Ok(Ok(())) => {
                self.index().by_run.remove(run);
            }
            Ok(Err(fault)) => tracing::warn!(run, %fault, "an old boot window stays"),
            Err(e) => tracing::warn!(run, %e, "an old boot window stays"),
        }
    }

    /// Looks at the window and, where `f` says so, replaces it, durably first. `f` sees no other
    /// change in between. Goes on to its end when the caller goes away.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        slot: Slot,
        f: impl FnOnce(&Window) -> (T, Option<Window>) + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = self.clone();
        finish(async move {
            let mut slot = slot.lock().await;
            let (answer, next) = f(&slot);
            if let Some(next) = next {
                let next = Window { changed_at: now_s(), ..next };
                shared.write(&next).await?;
                *slot = next;
            }
            Ok(answer)
        })
        .await
    }

    async fn write(&self, window: &Window) -> Result<(), Fault> {
        let (files, window) = (self.files.clone(), window.clone());
        match tokio::task::spawn_blocking(move || files.write(&window)).await {
            Ok(result) => result,
            Err(e) => Err(bug("boot-task", format!("the write of a boot window broke off: {e}"))),
        }
    }

    /// A hint: the engine looks at the machine anyway, only later.
    pub(super) fn poke(&self, machine: MachineId) {
        if let Err(e) = self.inbox.try_send(Inward::Poke { machine }) {
            tracing::debug!(%machine, %e, "the engine was not told of a boot event");
        }
    }

    async fn warn_without_kernel(&self, order: &WindowOrder) {
        let Some(images) = &self.settings.images else { return };
        let templates = self.templates();
        let kernel = templates.recipe(&order.image).map_or("vmlinuz", |r| &r.kernel);
        let kernel = images.join(&order.image).join(kernel);
        if !tokio::fs::try_exists(&kernel).await.unwrap_or(false) {
            tracing::warn!(machine = &*order.name, run = order.run, missing = %kernel.display(),
                "the image has no kernel: the machine will get its boot script and then nothing");
        }
    }
}

/// Goes on to its end when the caller is dropped (a deadline, a closed connection): what is on
/// the disk and what is in memory must not part.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(e) => Err(bug("boot-task", format!("work on a boot window broke off: {e}"))),
    }
}

fn outcome(result: Result<(), Fault>) -> Outcome {
    match result {
        Ok(()) => Outcome::Applied { handle: None },
        Err(fault) => Outcome::Failed { fault },
    }
}

/// Everything that ends up in a script, a URL or a file name is plain, or there is no window.
fn check(order: &WindowOrder) -> Result<Mac, Fault> {
    let refuse = |code, what: String, hint: &str| {
        Fault::new(FaultClass::Precondition, Channel::Boot, code, what).hint(hint)
    };
    let name = &order.name;
    let Some(mac) = &order.mac else {
        return Err(refuse(
            "no-boot-mac",
            format!("`{name}` has no boot MAC: the boot server would not know it"),
            "give the machine its `mac` in the inventory",
        ));
    };
    let mac = Mac::parse(mac).ok_or_else(|| {
        refuse(
            "bad-boot-mac",
            format!("`{mac}` of `{name}` is not a MAC address"),
            "write it like `aa:bb:cc:dd:ee:ff`",
        )
    })?;
    for (what, value) in [("image", &*order.image), ("machine name", &**name), ("run", &*order.run)]
    {
        if !is_plain(value) {
            return Err(refuse(
                "bad-boot-name",
                format!("the {what} {value:?} of `{name}` can't stand in a boot script"),
                "use letters, digits, `.`, `_`, `-` and `+`",
            ));
        }
    }
    if let Some(key) = order.keys.iter().find(|key| !is_public_key(key)) {
        return Err(refuse(
            "bad-ssh-key",
            format!("{key:?} is not an OpenSSH public key: `{name}` can't let anybody in with it"),
            "give the one line of a .pub file, without options before it",
        ));
    }
    if !is_plain_url(&order.base_url) {
        return Err(refuse(
            "bad-boot-url",
            format!("{:?} can't stand in a boot script", order.base_url),
            "give `[listen.boot]` an `advertise_url` like `http://10.0.0.2:7121`",
        ));
    }
    Ok(mac)
}

fn mac_in_use(order: &WindowOrder, mac: &Mac, other: &Claim) -> Fault {
    Fault::new(
        FaultClass::Precondition,
        Channel::Boot,
        "mac-in-use",
        format!(
            "`{}` has the boot MAC {mac}, and `{}` waits to boot with the same one (run {})",
            order.name, other.name, other.run
        ),
    )
    .hint("one of the two is wrong: compare the inventory with the labels on the machines")
}

/// An open window that nobody has asked for yet, with this token or a new one.
fn new_window(order: &WindowOrder, mac: &Mac, token: Option<Secret>) -> Result<Window, Fault> {
    let token = match token {
        Some(token) => token,
        None => new_token()?,
    };
    let made = if order.image == RAMDISK { Some(deploy::make_key()?) } else { None };
    let now = now_s();
    Ok(Window {
        version: VERSION,
        run: order.run.clone(),
        machine: order.machine,
        name: order.name.to_string(),
        mac: mac.clone(),
        image: order.image.clone(),
        allow_existing_data: order.allow_existing_data,
        base_url: order.base_url.trim_end_matches('/').to_string(),
        open: true,
        token: Some(token),
        source: None,
        script_fetched: false,
        seed_fetched: false,
        callback: None,
        other_uuid: None,
        made,
        deploys: None,
        keys: order.keys.clone(),
        profile: order.profile.to_string(),
        network: order.network.clone(),
        preseed: None,
        opened_at: now,
        changed_at: now,
    })
}

fn parse(settings: &Settings, recipes: &Recipes) -> Result<Templates, Fault> {
    let login = Login { user: settings.user.clone(), keys: settings.ssh_keys.clone() };
    Templates::new(recipes, login).map_err(|e| {
        let what = match e.name() {
            Some(name) => format!("the boot template `{name}` does not parse: {}", e.kind()),
            None => format!("a boot template does not parse: {}", e.kind()),
        };
        Fault::new(FaultClass::Precondition, Channel::Boot, "boot-template", what)
            .hint("`farrier check` shows the place")
    })
}

/// 128 bits from the system, as hex.
fn new_token() -> Result<Secret, Fault> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| bug("no-randomness", "the system gave no random bytes for a boot token"))?;
    Ok(Secret::new(hex::encode(bytes)))
}

fn is_old(w: &Window, settings: &Settings) -> bool {
    let kept_s = u64::from(settings.keep_days) * 86_400;
    now_s().saturating_sub(w.changed_at) > kept_s
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(super) fn bug(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::new(FaultClass::Bug, Channel::Boot, code, message)
}
