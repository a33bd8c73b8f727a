//! `farrier bmc log`

use super::One;
use crate::cli::Io;
use crate::cli::out::{Cell, Failure, Paint};
use crate::port::capability::BmcLog;

pub(super) async fn run(one: &One<'_>, last: usize, io: &mut Io<'_>) -> Result<(), Failure> {
    let entries = match one.edge.log(&one.target, last.max(1)).await {
        Ok(entries) => entries,
        Err(fault) => return Err(one.failed(fault).await),
    };
    if io.json {
        return io.document(&entries);
    }
    if entries.is_empty() {
        return io.line("the logs are empty");
    }
    let rows: Vec<Vec<Cell>> = entries
        .iter()
        .map(|e| {
            let severity = e.severity.as_deref().unwrap_or("-");
            let paint = match severity {
                "Critical" => Paint::Red,
                "Warning" => Paint::Yellow,
                _ => Paint::None,
            };
            vec![
                Cell::new(&e.log),
                Cell::new(e.at.as_deref().unwrap_or("-")),
                Cell::new(severity).painted(paint),
                Cell::new(&e.message),
            ]
        })
        .collect();
    io.table(&["LOG", "AT", "SEVERITY", "MESSAGE"], &rows)
}
