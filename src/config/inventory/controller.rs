//! `[[machine.controller]]`: a controller of the machine at an address of its own.

use super::machine::{FACTORY, Machines, part, tls};
use crate::config::book::{Book, Place};
use crate::config::names::unique;
use crate::config::table::{Table, Text};
use crate::config::url::check_url;
use crate::model::controller::is_name;
use crate::model::identity::clean_serial;
use crate::model::{Further, FurtherKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A controller as read, until the file's defaults and the machine's pool are known.
pub(super) struct Draft {
    pub(super) further: Further,
    wants_credential: bool,
    wants_tls: bool,
    at: Places,
}

#[derive(Clone, Copy, Default)]
struct Places {
    header: Place,
    url: Place,
    credential: Place,
    tls: Place,
}

/// All of a machine.
pub(super) fn read(shared: &mut Machines, t: &mut Table<'_, '_>) -> Vec<Draft> {
    let mut seen = BTreeMap::new();
    let tables = t.tables("controller").into_iter();
    tables.filter_map(|t| draft(shared, t, &mut seen)).collect()
}

fn draft(
    shared: &mut Machines,
    mut t: Table<'_, '_>,
    seen: &mut BTreeMap<String, Place>,
) -> Option<Draft> {
    let mut at = Places { header: t.at, ..Places::default() };
    let name = name(&mut t, seen);
    let kind = t.need_choice("kind", &FurtherKind::ALL.map(|k| (k.name(), k)));
    let url = t.need_text("url").and_then(|text| {
        at.url = text.at;
        match check_url(text.value) {
            Ok(()) => Some(text.value.trim_end_matches('/').into()),
            Err(why) => {
                t.error(text.at, why).hint("write one like `https://10.0.0.6`");
                None
            }
        }
    });
    let serial =
        part(&mut t, "serial", &mut Place::default(), clean_serial).map(|s| s.as_str().into());
    let credential = t.text("credential").map(|text| {
        at.credential = text.at;
        shared.share(text.value)
    });
    let said = t.text("tls").map(|text| {
        at.tls = text.at;
        tls(&t, text).unwrap_or_default()
    });
    t.done();
    Some(Draft {
        wants_credential: credential.is_none(),
        wants_tls: said.is_none(),
        at,
        further: Further {
            name: name?,
            kind: kind?,
            url: url?,
            credential: credential.unwrap_or_default(),
            tls: said.unwrap_or_default(),
            serial,
            barred: None,
        },
    })
}

fn name(t: &mut Table<'_, '_>, seen: &mut BTreeMap<String, Place>) -> Option<Arc<str>> {
    let name: Text<'_> = t.need_name("name")?;
    if !is_name(name.value) {
        t.error(name.at, format!("a controller can't be called `{}`", name.value)).hint(
            "lower-case letters, digits and `-`, a letter first, at most 32; not `bmc`, `host` or `ipmi`",
        );
        return None;
    }
    unique(t, seen, name, "controller");
    Some(name.value.into())
}

impl Draft {
    pub(super) fn url(&self) -> (&str, Place) {
        (&self.further.url, self.at.url)
    }

    /// What the file's `[defaults]` say of it.
    pub(super) fn defaults(
        &mut self,
        book: &Book<'_>,
        credential: Option<&(Arc<str>, Place)>,
        tls: &Arc<str>,
        off: &Arc<str>,
    ) {
        match credential {
            Some((name, at)) if self.wants_credential => {
                self.further.credential = name.clone();
                self.at.credential = *at;
            }
            None if self.wants_credential => {
                book.error(self.at.header, "`credential` is missing in `[[machine.controller]]`")
                    .hint("give it here, or for the whole file in `[defaults]`");
            }
            _ => {}
        }
        if self.wants_tls {
            let plain = self.further.url.starts_with("http://");
            self.further.tls = if plain { off } else { tls }.clone();
            // Without TLS there is nothing that a pool could ask for.
            self.wants_tls = !plain;
        }
    }

    /// The controller with what its pool says, and where its credential and URL are; what it can't have
    /// is noted.
    pub(super) fn resolve(self, book: &Book<'_>, pool: Option<&Arc<str>>) -> Resolved {
        let Draft { mut further, wants_tls, at, .. } = self;
        if let (true, Some(tls)) = (wants_tls, pool) {
            further.tls = tls.clone();
        }
        if &*further.tls == "pin" && further.url.starts_with("http://") {
            let what = format!("controller `{}` has no certificate to be pinned", further.name);
            book.error(at.tls, what)
                .hint("its `url` is `http://`; write `https://`, or `tls = \"off\"`");
        }
        if &*further.credential == FACTORY {
            let what = format!("controller `{}` needs a credential of its own", further.name);
            book.error(at.header, what)
                .hint("a factory password is that of the machine's BMC; name another `credential`");
        }
        Resolved { further, header: at.header, url: at.url, credential: at.credential }
    }
}

/// A controller, and where what it says is written.
pub(super) struct Resolved {
    pub(super) further: Further,
    pub(super) header: Place,
    pub(super) url: Place,
    pub(super) credential: Place,
}
