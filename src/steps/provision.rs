//! Put the OS image on the machine over the network. An installer does it by itself: boot window,
//! override, power, callback, first login with the pinned key, image mark read back. A disk image is
//! written by a job in the deploy ramdisk (`super::ramdisk`), and the first login is to the host key
//! that was made for it before.

use super::identify::{other_asked, pair, wrong_machine};
use super::ramdisk::{Ramdisk, boots_elsewhere, boots_from, eject, media_needed};
use super::{Look, View, need};
use crate::model::action::{BootTarget, PowerOp};
use crate::model::facts::{
    Callback, HostFacts, JobState, MirrorFacts, Power, ProbeSet, SystemFacts,
};
use crate::model::identity::Match;
use crate::model::time::Span;
use crate::model::{Action, ActionKind, Channel, EngineTime, Entry, Fault, FaultClass, Machine};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Longest time from power on to the callback, then again to the first login.
    pub deadline: Span,
}

impl Default for Params {
    fn default() -> Self {
        Self { deadline: Span(2_700_000) }
    }
}

impl Params {
    pub(super) fn needs(&self, m: &Machine) -> ProbeSet {
        let set = ProbeSet::SYSTEM.with(ProbeSet::BOOT).with(ProbeSet::HOST).with(media_needed(m));
        match m.last_act(ActionKind::DeployJob) {
            Some(_) if m.ramdisk.is_some() => set.with(ProbeSet::JOB),
            _ => set,
        }
    }

    pub(super) fn look(&self, v: &View<'_>) -> Look {
        let Some(image) = v.profile.image.clone() else {
            return Look::Skip { reason: "the profile names no image".into() };
        };
        let system = need!(v.report.system);
        let window = need!(v.report.boot);
        let run = v.run_name();
        let host = v.report.host.seen();
        // The pairing BMC ↔ host, before anything the host says is believed.
        if let Some(host) = host
            && let Match::Differs { part, expected, found } = pair(&system.identity, &host.identity)
        {
            return Look::Fail(wrong_machine(Channel::Host, part, &expected, &found));
        }

        // Already there: our mark of this very run.
        if let Some(host) = host
            && host.image_run.as_deref() == Some(run.as_str())
        {
            let open = window.open && window.run.as_deref() == Some(run.as_str());
            return self.finish(v, system, &image, &run, host, open);
        }
        // A first deployment must not overwrite what it does not know.
        if v.m.deployed.is_none()
            && !v.m.allow_existing_data
            && host.is_some_and(|h| {
                // In the ramdisk the deploy job itself looks, at the one disk that it is to write, and
                // knows what earlier runs have written.
                h.holds_data == Some(true) && h.ramdisk_run.is_none()
            })
        {
            return Look::Fail(existing_data(
                "the host's disks hold data that Farrier did not write",
            ));
        }
        let allow_existing_data = v.m.allow_existing_data || v.m.deployed.is_some();
        if v.profile.root_disk.is_some() && !v.profile.trust_installer {
            let ramdisk = Ramdisk {
                v,
                system,
                window,
                deadline: self.deadline,
                allow_existing_data,
                keys: vec![],
            };
            return self.deploy(&ramdisk, image, run);
        }
        // `Unbooted` until our window was opened in this attempt.
        let Some(opened) = v.m.happened(ActionKind::OpenBootWindow) else {
            let keys = Vec::new();
            return Look::Act(Action::OpenBootWindow { image, run, allow_existing_data, keys });
        };
        if window.run.as_deref() != Some(run.as_str()) {
            return Look::Fail(Fault::new(
                FaultClass::Transient,
                Channel::Boot,
                "window-gone",
                "the boot window of this run is gone",
            ));
        }
        if let Some(fault) = other_asked(v, window) {
            return Look::Fail(fault);
        }
        if let Some(said) = &window.callback {
            if !said.ok {
                return Look::Fail(installer_refused(said));
            }
            return self.first_login(
                v,
                system,
                window.callback.as_ref().and_then(|c| c.host_key.as_deref()),
            );
        }
        // Power off → override → power on, each once, each observed.
        let booted = v.m.happened(ActionKind::PowerOn).filter(|a| a.at >= opened.at);
        match (booted, system.power) {
            (Some(on), Power::On) => {
                let waited = v.watched_since(on.closed);
                if waited > self.deadline.0 {
                    return Look::Fail(
                        Fault::new(
                            FaultClass::Transient,
                            Channel::Boot,
                            "no-callback",
                            format!(
                                "no word from the host {} after power on ({})",
                                self.deadline,
                                if window.script_fetched {
                                    "it fetched its boot script"
                                } else {
                                    "it never fetched its boot script: did it boot the old disk?"
                                },
                            ),
                        )
                        .hint("look at the console; check DHCP and the boot network's `advertise_url`; `farrier discover seen` tells of a wrong boot MAC"),
                    );
                }
                let what = match (window.script_fetched, window.seed_fetched) {
                    (false, _) => "the host to fetch its boot script",
                    (true, false) => "the host to fetch its seed",
                    (true, true) => "the installer to call back",
                };
                // The boot server tells of each of these at once; this is for what it could not tell.
                Look::wait(what, 60_000)
            }
            (_, Power::PoweringOn | Power::PoweringOff | Power::Unknown) => {
                Look::wait("the power state to settle", 5_000)
            }
            (_, Power::On) => Look::Act(Action::Power { op: PowerOp::ForceOff }),
            (_, Power::Off) if !boots_from(system, BootTarget::Pxe) => {
                Look::Act(Action::SetBoot { target: BootTarget::Pxe })
            }
            (_, Power::Off) => Look::Act(Action::Power { op: PowerOp::On }),
        }
    }

