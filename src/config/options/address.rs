//! Where metrics are to be served: an address and a port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Reads it: `9469` and `:9469` mean the host itself (127.0.0.1).
///
/// # Errors
/// What would be understood.
pub fn parse(text: &str) -> Result<SocketAddr, &'static str> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let wanted = "a port, or an address and a port, as 9469, 10.0.0.1:9469 or [::1]:9469";
    text.parse().map_err(|_| wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        for (text, expected) in [
            ("9469", "127.0.0.1:9469"),
            (":9469", "127.0.0.1:9469"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:9469", "[::1]:9469"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected);
        }
        for text in ["", ":", "65536", "host", "host:1", "1.2.3.4", "-1", "1:2:3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
