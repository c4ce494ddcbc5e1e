//! A proxy that connects to servers of ours.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::loopback::Port;

/// A port of the loopback interface. It ends when dropped.
pub struct Proxy {
    scheme: &'static str,
    port: Port,
    asked: Asked,
}

/// The requested destinations.
type Asked = Arc<Mutex<Vec<String>>>;

impl Proxy {
    /// Starts a proxy for CONNECT.
    pub fn start() -> Self {
        Self::speaking("http", Protocol::Connect)
    }

    /// Starts a SOCKS 5 proxy.
    pub fn socks() -> Self {
        Self::speaking("socks5", Protocol::Socks)
    }

    fn speaking(scheme: &'static str, protocol: Protocol) -> Self {
        let asked = Asked::default();
        let kept = Arc::clone(&asked);
        Self { scheme, port: Port::serve(async move |listener| serve(listener, protocol, kept).await), asked }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.port.address())
    }

    /// The requested destinations.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone, Copy)]
enum Protocol {
    /// RFC 9110, section 9.3.6.
    Connect,
    /// RFC 1928.
    Socks,
}

async fn serve(listener: TcpListener, protocol: Protocol, asked: Asked) {
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut client = BufStream::new(client);
            // The client may have disconnected.
            let target = match protocol {
                Protocol::Connect => connect(&mut client).await,
                Protocol::Socks => socks(&mut client).await,
            };
            let Ok(target) = target else { return };
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_string());
            assert!(target.ip().is_loopback(), "{target} is not ours");
            let mut server = TcpStream::connect(target).await.expect("the server listens");
            let answer: &[u8] = match protocol {
                Protocol::Connect => b"HTTP/1.1 200 Connected\r\n\r\n",
                Protocol::Socks => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            };
            let answered = client.write_all(answer).await;
            if answered.is_ok() && client.flush().await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

/// The destination of a CONNECT request.
async fn connect(client: &mut BufStream<TcpStream>) -> io::Result<SocketAddr> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| line != "\r\n") {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        lines.push(line);
    }
    let target = lines[0].split(' ').nth(1).expect("a target");
    Ok(target.parse().expect("a server of ours"))
}

/// The destination of a SOCKS request, without authentication, for an IPv4 address.
async fn socks(client: &mut BufStream<TcpStream>) -> io::Result<SocketAddr> {
    let [version, methods] = [client.read_u8().await?, client.read_u8().await?];
    assert_eq!(version, 5);
    client.read_exact(&mut vec![0; usize::from(methods)]).await?;
    client.write_all(&[5, 0]).await?;
    client.flush().await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    assert_eq!(request, [5, 1, 0, 1], "CONNECT to an IPv4 address");
    let address = Ipv4Addr::from(client.read_u32().await?);
    Ok((address, client.read_u16().await?).into())
}
