//! What ipmitool prints, as values. Pure, and nothing in it panics, whatever the bytes: they come
//! from firmware.

use crate::model::facts::Power;
use crate::model::hardware::LogEntry;
use crate::model::identity::clean_serial;

/// What a run that did not succeed says, in the words of ipmitool 1.8.18 and 1.8.19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The BMC has no such cipher suite: no session was opened, the next suite may be tried.
    NoCipher,
    /// User or password is wrong: no session was opened.
    BadCredentials,
    /// The account may not ask for the wanted level, or not for this command.
    Privilege,
    /// Out of sessions, or busy otherwise: nothing was done.
    Busy,
    /// The BMC does not know the command (completion codes C1h, C2h).
    Unsupported,
    /// Not now (D5h), e.g. a power command that does not fit the state.
    NotNow,
    /// The BMC turned the request's data down (C7h, C8h, C9h, CCh, …).
    Rejected,
    /// Nobody answered before a session was open.
    Silent,
    /// Anything else: nobody can tell whether the command was carried out.
    Unclear,
}

/// Texts in the order in which they count: the first that occurs decides.
const SAYINGS: &[(&str, Said)] = &[
    // Open Session Response and the checks of what it grants (IPMI 2.0, 13.18 and table 13-15).
    // "invalid role" is there because a suite that a role may not use reads like that.
    ("unsupported cipher suite id", Said::NoCipher),
    ("no matching cipher suite", Said::NoCipher),
    ("invalid role", Said::NoCipher),
    ("invalid authentication algorithm", Said::NoCipher),
    ("invalid integrity algorithm", Said::NoCipher),
    ("invalid confidentiality algorithm", Said::NoCipher),
    ("no matching authentication payload", Said::NoCipher),
    ("no matching integrity payload", Said::NoCipher),
    ("is not what we requested", Said::NoCipher),
    ("hmac is invalid", Said::BadCredentials),
    ("unauthorized name", Said::BadCredentials),
    ("invalid integrity check value", Said::BadCredentials),
    ("unauthorized guid", Said::BadCredentials),
    ("unauthorized role", Said::Privilege),
    ("insufficient privilege", Said::Privilege),
    ("set session privilege level to", Said::Privilege),
    ("insufficient resources", Said::Busy),
    ("node busy", Said::Busy),
    ("invalid command on lun", Said::Unsupported),
    ("invalid command", Said::Unsupported),
    ("illegal command", Said::Unsupported),
    ("not supported in present state", Said::NotNow),
    ("already de-activated", Said::NotNow),
    ("invalid data field", Said::Rejected),
    ("parameter out of range", Said::Rejected),
    ("parameter not supported", Said::Rejected),
    ("request data length", Said::Rejected),
    ("unable to establish ipmi", Said::Silent),
    ("address lookup for", Said::Silent),
    ("could not open socket", Said::Silent),
    ("error in open session response message", Said::NoCipher),
    ("get auth capabilities", Said::Silent),
    ("no response from remote controller", Said::Silent),
];

/// What a verbose run says of every session: it looks for extensions that hardly any BMC has, and
/// prints how the BMC turned that down. None of it is about the command.
const NOISE: &[&str] = &[
    "Discovered ",
    "Get HPM.x Capabilities",
    "IANA PEN registry",
    "Invalid completion code received",
    "Loading IANA",
    "RAW REQ",
    "RAW RSP",
    "Running Get ",
    "Unable to Get Channel Cipher Suites",
];

/// The lines that are about the command.
fn told(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.filter(|l| !NOISE.iter().any(|n| l.starts_with(n)))
}

/// Reads what a run that failed left on its two outputs.
pub fn said(text: &str) -> Said {
    let text: String = told(text).flat_map(|l| [l, "\n"]).collect();
    let text = text.to_ascii_lowercase();
    SAYINGS.iter().find(|(t, _)| text.contains(t)).map_or(Said::Unclear, |(_, said)| *said)
}

