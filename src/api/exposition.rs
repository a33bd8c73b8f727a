//! Writes the Prometheus text format: names with help and type first, label values escaped.

use super::metrics::seconds;
use crate::engine::meter::{BOUNDS_US, Histogram};
use std::fmt::{Display, Write};

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn into_string(self) -> String {
        self.0
    }

    /// What comes before the lines of a metric.
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    pub(super) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (n, (key, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(self.0, "{}{key}=\"{text}\"", if n == 0 { '{' } else { ',' }).ok();
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").ok();
    }

    /// A metric with one line.
    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, h: &Histogram) {
        self.head(name, "histogram", help);
        // One reading, so that count and buckets agree.
        let counts = h.cumulative();
        let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain(["+Inf".to_string()]);
        for (bound, count) in bounds.zip(counts) {
            self.line(&format!("{name}_bucket"), &[("le", &bound)], count);
        }
        self.line(&format!("{name}_sum"), &[], seconds(h.sum_us()));
        self.line(&format!("{name}_count"), &[], counts.last().copied().unwrap_or(0));
    }
}
