//! The BIOS settings of the virtual board: names, kinds, what they take.

use serde_json::Value;

/// A BIOS attribute as the attribute registry describes it (DSP0268 AttributeRegistry).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
}

/// Type and factory value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first of the values is the factory's.
    Enumeration(&'static [&'static str]),
    Integer {
        from: i64,
        to: i64,
        factory: i64,
    },
    Boolean(bool),
    Text(&'static str),
    /// Nobody can write it.
    Fixed(&'static str),
}

/// The settings of the virtual board.
pub const ATTRIBUTES: [Attribute; 9] = [
    Attribute {
        name: "BootMode",
        title: "Boot mode",
        kind: Kind::Enumeration(&["Uefi", "LegacyBios"]),
    },
    Attribute {
        name: "SriovGlobalEnable",
        title: "SR-IOV",
        kind: Kind::Enumeration(&["Disabled", "Enabled"]),
    },
    Attribute {
        name: "IommuSupport",
        title: "IOMMU",
        kind: Kind::Enumeration(&["Enabled", "Disabled"]),
    },
    Attribute {
        name: "LogicalProc",
        title: "Simultaneous multithreading",
        kind: Kind::Enumeration(&["Enabled", "Disabled"]),
    },
    Attribute {
        name: "NumaNodesPerSocket",
        title: "NUMA nodes per socket",
        kind: Kind::Enumeration(&["1", "2", "4"]),
    },
    Attribute {
        name: "PowerOnDelaySeconds",
        title: "Delay before power on",
        kind: Kind::Integer { from: 0, to: 240, factory: 0 },
    },
    Attribute { name: "AcpiSlit", title: "ACPI SLIT table", kind: Kind::Boolean(true) },
    Attribute {
        name: "SystemModelName",
        title: "Model of the board",
        kind: Kind::Fixed("Virtual board"),
    },
    Attribute { name: "ServiceTagLine", title: "Line of text", kind: Kind::Text("") },
];

impl Attribute {
    pub fn of(name: &str) -> Option<&'static Attribute> {
        ATTRIBUTES.iter().find(|a| a.name == name)
    }

    pub fn factory(&self) -> Value {
        match self.kind {
            Kind::Enumeration(values) => values.first().copied().unwrap_or_default().into(),
            Kind::Integer { factory, .. } => factory.into(),
            Kind::Boolean(on) => on.into(),
            Kind::Text(text) | Kind::Fixed(text) => text.into(),
        }
    }

    /// Does the board take this value?
    pub fn takes(&self, value: &Value) -> bool {
        match self.kind {
            Kind::Enumeration(values) => value.as_str().is_some_and(|v| values.contains(&v)),
            Kind::Integer { from, to, .. } => {
                value.as_i64().is_some_and(|v| (from..=to).contains(&v))
            }
            Kind::Boolean(_) => value.is_boolean(),
            Kind::Fixed(_) => false,
            Kind::Text(_) => value.as_str().is_some_and(|v| v.chars().count() <= 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_takes_its_own_factory_value_and_no_other_type() {
        for a in &ATTRIBUTES {
            assert_eq!(a.takes(&a.factory()), !matches!(a.kind, Kind::Fixed(_)), "{}", a.name);
            assert!(!a.takes(&Value::Null) && !a.takes(&serde_json::json!([])), "{}", a.name);
        }
    }
}
