//! Servers on ports of the loopback interface.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// A port of our own, served by a thread of its own. It ends when dropped.
pub struct Port {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Port {
    /// Serves what comes.
    ///
    /// # Panics
    /// If there is no port.
    pub fn serve(serves: impl AsyncFnOnce(TcpListener) + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
                ready.send(listener.local_addr().expect("an address")).expect("who starts it waits");
                tokio::select! {
                    () = serves(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: is_ready.recv().expect("it starts"), _stop: stop }
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}