    /// The disk image's way: into the ramdisk, the job that writes it, off, and from the disk.
    fn deploy(&self, ramdisk: &Ramdisk<'_, '_>, image: String, run: String) -> Look {
        let (v, system) = (ramdisk.v, ramdisk.system);
        let written = v.m.happened(ActionKind::DeployJob);
        if let Some(off) = written
            .and_then(|job| v.m.happened(ActionKind::PowerOff).filter(|off| off.at >= job.at))
        {
            return self.boot_disk(v, system, off.at);
        }
        if written.is_none() {
            if let Err(look) = ramdisk.enter() {
                return *look;
            }
            let Some(key) = ramdisk.window.made_key.clone() else {
                return Look::Fail(Fault::new(
                    FaultClass::Transient,
                    Channel::Boot,
                    "window-gone",
                    "the boot window with the installed system's host key is gone",
                ));
            };
            // Before it is written: whoever answers from then on with another key is not what was put
            // there.
            if v.m.host_key.as_deref() != Some(&*key) {
                return Look::Note(vec![Entry::HostKeyPinned { host_key: key.into() }]);
            }
            return Look::Act(Action::Deploy {
                image,
                run,
                host_key: key,
                name: v.job_name(Action::DEPLOY),
                timeout_ms: self.deadline.0,
                allow_existing_data: ramdisk.allow_existing_data,
            });
        }
        let job = need!(v.report.job);
        unfinished(&job.state).unwrap_or(Look::Act(Action::Power { op: PowerOp::ForceOff }))
    }

