//! One boot window and what may happen to it, without files or sockets.

use super::preseed::Preseed;
use crate::model::MachineId;
use crate::model::deploy::RAMDISK;
use crate::model::facts::{Callback, WindowFacts};
use crate::port::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Layout of a window's file.
pub(super) const VERSION: u32 = 1;

/// A MAC address in one spelling: lower case with colons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Mac(String);

impl Mac {
    /// `aa:bb:cc:dd:ee:ff` or with `-`, any case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase().replace('-', ":");
        let octets: Vec<&str> = text.split(':').collect();
        let plain = |o: &&str| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit());
        (octets.len() == 6 && octets.iter().all(plain)).then_some(Self(text))
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Mac::parse(&text).ok_or_else(|| format!("`{text}` is not a MAC address"))
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A boot window as its file holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) version: u32,
    pub(super) run: String,
    pub(super) machine: MachineId,
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) image: String,
    pub(super) allow_existing_data: bool,
    /// Without a slash at the end.
    pub(super) base_url: String,
    pub(super) open: bool,
    /// In clear, because the same seed must be served again after a restart; gone once closed.
    #[serde(with = "clear_text", default)]
    pub(super) token: Option<Secret>,
    /// The address that fetched first. Others get 404.
    pub(super) source: Option<IpAddr>,
    pub(super) script_fetched: bool,
    pub(super) seed_fetched: bool,
    pub(super) callback: Option<Callback>,
    /// Who asked with this MAC and is another machine: the first one's UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) other_uuid: Option<String>,
    /// The SSH host key of the system that a deployment is to install; gone once closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<MadeKey>,
    /// The disk image that was ordered to be written: the only one that is handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deploys: Option<String>,
    /// Whom the ramdisk lets in besides Farrier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<String>,
    /// Whose templates count before the image's.
    #[serde(default)]
    pub(super) profile: String,
    /// `network-config` of the system that an installer installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<String>,
    /// What a Debian installer is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) preseed: Option<Preseed>,
    /// Wall clock, seconds since 1970.
    pub(super) opened_at: u64,
    /// Wall clock, seconds since 1970.
    pub(super) changed_at: u64,
}

/// An SSH host key that was made before the host that will have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MadeKey {
    /// OpenSSH form, without a comment.
    pub(super) public: String,
    /// OpenSSH form; in clear, as the token is.
    #[serde(with = "clear_text")]
    pub(super) private: Option<Secret>,
}

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Script,
    Seed,
    MetaData,
    Image,
    /// The disk image of a deployment, fetched after the ramdisk's callback.
    Disk,
}

/// The answer to a fetch.
#[derive(Debug)]
pub(super) enum Fetch {
    /// As if there were no window.
    Refused,
    /// Serve it; nothing new to remember.
    Again,
    /// Serve it once this is durable.
    News(Box<Window>),
}

/// The answer to a callback.
#[derive(Debug)]
pub(super) enum Call {
    NoWindow,
    WrongToken,
    WrongSource,
    /// The very same words again: the first answer was lost.
    Repeated,
    /// The token was used for other words.
    Spent,
    /// Answer once this is durable.
    Taken(Box<Window>),
}

impl Window {
    pub(super) fn facts(&self) -> WindowFacts {
        WindowFacts {
            open: self.open,
            run: Some(self.run.clone()),
            script_fetched: self.script_fetched,
            seed_fetched: self.seed_fetched,
            callback: self.callback.clone(),
            from: self.source.map(|s| s.to_string()),
            made_key: self.made.as_ref().map(|m| m.public.clone()),
            other_uuid: self.other_uuid.clone(),
        }
    }

    /// The window once it knows of a host that states another UUID. `None`: it knows of one, or waits
    /// for nobody. One is enough to stop for, and firmware asks again and again.
    pub(super) fn other_asked(&self, stated: &str) -> Option<Window> {
        (self.waits() && self.other_uuid.is_none())
            .then(|| Window { other_uuid: Some(stated.to_string()), ..self.clone() })
    }

    /// Has a host been here? If so, opening it again starts a new attempt.
    pub(super) fn untouched(&self) -> bool {
        self.open && self.source.is_none() && self.callback.is_none()
    }

    /// The machine is still to install: after the callback it must find nothing and boot its disk.
    fn waits(&self) -> bool {
        self.open && self.callback.is_none()
    }

    /// Does it hand out the deploy ramdisk?
    pub(super) fn is_of_ramdisk(&self) -> bool {
        self.image == RAMDISK
    }

    /// `look_only`: nothing is bound or remembered (HEAD).
    pub(super) fn fetch(&self, from: IpAddr, part: Part, look_only: bool) -> Fetch {
        if part == Part::Disk {
            let its_own = self.open && self.source == Some(from) && self.deploys.is_some();
            return if its_own { Fetch::Again } else { Fetch::Refused };
        }
        if !self.waits() || self.source.is_some_and(|s| s != from) {
            return Fetch::Refused;
        }
        let known = match part {
            Part::Script => self.script_fetched,
            Part::Seed => self.seed_fetched,
            Part::MetaData | Part::Image | Part::Disk => true,
        };
        if look_only || (known && self.source.is_some()) {
            return Fetch::Again;
        }
        let mut next = Box::new(self.clone());
        next.source = Some(from);
        next.script_fetched |= part == Part::Script;
        next.seed_fetched |= part == Part::Seed;
        Fetch::News(next)
    }

    /// Is that the window's token? Takes the same time for every wrong one.
    pub(super) fn token_is(&self, token: &str) -> bool {
        self.token.as_ref().is_some_and(|own| {
            let (own, said) = (own.expose().as_bytes(), token.as_bytes());
            aws_lc_rs::constant_time::verify_slices_are_equal(own, said).is_ok()
        })
    }

    pub(super) fn call(&self, from: IpAddr, token: &str, said: &Callback) -> Call {
        if !self.open {
            return Call::NoWindow;
        }
        if !self.token_is(token) {
            return Call::WrongToken;
        }
        if self.source != Some(from) {
            return Call::WrongSource;
        }
        match &self.callback {
            Some(before) if before == said => Call::Repeated,
            Some(_) => Call::Spent,
            None => Call::Taken(Box::new(Window { callback: Some(said.clone()), ..self.clone() })),
        }
    }

    /// Closed for good; a token that opens nothing need not lie on a disk.
    pub(super) fn closed(&self) -> Window {
        Window { open: false, token: None, made: None, preseed: None, ..self.clone() }
    }
}

/// The one place where a token is written out: its own 0600 file.
mod clear_text {
    use crate::port::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        token: &Option<Secret>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        token.as_ref().map(Secret::expose).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(d)?.map(Secret::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_has_one_spelling() {
        let mac = Mac::parse("AA-bb-CC-00-11-22");
        assert_eq!(mac, Mac::parse("aa:bb:cc:00:11:22"));
        assert_eq!(mac.unwrap().to_string(), "aa:bb:cc:00:11:22");
        for bad in ["", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:f", "aa:bb:cc:dd:ee:gg", "aabbccddeeff"] {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