/// The first lines that tell a person something, in one line.
pub fn gist(text: &str) -> String {
    let mut told: Vec<&str> = told(text).collect();
    told.dedup();
    // The last lines say what it came to.
    let from = told.len().saturating_sub(4);
    let all = told.get(from..).unwrap_or_default().join("; ");
    let clean = all.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(400).collect()
}

/// `chassis power status`.
pub fn power(text: &str) -> Power {
    let state = text.lines().find_map(|l| l.trim().strip_prefix("Chassis Power is "));
    match state.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "on" => Power::On,
        "off" => Power::Off,
        _ => Power::Unknown,
    }
}

/// The bytes that a `raw` command printed; `None` where anything else stands between them.
pub fn raw(text: &str) -> Option<Vec<u8>> {
    let byte = |word: &str| match word.len() {
        2 if word.bytes().all(|b| b.is_ascii_hexdigit()) => u8::from_str_radix(word, 16).ok(),
        _ => None,
    };
    text.split_whitespace().map(byte).collect()
}

/// A GUID as it came (Get System GUID, IPMI 2.0, 22.14). Which way round it is nobody says: the
/// specification, SMBIOS and RFC 9562 differ, and BMCs follow any of them.
pub fn guid(text: &str) -> Option<[u8; 16]> {
    raw(text)?.try_into().ok()
}

/// The identifying fields of a FRU (IPMI Platform Management FRU Information Storage 1.0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fru {
    pub product_manufacturer: Option<String>,
    pub product_name: Option<String>,
    pub product_part: Option<String>,
    /// Mostly what is on the label and in DMI.
    pub product_serial: Option<String>,
    pub asset_tag: Option<String>,
    pub board_manufacturer: Option<String>,
    pub board_product: Option<String>,
    pub board_serial: Option<String>,
    pub board_part: Option<String>,
    pub chassis_serial: Option<String>,
    pub chassis_part: Option<String>,
}

impl Fru {
    /// Serial numbers that are none of the usual placeholders, the machine's own first.
    pub fn serials(&self) -> Vec<String> {
        let all = [&self.product_serial, &self.chassis_serial, &self.board_serial];
        all.into_iter().flatten().filter_map(|s| clean_serial(s)).collect()
    }
}

/// `fru print 0`. A field that is there twice counts as first said; the rest is not asked for.
pub fn fru(text: &str) -> Fru {
    let mut out = Fru::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(" :") else { continue };
        let slot = match name.trim() {
            "Product Manufacturer" => &mut out.product_manufacturer,
            "Product Name" => &mut out.product_name,
            "Product Part Number" => &mut out.product_part,
            "Product Serial" => &mut out.product_serial,
            "Product Asset Tag" => &mut out.asset_tag,
            "Board Mfg" => &mut out.board_manufacturer,
            "Board Product" => &mut out.board_product,
            "Board Serial" => &mut out.board_serial,
            "Board Part Number" => &mut out.board_part,
            "Chassis Serial" => &mut out.chassis_serial,
            "Chassis Part Number" => &mut out.chassis_part,
            _ => continue,
        };
        let value = value.trim();
        if slot.is_none() && !value.is_empty() {
            *slot = Some(value.chars().take(64).collect());
        }
    }
    out
}

/// What a BMC will boot from, out of `chassis bootparam get 5` (IPMI 2.0, table 28-14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootFlags {
    /// The BMC still believes in them. Some say no at once, and boot by them all the same.
    pub valid: bool,
    /// For every boot, not only for the next.
    pub persistent: bool,
    pub efi: bool,
    /// The device selector, 0–15.
    pub device: u8,
}

impl BootFlags {
    pub const PXE: u8 = 1;
    pub const DISK: u8 = 2;
    pub const CD: u8 = 5;
}

