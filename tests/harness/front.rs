//! A reverse proxy in front of another server: it forwards requests, each over a new connection, and handles some of them
//! differently.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::loopback::Port;

/// How a request is handled.
#[derive(Debug, Clone)]
pub enum Does {
    /// It is forwarded without the headers that request an upgrade.
    WithoutUpgrade,
    /// It gets this response.
    Answers(String),
    /// It gets this start of a response, and then this text repeatedly.
    Endless(String, &'static str),
    /// It gets no response.
    Nothing,
}

/// A server on the loopback interface. It stops when dropped.
pub struct Front {
    port: Port,
    met: Arc<AtomicUsize>,
}

impl Front {
    /// In front of the server at `behind`. Requests whose first line contains `part` are handled as `does`.
    pub fn before(behind: SocketAddr, part: &'static str, does: Does) -> Self {
        let met = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&met);
        let port = Port::serve(async move |listener| serve(listener, behind, part, does, counts).await);
        Self { port, met }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// How many requests it has handled differently.
    pub fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }
}

async fn serve(
    listener: TcpListener,
    behind: SocketAddr,
    part: &'static str,
    does: Does,
    met: Arc<AtomicUsize>,
) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let (does, met) = (does.clone(), Arc::clone(&met));
        tokio::spawn(async move {
            // The client may have disconnected.
            let _ = handle(client, behind, part, does, &met).await;
        });
    }
}

async fn handle(
    mut client: TcpStream,
    behind: SocketAddr,
    part: &str,
    does: Does,
    met: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("a request");
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    let is_meant = lines[0].contains(part);
    if is_meant {
        met.fetch_add(1, Ordering::SeqCst);
    }
    match (is_meant, does) {
        (true, Does::Answers(answer)) => return client.write_all(answer.as_bytes()).await,
        (true, Does::Endless(begin, again)) => {
            client.write_all(begin.as_bytes()).await?;
            let again = again.repeat(1 << 12);
            loop {
                client.write_all(again.as_bytes()).await?;
            }
        }
        (true, Does::Nothing) => {
            // Until the client disconnects.
            client.read_u8().await?;
            return Ok(());
        }
        (true, Does::WithoutUpgrade) => {
            lines.retain(|line| !["upgrade:", "connection:"].iter().any(|name| is_header(line, name)));
            lines.push("connection: close");
        }
        (false, _) if !lines.iter().any(|line| is_header(line, "upgrade:")) => {
            lines.retain(|line| !is_header(line, "connection:"));
            lines.push("connection: close");
        }
        (false, _) => {}
    }
    let mut server = TcpStream::connect(behind).await?;
    server.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn is_header(line: &str, name: &str) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}
