//! Short text without an allocation of its own: serials, UUIDs and addresses, of which a site
//! keeps several for each of its 100,000 machines.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A string. Up to `N` bytes of it lie inside the value itself, longer ones on the heap. With
/// `N` = 22 it is as wide as a `String` (24 bytes), and holds `https://10.255.255.255`.
#[derive(Clone)]
pub struct Text<const N: usize = 22>(Kept<N>);

#[derive(Clone)]
enum Kept<const N: usize> {
    Here { len: u8, bytes: [u8; N] },
    Heap(Box<str>),
}

impl<const N: usize> Text<N> {
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; N];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(part), Ok(len)) => {
                part.copy_from_slice(text.as_bytes());
                Self(Kept::Here { len, bytes })
            }
            _ => Self(Kept::Heap(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Here { len, bytes } => {
                // Never the default: the bytes were copied from a `str`.
                let part = bytes.get(..usize::from(*len)).unwrap_or_default();
                std::str::from_utf8(part).unwrap_or_default()
            }
            Kept::Heap(text) => text,
        }
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> Borrow<str> for Text<N> {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> AsRef<str> for Text<N> {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new("")
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const N: usize> From<String> for Text<N> {
    fn from(text: String) -> Self {
        if text.len() <= N { Self::new(&text) } else { Self(Kept::Heap(text.into())) }
    }
}

impl<const N: usize> From<Text<N>> for String {
    fn from(text: Text<N>) -> Self {
        text.as_str().to_string()
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<const N: usize> Eq for Text<N> {}

impl<const N: usize> PartialEq<str> for Text<N> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl<const N: usize> PartialEq<&str> for Text<N> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl<const N: usize> PartialOrd for Text<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize> Ord for Text<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<const N: usize> Hash for Text<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl<const N: usize> Serialize for Text<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<const N: usize> serde::de::Visitor<'_> for Visitor<N> {
            type Value = Text<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<N>, E> {
                Ok(Text::new(text))
            }
            fn visit_string<E>(self, text: String) -> Result<Text<N>, E> {
                Ok(text.into())
            }
        }
        from.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_or_long_it_is_the_same_text() {
        for text in
            ["", "S1", "https://10.255.255.255", "https://10.255.255.255/", "é".repeat(40).as_str()]
        {
            let kept: Text = text.into();
            assert_eq!(&*kept, text);
            assert_eq!(kept, Text::from(text.to_string()));
            assert_eq!(format!("{kept:?} {kept}"), format!("{text:?} {text}"));
            let json = serde_json::to_string(&kept).unwrap();
            assert_eq!(json, serde_json::to_string(text).unwrap());
            assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), kept);
        }
        let mut sorted: [Text; 3] = ["b".into(), "a".repeat(30).into(), "a".into()];
        sorted.sort();
        assert_eq!(sorted.map(|t| t.len()), [1, 30, 1]);
    }

    #[test]
    fn it_is_no_wider_than_a_string() {
        assert_eq!(size_of::<Text>(), size_of::<String>());
        assert_eq!(size_of::<Option<Text>>(), size_of::<String>());
    }
}
