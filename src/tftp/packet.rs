//! TFTP packets as bytes.

/// One packet, as far as a server that only sends files reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// RRQ in mode `octet`.
    Read(Read),
    /// RRQ in another mode, by its name.
    OtherMode(String),
    /// WRQ.
    Write,
    Ack(u16),
    /// The client breaks off: code and its words, made printable.
    Error(u16, String),
    /// DATA or OACK: no client of ours sends it.
    Other,
}

/// A request for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// As asked for, without a slash in front.
    pub file: String,
    /// Bytes a block (RFC 2348); what no client may ask for is not there.
    pub block: Option<u16>,
    /// The size is asked for (RFC 2349).
    pub size: bool,
    /// Seconds until a block is sent again (RFC 2349).
    pub timeout_s: Option<u8>,
    /// Blocks sent before an ACK is waited for (RFC 7440).
    pub window: Option<u16>,
}

/// Why bytes are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is too short")]
    Short,
    #[error("no such opcode")]
    Opcode,
    #[error("a text in it does not end")]
    Unended,
    #[error("it names no file")]
    NoFile,
}

/// Longest text that is read.
const TEXT: usize = 255;
/// Options that are looked at; more are not.
const OPTIONS: usize = 16;

/// Reads a packet. The entry point of the fuzz target.
///
/// # Errors
/// What keeps it from being one.
pub fn parse(bytes: &[u8]) -> Result<Packet, Malformed> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(Malformed::Short)?;
    let number = || rest.first_chunk::<2>().map(|n| u16::from_be_bytes(*n)).ok_or(Malformed::Short);
    match u16::from_be_bytes(*head) {
        1 => request(rest),
        2 => Ok(Packet::Write),
        3 | 6 => Ok(Packet::Other),
        4 => number().map(Packet::Ack),
        5 => {
            let words = rest.get(2..).unwrap_or_default();
            let words = words.iter().take(TEXT).take_while(|b| **b != 0);
            Ok(Packet::Error(number()?, words.map(|b| printable(*b)).collect()))
        }
        _ => Err(Malformed::Opcode),
    }
}

fn request(rest: &[u8]) -> Result<Packet, Malformed> {
    let (file, rest) = text(rest)?;
    let (mode, mut rest) = text(rest)?;
    // Firmware that copies a file name out of option 67 takes the end mark along.
    let file = file.trim_end_matches('?').trim_start_matches('/');
    if file.is_empty() {
        return Err(Malformed::NoFile);
    }
    if !mode.eq_ignore_ascii_case("octet") {
        return Ok(Packet::OtherMode(mode));
    }
    let mut read = Read { file: file.into(), ..Read::default() };
    for _ in 0..OPTIONS {
        // Options that are cut off are as good as not there.
        let Ok((name, behind)) = text(rest) else { break };
        let Ok((value, behind)) = text(behind) else { break };
        rest = behind;
        let value: Option<u64> = value.parse().ok();
        let within = |low: u64, high: u64| value.filter(|v| (low..=high).contains(v));
        match name.to_ascii_lowercase().as_str() {
            "blksize" => read.block = within(8, 65_464).and_then(|n| u16::try_from(n).ok()),
            "tsize" => read.size = value.is_some(),
            "timeout" => read.timeout_s = within(1, 255).and_then(|n| u8::try_from(n).ok()),
            "windowsize" => read.window = within(1, 65_535).and_then(|n| u16::try_from(n).ok()),
            _ => {}
        }
    }
    Ok(Packet::Read(read))
}

/// A text up to its zero byte, and what is behind it.
fn text(bytes: &[u8]) -> Result<(String, &[u8]), Malformed> {
    let end = bytes.iter().take(TEXT + 1).position(|b| *b == 0).ok_or(Malformed::Unended)?;
    let (text, rest) = bytes.split_at_checked(end).ok_or(Malformed::Unended)?;
    Ok((text.iter().map(|b| printable(*b)).collect(), rest.get(1..).unwrap_or_default()))
}

fn printable(byte: u8) -> char {
    if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' }
}

/// Error codes of RFC 1350 and 2347.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound = 1,
    Denied = 2,
    Illegal = 4,
}

/// An ERROR packet.
pub fn error(refusal: Refusal, words: &str) -> Vec<u8> {
    let mut out = vec![0, 5, 0, refusal as u8];
    out.extend(words.bytes());
    out.push(0);
    out
}

/// A DATA packet.
pub fn data(block: u16, bytes: &[u8]) -> Vec<u8> {
    [&[0, 3], &block.to_be_bytes()[..], bytes].concat()
}

/// An OACK packet.
pub fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut out = vec![0, 6];
    for (name, value) in options {
        out.extend(name.bytes());
        out.push(0);
        out.extend(value.to_string().bytes());
        out.push(0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_firmware_sends_is_read() {
        let read = |bytes: &[u8]| match parse(bytes) {
            Ok(Packet::Read(read)) => read,
            other => panic!("{other:?}"),
        };
        let ovmf =
            read(b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0");
        assert_eq!((ovmf.file.as_str(), ovmf.block, ovmf.size), ("snponly.efi", Some(1468), true));
        assert_eq!(ovmf.window, Some(4));
        assert_eq!(read(b"\0\x01/undionly.kpxe\0OCTET\0").file, "undionly.kpxe");
        assert_eq!(read(b"\0\x01snponly.efi\xff\0octet\0").file, "snponly.efi");
        let odd = read(b"\0\x01x\0octet\0blksize\x007\0timeout\x000\0windowsize\x000\0tsize\0");
        assert_eq!(odd, Read { file: "x".into(), ..Read::default() });
    }

    #[test]
    fn what_is_cut_off_or_odd_is_refused() {
        assert_eq!(parse(b""), Err(Malformed::Short));
        assert_eq!(parse(b"\0\x01"), Err(Malformed::Unended));
        assert_eq!(parse(b"\0\x01x"), Err(Malformed::Unended));
        assert_eq!(parse(b"\0\x01x\0octet"), Err(Malformed::Unended));
        assert_eq!(parse(b"\0\x01\0octet\0"), Err(Malformed::NoFile));
        assert_eq!(parse(b"\0\x04\0"), Err(Malformed::Short));
        assert_eq!(parse(b"\0\x09xx"), Err(Malformed::Opcode));
        assert_eq!(parse(b"\0\x02x\0octet\0"), Ok(Packet::Write));
        assert_eq!(parse(b"\0\x01x\0netascii\0"), Ok(Packet::OtherMode("netascii".into())));
        assert_eq!(
            parse(&[&b"\0\x01"[..], &[b'a'; 300], b"\0octet\0"].concat()),
            Err(Malformed::Unended)
        );
    }
}
