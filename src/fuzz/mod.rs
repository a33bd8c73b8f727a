//! One function for each parser of bytes from outside: what `fuzz/fuzz_targets/` and `tests/fuzz.rs`
//! call. Nothing of Farrier does, so the linker leaves it out of the program; it is compiled all the
//! same, and hidden from the docs, because the tests run the stable compiler in the release profile,
//! and because a target must reach what an edge keeps to itself.
//!
//! A target panics where something does not hold that must hold for any bytes: a fault is classified,
//! bounded, printable, and without a secret; a value is inside its range. What it returns is all that
//! was read, for comparison with a second run.

mod answers;
mod boot;
mod deck;
mod netboot;
mod redfish;
mod text;

pub use deck::{Deck, TOKEN, one};
pub use redfish::{PASSWORD, Read, read, read_more};

use std::fmt::Debug;

/// What was read.
pub type Seen = Box<dyn Debug>;

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of its corpus and of its program in `fuzz/`.
    pub name: &'static str,
    pub run: fn(&[u8]) -> Seen,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "redfish-facts", run: redfish::facts },
    Target { name: "redfish-capabilities", run: redfish::capabilities },
    Target { name: "task", run: redfish::task },
    Target { name: "headers", run: redfish::headers },
    Target { name: "errors", run: redfish::errors },
    Target { name: "service-root", run: redfish::service_root },
    Target { name: "ipmi-text", run: text::ipmi },
    Target { name: "ssh-answers", run: text::ssh },
    Target { name: "delivery-notes", run: text::delivery_notes },
    Target { name: "quirks", run: text::quirks },
    Target { name: "dhcp", run: netboot::dhcp },
    Target { name: "tftp", run: netboot::tftp },
    Target { name: "boot-callback", run: boot::callback },
    Target { name: "boot-file", run: boot::file },
    Target { name: "image-description", run: boot::description },
    Target { name: "hidden-work", run: redfish::work },
    Target { name: "hook-answers", run: answers::hook },
    Target { name: "vault-answers", run: answers::vault },
];

/// A deck: system, inventory, firmware, tasks, all that a probe reads.
pub fn redfish_facts(data: &[u8]) {
    redfish::facts(data);
}

/// A deck: what a person asks for beyond that (sensors, logs, media, BIOS, volumes, …).
pub fn redfish_capabilities(data: &[u8]) {
    redfish::capabilities(data);
}

/// A deck: what stands at `/t`, as a task's handle, and the list of tasks.
pub fn task(data: &[u8]) {
    redfish::task(data);
}

/// One answer: ETag, Location, Retry-After, and the handle of an update.
pub fn headers(data: &[u8]) {
    redfish::headers(data);
}

/// One answer: the faults that are made of it.
pub fn errors(data: &[u8]) {
    redfish::errors(data);
}

/// A body: what a scan takes for a service root.
pub fn service_root(data: &[u8]) {
    redfish::service_root(data);
}

/// Text: what ipmitool may print.
pub fn ipmi_text(data: &[u8]) {
    text::ipmi(data);
}

/// Text: what a host's shell may print.
pub fn ssh_answers(data: &[u8]) {
    text::ssh(data);
}

/// A CSV of machines with their factory passwords.
pub fn delivery_notes(data: &[u8]) {
    text::delivery_notes(data);
}

/// The TOML of a site's quirks.
pub fn quirks(data: &[u8]) {
    text::quirks(data);
}

/// DHCP messages to a small site, one after the other.
pub fn dhcp(data: &[u8]) {
    netboot::dhcp(data);
}

/// TFTP packets to one transfer.
pub fn tftp(data: &[u8]) {
    netboot::tftp(data);
}

/// A body: what a host calls back with.
pub fn boot_callback(data: &[u8]) {
    boot::callback(data);
}

/// A request line and headers: a file of an image.
pub fn boot_file(data: &[u8]) {
    boot::file(data);
}

/// The TOML beside a disk image.
pub fn image_description(data: &[u8]) {
    boot::description(data);
}

/// A deck: updates and copies that no task shows, where a vendor says them.
pub fn hidden_work(data: &[u8]) {
    redfish::work(data);
}

/// Text: what an operator's hook prints.
pub fn hook_answers(data: &[u8]) {
    answers::hook(data);
}

/// A body: a secret of a Vault-style server.
pub fn vault_answers(data: &[u8]) {
    answers::vault(data);
}
