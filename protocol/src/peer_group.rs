//! Groups of peers that share a limit or a turn. A group is computed from the value of an address,
//! never from its text. It says nothing about who a peer is; tokens and users do.

use core::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Peers whose attempts are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerGroup {
    /// A user of this machine, over a Unix socket; `None` = the kernel does not say which.
    User(Option<u32>),
    /// One IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address: one customer or machine usually has all addresses
    /// below them (RFC 6177).
    V6(u64),
}

impl Default for PeerGroup {
    fn default() -> Self {
        Self::User(None)
    }
}

impl PeerGroup {
    /// The group of an address. An IPv4-mapped address is in the group of its IPv4 address; the
    /// scope of a link-local address does not count.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::of_v6(ip.to_bits()),
        }
    }

    /// Addresses of translators carry an IPv4 address: NAT64 puts all of IPv4 into one network of
    /// 64 bits, and 6to4 gives each IPv4 address 65,536 networks.
    const fn of_v6(bits: u128) -> Self {
        match (bits >> 32, bits >> 112) {
            (NAT64 | TRANSLATED, _) => Self::V4(bits as u32),
            (_, SIX_TO_FOUR) => Self::V4((bits >> 80) as u32),
            (_, _) => Self::V6((bits >> 64) as u64),
        }
    }
}

/// The prefixes `64:ff9b::/96` (RFC 6052) and `::ffff:0:0:0/96` (RFC 2765); the IPv4 address
/// follows.
const NAT64: u128 = 0x0064_ff9b << 64;
const TRANSLATED: u128 = 0xffff << 16;
/// The prefix `2002::/16` (RFC 3056); the IPv4 address follows.
const SIX_TO_FOUR: u128 = 0x2002;

/// Whether an address is one of this machine: loopback, also as an IPv4-mapped address. The kernel
/// knows who such a peer is, and closes its connections when it ends.
pub fn is_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The canonical form of an address: IPv4-mapped becomes IPv4, and the flow label that the kernel
/// adds is cleared. A scope stays where it has a meaning.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(ip) => {
            let scope = match address {
                SocketAddr::V6(given) if ip.is_unicast_link_local() => given.scope_id(),
                SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
            };
            SocketAddr::V6(SocketAddrV6::new(ip, address.port(), 0, scope))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> PeerGroup {
        PeerGroup::of(text.parse().unwrap())
    }

    #[test]
    fn an_address_is_judged_by_its_value() {
        let net = group("2001:db8::1");
        for same in ["2001:db8::", "2001:db8:0:0:ffff::1", "2001:0db8::a:b:c:d", "2001:db8::2:1"] {
            assert_eq!(group(same), net, "{same}");
        }
        for other in ["2001:db8:0:1::1", "2001:db8:1::1", "2001:db9::1", "::1", "32.1.13.184"] {
            assert_ne!(group(other), net, "{other}");
        }
        assert_eq!(group("::ffff:192.0.2.7"), group("192.0.2.7"));
        assert_eq!(group("::ffff:c000:207"), group("192.0.2.7"));
        assert_ne!(group("192.0.2.7"), group("192.0.2.8"));
    }

    #[test]
    fn an_address_that_stands_for_one_of_ipv4_is_that_one() {
        for same in ["64:ff9b::192.0.2.7", "::ffff:0:192.0.2.7", "2002:c000:207::1"] {
            assert_eq!(group(same), group("192.0.2.7"), "{same}");
        }
        assert_eq!(group("2002:c000:207:1::1"), group("2002:c000:207:ffff::"));
        for other in ["64:ff9b::192.0.2.8", "64:ff9b:0:1::192.0.2.7", "65:ff9b::192.0.2.7", "::1"] {
            assert_ne!(group(other), group("192.0.2.7"), "{other}");
        }
        assert_ne!(group("::1"), group("0.0.0.1"), "this machine is no translator's");
    }

    #[test]
    fn loopback_in_every_form_is_this_machine() {
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_this_machine(here.parse().unwrap()), "{here}");
        }
        for elsewhere in ["192.0.2.7", "0.0.0.0", "::", "::2", "::ffff:192.0.2.7", "fe80::1"] {
            assert!(!is_this_machine(elsewhere.parse().unwrap()), "{elsewhere}");
        }
    }

    #[test]
    fn one_address_has_one_spelling() {
        for (given, kept) in [
            ("[::ffff:127.0.0.1]:7", "127.0.0.1:7"),
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("[2001:db8:0:0::1]:7", "[2001:db8::1]:7"),
            ("[fe80::1%3]:7", "[fe80::1%3]:7"),
            ("[2001:db8::1%3]:7", "[2001:db8::1]:7"),
        ] {
            assert_eq!(canonical(given.parse().unwrap()).to_string(), kept);
        }
        let labelled = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 7, 9, 0);
        let plain = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 7, 0, 0);
        assert_eq!(canonical(labelled.into()), SocketAddr::V6(plain));
    }
}
