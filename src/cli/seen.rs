//! `farrier discover seen`: machines that asked for an address and are not in the inventory.

use super::client::Api;
use super::out::{Cell, Failure, Io, printable};
use serde::Deserialize;

#[derive(Deserialize)]
struct Status {
    mode: String,
    strangers: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    mac: String,
    network: Option<String>,
    asks: String,
    class: String,
    times: u64,
    what: String,
}

pub(super) async fn run(api: &Api, io: &mut Io<'_>) -> Result<(), Failure> {
    let answer = api.get::<Status>("/v1/dhcp").await?;
    if io.json {
        return io.document(&answer.raw);
    }
    if answer.value.mode == "off" {
        return io.line("this daemon answers no DHCP (`[listen.dhcp]`)");
    }
    if answer.value.strangers.is_empty() {
        return io
            .line("nobody asked who is not in the inventory (`unknown = \"list\"` keeps them)");
    }
    let rows: Vec<Vec<Cell>> = answer
        .value
        .strangers
        .iter()
        .map(|s| {
            vec![
                Cell::new(printable(&s.mac)),
                Cell::new(printable(s.network.as_deref().unwrap_or("-"))),
                Cell::new(printable(if s.asks.is_empty() { "address" } else { &s.asks })),
                Cell::new(s.times.to_string()),
                Cell::new(printable(&s.class)),
                Cell::new(printable(&s.what)),
            ]
        })
        .collect();
    io.table(&["MAC", "NETWORK", "ASKS FOR", "TIMES", "CLASS", "SEEMS TO BE"], &rows)
}
