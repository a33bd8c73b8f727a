//! `farrier bmc volume`

use super::{One, change, inspect};
use crate::cli::Io;
use crate::cli::bmc::{Sure, VolumeChange};
use crate::cli::out::{Cell, Failure};
use crate::model::hardware::Volume;
use crate::port::capability::{BmcVolumes, VolumeOrder};

pub(super) async fn run(
    one: &One<'_>,
    wanted: Option<&VolumeChange>,
    sure: Sure,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    if let Some(VolumeChange::Create { raid, name, drives }) = wanted {
        let what = format!(
            "Make a {raid} volume `{name}` of the drives {}, whose data is lost, on",
            drives.join(", ")
        );
        let (_, expect) = change::confirmed(one, &what, sure, io).await?;
        let order = VolumeOrder { raid: raid.clone(), name: name.clone(), drives: drives.clone() };
        let outcome = one.edge.create(&one.target, &expect, &order).await;
        if let Some(task) = change::taken(one, outcome).await? {
            io.note(format!(
                "the BMC makes it as {task}; a new volume is listed once that has ended"
            ));
        }
    }
    let volumes = match one.edge.volumes(&one.target).await {
        Ok(volumes) => volumes,
        Err(fault) => return Err(one.failed(fault).await),
    };
    if io.json {
        return io.document(&volumes);
    }
    let row = |v: &Volume| {
        vec![
            Cell::new(&v.id),
            Cell::new(v.name.as_deref().unwrap_or("-")),
            Cell::new(v.raid.as_deref().unwrap_or("-")),
            Cell::new(v.capacity_bytes.map_or("-".into(), inspect::size)),
            Cell::new(v.drives.len().to_string()),
            Cell::new(&v.uri),
        ]
    };
    let rows: Vec<Vec<Cell>> = volumes.iter().map(row).collect();
    io.table(&["VOLUME", "NAME", "RAID", "SIZE", "DRIVES", "WHERE"], &rows)
}
