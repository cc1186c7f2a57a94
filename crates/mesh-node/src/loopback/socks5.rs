//! SOCKS5 as a server speaks it: CONNECT, with a password or without.
//!
//! Names reach the dialler as they are, for the tailnet knows names that the machine does not. Nothing but two bytes of
//! length, of 255 at most, is trusted before it is there, so a client costs no more than that.
//!
//! Source: RFC 1928, RFC 1929.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::time::timeout;

use super::HANDSHAKE_MAX;

/// The first byte of every client.
///
/// ```
/// use mesh_node::loopback::socks5;
///
/// let is_socks = |first: u8| first == socks5::VERSION;
/// assert!(is_socks(5) && !is_socks(b'G'));
/// ```
pub const VERSION: u8 = 5;

/// The version of the exchange of user and password.
const PASSWORD_VERSION: u8 = 1;

const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;

const CONNECT: u8 = 1;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// User and password that a client must know.
///
/// ```
/// use mesh_node::loopback::socks5::Login;
///
/// let login = Login { user: "tsnet".to_owned(), password: "secret".to_owned() };
/// assert!(!format!("{login:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password, which `Debug` does not show.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a client is not connected.
///
/// ```
/// use std::io;
///
/// use mesh_node::loopback::socks5::Reply;
///
/// fn reply(error: &io::Error) -> Reply {
///     match error.kind() {
///         io::ErrorKind::ConnectionRefused => Reply::ConnectionRefused,
///         io::ErrorKind::TimedOut => Reply::TimedOut,
///         _ => Reply::GeneralFailure,
///     }
/// }
/// assert_eq!(reply(&io::ErrorKind::TimedOut.into()) as u8, 6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// Something else than the following.
    GeneralFailure = 1,
    /// Nobody has the name or the address.
    HostUnreachable = 4,
    /// Nobody listens there.
    ConnectionRefused = 5,
    /// There was no answer.
    TimedOut = 6,
    /// Only CONNECT is spoken here.
    CommandNotSupported = 7,
    /// The address is neither IPv4 nor IPv6 nor a name.
    AddressTypeNotSupported = 8,
}

/// Serves one client: learns where it wants to go, has `dial` connect to that `host:port`, and joins the two until both are
/// done.
///
/// ```
/// # use mesh_node::loopback::socks5::{self, Login, Reply};
/// # use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (mut client, server) = tokio::io::duplex(1024);
/// // No login, then CONNECT to web:80.
/// client.write_all(&[5, 1, 0]).await?;
/// client.write_all(b"\x05\x01\0\x03\x03web\0\x50").await?;
/// let dial = |to: String| async move {
///     assert_eq!(to, "web:80");
///     Err::<tokio::io::DuplexStream, _>(Reply::HostUnreachable)
/// };
/// socks5::serve(server, None::<&Login>, dial).await?;
/// let mut answers = Vec::new();
/// client.read_to_end(&mut answers).await?;
/// assert_eq!(answers[..4], [5, 0, 5, Reply::HostUnreachable as u8]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the client does not speak SOCKS5, [`io::ErrorKind::PermissionDenied`] if it does not
/// know the login, [`io::ErrorKind::TimedOut`] if it takes too long to say what it wants, and what breaks a connection.
pub async fn serve<C, P, D, F>(mut client: C, login: Option<&Login>, dial: D) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    P: AsyncRead + AsyncWrite + Unpin,
    D: FnOnce(String) -> F,
    F: Future<Output = Result<P, Reply>>,
{
    let wanted = timeout(HANDSHAKE_MAX, async {
        greet(&mut client, login).await?;
        read_request(&mut client).await
    });
    let dialled = match wanted.await?? {
        Ok(to) => dial(to).await,
        Err(reply) => Err(reply),
    };
    match dialled {
        Ok(mut peer) => {
            client.write_all(&answer(0)).await?;
            copy_bidirectional(&mut client, &mut peer).await?;
            Ok(())
        }
        Err(reply) => {
            client.write_all(&answer(reply as u8)).await?;
            client.shutdown().await
        }
    }
}

/// Agrees on how the client shows who it is, and has it do so.
async fn greet<C: AsyncRead + AsyncWrite + Unpin>(
    client: &mut C,
    login: Option<&Login>,
) -> io::Result<()> {
    expect_byte(client, VERSION).await?;
    let methods = read_text(client).await?;
    let method = if login.is_some() { PASSWORD } else { NO_LOGIN };
    if !methods.contains(&method) {
        client.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(denied("client offers no login that is known here"));
    }
    client.write_all(&[VERSION, method]).await?;
    let Some(login) = login else { return Ok(()) };
    expect_byte(client, PASSWORD_VERSION).await?;
    let (user, password) = (read_text(client).await?, read_text(client).await?);
    let is_right: bool =
        (user.ct_eq(login.user.as_bytes()) & password.ct_eq(login.password.as_bytes())).into();
    client.write_all(&[PASSWORD_VERSION, u8::from(!is_right)]).await?;
    if is_right { Ok(()) } else { Err(denied("wrong user or password")) }
}

/// Reads where the client wants to go: `host:port`, or what it is told instead.
async fn read_request<C: AsyncRead + Unpin>(client: &mut C) -> io::Result<Result<String, Reply>> {
    expect_byte(client, VERSION).await?;
    let command = client.read_u8().await?;
    expect_byte(client, 0).await?;
    let to = match client.read_u8().await? {
        IPV4 => {
            let ip = Ipv4Addr::from(client.read_u32().await?);
            SocketAddr::from((ip, client.read_u16().await?)).to_string()
        }
        IPV6 => {
            let ip = Ipv6Addr::from(client.read_u128().await?);
            SocketAddr::from((ip, client.read_u16().await?)).to_string()
        }
        NAME => {
            let name = String::from_utf8(read_text(client).await?)
                .map_err(|_| invalid("name is not UTF-8"))?;
            format!("{name}:{}", client.read_u16().await?)
        }
        _ => return Ok(Err(Reply::AddressTypeNotSupported)),
    };
    Ok(if command == CONNECT { Ok(to) } else { Err(Reply::CommandNotSupported) })
}

/// Reads bytes behind their number.
async fn read_text<C: AsyncRead + Unpin>(client: &mut C) -> io::Result<Vec<u8>> {
    let mut text = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut text).await?;
    Ok(text)
}

async fn expect_byte<C: AsyncRead + Unpin>(client: &mut C, expected: u8) -> io::Result<()> {
    let found = client.read_u8().await?;
    if found == expected { Ok(()) } else { Err(invalid("client does not speak SOCKS5")) }
}

/// An answer to a request; where this end is connected from is not told, as clients have no use for it.
fn answer(code: u8) -> [u8; 10] {
    [VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn denied(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
mod tests;
