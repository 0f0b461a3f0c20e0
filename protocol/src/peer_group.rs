//! Groups of peers that share a limit or a turn, by the value of their address and never by how it
//! is printed. Who a peer is, tokens and users say.

use core::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Peers whose attempts are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerGroup {
    /// A user of this machine, over a Unix socket; `None` = the kernel does not tell which.
    User(Option<u32>),
    /// One IPv4 address.
    V4(u32),
    /// The first 64 bits of an IPv6 address: a customer or a machine is given all of what follows.
    V6(u64),
}

impl Default for PeerGroup {
    fn default() -> Self {
        Self::User(None)
    }
}

impl PeerGroup {
    /// The group of an address. One that stands for an IPv4 address is that address; the scope of
    /// a link-local address does not count.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::of_v6(ip.to_bits()),
        }
    }

    /// What a translator makes of IPv4 is all in one network of 64 bits, and who is behind one
    /// address of IPv4 has 65,536 of them by 6to4.
    const fn of_v6(bits: u128) -> Self {
        match (bits >> 32, bits >> 112) {
            (NAT64 | TRANSLATED, _) => Self::V4(bits as u32),
            (_, SIX_TO_FOUR) => Self::V4((bits >> 80) as u32),
            (_, _) => Self::V6((bits >> 64) as u64),
        }
    }
}

/// `64:ff9b::/96` (RFC 6052) and `::ffff:0:0:0/96` (RFC 2765): an IPv4 address is the rest.
const NAT64: u128 = 0x0064_ff9b << 64;
const TRANSLATED: u128 = 0xffff << 16;
/// `2002::/16` (RFC 3056): an IPv4 address follows.
const SIX_TO_FOUR: u128 = 0x2002;

/// The one spelling of an address: an IPv4 address that came as IPv6 is IPv4, and what the kernel
/// adds beside the address (flow label) is left out. A scope stays where it has a meaning.
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
