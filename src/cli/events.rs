//! `farrier events`: the stream of what becomes durable.

use super::args::Events;
use super::client::{Api, encode};
use super::out::{Failure, Io, Paint, printable};
use crate::api::view::{EventView, GapView};
use futures_util::StreamExt;

pub(super) async fn run(api: &Api, args: &Events, io: &mut Io<'_>) -> Result<(), Failure> {
    let query = args.machine.as_ref().map(|glob| format!("?machine={}", encode(glob)));
    let response = api.stream(&format!("/v1/events{}", query.unwrap_or_default())).await?;
    let mut bytes = response.bytes_stream();
    let mut reader = Reader::default();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(chunk) = bytes.next().await else {
            return Err(Failure::error("the daemon closed the stream")
                .hint("it is stopping, or was restarted; run it again"));
        };
        let chunk = chunk.map_err(|e| Failure::error(format!("the stream broke off: {e}")))?;
        reader.push(&chunk);
        while let Some((name, data)) = reader.next() {
            print(&name, &data, io)?;
            left -= 1;
            if left == 0 {
                break;
            }
        }
        io.flush()?;
    }
    Ok(())
}

fn print(name: &str, data: &str, io: &mut Io<'_>) -> Result<(), Failure> {
    if io.json {
        return io.line(data);
    }
    if name == "gap" {
        let gap: GapView = serde_json::from_str(data).unwrap_or_default();
        return io.line(format_args!("… {} commits were too fast to show", gap.missed));
    }
    match serde_json::from_str::<EventView>(data) {
        Ok(e) => {
            let machine = io.paint(Paint::Bold, &printable(&e.machine));
            io.line(format_args!("{machine} #{}  {}", e.seq, printable(&e.text).replace('\n', " ")))
        }
        Err(_) => io.line(printable(data)),
    }
}

/// Puts server-sent events together from chunks.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
    name: String,
    data: String,
}

impl Reader {
    fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event: its name and data.
    fn next(&mut self) -> Option<(String, String)> {
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !data.is_empty() {
                    return Some((name, data));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.name = value.to_string(),
                "data" => {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                // Comments (keep-alive) and fields that are not used here.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_any_chunks() {
        let text =
            ":keep\n\nevent: entered\ndata: {\"a\":\ndata: 1}\n\nevent: back\r\ndata: x\r\n\r\n";
        for size in 1..text.len() {
            let mut reader = Reader::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                reader.push(chunk);
                seen.extend(std::iter::from_fn(|| reader.next()));
            }
            let wanted = [("entered", "{\"a\":\n1}"), ("back", "x")];
            assert_eq!(seen, wanted.map(|(n, d)| (n.to_string(), d.to_string())), "{size}");
        }
    }
}
