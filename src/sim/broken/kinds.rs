//! What is broken in each, and by which rules it must be caught.

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Intents expect nobody in particular, and nobody checks who answers.
    NoIdentity,
    /// An update without an answer counts as not done at once, and is issued again.
    ReissueNever,
    /// There is always room.
    NoLimits,
    /// A hold is not seen.
    IgnoreHold,
    /// `farrier stop` is not seen.
    IgnoreStop,
    /// Probes-only machines are worked on.
    ManageUnmanaged,
    /// A step counts as done when a call said so: an update is through once it was taken.
    TrustTheCall,
    /// Drains are over at once.
    SkipDrain,
    /// Power is cut while an update runs.
    CutDuringFlash,
    /// The first fault is for a person.
    QuarantineForNothing,
    /// Other tasks of a BMC are not seen.
    IgnoreTasks,
    /// Once an update was taken, its version is believed to run.
    AssumeVersion,
    /// Waits without an end.
    NeverDone,
    /// Job output goes into the journal.
    LeakOutput,
    /// An adopted machine is rebuilt as if it had been enrolled.
    RebuildAdopted,
    /// Believes in the versions of the delivery, and expects none at the write.
    FlashesForEver,
    /// A wipe that takes long is started anew.
    WipesAgain,
    /// Quarantined machines go on with their next step.
    MovesOn,
    /// The room of an update is given away while it runs.
    LetsGo,
    /// A BMC that does not answer costs an attempt.
    ChargesOutages,
    /// A rescue boots what the profile installs.
    RescueInstalls,
    /// BIOS settings that wait for a POST count as in force.
    AssumeBios,
    /// Images that are copied in the background are not seen.
    IgnoreCopies,
    /// A volume that is not shown yet is ordered once more.
    RemakesVolumes,
    /// Nobody looks at what is on the drives of a volume.
    VolumeOverData,
    /// A further controller that can't be read counts as idle.
    UnreadIsIdle,
    /// What goes on at a further controller is not seen.
    IgnoreBoards,
}

impl Break {
    pub const ALL: [Break; 27] = [
        Break::NoIdentity,
        Break::ReissueNever,
        Break::NoLimits,
        Break::IgnoreHold,
        Break::IgnoreStop,
        Break::ManageUnmanaged,
        Break::TrustTheCall,
        Break::SkipDrain,
        Break::CutDuringFlash,
        Break::QuarantineForNothing,
        Break::IgnoreTasks,
        Break::AssumeVersion,
        Break::NeverDone,
        Break::LeakOutput,
        Break::RebuildAdopted,
        Break::FlashesForEver,
        Break::WipesAgain,
        Break::MovesOn,
        Break::LetsGo,
        Break::ChargesOutages,
        Break::RescueInstalls,
        Break::AssumeBios,
        Break::IgnoreCopies,
        Break::RemakesVolumes,
        Break::VolumeOverData,
        Break::UnreadIsIdle,
        Break::IgnoreBoards,
    ];

    /// Rules of which at least one must be reported.
    pub fn caught_by(self) -> &'static [&'static str] {
        match self {
            Break::NoIdentity => &["wrong-machine"],
            Break::ReissueNever => {
                &["flash-while-busy", "flash-while-staged", "two-at-once", "write-during-flash"]
            }
            Break::NoLimits => &["limit", "physical-limit"],
            Break::IgnoreHold => &["fold-differs", "held-touched", "quarantine-unjustified"],
            Break::IgnoreStop => &["intent-after-stop", "stopped-touched"],
            Break::ManageUnmanaged => {
                &["unmanaged-touched", "fold-differs", "quarantine-unjustified"]
            }
            Break::TrustTheCall => &["write-during-flash", "flash-while-busy"],
            Break::SkipDrain => &["in-use"],
            Break::CutDuringFlash => &["write-during-flash", "two-at-once"],
            Break::QuarantineForNothing => &["quarantine-unjustified"],
            Break::IgnoreTasks => &["flash-while-busy", "write-during-flash"],
            Break::AssumeVersion | Break::AssumeBios => &["done-not-true"],
            Break::IgnoreCopies => &["cut-during-copy"],
            Break::UnreadIsIdle => &["unread-for-idle"],
            Break::IgnoreBoards => &["cut-during-copy", "flash-while-busy", "write-during-flash"],
            Break::NeverDone => &["liveness"],
            Break::LeakOutput => &["secret-in-journal"],
            Break::FlashesForEver => &["flash-again"],
            Break::WipesAgain => &["wipe-while-wiping"],
            Break::MovesOn => &["quarantined-moves"],
            Break::LetsGo => &["physical-limit"],
            Break::ChargesOutages => &["outage-charged"],
            Break::RescueInstalls => &["rescue-wrote"],
            Break::RemakesVolumes => &["volume-again"],
            Break::VolumeOverData => &["data-lost"],
            Break::RebuildAdopted => &["adopted-touched", "in-use", "quarantine-unjustified"],
        }
    }
}
