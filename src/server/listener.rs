//! Listening sockets: one per worker and address, all bound before any worker
//! starts.

use std::io;
use std::net::{SocketAddr, TcpListener};
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
    fn a_second_cloakroom_does_not_share_the_port() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert!(bind(first[0].local_addr().unwrap(), 2).is_err());
    }

    #[test]
    fn an_address_that_is_taken_is_explained() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(other.local_addr().unwrap(), 1).unwrap_err();
        assert!(error.contains("another program listens there"), "{error}");
    }
}
