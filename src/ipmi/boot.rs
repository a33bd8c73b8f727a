//! The boot device (IPMI 2.0, 28.12 and table 28-14): for the next boot only, and in UEFI mode,
//! because without the EFI bit boards fall back to legacy boot (field notes §4).

use super::guard::{self, Stop};
use super::parse::{self, BootFlags};
use super::power::outcome;
use super::tool::Trouble;
use super::{Bmc, DONE};
use crate::model::action::BootTarget;
use crate::model::{Channel, Expect, Fault, FaultClass, Outcome};

/// Boot option parameter 3, bit 3: the flags stay valid although no chassis command follows within
/// 60 s. A host may be powered on much later than its boot device is set.
const KEEP_FLAGS: [&str; 5] = ["raw", "0x00", "0x08", "0x03", "0x08"];

pub(super) async fn set(
    bmc: &Bmc<'_>,
    expect: &Expect,
    target: BootTarget,
) -> Result<Outcome, Stop> {
    let (device, selector) = match target {
        BootTarget::Pxe => ("pxe", BootFlags::PXE),
        BootTarget::Cd => ("cdrom", BootFlags::CD),
        BootTarget::Disk => ("disk", BootFlags::DISK),
        BootTarget::None => ("none", 0),
        BootTarget::UefiHttp => {
            let fault = Fault::new(
                FaultClass::Unsupported,
                Channel::Bmc,
                "boot-target-unsupported",
                "IPMI has no boot from HTTP",
            )
            .hint("mend the BMC's Redfish (a BMC reset helps most), or boot by PXE");
            return Ok(Outcome::Failed { fault });
        }
    };
    let _one = bmc.line.turn().await;
    guard::check(bmc, expect).await?;
    match bmc.run(&KEEP_FLAGS).await {
        Ok(_) => {}
        // Not every BMC has it; then the host must be started within the minute, which the step does.
        Err(Trouble::NotDone(f)) if !f.is_no_answer() && f.class != FaultClass::Auth => {
            tracing::debug!(machine = %bmc.target.name, fault = %f, "the boot flags' 60 s can't be lifted");
        }
        Err(trouble) => return Ok(Outcome::Failed { fault: trouble.fault() }),
    }
    let sent = match target {
        BootTarget::None => bmc.run(&["chassis", "bootdev", "none"]).await,
        _ => bmc.run(&["chassis", "bootdev", device, "options=efiboot"]).await,
    };
    let sent = outcome(sent);
    if sent != DONE {
        return Ok(sent);
    }
    // Read back. Some BMCs call the flags invalid at once or drop the EFI bit, and boot by them all
    // the same: only another device is evidence that it was not taken.
    if let Ok(read) = flags(bmc).await {
        let machine = &bmc.target.name;
        if read.valid && read.device != selector {
            let fault = Fault::new(
                FaultClass::Transient,
                Channel::Bmc,
                "did-not-take",
                format!(
                    "the boot device was taken and reads {} instead of {selector}",
                    read.device
                ),
            );
            return Ok(Outcome::Failed { fault });
        }
        if selector != 0 && !read.efi {
            tracing::warn!(%machine, "the BMC drops the EFI bit: the next boot may be a legacy one");
        }
        if selector != 0 && !read.valid {
            tracing::debug!(%machine, "the BMC calls the boot flags invalid after taking them");
        }
    }
    Ok(DONE)
}

pub(super) async fn flags(bmc: &Bmc<'_>) -> Result<BootFlags, Fault> {
    let text = bmc.run(&["chassis", "bootparam", "get", "5"]).await.map_err(Trouble::fault)?;
    parse::boot_flags(&text).ok_or_else(|| {
        Fault::new(
            FaultClass::Transient,
            Channel::Bmc,
            "no-boot-flags",
            "the BMC's boot flags can't be read",
        )
        .evidence(parse::gist(&text))
    })
}
