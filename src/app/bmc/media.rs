//! `farrier bmc media`

use super::{One, change};
use crate::cli::Io;
use crate::cli::bmc::{MediaChange, Sure};
use crate::cli::out::{Cell, Failure};
use crate::port::capability::{BmcMedia, MediaOrder};

pub(super) async fn run(
    one: &One<'_>,
    wanted: Option<&MediaChange>,
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    match wanted {
        None => {}
        Some(MediaChange::Insert { url, kind }) => {
            let what = format!("Show the host {url} as a {kind}");
            let (_, expect) = change::confirmed(one, &what, sure, io).await?;
            let order = MediaOrder { image_url: url.clone(), kind: kind.clone() };
            let outcome = one.edge.insert(&one.target, &expect, &order).await;
            change::taken(one, outcome).await?;
        }
        Some(MediaChange::Eject) => {
            let what = "Empty every virtual drive";
            let (_, expect) = change::confirmed(one, what, sure, io).await?;
            let outcome = one.edge.eject(&one.target, &expect).await;
            change::taken(one, outcome).await?;
        }
    }
    let slots = match one.edge.media(&one.target).await {
        Ok(slots) => slots,
        Err(fault) => return Err(one.failed(fault).await),
    };
    if io.json {
        return io.document(&slots);
    }
    let rows: Vec<Vec<Cell>> = slots
        .iter()
        .map(|s| {
            let inserted = match s.inserted {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            vec![
                Cell::new(&s.id),
                Cell::new(s.kinds.join(" ")),
                Cell::new(inserted),
                Cell::new(s.image.as_deref().unwrap_or("-")),
                Cell::new(&s.uri),
            ]
        })
        .collect();
    io.table(&["DRIVE", "KINDS", "INSERTED", "IMAGE", "WHERE"], &rows)
}
