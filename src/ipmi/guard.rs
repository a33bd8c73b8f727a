//! What comes before every write over IPMI: which machine is this, and is it on? IPMI knows no
//! system document: the FRU's serials and the system GUID are what proves a machine.

use super::parse::{self, Fru};
use super::tool::Trouble;
use super::{Bmc, fru};
use crate::model::facts::Power;
use crate::model::identity::{clean_uuid, uuid_eq};
use crate::model::{Expect, Fault, FaultClass, Identity};
pub(super) use crate::port::stop::Stop;

/// What IPMI tells of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub power: Power,
    pub proof: Proof,
}

/// Is it the machine that is meant?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The parts of the wanted identity that were found again.
    Same(Identity),
    /// One part fits, another does not.
    Doubtful(String),
    /// `certain`: the serial differs. A GUID alone may be the BMC's own and not the machine's.
    Other { saw: String, certain: bool },
    /// Neither FRU nor GUID says anything about what is known of the machine.
    Nothing,
}

/// Reads power and identity.
pub(super) async fn look(bmc: &Bmc<'_>, wanted: &Identity) -> Result<Look, Fault> {
    // Power first: it is the one command that every BMC has, so a dead one costs one run.
    let power = bmc.run(&["chassis", "power", "status"]).await.map_err(Trouble::fault)?;
    let power = parse::power(&power);
    let mut fru_read = Fru::default();
    if wanted.serial.is_some() {
        fru_read = optional(fru::fru(bmc).await)?.unwrap_or_default();
    }
    let mut guid = None;
    if wanted.uuid.is_some() {
        // Get System GUID (IPMI 2.0, 22.14), raw: what `mc guid` prints depends on its version.
        let read = bmc.run(&["raw", "0x06", "0x37"]).await.map_err(Trouble::fault);
        guid = optional(read)?.and_then(|text| parse::guid(&text));
    }
    Ok(Look { power, proof: prove(wanted, &fru_read, guid) })
}

/// A part that this BMC does not have, or can't give now, proves nothing and is no failure.
fn optional<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(f) if f.is_no_answer() || f.class == FaultClass::Auth => Err(f),
        Err(_) => Ok(None),
    }
}

/// Compares what is wanted with what the FRU and the GUID say.
fn prove(wanted: &Identity, fru: &Fru, guid: Option<[u8; 16]>) -> Proof {
    let mut same = Identity::default();
    let mut other: Vec<String> = Vec::new();
    let mut certain = false;
    if let Some(serial) = &wanted.serial {
        let found = fru.serials();
        if found.iter().any(|f| **f == **serial) {
            same.serial = Some(serial.clone());
        } else if let Some(product) =
            fru.product_serial.as_deref().filter(|p| found.iter().any(|f| f == p))
        {
            // The board's serial alone would say nothing: the machine's own is another.
            other.push(format!("serial `{product}`, expected `{serial}`"));
            certain = true;
        }
    }
    if let (Some(uuid), Some(raw)) = (&wanted.uuid, guid) {
        let readings = readings(raw);
        if readings.iter().any(|r| uuid_eq(uuid, r)) {
            same.uuid = Some(uuid.clone());
        } else if let Some(first) = readings.first() {
            other.push(format!("GUID `{first}`, expected `{uuid}`"));
        }
    }
    match (same.is_unknown(), other.is_empty()) {
        (false, true) => Proof::Same(same),
        (false, false) => Proof::Doubtful(other.join(", ")),
        (true, false) => Proof::Other { saw: other.join(", "), certain },
        (true, true) => Proof::Nothing,
    }
}

/// The bytes as text, as they come and from the last to the first (as IPMI has them). SMBIOS's order,
/// which swaps the first three fields, is looked after by the comparison.
fn readings(raw: [u8; 16]) -> Vec<String> {
    let mut reversed = raw;
    reversed.reverse();
    [raw, reversed].iter().filter_map(|bytes| clean_uuid(&hex::encode(bytes))).collect()
}

