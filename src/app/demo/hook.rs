//! The program that the daemon's cluster configuration names. It is started for every question to
//! the cluster, thousands of times in a demo of a site, so it is plain blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Passes the order on standard input to the world's admin door at `url` and prints the answer.
/// Exit 0: it answered.
pub fn hook(url: &str) -> ExitCode {
    match pass_on(url) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: the demo's cluster does not answer: {why}");
            ExitCode::FAILURE
        }
    }
}

fn pass_on(url: &str) -> Result<String, String> {
    let order = std::io::read_to_string(std::io::stdin()).map_err(|e| e.to_string())?;
    let rest = url.strip_prefix("http://").ok_or("not an http:// URL")?;
    let (host, path) = rest.split_once('/').ok_or("no path in the URL")?;
    let to: SocketAddr = host.parse().map_err(|_| "not an address and port")?;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        // HTTP/1.0: the end of the connection is the end of the answer.
        let request = format!(
            "POST /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{order}",
            order.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(format!("status {status}"));
    }
    Ok(body.to_string())
}
