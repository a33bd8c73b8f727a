//! `farrier bmc firmware`: lists only. Updates are for the daemon, which knows what may follow what.

use super::One;
use crate::cli::Io;
use crate::cli::out::{Cell, Failure};
use crate::model::facts::Component;
use crate::port::BmcRead;

pub(super) async fn run(one: &One<'_>, io: &mut Io<'_>) -> Result<(), Failure> {
    let all = match one.edge.firmware(&one.target).await {
        Ok(all) => all,
        Err(fault) => return Err(one.failed(fault).await),
    };
    if io.json {
        return io.document(&all);
    }
    table(&all, io)
}

pub(super) fn table(all: &[Component], io: &mut Io<'_>) -> Result<(), Failure> {
    let rows: Vec<Vec<Cell>> = all
        .iter()
        .map(|c| {
            let updateable = match c.updateable {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            vec![
                Cell::new(&c.id),
                Cell::new(c.version.as_deref().unwrap_or("-")),
                Cell::new(updateable),
                Cell::new(c.name.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    io.table(&["FIRMWARE", "VERSION", "UPDATEABLE", "NAME"], &rows)
}