/// By the data bytes; the words below them differ from version to version.
pub fn boot_flags(text: &str) -> Option<BootFlags> {
    let line = text.lines().find_map(|l| l.trim().strip_prefix("Boot parameter data:"))?.trim();
    let byte = |n: usize| u8::from_str_radix(line.get(2 * n..2 * n + 2)?, 16).ok();
    let (flags, device) = (byte(0)?, byte(1)?);
    Some(BootFlags {
        valid: flags & 0x80 != 0,
        persistent: flags & 0x40 != 0,
        efi: flags & 0x20 != 0,
        device: device >> 2 & 0x0f,
    })
}

/// `sel elist`, one entry a line: `id | date | time | sensor | event | direction`.
pub fn sel(text: &str) -> Vec<LogEntry> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<LogEntry> {
    let mut fields = line.split('|').map(str::trim);
    let id = fields.next()?;
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let (date, time) = (fields.next()?, fields.next().unwrap_or_default());
    let message: Vec<&str> = fields.filter(|f| !f.is_empty()).collect();
    if message.is_empty() {
        return None;
    }
    // Before its clock is set a BMC counts seconds since its start.
    let at = match date {
        "Pre-Init" | "" => None,
        _ => Some(format!("{date} {time}").trim().to_string()),
    };
    let message = message.join(" | ");
    Some(LogEntry {
        log: "SEL".into(),
        id: id.into(),
        at,
        severity: severity(&message).map(Into::into),
        code: None,
        message,
    })
}

