//! The truth log: what physically happened to a machine, by whom, and how the machine stood at that
//! moment. The invariants judge by it, never by the class that an action declared.

use crate::model::{EngineTime, HookVerb};

/// Who made it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Farrier's intent with this journal seq.
    Farrier { seq: u64 },
    /// A person at the machine.
    Human,
    /// The machine itself.
    Itself,
}

/// The name of an intent over all restores: a restored database counts from an older seq again.
pub fn intent_name(generation: u32, seq: u64) -> u64 {
    u64::from(generation) << 40 | seq
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    PowerOn,
    /// Power went away from a host that had it.
    PowerCut,
    BmcReset,
    /// The BMC of the baseboard, not the host's.
    BoardReset,
    SetBoot,
    /// `slot`: position in [`crate::sim::physics::VirtualMachine::firmware`]; from 100 on one of the
    /// baseboard's.
    FlashStarted {
        slot: u8,
        /// The slot runs that version already.
        already: bool,
        /// The same image waits for its activation.
        staged: bool,
        /// Another task of the BMC was running.
        busy: bool,
    },
    FlashEnded {
        slot: u8,
        ok: bool,
    },
    /// Power cut or BMC reset in the middle of an update.
    FlashBroken {
        slot: u8,
    },
    /// A new image runs, and is copied to its second place.
    CopyStarted {
        slot: u8,
    },
    CopyEnded {
        slot: u8,
    },
    /// Power cut or BMC reset in the middle of that: the component is broken.
    CopyBroken {
        slot: u8,
        /// When the copy began.
        since: EngineTime,
    },
    InstallStarted,
    InstallEnded {
        ok: bool,
    },
    WipeStarted,
    WipeEnded,
    SmokeStarted,
    Hook(HookVerb),
    WindowOpened,
    WindowClosed,
    SessionsEnded,
    // What only a wire does.
    MediumInserted,
    MediumEjected,
    /// The host came up from the virtual CD.
    BootedCd,
    BiosSet,
    SecureBootSet,
    /// A POST applied settings that waited for it.
    SettingsApplied,
    /// `data`: the machine's disks held what no run of ours had written.
    VolumeMade {
        data: bool,
    },
    /// Ordered once more over drives of which a volume is already made, or is to be at the next POST.
    VolumeAgain,
    VolumeDeleted,
    AccountSet,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::PowerOn => "power-on",
            What::PowerCut => "power-cut",
            What::BmcReset => "bmc-reset",
            What::BoardReset => "board-reset",
            What::SetBoot => "set-boot",
            What::FlashStarted { .. } => "flash-started",
            What::FlashEnded { .. } => "flash-ended",
            What::FlashBroken { .. } => "flash-broken",
            What::CopyStarted { .. } => "copy-started",
            What::CopyEnded { .. } => "copy-ended",
            What::CopyBroken { .. } => "copy-broken",
            What::InstallStarted => "install-started",
            What::InstallEnded { .. } => "install-ended",
            What::WipeStarted => "wipe-started",
            What::WipeEnded => "wipe-ended",
            What::SmokeStarted => "smoke-started",
            What::Hook(verb) => verb.name(),
            What::WindowOpened => "window-opened",
            What::WindowClosed => "window-closed",
            What::SessionsEnded => "sessions-ended",
            What::MediumInserted => "medium-inserted",
            What::MediumEjected => "medium-ejected",
            What::BootedCd => "booted-cd",
            What::BiosSet => "bios-set",
            What::SecureBootSet => "secure-boot-set",
            What::SettingsApplied => "settings-applied",
            What::VolumeMade { .. } => "volume-made",
            What::VolumeAgain => "volume-again",
            What::VolumeDeleted => "volume-deleted",
            What::AccountSet => "account-set",
        }
    }

    /// Could cost data, firmware or somebody's work.
    pub fn is_destructive(self) -> bool {
        matches!(
            self,
            What::PowerCut
                | What::BmcReset
                | What::BoardReset
                | What::SetBoot
                | What::BiosSet
                | What::SecureBootSet
                | What::FlashStarted { .. }
                | What::InstallStarted
                | What::WipeStarted
                | What::SmokeStarted
                | What::VolumeMade { .. }
                | What::VolumeDeleted
                | What::Hook(HookVerb::Cordon | HookVerb::Leave)
        )
    }

    /// Interrupts whatever runs on the host, now or at its next boot.
    pub fn needs_empty_host(self) -> bool {
        matches!(
            self,
            What::PowerCut
                | What::BiosSet
                | What::SecureBootSet
                | What::FlashStarted { .. }
                | What::InstallStarted
                | What::WipeStarted
                | What::SmokeStarted
                | What::VolumeMade { .. }
                | What::VolumeDeleted
                | What::Hook(HookVerb::Leave)
        )
    }
}

/// How the machine stood at that moment, before the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The machine (for effects on the disks: the host) is the one that was delivered under this
    /// name.
    pub right_machine: bool,
    pub workloads: u32,
    /// Cordoned or not in a cluster at all.
    pub closed: bool,
    /// An update task was running.
    pub flashing: bool,
    /// Only tasks that people started were running, the last one since then.
    pub by_hand_since: Option<EngineTime>,
    /// The last copy of an image that was under way began then.
    pub copying_since: Option<EngineTime>,
    /// The baseboard's BMC has not answered since then.
    pub board_silent_since: Option<EngineTime>,
    pub was_on: bool,
}

/// One line of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    pub at: EngineTime,
    pub what: What,
    pub by: Cause,
    pub scene: Scene,
}

/// The log of one machine, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    effects: Vec<Effect>,
}

impl Truth {
    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// What was added after the first `seen` effects.
    pub fn since(&self, seen: usize) -> &[Effect] {
        self.effects.get(seen..).unwrap_or(&[])
    }

    pub fn count(&self, mut which: impl FnMut(&Effect) -> bool) -> usize {
        self.effects.iter().filter(|e| which(e)).count()
    }
}
