//! The workflows and the virtual machines' firmware that ship with Farrier, inside the binary: the
//! simulator runs the very files that operators get, and `farrier demo` needs no checkout.

use super::Source;

/// Name below `workflows/` and text.
pub const WORKFLOWS: [(&str, &str); 2] = [
    ("gpu-node.toml", include_str!("../../workflows/gpu-node.toml")),
    ("cpu-node.toml", include_str!("../../workflows/cpu-node.toml")),
];

/// Path below `firmware-catalog/` and text of the virtual machines' family.
pub const VIRTUAL_CATALOG: (&str, &str) =
    ("farrier/virtual.toml", include_str!("../../firmware-catalog/farrier/virtual.toml"));

/// Path below `firmware-catalog/` and bytes of the virtual machines' images.
pub const VIRTUAL_IMAGES: [(&str, &[u8]); 2] = [
    (
        "farrier/virtual-bios-2.1.0.bin",
        include_bytes!("../../firmware-catalog/farrier/virtual-bios-2.1.0.bin"),
    ),
    (
        "farrier/virtual-bmc-7.20.bin",
        include_bytes!("../../firmware-catalog/farrier/virtual-bmc-7.20.bin"),
    ),
];

/// What is tried before a person is called.
pub const REMEDIATION: &str = include_str!("../../remediation.toml");

/// The shipped `remediation.toml` as a source.
pub fn remediation() -> Source {
    Source::new("remediation.toml", REMEDIATION)
}

/// What BMCs do otherwise than the standard.
pub const QUIRKS: &str = include_str!("../../bmc-quirks.toml");

/// The shipped `bmc-quirks.toml` as a source.
pub fn quirks() -> Source {
    Source::new("bmc-quirks.toml", QUIRKS)
}

/// The shipped workflows as sources.
pub fn workflows() -> Vec<Source> {
    WORKFLOWS.iter().map(|(name, text)| Source::new(format!("workflows/{name}"), *text)).collect()
}

/// The virtual machines' family as a source; its catalog root is `firmware-catalog`.
pub fn virtual_catalog() -> Source {
    let (path, text) = VIRTUAL_CATALOG;
    Source::new(format!("firmware-catalog/{path}"), text)
}
