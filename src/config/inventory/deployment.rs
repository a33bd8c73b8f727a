//! What a profile says of a deployment: the root disk, the ways to boot, people's keys.

use super::super::table::Table;
use super::machine::looks_like_key;
use crate::model::deploy::{BootMethod, DiskKind, RootDisk};

/// Which disk gets the image: every line must hold, and exactly one disk may fit, or two for a mirror.
pub(super) fn root_disk(mut t: Table<'_, '_>) -> RootDisk {
    let mut word = |key| t.text(key).map(|text| text.value.to_string());
    let mut rule = RootDisk {
        by_id: word("by_id"),
        serial: word("serial"),
        model: word("model"),
        ..RootDisk::default()
    };
    rule.kind = t.choice("kind", &DiskKind::ALL.map(|k| (k.name(), k)));
    let gigabytes = |n: u64| n * 1_000_000_000;
    rule.min_bytes = t.integer("min_gb", 1..1_000_001).map(gigabytes);
    rule.max_bytes = t.integer("max_gb", 1..1_000_001).map(gigabytes);
    if rule == RootDisk::default() {
        t.error(t.at, "`root_disk` says nothing about the disk")
            .hint("give one or more of `serial`, `by_id`, `model`, `kind`, `min_gb`, `max_gb`");
    }
    if let (Some(min), Some(max)) = (rule.min_bytes, rule.max_bytes)
        && min > max
    {
        t.error(t.at, "no disk has at least `min_gb` and at most `max_gb`");
    }
    rule.mirror = t.boolean("mirror").unwrap_or(false);
    if rule.mirror && (rule.serial.is_some() || rule.by_id.is_some()) {
        t.error(t.at, "a mirror takes two disks, and `serial` or `by_id` fits one").hint(
            "say what the two have in common: `model`, `kind`, `min_gb`, `max_gb`; \
             exactly two disks of a machine must fit",
        );
    }
    t.done();
    rule
}

/// Is an installer believed that calls back with its host key? See the README's words on trust.
pub(super) fn trust_installer(t: &mut Table<'_, '_>, with_rule: bool) -> bool {
    let place = t.at;
    let trusts = t.boolean("trust_installer").unwrap_or(false);
    if trusts && !with_rule {
        t.error(place, "`trust_installer` without `root_disk`: which disk may it write to?")
            .hint("give the rule that fits exactly one disk; the installer is told no other");
    }
    trusts
}

pub(super) fn boot_methods(t: &mut Table<'_, '_>) -> Vec<BootMethod> {
    let mut methods = Vec::new();
    for text in t.texts("boot") {
        match BootMethod::from_name(text.value) {
            Some(method) if methods.contains(&method) => {
                t.error(text.at, format!("`{}` is there twice", text.value));
            }
            Some(method) => methods.push(method),
            None => {
                let known = BootMethod::ALL.map(BootMethod::name).join("`, `");
                t.error(text.at, format!("`{}` is no way to boot", text.value))
                    .hint(format!("`{known}`, in the order in which they are tried"));
            }
        }
    }
    methods
}

pub(super) fn authorized_keys(t: &mut Table<'_, '_>) -> Vec<String> {
    let mut keys = Vec::new();
    for text in t.texts("authorized_keys") {
        match looks_like_key(text.value) {
            true => keys.push(text.value.trim().to_string()),
            false => {
                t.error(text.at, "that is not an OpenSSH public key")
                    .hint("a line of `~/.ssh/id_ed25519.pub`; private keys have no place here");
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::config::inventory::parse;

    fn read(rule: &str) -> (Option<RootDisk>, String) {
        let text = format!(
            "schema = 1\n[[site]]\nname = \"s\"\n[[profile]]\nname = \"p\"\nworkflow = \"w\"\n\
             image = \"i\"\nroot_disk = {{ {rule} }}\n"
        );
        let (inventory, found) = parse(&[Source::new("i.toml", text)]);
        let said: Vec<String> = found.iter().map(|d| d.message.clone()).collect();
        (inventory.profiles.values().next().and_then(|p| p.root_disk.clone()), said.join("; "))
    }

    #[test]
    fn a_mirror_is_of_disks_that_two_can_be() {
        let (rule, said) = read("kind = \"nvme\", min_gb = 400, mirror = true");
        assert_eq!(said, "");
        let rule = rule.unwrap();
        assert!(rule.mirror && rule.kind == Some(DiskKind::Nvme));
        for one in ["serial = \"S1\"", "by_id = \"nvme-S1\"", "kind = \"nvme\", serial = \"S1\""] {
            assert_eq!(
                read(&format!("{one}, mirror = true")).1,
                "a mirror takes two disks, and `serial` or `by_id` fits one"
            );
            assert_eq!(read(&format!("{one}, mirror = false")).1, "");
        }
        assert_eq!(read("mirror = true").1, "`root_disk` says nothing about the disk");
        assert!(read("kind = \"nvme\", mirror = 2").1.contains("`true` or `false`"));
    }
}