    /// The image is on the disk and the ramdisk is off.
    fn boot_disk(&self, v: &View<'_>, system: &SystemFacts, off: EngineTime) -> Look {
        let since = |kind| v.m.happened(kind).filter(|a| a.at >= off);
        match (since(ActionKind::PowerOn), system.power) {
            (_, Power::PoweringOn | Power::PoweringOff | Power::Unknown) => {
                Look::wait("the power state to settle", 5_000)
            }
            (None, Power::Off) if since(ActionKind::SetBoot).is_none() => {
                Look::Act(Action::SetBoot { target: BootTarget::Disk })
            }
            (_, Power::Off) => Look::Act(Action::Power { op: PowerOp::On }),
            (on, Power::On) => {
                let waited = v.watched_since(on.map_or(off, |a| a.closed));
                if waited > self.deadline.0 {
                    return Look::Fail(self.no_first_login(v));
                }
                if let Some(f) = v.report.host.fault().filter(|f| f.class == FaultClass::Identity) {
                    return Look::Fail(f.clone());
                }
                if let Some(host) = v.report.host.seen() {
                    return Look::Fail(
                        Fault::new(
                            FaultClass::Transient,
                            Channel::Host,
                            "no-mark",
                            "the host answers with the key of this run and has no mark of it",
                        )
                        .hint("does the image have cloud-init, and did it read the seed volume?")
                        .evidence(host.os.clone().unwrap_or_default()),
                    );
                }
                Look::wait("the first login with the pinned key", 10_000)
            }
        }
    }

    fn no_first_login(&self, v: &View<'_>) -> Fault {
        Fault::new(
            FaultClass::Transient,
            Channel::Host,
            "no-first-login",
            format!("the installed system did not answer SSH within {}", self.deadline),
        )
        .evidence(v.report.host.fault().map(ToString::to_string).unwrap_or_default())
    }

    /// The installer called back: pin its key, log in, read the mark.
    fn first_login(&self, v: &View<'_>, system: &SystemFacts, key: Option<&str>) -> Look {
        if let Some(key) = key
            && v.m.host_key.as_deref() != Some(key)
        {
            return Look::Note(vec![Entry::HostKeyPinned { host_key: key.into() }]);
        }
        if system.power == Power::Off {
            // Off after the installation: the image is on the disk, boot it.
            if v.profile.trust_installer
                && boots_elsewhere(system)
                && v.m.last_act(ActionKind::SetBoot).is_none_or(|a| a.about != "disk")
            {
                return Look::Act(Action::SetBoot { target: BootTarget::Disk });
            }
            return Look::Act(Action::Power { op: PowerOp::On });
        }
        if v.step_age() > self.deadline.0.saturating_mul(2) {
            return Look::Fail(self.no_first_login(v));
        }
        if let Some(f) = v.report.host.fault()
            && f.class == FaultClass::Identity
        {
            return Look::Fail(f.clone());
        }
        Look::wait("the first login with the pinned key", 10_000)
    }

    /// The host carries this run's mark. Leave no override and no window behind.
    fn finish(
        &self,
        v: &View<'_>,
        system: &SystemFacts,
        image: &str,
        run: &str,
        host: &HostFacts,
        window_open: bool,
    ) -> Look {
        let found = host.image.as_deref();
        if found != Some(image) {
            return Look::Fail(Fault::new(
                FaultClass::Transient,
                Channel::Host,
                "wrong-image",
                format!("the host runs image `{}`, wanted `{image}`", found.unwrap_or("unknown")),
            ));
        }
        let mirrored = v.profile.root_disk.as_ref().is_some_and(|r| r.mirror);
        if mirrored && host.root_mirror.is_none() {
            return Look::Fail(no_mirror(image));
        }
        if v.m.deployed.as_ref().is_none_or(|d| *d.run != *run) {
            return Look::Note(vec![Entry::Deployed { image: image.into(), run: run.into() }]);
        }
        // BMCs without `Once` keep the override: the next reboot would install again.
        if boots_elsewhere(system)
            && v.m.last_act(ActionKind::SetBoot).is_none_or(|a| a.about != "disk")
        {
            return Look::Act(Action::SetBoot { target: BootTarget::Disk });
        }
        if let Some(look) = eject(v) {
            return look;
        }
        if window_open {
            return Look::Act(Action::CloseBootWindow { run: run.into() });
        }
        let on = host.root_mirror.as_ref().map(on_mirror).unwrap_or_default();
        Look::done(format!("image `{image}` read back over SSH with the pinned key{on}"))
    }
}

