//! What must be one machine's alone and is several's: names, identities, addresses.

use super::Draft;
use crate::config::book::{Book, Place};
use std::borrow::Cow;

/// Notes what must be one machine's alone and is several's. By sorting: a map of strings for each
/// of the five would cost more than reading the file.
pub(super) fn check(book: &Book<'_>, drafts: &[Draft]) {
    pairs(book, drafts, "name", |d| (&*d.expected.name, d.at.name));
    pairs(book, drafts, "serial", |d| {
        (d.expected.identity.serial.as_deref().unwrap_or(""), d.at.serial)
    });
    pairs(book, drafts, "MAC", |d| (d.expected.identity.mac.as_deref().unwrap_or(""), d.at.mac));
    urls(book, drafts);
    let mut uuids: Vec<(u128, usize)> = drafts
        .iter()
        .enumerate()
        .filter_map(|(i, d)| Some((either_order(d.expected.identity.uuid.as_deref()?)?, i)))
        .collect();
    uuids.sort_unstable();
    for same in uuids.chunk_by(|a, b| a.0 == b.0) {
        let [first, others @ ..] = same else { continue };
        for other in others {
            if let (Some(first), Some(other)) = (drafts.get(first.1), drafts.get(other.1)) {
                let uuid = other.expected.identity.uuid.as_deref().unwrap_or("");
                note_twice(book, "UUID", uuid, other.at.uuid, first);
            }
        }
    }
}

fn pairs<'d>(
    book: &Book<'_>,
    drafts: &'d [Draft],
    what: &str,
    key: impl Fn(&'d Draft) -> (&'d str, Place),
) {
    let mut all: Vec<(&str, usize)> = drafts
        .iter()
        .enumerate()
        .map(|(i, d)| (key(d).0, i))
        .filter(|(k, _)| !k.is_empty())
        .collect();
    all.sort_unstable();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let [(_, first), others @ ..] = same else { continue };
        for (value, other) in others {
            if let (Some(first), Some(other)) = (drafts.get(*first), drafts.get(*other)) {
                note_twice(book, what, value, key(other).1, first);
            }
        }
    }
}

/// One address is one BMC's or one further controller's.
fn urls(book: &Book<'_>, drafts: &[Draft]) {
    // Hosts in URLs have no case.
    fn fold(s: &str) -> Cow<'_, str> {
        match s.bytes().any(|b| b.is_ascii_uppercase()) {
            true => s.to_ascii_lowercase().into(),
            false => s.into(),
        }
    }
    let mut all: Vec<(Cow<'_, str>, usize, bool, Place)> = Vec::with_capacity(drafts.len());
    for (i, d) in drafts.iter().enumerate() {
        all.push((fold(&d.expected.bmc.url), i, false, d.at.url));
        all.extend(d.controllers.iter().map(|c| (fold(c.url().0), i, true, c.url().1)));
    }
    all.retain(|(url, ..)| !url.is_empty());
    // By file order; sorting is by URL alone.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let [(_, first, further, first_at), others @ ..] = same else { continue };
        for (url, other, also_further, at) in others {
            let (Some(one), Some(two)) = (drafts.get(*first), drafts.get(*other)) else { continue };
            // Nodes of one chassis may stand behind one BMC, as several systems of it.
            let siblings = two.chassis.is_some() && two.chassis == one.chassis;
            if first == other {
                book.error(*at, format!("two controllers of one machine have the URL `{url}`")).hint(
                    format!("the other one is at {}; controllers that one service shows are told apart by themselves", book.where_is(*first_at)),
                );
            } else if *further || *also_further || !siblings {
                note_twice(book, "BMC URL", url, *at, one);
            }
        }
    }
}

fn note_twice(book: &Book<'_>, what: &str, value: &str, at: Place, first: &Draft) {
    book.error(at, format!("two machines have the {what} `{value}`"))
        .hint(format!("the other one is at {}", book.where_is(first.at.header)));
}

/// One number for both byte orders of a UUID: boards disagree about the first three fields.
fn either_order(uuid: &str) -> Option<u128> {
    let hex: String = uuid.chars().filter(|c| *c != '-').collect();
    let [a, b, c, d, e, f, g, h, rest @ ..] = u128::from_str_radix(&hex, 16).ok()?.to_be_bytes();
    let swap = |fields: [u8; 8]| {
        let mut all = [0; 16];
        let (head, tail) = all.split_at_mut(8);
        head.copy_from_slice(&fields);
        tail.copy_from_slice(&rest);
        u128::from_be_bytes(all)
    };
    Some(swap([a, b, c, d, e, f, g, h]).min(swap([d, c, b, a, f, e, h, g])))
}