/// By the names of the threshold events (IPMI 2.0, table 42-2); other events do not say.
fn severity(message: &str) -> Option<&'static str> {
    let low = message.to_ascii_lowercase();
    if low.contains("deasserted") {
        return Some("OK");
    }
    match () {
        () if low.contains("non-critical") => Some("Warning"),
        () if low.contains("critical") || low.contains("non-recoverable") => Some("Critical"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refused_run_says_why() {
        let cases = [
            // ipmitool 1.8.19 against ipmi_sim, pyghmi and nobody; the rest from its source.
            (
                "Error in open session response message : invalid authentication algorithm\n\nError: Unable to establish IPMI v2 / RMCP+ session",
                Said::NoCipher,
            ),
            ("Error in open session response message : no matching cipher suite\n", Said::NoCipher),
            ("Authentication algorithm 0x01 is not what we requested 0x03", Said::NoCipher),
            ("Unsupported cipher suite ID : 17\n", Said::NoCipher),
            (
                "> RAKP 2 HMAC is invalid\nError: Unable to establish IPMI v2 / RMCP+ session",
                Said::BadCredentials,
            ),
            (
                "RAKP 2 message indicates an error : unauthorized name\nError: Unable to establish IPMI v2 / RMCP+ session",
                Said::BadCredentials,
            ),
            (
                "Set Session Privilege Level to ADMINISTRATOR failed\nError: Unable to establish IPMI v2 / RMCP+ session",
                Said::Privilege,
            ),
            (
                "Set Chassis Power Control to Up/On failed: Insufficient privilege level",
                Said::Privilege,
            ),
            ("Get Chassis Power Status failed: Invalid command", Said::Unsupported),
            (
                "Set Chassis Power Control to Reset failed: Command not supported in present state",
                Said::NotNow,
            ),
            ("Set Chassis Boot Parameter 3 failed: Invalid data field in request", Said::Rejected),
            (
                "Error in open session response message : insufficient resources for session",
                Said::Busy,
            ),
            ("Error: Unable to establish IPMI v2 / RMCP+ session", Said::Silent),
            ("Address lookup for nowhere failed", Said::Silent),
            ("Unable to set Chassis Power Control to Down/Off", Said::Unclear),
            ("", Said::Unclear),
        ];
        for (text, want) in cases {
            assert_eq!(said(text), want, "{text}");
        }
    }

    #[test]
    fn what_every_session_says_is_not_about_the_command() {
        let session = "Loading IANA PEN Registry...\nGet HPM.x Capabilities request failed, compcode = d4\n\
                       Running Get VSO Capabilities my_addr 0x20, transit 0, target 0x20\n\
                       Invalid completion code received: Insufficient privilege level\n\
                       Invalid completion code received: Invalid command\nDiscovered IPMB address 0x0\n";
        assert_eq!(said(session), Said::Unclear);
        let failed = format!(
            "{session}Set Chassis Power Control to Reset failed: Invalid data field in request"
        );
        assert_eq!(said(&failed), Said::Rejected);
        assert_eq!(
            gist(&failed),
            "Set Chassis Power Control to Reset failed: Invalid data field in request"
        );
    }

    #[test]
    fn a_fru_names_its_machine() {
        let text = " Board Mfg Date        : Mon Jan  1 00:00:00 1996\n Board Mfg             : ACME\n \
                    Board Product         : GPU-8U\n Board Serial          : BSN0001\n \
                    Board Part Number     : BPN0001\n Product Manufacturer  : ACME\n \
                    Product Name          : SRV-8GPU\n Product Serial        : PSN0001\n \
                    Product Asset Tag     : AT1\n Chassis Serial        : To Be Filled By O.E.M.\n";
        let fru = fru(text);
        assert_eq!(fru.product_name.as_deref(), Some("SRV-8GPU"));
        assert_eq!(fru.board_part.as_deref(), Some("BPN0001"));
        assert_eq!(fru.serials(), ["PSN0001", "BSN0001"], "a placeholder is no serial");
        assert_eq!(super::fru("FRU read failed").serials(), Vec::<String>::new());
    }

    #[test]
    fn a_log_has_its_newest_lines() {
        let text = "   1 | 11/21/2026 | 21:40:12 UTC | Temperature CPU Temp | Upper Critical going high | Asserted\n   \
                    2 | Pre-Init  |0000000012| Power Supply #0x51 | Failure detected | Asserted\n\
                    SEL has no entries\n 3 | 11/21/2026 | 21:41:00 | Temperature CPU Temp | Upper Critical going high | Deasserted\n";
        let log = sel(text);
        assert_eq!(log.len(), 3);
        assert_eq!(log[0].at.as_deref(), Some("11/21/2026 21:40:12 UTC"));
        assert_eq!(log[0].severity.as_deref(), Some("Critical"));
        assert_eq!((log[1].at.as_deref(), log[1].severity.as_deref()), (None, None));
        assert_eq!(log[2].severity.as_deref(), Some("OK"));
        assert_eq!(log[2].message, "Temperature CPU Temp | Upper Critical going high | Deasserted");
    }

    #[test]
    fn boot_flags_are_read_from_the_bytes() {
        let flags =
            |data| boot_flags(&format!("Boot parameter version: 1\nBoot parameter data: {data}\n"));
        assert_eq!(
            flags("a004000000"),
            Some(BootFlags { valid: true, persistent: false, efi: true, device: BootFlags::PXE })
        );
        assert_eq!(
            flags("c008000000").map(|f| (f.persistent, f.device)),
            Some((true, BootFlags::DISK))
        );
        assert_eq!(flags("8014000000").map(|f| f.device), Some(BootFlags::CD));
        assert_eq!(flags("80"), None);
        assert_eq!(flags("zz04"), None);
        assert_eq!(flags("é\u{301}4"), None);
    }

    #[test]
    fn raw_bytes_are_all_or_nothing() {
        assert_eq!(raw(" 00 ff\n 1a\n"), Some(vec![0, 0xff, 0x1a]));
        assert_eq!(raw("00 xx"), None);
        assert_eq!(raw("+1"), None, "a sign is no digit");
        assert_eq!(guid("00"), None);
        assert_eq!(power("Chassis Power is on\n"), Power::On);
        assert_eq!(power("Chassis Power is ??"), Power::Unknown);
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let text = String::from_utf8_lossy(&bytes);
            for text in [text.to_string(), format!("Boot parameter data: {text}"), format!("1 | {text}")] {
                let _ = (said(&text), power(&text), raw(&text), guid(&text), fru(&text), sel(&text));
                let _ = boot_flags(&text);
                prop_assert!(gist(&text).chars().count() <= 400);
            }
        }
    }
}