/// The job wrote the mirror, and the system runs on one of its disks behind the other's back: what it
/// writes is on that one alone.
fn no_mirror(image: &str) -> Fault {
    Fault::new(
        FaultClass::Precondition,
        Channel::Host,
        "no-mirror",
        format!("image `{image}` runs on one disk, and the profile wants a mirror of two"),
    )
    .hint("the image's initramfs must assemble md arrays before it mounts the root file system (Debian, Ubuntu: package `mdadm`)")
}

fn on_mirror(mirror: &MirrorFacts) -> String {
    let state = match (mirror.missing, mirror.copied_percent) {
        (0, None) => String::new(),
        (0, Some(percent)) => format!(", {percent} % of the first copy done"),
        (missing, _) => format!(", {missing} of them missing"),
    };
    format!(", on a mirror of {} disks{state}", mirror.disks)
}

fn existing_data(what: &str) -> Fault {
    Fault::new(FaultClass::Precondition, Channel::Boot, "existing-data", what)
        .hint("look at what is on the disks; `farrier machine enroll <name> --allow-existing-data` overwrites it")
}

/// The installer looked and did not write. Nothing changes by trying again.
fn installer_refused(said: &Callback) -> Fault {
    let why = said.message.as_deref().unwrap_or("no reason given");
    let what = format!("the deployment refused: {why}");
    match said.code.as_deref() {
        None | Some("holds-data") => existing_data(&what),
        Some("wrong-machine") => {
            Fault::new(FaultClass::Identity, Channel::Boot, "deploy-refused", what)
        }
        Some(code) => {
            let fault = Fault::new(FaultClass::Precondition, Channel::Boot, "deploy-refused", what);
            Fault { code: code.to_string().into(), ..fault }
        }
    }
}

