//! Which MAC has which address: one for ever, as long as its network's range has it.
//!
//! The book knows no clock and no file. An address is in it before it is offered; [`Record`] is what
//! must be durable before the answer leaves.

use crate::model::network::{Lan, Mac};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Record {
    /// From now on this MAC's in this network.
    Given { lan: Arc<str>, mac: Mac, address: Ipv4Addr },
    /// Somebody else uses it, the client found (RFC 2131 §4.3.3).
    Declined { lan: Arc<str>, mac: Mac, address: Ipv4Addr, at_s: u64 },
}

/// How long an address that was found in use is left alone, seconds.
pub const DECLINED_S: u64 = 24 * 3600;

/// All addresses that were ever given.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    lans: BTreeMap<Arc<str>, Book>,
}

#[derive(Clone, Debug, Default)]
struct Book {
    by_mac: BTreeMap<Mac, Lease>,
    /// Never shrinks: an address that a MAC had may still be in its use.
    taken: BTreeMap<Ipv4Addr, Taken>,
    /// Where the search for a free one goes on.
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    address: Ipv4Addr,
    /// It is on the disk.
    durable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    By(Mac),
    /// Found in use at this time.
    Declined(u64),
}

/// An address out of the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    pub address: Ipv4Addr,
    /// To be made durable before anybody hears of the address.
    pub keep: Option<Record>,
}

