//! The system event log.

use super::Bmc;
use super::parse;
use super::tool::Trouble;
use crate::model::Fault;
use crate::model::hardware::LogEntry;

/// The newest `most` entries, oldest first. Reading never clears it: it belongs to people.
pub(super) async fn log(bmc: &Bmc<'_>, most: usize) -> Result<Vec<LogEntry>, Fault> {
    let last = most.to_string();
    // `elist` names the sensors, for which ipmitool reads the sensor records first. Verbose, it would
    // print records of many lines, without those names.
    let text = bmc.run_quietly(&["sel", "elist", "last", &last]).await.map_err(Trouble::fault)?;
    let mut log = parse::sel(&text);
    // Some versions print all of it whatever was asked for.
    log.drain(..log.len().saturating_sub(most));
    Ok(log)
}
