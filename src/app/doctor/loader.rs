//! Is this file a loader for that kind of firmware?

use crate::port::netboot::Firmware;

/// A PXE loader of a BIOS must lie below 640 KiB, with firmware and stack beside it.
const BIOS_MOST: usize = 512 * 1024;

/// What it is, in words. `Err`: what is wrong with it.
pub(super) fn check(bytes: &[u8], firmware: Firmware) -> Result<String, String> {
    let machine = pe_machine(bytes);
    match (firmware, machine) {
        (_, _) if bytes.is_empty() => Err("is empty".into()),
        (Firmware::Bios, Some(_)) => Err("is a UEFI program, and a BIOS can't run it".into()),
        (Firmware::Bios, None) if bytes.len() > BIOS_MOST => {
            Err(format!("has {} bytes, more than a BIOS can load", bytes.len()))
        }
        (Firmware::Bios, None) => Ok(format!("{} bytes, no UEFI program", bytes.len())),
        (_, None) => Err("is no UEFI program (PE/COFF)".into()),
        (Firmware::X64, Some(X64)) => Ok("UEFI, x86-64".into()),
        (Firmware::Arm64, Some(ARM64)) => Ok("UEFI, 64-bit ARM".into()),
        (_, Some(other)) => Err(format!("is for {}, not for {}", words(other), firmware.name())),
    }
}

const X64: u16 = 0x8664;
const ARM64: u16 = 0xaa64;

fn words(machine: u16) -> String {
    match machine {
        X64 => "x86-64".into(),
        ARM64 => "64-bit ARM".into(),
        0x014c => "32-bit x86".into(),
        0x01c2 => "32-bit ARM".into(),
        other => format!("machine type {other:#06x}"),
    }
}

/// The machine type of a PE file (PE/COFF specification §3: `MZ`, at 0x3c where `PE\0\0` stands, and
/// the type behind it).
fn pe_machine(bytes: &[u8]) -> Option<u16> {
    if !bytes.starts_with(b"MZ") {
        return None;
    }
    let at = usize::try_from(u32::from_le_bytes(bytes.get(0x3c..0x40)?.try_into().ok()?)).ok()?;
    let head = bytes.get(at..at.checked_add(6)?)?;
    let machine = head.strip_prefix(b"PE\0\0")?;
    Some(u16::from_le_bytes(machine.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pe(machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 0x80];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    #[test]
    fn a_loader_of_the_wrong_kind_is_named() {
        assert!(check(&pe(X64), Firmware::X64).is_ok());
        assert!(check(&pe(ARM64), Firmware::Arm64).is_ok());
        assert!(check(b"\xeb\x3c NBP", Firmware::Bios).is_ok());
        assert_eq!(check(&pe(ARM64), Firmware::X64).unwrap_err(), "is for 64-bit ARM, not for x64");
        assert!(check(&pe(X64), Firmware::Bios).unwrap_err().contains("UEFI program"));
        assert!(check(b"#!/bin/sh", Firmware::X64).unwrap_err().contains("PE/COFF"));
        assert!(check(b"", Firmware::Bios).is_err());
        for cut in 0..0x46 {
            assert!(check(&pe(X64)[..cut], Firmware::X64).is_err(), "cut at {cut}");
        }
        let mut far = pe(X64);
        far[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert!(check(&far, Firmware::X64).is_err());
    }
}