/// Every address of the range is some machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Leases {
    /// Takes in a line of the journal.
    pub fn replay(&mut self, record: &Record) {
        match record {
            Record::Given { lan, mac, address } => {
                let book = self.lans.entry(lan.clone()).or_default();
                // The first one to have it keeps it, whatever a file says.
                let holder = *book.taken.entry(*address).or_insert(Taken::By(*mac));
                if holder == Taken::By(*mac) {
                    book.by_mac.insert(*mac, Lease { address: *address, durable: true });
                } else if let Taken::Declined(_) = holder {
                    book.taken.insert(*address, Taken::By(*mac));
                    book.by_mac.insert(*mac, Lease { address: *address, durable: true });
                }
            }
            Record::Declined { lan, mac, address, at_s } => {
                self.decline(lan, *mac, *address, *at_s);
            }
        }
    }

    /// The address that this MAC was given.
    pub fn of(&self, lan: &str, mac: Mac) -> Option<Ipv4Addr> {
        self.lans.get(lan)?.by_mac.get(&mac).map(|l| l.address)
    }

    /// The same, once it is on the disk.
    pub fn kept_of(&self, lan: &str, mac: Mac) -> Option<Ipv4Addr> {
        self.lans.get(lan)?.by_mac.get(&mac).filter(|l| l.durable).map(|l| l.address)
    }

    /// Who was given this address, in any network.
    pub fn holder(&self, address: Ipv4Addr) -> Option<Mac> {
        self.lans.values().find_map(|book| match book.taken.get(&address) {
            Some(Taken::By(mac)) if book.by_mac.get(mac)?.address == address => Some(*mac),
            _ => None,
        })
    }

    /// The MAC's own address; or the one it wishes for, where that is free: after the loss of our
    /// memory each machine asks for what it had. Else the next free one that `is_barred` does not
    /// keep from it.
    ///
    /// # Errors
    /// There is none left.
    pub fn allocate(
        &mut self,
        lan: &Lan,
        mac: Mac,
        wish: Option<Ipv4Addr>,
        is_barred: impl Fn(Ipv4Addr) -> bool,
        now_s: u64,
    ) -> Result<Allocated, Exhausted> {
        let range = lan.range.ok_or(Exhausted)?;
        let book = self.lans.entry(lan.name.clone()).or_default();
        let record = |address| Record::Given { lan: lan.name.clone(), mac, address };
        if let Some(lease) = book.by_mac.get(&mac)
            && range.contains(lease.address)
            && !is_barred(lease.address)
        {
            let keep = (!lease.durable).then(|| record(lease.address));
            return Ok(Allocated { address: lease.address, keep });
        }
        let free = |address: &Ipv4Addr| {
            let taken = match book.taken.get(address) {
                None => false,
                Some(Taken::By(other)) => *other != mac,
                Some(Taken::Declined(at_s)) => now_s < at_s.saturating_add(DECLINED_S),
            };
            !taken && lan.subnet.is_host((*address).into()) && !is_barred(*address)
        };
        let address = match wish.filter(|w| range.contains(*w) && free(w)) {
            Some(wish) => wish,
            None => {
                let mut places = (0..range.len()).map(|i| book.next.wrapping_add(i));
                let place = places.find(|n| free(&range.nth(*n))).ok_or(Exhausted)?;
                book.next = place.wrapping_add(1) % range.len().max(1);
                range.nth(place)
            }
        };
        book.taken.insert(address, Taken::By(mac));
        book.by_mac.insert(mac, Lease { address, durable: false });
        Ok(Allocated { address, keep: Some(record(address)) })
    }

    /// The record is on the disk.
    pub fn kept(&mut self, record: &Record) {
        if let Record::Given { lan, mac, address } = record
            && let Some(lease) = self.lans.get_mut(lan).and_then(|b| b.by_mac.get_mut(mac))
            && lease.address == *address
        {
            lease.durable = true;
        }
    }

    /// Marks the address as another's, if it was this MAC's: nobody declines for others.
    pub fn decline(
        &mut self,
        lan: &Arc<str>,
        mac: Mac,
        address: Ipv4Addr,
        at_s: u64,
    ) -> Option<Record> {
        let book = self.lans.get_mut(lan)?;
        if book.by_mac.get(&mac)?.address != address {
            return None;
        }
        book.by_mac.remove(&mac);
        book.taken.insert(address, Taken::Declined(at_s));
        Some(Record::Declined { lan: lan.clone(), mac, address, at_s })
    }

    /// Network, MAC and address of all, in this order.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<str>, Mac, Ipv4Addr)> {
        self.lans
            .iter()
            .flat_map(|(lan, book)| book.by_mac.iter().map(move |(m, l)| (lan, *m, l.address)))
    }

    /// Everything as records: what a compacted journal holds.
    pub fn records(&self) -> Vec<Record> {
        let mut out = Vec::new();
        for (lan, book) in &self.lans {
            // Former addresses first, so that the last line of a MAC is what it has.
            let former = book.taken.iter().filter_map(|(address, taken)| match taken {
                Taken::By(mac) if book.by_mac.get(mac).is_none_or(|l| l.address != *address) => {
                    Some((*mac, *address, None))
                }
                Taken::Declined(at_s) => {
                    // Replayed as given and declined; the MAC does not matter any more.
                    Some((Mac([0x02, 0, 0, 0, 0, 0]), *address, Some(*at_s)))
                }
                Taken::By(_) => None,
            });
            for (mac, address, declined) in former {
                out.push(Record::Given { lan: lan.clone(), mac, address });
                if let Some(at_s) = declined {
                    out.push(Record::Declined { lan: lan.clone(), mac, address, at_s });
                }
            }
            let held = book.by_mac.iter().map(|(mac, lease)| (*mac, lease.address));
            out.extend(held.map(|(mac, address)| Record::Given { lan: lan.clone(), mac, address }));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lan(range: &str) -> Lan {
        let range = Some(range.parse().unwrap());
        Lan { range, ..Lan::new("provision", "10.30.0.0/24".parse().unwrap()) }
    }

    fn mac(n: u8) -> Mac {
        Mac([0x0c, 0x42, 0xa1, 0, 0, n])
    }

    fn take(leases: &mut Leases, lan: &Lan, n: u8) -> Result<Ipv4Addr, Exhausted> {
        leases.allocate(lan, mac(n), None, |_| false, 0).map(|a| a.address)
    }

    #[test]
    fn each_mac_has_its_own_address_for_ever() {
        let (lan, mut leases) = (lan("10.30.0.100-10.30.0.102"), Leases::default());
        let ip = |last| Ipv4Addr::new(10, 30, 0, last);
        assert_eq!(take(&mut leases, &lan, 1), Ok(ip(100)));
        assert_eq!(take(&mut leases, &lan, 2), Ok(ip(101)));
        assert_eq!(take(&mut leases, &lan, 1), Ok(ip(100)));
        assert_eq!(take(&mut leases, &lan, 3), Ok(ip(102)));
        assert_eq!(take(&mut leases, &lan, 4), Err(Exhausted));
        assert_eq!(leases.holder(ip(101)), Some(mac(2)));
    }

    #[test]
    fn an_address_is_to_be_kept_until_it_is() {
        let (lan, mut leases) = (lan("10.30.0.100-10.30.0.102"), Leases::default());
        let first = leases.allocate(&lan, mac(1), None, |_| false, 0).unwrap();
        let again = leases.allocate(&lan, mac(1), None, |_| false, 0).unwrap();
        assert!(again.keep.is_some(), "the first write may have failed");
        leases.kept(&first.keep.unwrap());
        assert_eq!(leases.allocate(&lan, mac(1), None, |_| false, 0).unwrap().keep, None);
    }

    #[test]
    fn a_free_address_that_is_wished_for_is_given() {
        let (lan, mut leases) = (lan("10.30.0.100-10.30.0.110"), Leases::default());
        let mut wish = |n: u8, last: u8| {
            let wanted = Some(Ipv4Addr::new(10, 30, 0, last));
            leases.allocate(&lan, mac(n), wanted, |_| false, 0).unwrap().address.octets()[3]
        };
        assert_eq!(wish(1, 105), 105);
        assert_eq!(wish(1, 106), 105, "who has one keeps it");
        assert_eq!(wish(2, 105), 100, "it is another's");
        assert_eq!(wish(3, 99), 101, "outside of the range");
    }

    #[test]
    fn a_declined_address_rests_for_a_day_and_only_its_holder_declines() {
        let (lan, mut leases) = (lan("10.30.0.100-10.30.0.101"), Leases::default());
        let address = take(&mut leases, &lan, 1).unwrap();
        assert_eq!(leases.decline(&lan.name, mac(2), address, 5), None);
        assert!(leases.decline(&lan.name, mac(1), address, 5).is_some());
        assert_ne!(take(&mut leases, &lan, 1), Ok(address));
        assert_eq!(take(&mut leases, &lan, 2), Err(Exhausted));
        let later = leases.allocate(&lan, mac(2), None, |_| false, 5 + DECLINED_S).unwrap();
        assert_eq!(later.address, address);
    }

    #[test]
    fn barred_and_odd_addresses_are_not_given() {
        let (lan, mut leases) = (lan("10.30.0.0-10.30.0.255"), Leases::default());
        let barred = Ipv4Addr::new(10, 30, 0, 1);
        for n in 0..253 {
            let got = leases.allocate(&lan, mac(n), None, |a| a == barred, 0).unwrap().address;
            assert!(got != barred && lan.subnet.is_host(got.into()), "{got}");
        }
        assert_eq!(leases.allocate(&lan, mac(254), None, |a| a == barred, 0), Err(Exhausted));
    }

    #[test]
    fn the_compacted_book_is_the_same_book() {
        let (lan, mut leases) = (lan("10.30.0.100-10.30.0.110"), Leases::default());
        for n in 1..6 {
            take(&mut leases, &lan, n).unwrap();
        }
        leases.decline(&lan.name, mac(2), Ipv4Addr::new(10, 30, 0, 101), 77).unwrap();
        take(&mut leases, &lan, 2).unwrap();
        let mut again = Leases::default();
        for record in leases.records() {
            again.replay(&record);
        }
        let all = |l: &Leases| l.all().map(|(n, m, a)| (n.clone(), m, a)).collect::<Vec<_>>();
        assert_eq!(all(&leases), all(&again));
        // Still resting: nobody gets it on the same day.
        for n in 10..15 {
            let got = again.allocate(&lan, mac(n), None, |_| false, 100).unwrap().address;
            assert_ne!(got, Ipv4Addr::new(10, 30, 0, 101));
        }
    }

    #[test]
    fn a_journal_that_gives_one_address_twice_gives_it_to_the_first() {
        let mut leases = Leases::default();
        let (lan, address) = (Arc::<str>::from("provision"), Ipv4Addr::new(10, 30, 0, 100));
        for n in [1, 2] {
            leases.replay(&Record::Given { lan: lan.clone(), mac: mac(n), address });
        }
        assert_eq!(leases.of("provision", mac(1)), Some(address));
        assert_eq!(leases.of("provision", mac(2)), None);
    }
}
