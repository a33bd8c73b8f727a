//! One file on its way to one client, without a socket or a clock.

use super::packet::{self, Packet, Read};
use std::sync::Arc;

/// Blocks are no larger, whatever a client asks for: with headers they fit into an Ethernet frame,
/// and firmware does not put fragments together.
pub const BLOCK: u16 = 1468;
/// Blocks under way at once: more overruns the buffers of firmware.
pub const WINDOW: u16 = 16;
/// RFC 1350's, for clients without options.
const PLAIN_BLOCK: u16 = 512;
/// How often the same is sent again before the client counts as gone.
const TRIES: u32 = 6;

/// A transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    file: Arc<[u8]>,
    block: usize,
    window: u64,
    timeout_ms: u64,
    /// Sent first, and answered by an ACK of block 0.
    oack: Option<Vec<u8>>,
    /// Blocks that the client has.
    acked: u64,
    /// Blocks that were sent.
    sent: u64,
    tries: u32,
    /// The client said twice that it has no more than `acked`, and was heard.
    answered_gap: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Start,
    Packet(Packet),
    /// Nothing came for as long as `Step::Wait` said.
    Silence,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these, then wait so many milliseconds.
    Send(Vec<Vec<u8>>, u64),
    /// Go on waiting.
    Wait,
    Done(End),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has the whole file.
    Whole,
    /// The client broke off. Firmware that only wanted the size does.
    BrokenOff(u16, String),
    /// It does not answer any more; it had so many blocks.
    Gone(u64),
}

impl Transfer {
    pub fn new(file: Arc<[u8]>, read: &Read) -> Self {
        let mut options = Vec::new();
        let mut block = PLAIN_BLOCK;
        if let Some(wanted) = read.block {
            block = wanted.min(BLOCK);
            options.push(("blksize", u64::from(block)));
        }
        if read.size {
            options.push(("tsize", u64::try_from(file.len()).unwrap_or(u64::MAX)));
        }
        let mut timeout_ms = 1000;
        if let Some(seconds) = read.timeout_s {
            timeout_ms = u64::from(seconds) * 1000;
            options.push(("timeout", seconds.into()));
        }
        let mut window = 1;
        if let Some(wanted) = read.window {
            window = wanted.min(WINDOW);
            options.push(("windowsize", window.into()));
        }
        Self {
            file,
            block: block.into(),
            window: window.into(),
            timeout_ms,
            oack: (!options.is_empty()).then(|| packet::oack(&options)),
            acked: 0,
            sent: 0,
            tries: 0,
            answered_gap: false,
        }
    }

