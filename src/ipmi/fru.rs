//! The machine's own FRU: FRU 0, because reading all of them takes some BMCs a minute.

use super::Bmc;
use super::parse::{self, Fru};
use super::tool::Trouble;
use crate::model::{Channel, Fault, FaultClass};

pub(super) async fn fru(bmc: &Bmc<'_>) -> Result<Fru, Fault> {
    let text = bmc.run(&["fru", "print", "0"]).await.map_err(Trouble::fault)?;
    let fru = parse::fru(&text);
    if fru == Fru::default() {
        // ipmitool ends with success where there is no FRU, or an empty one.
        return Err(Fault::new(
            FaultClass::Unsupported,
            Channel::Bmc,
            "no-fru",
            "the BMC has no FRU of the machine",
        )
        .evidence(parse::gist(&text)));
    }
    Ok(fru)
}
