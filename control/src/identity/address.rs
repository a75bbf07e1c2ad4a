//! Where a client is, when proxies stand between. Pure: takes the peer's address and the request's headers.
//!
//! Only proxies that the configuration names, and this machine, are believed, and only one header is read: so a client cannot
//! say that it is somewhere else. Of a list that several proxies wrote, the address nearest to us that is not one of theirs is the client's.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::{HeaderMap, HeaderName, header::FORWARDED};
use ipnet::IpNet;

/// The most proxies that a list is followed through.
const HOPS_MAX: usize = 32;
/// Who has an IPv6 address commonly has all of this prefix.
const IPV6_PREFIX: u32 = 64;

/// Which header proxies write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For: client, proxy`: what most write.
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239).
    Forwarded,
}

impl fmt::Display for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        })
    }
}

impl FromStr for ProxyHeader {
    type Err = NotAProxyHeader;

    fn from_str(name: &str) -> Result<Self, NotAProxyHeader> {
        let all = [Self::XForwardedFor, Self::Forwarded];
        all.into_iter().find(|header| header.to_string() == name.to_ascii_lowercase()).ok_or(NotAProxyHeader)
    }
}

/// Not a header that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header of proxies is x-forwarded-for or forwarded")]
pub struct NotAProxyHeader;

/// Whose word about a client's address is taken.
#[derive(Debug, Clone)]
pub struct Proxies {
    /// Besides this machine's own addresses.
    pub from: Vec<IpNet>,
    /// What they write.
    pub header: ProxyHeader,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// It is a proxy that names nobody, or this machine itself.
    pub(crate) is_trusted: bool,
}

impl Client {
    /// What its requests are counted under: an IPv4 address, or the /64 of an IPv6 one.
    pub(crate) fn neighbourhood(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> IPV6_PREFIX << IPV6_PREFIX).into(),
        }
    }
}

impl Proxies {
    /// Who is behind `peer`.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let mut client = self.judged(peer);
        if !client.is_trusted {
            return client;
        }
        let name = match self.header {
            ProxyHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ProxyHeader::Forwarded => FORWARDED,
        };
        let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS_MAX) {
            let address = match self.header {
                ProxyHeader::XForwardedFor => node(hop.trim()),
                ProxyHeader::Forwarded => forwarded_for(hop),
            };
            // What is no address ("unknown", a name that hides one) was written by somebody trusted, who is the last one known.
            let Some(address) = address else { break };
            client = self.judged(address);
            if !client.is_trusted {
                break;
            }
        }
        client
    }

    fn judged(&self, address: IpAddr) -> Client {
        let address = address.to_canonical();
        Client { address, is_trusted: address.is_loopback() || self.from.iter().any(|network| network.contains(&address)) }
    }
}

/// The `for` of one element of `Forwarded` (RFC 7239 §4): `for=192.0.2.1;proto=https`, `For="[2001:db8::1]:4711"`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(value.trim().trim_matches('"'))
}

/// An address, with a port or without (RFC 7239 §6).
fn node(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|addr| addr.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(header: ProxyHeader, peer: &str, lines: &[&str]) -> (String, bool) {
        let proxies = Proxies { from: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()], header };
        let mut headers = HeaderMap::new();
        let other = if header == ProxyHeader::Forwarded { "x-forwarded-for" } else { "forwarded" };
        headers.insert(other, HeaderValue::from_static("for=203.0.113.99"));
        for line in lines {
            headers.append(header.to_string().parse::<HeaderName>().unwrap(), HeaderValue::from_str(line).unwrap());
        }
        let Client { address, is_trusted } = proxies.client(peer.parse().unwrap(), &headers);
        (address.to_string(), is_trusted)
    }

    #[test]
    fn only_the_configured_proxies_are_believed() {
        for (peer, lines, address, is_trusted) in [
            ("192.0.2.1", &["203.0.113.7"][..], "192.0.2.1", false),
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7", false),
            ("127.0.0.1", &["203.0.113.7"], "203.0.113.7", false),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7", false),
            // What the client wrote itself stands farthest away.
            ("10.0.0.1", &["8.8.8.8, 203.0.113.7"], "203.0.113.7", false),
            ("10.0.0.1", &["8.8.8.8, 203.0.113.7, 10.9.9.9"], "203.0.113.7", false),
            ("10.0.0.1", &["8.8.8.8", "203.0.113.7 ,10.9.9.9"], "203.0.113.7", false),
            ("10.0.0.1", &["2001:db8:2::7"], "2001:db8:2::7", false),
            ("10.0.0.1", &["203.0.113.7:4711"], "203.0.113.7", false),
            ("10.0.0.1", &["203.0.113.7, unknown"], "10.0.0.1", true),
            ("10.0.0.1", &["203.0.113.7, unknown, 10.9.9.9"], "10.9.9.9", true),
            ("10.0.0.1", &[], "10.0.0.1", true),
            ("127.0.0.1", &[""], "127.0.0.1", true),
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.2", true),
        ] {
            let found = client(ProxyHeader::XForwardedFor, peer, lines);
            assert_eq!(found, (address.to_owned(), is_trusted), "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_chosen() {
        for (lines, address) in [
            (&["for=203.0.113.7;proto=https;by=10.0.0.1"][..], "203.0.113.7"),
            (&[r#"proto=https; For="[2001:db8:2::7]:4711""#], "2001:db8:2::7"),
            (&["for=8.8.8.8, for=203.0.113.7, for=10.2.3.4"], "203.0.113.7"),
            (&["for=203.0.113.7, for=_hidden"], "10.0.0.1"),
            (&["proto=https"], "10.0.0.1"),
        ] {
            assert_eq!(client(ProxyHeader::Forwarded, "10.0.0.1", lines).0, address, "{lines:?}");
        }
    }

    #[test]
    fn a_list_is_followed_so_far_and_no_farther() {
        let long = format!("203.0.113.7{}", ", 10.0.0.3".repeat(HOPS_MAX));
        assert_eq!(client(ProxyHeader::XForwardedFor, "10.0.0.1", &[&long]), ("10.0.0.3".into(), true));
    }

    #[test]
    fn neighbours_in_ipv6_are_counted_together() {
        let neighbourhood =
            |address: &str| Client { address: address.parse().unwrap(), is_trusted: false }.neighbourhood().to_string();
        assert_eq!(neighbourhood("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(neighbourhood("192.0.2.1"), "192.0.2.1");
    }
}
