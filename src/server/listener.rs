//! Listening sockets: one per worker and address, all bound before any worker
//! starts.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// How long accepting pauses when the system is out of file descriptors or
/// memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds `count` sockets to one address, among which the kernel spreads new
/// connections (`SO_REUSEPORT`). Port 0 takes one free port for all of them.
///
/// # Errors
///
/// What the system said, with the address.
pub fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, String> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    if address.port() != 0 {
        // With SO_REUSEPORT a second Cloakroom would get half of the
        // connections and nobody would notice. Without it, it is refused.
        drop(socket(address, false).map_err(|error| explain(address, &error))?);
    }
    for _ in 0..count {
        let bound = listen(address).map_err(|error| explain(address, &error))?;
        address = bound
            .local_addr()
            .map_err(|error| explain(address, &error))?;
        sockets.push(bound);
    }
    Ok(sockets)
}

/// The file of a Unix socket; removed when this is dropped, unless another has
/// taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|data| (data.dev(), data.ino()) == self.identity);
        if ours {
            // Left behind it is in nobody's way: the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a Unix socket that its owner and group may connect to (mode 0660),
/// for `count` workers that take turns. A file that an earlier run left behind
/// is removed, if it is a socket on which nobody listens.
///
/// # Errors
///
/// What is in the way, and how to mend it.
pub fn bind_unix(path: &Path, count: usize) -> Result<(Vec<UnixListener>, SocketFile), String> {
    bind_file(path, count, 0o660)
}

/// Binds a Unix socket that its owner alone may connect to (mode 0600); the
/// rest is as with [`bind_unix`].
///
/// # Errors
///
/// What is in the way, and how to mend it.
pub fn bind_private(path: &Path) -> Result<(UnixListener, SocketFile), String> {
    let (mut sockets, file) = bind_file(path, 1, 0o600)?;
    let socket = sockets.pop();
    let socket = socket.ok_or_else(|| format!("cannot listen on unix:{}", path.display()))?;
    Ok((socket, file))
}

fn bind_file(
    path: &Path,
    count: usize,
    mode: u32,
) -> Result<(Vec<UnixListener>, SocketFile), String> {
    remove_stale(path)?;
    let explain = |error: io::Error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => ": make the folder first",
            io::ErrorKind::PermissionDenied => {
                ": the user that Cloakroom runs as must be allowed to write to the folder"
            }
            io::ErrorKind::InvalidInput => ": a path of a socket has 107 bytes at most",
            _ => "",
        };
        format!("cannot listen on unix:{}: {error}{fix}", path.display())
    };
    let bound = || -> io::Result<(Vec<UnixListener>, SocketFile)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let data = fs::symlink_metadata(path)?;
        let file = SocketFile {
            path: path.to_path_buf(),
            identity: (data.dev(), data.ino()),
        };
        // Before anybody can connect.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        let first: UnixListener = socket.into();
        let mut sockets = Vec::with_capacity(count);
        for _ in 1..count {
            sockets.push(first.try_clone()?);
        }
        sockets.push(first);
        Ok((sockets, file))
    };
    bound().map_err(explain)
}

fn remove_stale(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let Ok(data) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !data.file_type().is_socket() {
        return Err(format!(
            "cannot listen on unix:{shown}: a file that is no socket is there; remove it or choose another path"
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| {
                format!("cannot listen on unix:{shown}: the socket of an earlier run cannot be removed: {error}")
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(format!(
            "cannot listen on unix:{shown}: another program listens there; stop it or change the path"
        )),
        Err(error) => Err(format!(
            "cannot listen on unix:{shown}: whether another program listens there cannot be told: {error}"
        )),
    }
}

/// How long to wait after a failed accept. No failure ends the loop: a
/// connection that was aborted while it waited says nothing about the next,
/// and descriptors come back.
pub fn pause_after(error: &io::Error) -> Option<Duration> {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::Interrupted => None,
        _ => Some(EXHAUSTED_PAUSE),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for old connections to fade.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Small responses must not wait for an acknowledgement. On Linux what is accepted has
    // it from here, without a call for each connection. Failing to say so costs time, not
    // correctness.
    let _ = socket.set_tcp_nodelay(true);
    socket.bind(&address.into())?;
    Ok(socket)
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; stop it or change the address"
        }
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need CAP_NET_BIND_SERVICE; use a higher one"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_is_one_port_for_all_workers() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<u16> = sockets
            .iter()
            .map(|s| s.local_addr().unwrap().port())
            .collect();
        assert!(
            ports[0] != 0 && ports.iter().all(|p| *p == ports[0]),
            "{ports:?}"
        );
    }

    #[test]
    fn what_is_accepted_sends_at_once() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let client = std::net::TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        let (accepted, _) = sockets[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        drop(client);
    }

    #[test]
    fn a_second_cloakroom_does_not_share_the_port() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert!(bind(first[0].local_addr().unwrap(), 2).is_err());
    }

    #[test]
    fn a_unix_socket_is_for_owner_and_group_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let (sockets, file) = bind_unix(&path, 2).unwrap();
        assert_eq!(sockets.len(), 2);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = bind_unix(&path, 1).unwrap_err();
        assert!(error.contains("another program listens there"), "{error}");
        drop((sockets, file));
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_nobody_serves_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (sockets, file) = bind_unix(&path, 1).unwrap();
        // Somebody else's file of the same name stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        drop((sockets, file));
        let error = bind_unix(&path, 1).unwrap_err();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn a_missing_folder_is_explained() {
        let error = bind_unix(Path::new("/nonexistent/s.sock"), 1).unwrap_err();
        assert!(error.contains("make the folder first"), "{error}");
    }

    #[test]
    fn an_address_that_is_taken_is_explained() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(other.local_addr().unwrap(), 1).unwrap_err();
        assert!(error.contains("another program listens there"), "{error}");
    }
}
