//! `axum::serve` on a listener in the tailnet.

use std::future::pending;
use std::io;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use mesh_stack::{TcpListener, TcpStream};

/// A listener that `axum::serve` takes.
///
/// ```no_run
/// # async fn example(node: mesh_node::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use axum::Router;
/// use axum::extract::ConnectInfo;
/// use axum::routing::get;
/// use mesh_node::{AxumListener, Caller};
///
/// let router = Router::new().route(
///     "/",
///     get(|ConnectInfo(Caller(caller)): ConnectInfo<Caller>| async move { format!("Hello, {caller}") }),
/// );
/// let listener = AxumListener::from(node.listen(80)?);
/// axum::serve(listener, router.into_make_service_with_connect_info::<Caller>()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AxumListener(TcpListener);

impl From<TcpListener> for AxumListener {
    fn from(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Listener for AxumListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    /// Waits for ever once the node is closed: there is nobody left to call.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.0.accept().await {
            Ok(accepted) => accepted,
            Err(_) => pending().await,
        }
    }

    /// The port; the address is that of the node to which a caller came.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([0, 0, 0, 0], self.0.port())))
    }
}

/// Who calls, for handlers that ask for `ConnectInfo<Caller>`: an address of the tailnet, by which [`Node::who_is`] knows them.
///
/// [`Node::who_is`]: crate::Node::who_is
///
/// ```
/// use std::sync::Arc;
///
/// use axum::extract::{ConnectInfo, State};
/// use mesh_node::{Caller, Node};
///
/// async fn greet(State(node): State<Arc<Node>>, ConnectInfo(Caller(address)): ConnectInfo<Caller>) -> String {
///     match node.who_is(address.ip()).await {
///         Ok(Some(who)) => format!("Hello, {}", who.node.name),
///         Ok(None) | Err(_) => "Hello, whoever you are".to_owned(),
///     }
/// }
/// # axum::Router::<Arc<Node>>::new().route("/", axum::routing::get(greet));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller(pub SocketAddr);

impl Connected<IncomingStream<'_, AxumListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, AxumListener>) -> Self {
        Self(*stream.remote_addr())
    }
}
