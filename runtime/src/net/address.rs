//! Socket addresses as the kernel reads them: ip(7), ipv6(7) and unix(7).

use std::ffi::OsStr;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Bytes of the largest address, a `sockaddr_un`.
const BYTES_MAX: usize = size_of::<libc::sockaddr_un>();
/// Where the path of a Unix address begins: behind its family.
const PATH_AT: usize = 2;

/// A `sockaddr`.
#[derive(Debug, Clone)]
#[repr(C, align(8))]
pub(crate) struct Address {
    bytes: [u8; BYTES_MAX],
    len: u32,
}

impl Address {
    const fn empty() -> Self {
        Self { bytes: [0; BYTES_MAX], len: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        let at = self.len as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += u32::try_from(bytes.len()).expect("at most BYTES_MAX");
    }

    fn of_family(family: i32) -> Self {
        let family = u16::try_from(family).expect("families are small");
        let mut address = Self::empty();
        address.put(&family.to_ne_bytes());
        address
    }

    /// An internet address.
    pub(crate) fn ip(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => {
                let mut bytes = Self::of_family(libc::AF_INET);
                bytes.put(&v4.port().to_be_bytes());
                bytes.put(&v4.ip().octets());
                bytes.put(&[0; 8]);
                bytes
            }
            SocketAddr::V6(v6) => {
                let mut bytes = Self::of_family(libc::AF_INET6);
                bytes.put(&v6.port().to_be_bytes());
                bytes.put(&v6.flowinfo().to_be_bytes());
                bytes.put(&v6.ip().octets());
                bytes.put(&v6.scope_id().to_ne_bytes());
                bytes
            }
        }
    }

    /// A Unix address; a path of more than 107 bytes, or with a zero byte, has none.
    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        let path = path.as_os_str().as_bytes();
        if path.is_empty() || path.contains(&0) || path.len() + 1 > BYTES_MAX - PATH_AT {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut address = Self::of_family(libc::AF_UNIX);
        address.put(path);
        address.put(&[0]);
        Ok(address)
    }

    /// The internet address, if it is one.
    pub(crate) fn to_ip(&self) -> Option<SocketAddr> {
        let bytes = &self.bytes;
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
            libc::AF_INET => Some(SocketAddr::from((word(4), port))),
            libc::AF_INET6 => {
                let octets: [u8; 16] = std::array::from_fn(|at| bytes[8 + at]);
                let (flow, scope) = (u32::from_be_bytes(word(4)), u32::from_ne_bytes(word(24)));
                Some(SocketAddrV6::new(octets.into(), port, flow, scope).into())
            }
            _ => None,
        }
    }

    /// The path of a Unix address.
    pub(crate) fn to_path(&self) -> &Path {
        let end = self.len as usize - 1;
        Path::new(OsStr::from_bytes(&self.bytes[PATH_AT..end]))
    }

    pub(crate) const fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    /// Bytes of it that count.
    pub(crate) const fn len(&self) -> libc::socklen_t {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_long_as_their_structs() {
        let v4 = Address::ip("1.2.3.4:258".parse().expect("an address"));
        assert_eq!(v4.len() as usize, size_of::<libc::sockaddr_in>());
        assert_eq!(v4.bytes[2..8], [1, 2, 1, 2, 3, 4]);
        let v6 = Address::ip("[::1]:258".parse().expect("an address"));
        assert_eq!(v6.len() as usize, size_of::<libc::sockaddr_in6>());
        assert_eq!((v6.bytes[2], v6.bytes[3], v6.bytes[23]), (1, 2, 1));
    }

    #[test]
    fn addresses_are_read_back_as_they_were_written() {
        for text in ["1.2.3.4:258", "[::1]:258", "[fe80::1%7]:9"] {
            let address = text.parse().expect("an address");
            assert_eq!(Address::ip(address).to_ip(), Some(address));
        }
        let path = Path::new("/some/path");
        let unix = Address::unix(path).expect("short");
        assert_eq!((unix.to_ip(), unix.to_path()), (None, path));
    }

    #[test]
    fn a_unix_path_has_a_bound() {
        assert_eq!(Address::unix(Path::new("/x")).expect("short").len(), 5);
        assert!(Address::unix(Path::new(&"x".repeat(107))).is_ok());
        for path in ["", "a\0b", &"x".repeat(108)] {
            let error = Address::unix(Path::new(path)).expect_err("not a path");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
