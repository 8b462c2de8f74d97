//! A port of the loopback interface for a process that is about to be started.

use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;

/// Ports that the kernel gives to nobody who does not name one (its own begin with 32768, ip(7)): else any connection could take
/// a port between this choice and the process's `bind`.
const PORTS: Range<u16> = 20_000..30_000;

/// Random ones that are tried, before it is left to the kernel.
const ATTEMPTS: usize = 100;

/// One that is free now. A process that finds it taken ends, and the next gets another.
///
/// # Errors
/// The kernel's, if no port at all is free.
pub(crate) fn free() -> io::Result<SocketAddr> {
    for _ in 0..ATTEMPTS {
        let mut random = [0; 2];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let port = PORTS.start + u16::from_ne_bytes(random) % (PORTS.end - PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr();
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_and_none_that_connections_take_by_themselves() {
        let taken: Vec<_> = (0..50).map(|_| TcpListener::bind(free().unwrap()).unwrap()).collect();
        assert!(taken.iter().all(|listener| PORTS.contains(&listener.local_addr().unwrap().port())));
    }
}