    /// Blocks in all. The last one is shorter than the others, and may be empty.
    fn blocks(&self) -> u64 {
        u64::try_from(self.file.len() / self.block).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub fn on(&mut self, event: &Event) -> Step {
        match event {
            Event::Start => self.send(),
            Event::Silence if self.tries >= TRIES => Step::Done(End::Gone(self.acked)),
            Event::Silence => {
                self.tries += 1;
                self.send()
            }
            Event::Packet(Packet::Ack(number)) => self.ack(*number),
            Event::Packet(Packet::Error(code, words)) => {
                Step::Done(End::BrokenOff(*code, words.clone()))
            }
            Event::Packet(_) => Step::Wait,
        }
    }

    fn ack(&mut self, number: u16) -> Step {
        if self.oack.is_some() {
            if number != 0 {
                return Step::Wait;
            }
            self.oack = None;
            self.tries = 0;
            return self.send();
        }
        let [.., high, low] = self.acked.to_be_bytes();
        let ahead = u64::from(number.wrapping_sub(u16::from_be_bytes([high, low])));
        if ahead == 0 {
            // Said again. With a window the client misses the block behind it; without one an ACK
            // was only late, and an answer would double every packet from here on (RFC 1123
            // §4.2.3.1).
            if self.window == 1 || std::mem::replace(&mut self.answered_gap, true) {
                return Step::Wait;
            }
            return self.send();
        }
        if ahead > self.sent.saturating_sub(self.acked) {
            return Step::Wait;
        }
        self.acked += ahead;
        self.tries = 0;
        self.answered_gap = false;
        if self.acked == self.blocks() { Step::Done(End::Whole) } else { self.send() }
    }

    /// What is due: the options, or the window behind what the client has.
    fn send(&mut self) -> Step {
        // Twice the time after each silence: the client's rack may just be busy.
        let wait_ms = self.timeout_ms << self.tries.min(3);
        if let Some(oack) = &self.oack {
            return Step::Send(vec![oack.clone()], wait_ms);
        }
        let last = self.blocks().min(self.acked.saturating_add(self.window));
        let mut packets = Vec::new();
        for n in self.acked..last {
            let start = usize::try_from(n).unwrap_or(usize::MAX).saturating_mul(self.block);
            let end = start.saturating_add(self.block).min(self.file.len());
            let [.., high, low] = n.wrapping_add(1).to_be_bytes();
            let bytes = self.file.get(start..end).unwrap_or_default();
            packets.push(packet::data(u16::from_be_bytes([high, low]), bytes));
        }
        self.sent = self.sent.max(last);
        Step::Send(packets, wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that follows the RFCs; `lose` says which of the packets it never sees.
    fn fetch(file: &[u8], read: &Read, mut lose: impl FnMut(u64) -> bool) -> (Vec<u8>, End) {
        let mut transfer = Transfer::new(file.into(), read);
        let (mut got, mut have, mut seen) = (Vec::new(), 0_u64, 0_u64);
        let mut event = Event::Start;
        for _ in 0..1_000_000 {
            let packets = match transfer.on(&event) {
                Step::Done(end) => return (got, end),
                Step::Wait => {
                    event = Event::Silence;
                    continue;
                }
                Step::Send(packets, _) => packets,
            };
            event = Event::Silence;
            let mut gap = false;
            for packet in packets {
                seen += 1;
                if lose(seen) {
                    gap = true;
                    continue;
                }
                if packet.starts_with(&[0, 6]) {
                    event = Event::Packet(Packet::Ack(0));
                    continue;
                }
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                if !gap && number == u16::try_from((have + 1) % 65_536).unwrap() {
                    have += 1;
                    got.extend_from_slice(&packet[4..]);
                }
                event = Event::Packet(Packet::Ack(u16::try_from(have % 65_536).unwrap()));
            }
        }
        panic!("it does not end");
    }

    fn read(block: Option<u16>, window: Option<u16>) -> Read {
        Read { file: "x".into(), block, window, size: true, timeout_s: None }
    }

    #[test]
    fn files_of_every_length_arrive_whole() {
        for length in [0, 1, 511, 512, 513, 1468, 1469, 10_000] {
            let file: Vec<u8> = (0_u8..=250).cycle().take(length).collect();
            for ask in [
                Read::default(),
                read(None, None),
                read(Some(1468), None),
                read(Some(512), Some(4)),
            ] {
                assert_eq!(fetch(&file, &ask, |_| false), (file.clone(), End::Whole), "{length}");
            }
        }
    }

    #[test]
    fn lost_packets_are_sent_again() {
        let file: Vec<u8> = (0_u8..=250).cycle().take(40_000).collect();
        for (every, window) in [(3, None), (3, Some(4)), (5, Some(16)), (7, Some(64))] {
            // Not each third one: that may be the same block for ever.
            let lose = |n: u64| (n.wrapping_mul(0x9e37_79b9) >> 13).is_multiple_of(every);
            let (got, end) = fetch(&file, &read(Some(1468), window), lose);
            assert_eq!((got == file, end), (true, End::Whole), "{every} {window:?}");
        }
    }

    #[test]
    fn block_numbers_start_anew() {
        let file = vec![7; 65_536 * 8 + 3];
        let (got, end) = fetch(&file, &read(Some(8), Some(8)), |_| false);
        assert_eq!((got.len(), end), (file.len(), End::Whole));
    }

    #[test]
    fn an_ack_said_twice_does_not_double_the_packets() {
        let mut transfer = Transfer::new(vec![0; 2000].into(), &Read::default());
        transfer.on(&Event::Start);
        assert!(
            matches!(transfer.on(&Event::Packet(Packet::Ack(1))), Step::Send(p, _) if p.len() == 1)
        );
        assert_eq!(transfer.on(&Event::Packet(Packet::Ack(1))), Step::Wait);
        assert_eq!(transfer.on(&Event::Packet(Packet::Ack(9))), Step::Wait, "never sent");
    }

    #[test]
    fn a_client_that_only_wants_the_size_ends_it() {
        let mut transfer = Transfer::new(vec![0; 2000].into(), &read(None, None));
        let Step::Send(packets, _) = transfer.on(&Event::Start) else { panic!() };
        assert_eq!(packets, [b"\0\x06tsize\x002000\0".to_vec()]);
        let off = Event::Packet(Packet::Error(8, "User aborted the transfer".into()));
        assert!(matches!(transfer.on(&off), Step::Done(End::BrokenOff(8, _))));
    }

    #[test]
    fn a_client_that_is_gone_is_given_up() {
        let mut transfer = Transfer::new(vec![0; 2000].into(), &Read::default());
        transfer.on(&Event::Start);
        let mut waits = Vec::new();
        let end = loop {
            match transfer.on(&Event::Silence) {
                Step::Send(_, wait_ms) => waits.push(wait_ms),
                step => break step,
            }
        };
        assert_eq!(waits, [2000, 4000, 8000, 8000, 8000, 8000]);
        assert_eq!(end, Step::Done(End::Gone(0)));
    }
}
