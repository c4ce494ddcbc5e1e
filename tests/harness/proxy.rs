//! A proxy that connects to servers of ours (RFC 9110, section 9.3.6).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::loopback::Port;

/// A port of the loopback interface. It ends when dropped.
pub struct Proxy {
    port: Port,
    asked: Asked,
}

/// What it was asked to connect to.
type Asked = Arc<Mutex<Vec<String>>>;

impl Proxy {
    /// One that nobody has asked anything yet.
    pub fn start() -> Self {
        let asked = Asked::default();
        let kept = Arc::clone(&asked);
        Self { port: Port::serve(async move |listener| serve(listener, kept).await), asked }
    }

    /// Its address, as a kubeconfig has it.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// The servers that it was asked to connect to.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, asked: Asked) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut client = BufStream::new(client);
            let mut lines = Vec::new();
            while lines.last().is_none_or(|line: &String| line != "\r\n") {
                let mut line = String::new();
                // Whoever goes in between has nothing to ask.
                if !client.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                    return;
                }
                lines.push(line);
            }
            let target = lines[0].split(' ').nth(1).expect("a target");
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_owned());
            let target: SocketAddr = target.parse().expect("a server of ours");
            assert!(target.ip().is_loopback(), "{target} is not ours");
            let mut server = TcpStream::connect(target).await.expect("the server listens");
            let answered = client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await;
            if answered.is_ok() && client.flush().await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
