//! TCP proxy that fails on demand.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc as commands, watch},
    task::JoinSet,
};

use crate::port;

const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for the proxy's port to be free again.
const BIND_SECS_MAX: u64 = 10;
const LOOK: Duration = Duration::from_millis(10);
/// Most ports to try, because another process may take a free port first.
const PORTS_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Stalled,
    Cut,
}

/// The side of a proxy whose bytes stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Bytes of clients reach the server no more.
    Client,
    /// Bytes of the server reach clients no more.
    Server,
    /// Neither side's bytes reach the other.
    Both,
}

impl Side {
    const fn includes(self, other: Self) -> bool {
        matches!((self, other), (Self::Both, _) | (Self::Client, Self::Client) | (Self::Server, Self::Server))
    }
}

/// The state of the proxy, as its connections see it.
#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Connections with a lower number carry no byte of the client any more.
    clients_silent_below: u64,
    /// Connections with a lower number carry no byte of the server any more.
    servers_silent_below: u64,
}

/// A change of the state, and the channel that confirms it.
type Command = (Change, mpsc::Sender<()>);

#[derive(Debug, Clone, Copy)]
enum Change {
    Mode(Mode),
    /// This side of all connections of now falls silent.
    Silence(Side),
}

/// A proxy at a port of 127.0.0.1, before a server. A test can cut or stall its connections. The proxy runs in a thread
/// of its own, so its methods can be called with or without a runtime. Each returns when the new mode is in force.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Connections so far.
    accepted: Arc<AtomicU64>,
    /// Channel to the thread, which ends when this is `None`.
    commands: Option<commands::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy before the server at `target`, `host:port`. The server may start later.
    ///
    /// # Panics
    /// When the machine has no port or thread left.
    pub fn start(target: &str) -> Self {
        let target = target.to_owned();
        let (started, starting) = mpsc::channel();
        let (sender, receiver) = commands::unbounded_channel();
        let accepted = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&accepted);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async {
                let listener = listen().await;
                let address = listener.local_addr().expect("it listens");
                let _ = started.send(address);
                serve(&target, listener, address, receiver, &counter).await;
            });
        });
        let address = starting.recv().expect("the thread says where it listens");
        Self { address, accepted, commands: Some(sender), thread: Some(thread) }
    }

    /// The proxy's address, `127.0.0.1:PORT`, which never changes.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Closes all connections, and refuses new ones.
    pub fn cut(&self) {
        self.set(Mode::Cut);
    }

    /// Holds all bytes back, in both directions. Connections stay open, and new ones are accepted.
    pub fn stall(&self) {
        self.set(Mode::Stalled);
    }

    /// Passes all bytes again. Bytes that were held back go first.
    pub fn restore(&self) {
        self.set(Mode::Open);
    }

    /// Lets the connections of now fall silent for good, like a proxy that forgets them: they stay open and carry no
    /// byte any more. New connections work.
    pub fn silence(&self) {
        self.silence_side(Side::Both);
    }

    /// Lets one side of the connections of now fall silent for good. The bytes of the other side still pass.
    pub fn silence_side(&self, side: Side) {
        self.change(Change::Silence(side));
    }

    /// The number of connections that the proxy has accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    fn set(&self, mode: Mode) {
        self.change(Change::Mode(mode));
    }

    fn change(&self, change: Change) {
        let (done, doing) = mpsc::channel();
        let commands = self.commands.as_ref().expect("only dropping the proxy takes the channel");
        commands.send((change, done)).expect("the thread takes commands");
        doing.recv().expect("the thread confirms each change");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen() -> TcpListener {
    for _ in 0..PORTS_MAX {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port::free())).await {
            return listener;
        }
    }
    panic!("no port is free")
}

async fn serve(
    target: &str,
    listener: TcpListener,
    address: SocketAddr,
    mut commands: commands::UnboundedReceiver<Command>,
    accepted_so_far: &AtomicU64,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    let (state, _) = watch::channel(State { mode: Mode::Open, clients_silent_below: 0, servers_silent_below: 0 });
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => {
                let Some((change, done)) = command else { return };
                match change {
                    Change::Mode(next) => {
                        state.send_modify(|state| state.mode = next);
                        if next == Mode::Cut {
                            listener = None;
                            connections.shutdown().await;
                        } else if listener.is_none() {
                            listener = Some(listen_again(address).await);
                        }
                    }
                    Change::Silence(side) => state.send_modify(|state| {
                        let below = accepted_so_far.load(Ordering::Acquire);
                        if side.includes(Side::Client) {
                            state.clients_silent_below = below;
                        }
                        if side.includes(Side::Server) {
                            state.servers_silent_below = below;
                        }
                    }),
                }
                let _ = done.send(());
            }
            Some(_) = connections.join_next() => {}
            accepted = accept(listener.as_ref()) => {
                if let Ok((client, _)) = accepted {
                    let number = accepted_so_far.fetch_add(1, Ordering::AcqRel);
                    let way = Way { number, from: Side::Both, state: state.subscribe() };
                    connections.spawn(carry(client, target.to_owned(), way));
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => pending().await,
    }
}

async fn listen_again(address: SocketAddr) -> TcpListener {
    let end = Instant::now() + Duration::from_secs(BIND_SECS_MAX);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < end, "{address} is not free again: {error}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One connection's view of the proxy's state, or that of one of its directions.
#[derive(Clone)]
struct Way {
    number: u64,
    /// The side whose bytes go this way.
    from: Side,
    state: watch::Receiver<State>,
}

impl Way {
    /// Waits until the proxy is open for this connection.
    async fn open(&mut self) -> io::Result<()> {
        let (number, from) = (self.number, self.from);
        let is_open = |state: &State| {
            let clients_pass = !from.includes(Side::Client) || number >= state.clients_silent_below;
            let servers_pass = !from.includes(Side::Server) || number >= state.servers_silent_below;
            state.mode == Mode::Open && clients_pass && servers_pass
        };
        self.state.wait_for(is_open).await.map(drop).map_err(io::Error::other)
    }

    async fn changed(&mut self) {
        let _ = self.state.changed().await;
    }
}

/// Carries one connection until both sides have ended it, or one side has failed.
async fn carry(client: TcpStream, target: String, mut way: Way) -> io::Result<()> {
    way.open().await?;
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let to_server = Way { from: Side::Client, ..way.clone() };
    let to_client = Way { from: Side::Server, ..way };
    tokio::try_join!(pump(client_reads, server_writes, to_server), pump(server_reads, client_writes, to_client))?;
    Ok(())
}

/// Carries one direction of a connection to its end.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        way.open().await?;
        let read = tokio::select! {
            biased;
            () = way.changed() => continue,
            read = from.read(&mut buffer) => read?,
        };
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            way.open().await?;
            tokio::select! {
                biased;
                () = way.changed() => {}
                written = to.write(rest) => rest = &rest[written?..],
            }
        }
    }
}