/// Re-reads what the action expects and says the power as it is now.
pub(super) async fn check(bmc: &Bmc<'_>, expect: &Expect) -> Result<Power, Stop> {
    let wanted = &expect.identity;
    let look = look(bmc, wanted).await?;
    let refused = |saw, wrong_machine| Err(Stop::Refused { saw, wrong_machine });
    match look.proof {
        Proof::Other { saw, certain } => return refused(format!("over IPMI {saw}"), certain),
        Proof::Doubtful(saw) => {
            return refused(format!("over IPMI one part of the identity fits, yet {saw}"), false);
        }
        Proof::Nothing if !wanted.is_unknown() => {
            let saw = "over IPMI nothing that proves the machine's identity (no serial in its FRU, no GUID)";
            return refused(saw.into(), false);
        }
        Proof::Same(_) | Proof::Nothing => {}
    }
    if let Some(power) = expect.power
        && power != look.power
    {
        return refused(format!("power is {:?}, expected {power:?}", look.power), false);
    }
    Ok(look.power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fru(product: Option<&str>, board: Option<&str>) -> Fru {
        Fru {
            product_serial: product.map(Into::into),
            board_serial: board.map(Into::into),
            ..Fru::default()
        }
    }

    #[test]
    fn a_serial_in_the_fru_proves_the_machine() {
        let wanted = Identity::new(Some("S1"), None, None);
        let same = Proof::Same(wanted.clone());
        assert_eq!(prove(&wanted, &fru(Some("S1"), Some("B1")), None), same);
        assert_eq!(prove(&wanted, &fru(Some("P1"), Some("S1")), None), same);
        match prove(&wanted, &fru(Some("S2"), Some("B1")), None) {
            Proof::Other { certain: true, saw } => assert!(saw.contains("`S2`, expected `S1`")),
            p => panic!("{p:?}"),
        }
        assert_eq!(prove(&wanted, &fru(None, Some("B1")), None), Proof::Nothing);
        assert_eq!(
            prove(&wanted, &fru(Some("To be filled by O.E.M."), None), None),
            Proof::Nothing
        );
        let mac = Identity::new(None, None, Some("00:00:5e:00:53:01"));
        assert_eq!(prove(&mac, &fru(Some("S1"), None), None), Proof::Nothing, "no MAC in a FRU");
    }

    #[test]
    fn a_guid_proves_it_in_every_byte_order() {
        let wanted = Identity::new(None, Some("00112233-4455-6677-8899-aabbccddeeff"), None);
        let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n * 0x11).unwrap());
        let mut ipmi = bytes;
        ipmi.reverse();
        let mut smbios = bytes;
        smbios[..4].reverse();
        smbios[4..6].reverse();
        smbios[6..8].reverse();
        let mut smbios_as_ipmi = smbios;
        smbios_as_ipmi.reverse();
        for raw in [bytes, ipmi, smbios, smbios_as_ipmi] {
            assert_eq!(prove(&wanted, &Fru::default(), Some(raw)), Proof::Same(wanted.clone()));
        }
        match prove(&wanted, &Fru::default(), Some([7; 16])) {
            Proof::Other { certain: false, .. } => {}
            p => panic!("{p:?}"),
        }
        assert_eq!(prove(&wanted, &Fru::default(), Some([0xff; 16])), Proof::Nothing);
        assert_eq!(prove(&wanted, &Fru::default(), None), Proof::Nothing);
    }

    #[test]
    fn one_part_that_fits_does_not_outweigh_one_that_does_not() {
        let wanted = Identity::new(Some("S1"), Some("00112233-4455-6677-8899-aabbccddeeff"), None);
        match prove(&wanted, &fru(Some("S1"), None), Some([7; 16])) {
            Proof::Doubtful(saw) => assert!(saw.contains("GUID"), "{saw}"),
            p => panic!("{p:?}"),
        }
    }
}
