//! Seeded mutations that know what they change: JSON by its values, text by its lines, anything by
//! its bytes.

use serde_json::{Value, json};

/// A row of numbers that is the same each time (SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of(name: &str, n: u64) -> Self {
        let of_name = name.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        Self(of_name.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 where that is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap().max(1);
        usize::try_from(self.next() % n).unwrap()
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// One mutation: of a JSON body where there is one and the dice say so.
pub(crate) fn once(data: &[u8], all: &[(String, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    if dice.below(4) > 0
        && let Some(out) = of_json(data, dice)
    {
        return out;
    }
    if dice.below(2) == 0 { of_lines(data, dice) } else { of_bytes(data, all, dice) }
}

/// One of the lines that are JSON documents, changed in one value.
fn of_json(data: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(data).ok()?;
    let lines: Vec<&str> = text.split('\n').collect();
    let documents: Vec<usize> =
        (0..lines.len()).filter(|n| lines[*n].starts_with(['{', '['])).collect();
    if documents.is_empty() {
        return None;
    }
    let at = *dice.one(&documents);
    let mut document: Value = serde_json::from_str(lines[at]).ok()?;
    let all = count(&document);
    let spare = lines[*dice.one(&documents)];
    let with = harm(text, spare, dice);
    if all == 0 {
        document = with.unwrap_or_default();
    } else {
        replace(&mut document, &mut dice.below(all), &with);
    }
    let changed = document.to_string();
    let out: Vec<&str> =
        lines.iter().enumerate().map(|(n, l)| if n == at { &changed } else { *l }).collect();
    Some(out.join("\n").into_bytes())
}

/// What stands in the place of a value; `None`: nothing does.
fn harm(text: &str, spare: &str, dice: &mut Dice) -> Option<Value> {
    Some(match dice.below(14) {
        0 | 1 => return None,
        2 => Value::Null,
        3 => json!(-7.5e300),
        4 => json!(u64::MAX),
        5 => json!("\u{0}\u{1b}[31mé{}://../\r\n"),
        6 => json!([null, 1, "x", [], {}]),
        7 => json!({"@odata.id": 5, "x": null}),
        8 => json!("x".repeat(70_000)),
        9 => (0..100).fold(json!("deep"), |v, _| json!([v])),
        10 => json!(vec!["again"; 1_200]),
        // A link to another document, or to where it itself is.
        11 => {
            let paths: Vec<&str> =
                text.lines().filter_map(|l| l.strip_prefix("=== ")?.split(' ').next()).collect();
            let path = if paths.is_empty() { "/" } else { *dice.one(&paths) };
            json!({"@odata.id": path, "Members": [{"@odata.id": path}], "Members@odata.nextLink": path})
        }
        12 => json!(true),
        _ => serde_json::from_str(spare).unwrap_or_default(),
    })
}

pub(crate) fn count(v: &Value) -> usize {
    match v {
        Value::Object(o) => o.values().map(|v| 1 + count(v)).sum(),
        Value::Array(a) => a.iter().map(|v| 1 + count(v)).sum(),
        _ => 0,
    }
}

/// Puts `with` in the place of the value number `left`, depth first, and takes it out where that is
/// `None`; says whether there is such a value.
pub(crate) fn replace(v: &mut Value, left: &mut usize, with: &Option<Value>) -> bool {
    match v {
        Value::Object(o) => {
            let keys: Vec<String> = o.keys().cloned().collect();
            for key in keys {
                if *left == 0 {
                    match with {
                        Some(with) => o.insert(key, with.clone()),
                        None => o.remove(&key),
                    };
                    return true;
                }
                *left -= 1;
                if o.get_mut(&key).is_some_and(|inner| replace(inner, left, with)) {
                    return true;
                }
            }
            false
        }
        Value::Array(a) => {
            for n in 0..a.len() {
                if *left == 0 {
                    match with {
                        Some(with) => a[n] = with.clone(),
                        None => drop(a.remove(n)),
                    }
                    return true;
                }
                *left -= 1;
                if replace(&mut a[n], left, with) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

/// A line dropped, doubled, moved, cut, or emptied.
fn of_lines(data: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
    let (at, to) = (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(5) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(to, lines[at]),
        2 => lines.swap(at, to),
        3 => lines[at] = &lines[at][..dice.below(lines[at].len() + 1)],
        _ => lines[at] = &[],
    }
    lines.join(&b'\n')
}

/// Flipped, cut, doubled, spliced with another seed, or given a byte that parsers stumble over.
fn of_bytes(data: &[u8], all: &[(String, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    let mut out = data.to_vec();
    let (a, b) = (dice.below(out.len() + 1), dice.below(out.len() + 1));
    let (from, to) = (a.min(b), a.max(b));
    match dice.below(6) {
        0 if !out.is_empty() => {
            let at = dice.below(out.len());
            out[at] ^= 1 << dice.below(8);
        }
        1 => out.truncate(from),
        2 => drop(out.drain(from..to.min(from + 64))),
        3 => {
            let part = out[from..to.min(from + 256)].to_vec();
            out.splice(to..to, part);
        }
        4 => {
            let other = &dice.one(all).1;
            let cut = dice.below(other.len() + 1);
            out.truncate(from);
            out.extend_from_slice(&other[cut..]);
        }
        _ => {
            const ODD: &[&[u8]] = &[
                b"\0",
                b"\xff",
                b"\xc3",
                b"\xe2\x80\x8b",
                b"\xef\xbb\xbf",
                b"\r",
                b"\n\n",
                b"\"",
                b"\\",
                b"=",
                b",",
                b"|",
                b":",
                b"=== ",
                b"-1",
                b"1e400",
                b"99999999999999999999",
                b"\x1b[2J",
                b"[",
                b"{",
            ];
            out.splice(from..from, dice.one(ODD).iter().copied());
        }
    }
    out
}