/// What the deploy job's end means, where it is not a written and verified disk.
fn unfinished(state: &JobState) -> Option<Look> {
    let JobState::Finished { exit, result } = state else {
        return Some(Look::Fail(Fault::new(
            FaultClass::Transient,
            Channel::Host,
            "result-gone",
            "the deployment's result file is gone",
        )));
    };
    let result = result.as_ref();
    let text = |key: &str| result.and_then(|r| r[key].as_str());
    if *exit == 0 && result.is_some_and(|r| r["ok"] == serde_json::Value::Bool(true)) {
        return None;
    }
    let (class, code, what) = match (text("refused"), text("error")) {
        (Some(why), _) => (FaultClass::Identity, "deploy-refused".to_string(), why.to_string()),
        (_, Some("holds-data")) => {
            return Some(Look::Fail(existing_data(
                text("message").unwrap_or("the root disk holds data that Farrier did not write"),
            )));
        }
        // Nothing was written and nothing changes by trying again.
        (
            _,
            Some(
                code @ ("no-root-disk" | "one-root-disk" | "several-root-disks"
                | "unequal-root-disks" | "disk-too-small" | "disk-in-use" | "sector-size"
                | "image-without-gpt"),
            ),
        ) => (
            FaultClass::Precondition,
            code.to_string(),
            text("message").unwrap_or(code).to_string(),
        ),
        (_, Some(code)) if code.len() <= 40 => {
            (FaultClass::Transient, code.to_string(), text("message").unwrap_or(code).to_string())
        }
        _ => (
            FaultClass::Transient,
            "deploy-failed".to_string(),
            format!("the deployment ended with {exit}"),
        ),
    };
    let said = result.map(ToString::to_string).unwrap_or_default();
    let mut fault = Fault::new(class, Channel::Host, "deploy-failed", what).evidence(said);
    if matches!(&*code, "no-root-disk" | "several-root-disks") {
        fault = fault
            .hint("the profile's `root_disk` has to fit exactly one local disk of this machine");
    }
    Some(Look::Fail(Fault { code: code.into(), ..fault }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::deploy::RootDisk;
    use crate::model::{
        BmcEndpoint, Expected, HostEndpoint, Identity, MachineId, Read, Report, Stage,
    };
    use crate::steps::Step;
    use crate::steps::site::{Profile, Site};
    use crate::steps::workflow::{Retry, StepSpec, Unsupported, When};

    #[test]
    fn an_installer_that_refused_is_not_tried_again() {
        let fault = |code: Option<&str>| {
            installer_refused(&Callback {
                ok: false,
                message: Some("vda and vdb fit".into()),
                code: code.map(Into::into),
                host_key: None,
            })
        };
        for (code, class, is) in [
            (None, FaultClass::Precondition, "existing-data"),
            (Some("holds-data"), FaultClass::Precondition, "existing-data"),
            (Some("several-root-disks"), FaultClass::Precondition, "several-root-disks"),
            (Some("wrong-machine"), FaultClass::Identity, "deploy-refused"),
        ] {
            let fault = fault(code);
            assert_eq!((fault.class, &*fault.code), (class, is), "{code:?}");
            assert!(fault.message.contains("vda and vdb fit"), "{fault}");
        }
    }

    /// The step's word on a host that carries the run's mark and whose root lies on `mirror`.
    fn seen(wanted: bool, mirror: Option<MirrorFacts>) -> Look {
        let m = Machine::blank(MachineId(1));
        let rule = RootDisk { model: Some("M".into()), mirror: wanted, ..RootDisk::default() };
        let profile =
            Profile { image: Some("debian".into()), root_disk: Some(rule), ..Profile::default() };
        let (site, params) = (Site::default(), Params::default());
        let expected = Expected {
            name: "n1".into(),
            identity: Identity::default().into(),
            rack: "r".into(),
            position: 0,
            pool: "p".into(),
            profile: "p".into(),
            domains: [].into(),
            labels: Default::default(),
            bmc: BmcEndpoint::default(),
            host: HostEndpoint::default(),
        };
        let spec = StepSpec {
            key: "provision".into(),
            stage: Stage::Provision,
            step: Step::Provision(params.clone()),
            timeout: Span(1),
            stall: Span(1),
            usual: Span(0),
            retry: Retry::default(),
            unsupported: Unsupported::Quarantine,
            when: When::default(),
        };
        let mut v = View {
            m: &m,
            expected: &expected,
            profile: &profile,
            site: &site,
            spec: &spec,
            report: &Report::default(),
            now: EngineTime(1_000),
            resumed: EngineTime(0),
        };
        let report = Report {
            system: Read::Seen(SystemFacts::default()),
            boot: Read::Seen(Default::default()),
            host: Read::Seen(HostFacts {
                image: Some("debian".into()),
                image_run: Some(v.run_name()),
                root_mirror: mirror,
                ..HostFacts::default()
            }),
            ..Report::default()
        };
        v.report = &report;
        params.look(&v)
    }

    #[test]
    fn a_mirror_counts_once_the_system_runs_on_it() {
        let whole = MirrorFacts { disks: 2, missing: 0, copied_percent: Some(7) };
        assert!(matches!(seen(true, Some(whole)), Look::Note(_)));
        assert!(matches!(seen(false, None), Look::Note(_)));
        // One disk behind the other's back.
        let Look::Fail(fault) = seen(true, None) else { panic!("no fault") };
        assert_eq!((&*fault.code, fault.class), ("no-mirror", FaultClass::Precondition));
    }

    #[test]
    fn how_a_mirror_stands_is_said() {
        let said =
            |missing, copied_percent| on_mirror(&MirrorFacts { disks: 2, missing, copied_percent });
        assert_eq!(said(0, None), ", on a mirror of 2 disks");
        assert_eq!(said(0, Some(7)), ", on a mirror of 2 disks, 7 % of the first copy done");
        assert_eq!(said(1, None), ", on a mirror of 2 disks, 1 of them missing");
    }
}
