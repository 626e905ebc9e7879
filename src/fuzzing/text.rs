//! Texts that people and peers write.

use crate::{
    hook::HookCommand,
    identity::{DialAddress, HostPort, PeerAddr, PublicKey},
    wire::{Alias, Labels, Target},
};

/// A parsed value prints as it was read, and errors escape what they quote.
pub fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Alias>() {
        Ok(alias) => assert_eq!(alias.as_str(), text),
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if let Err(error) = Labels::default().insert(name, value) {
        assert!(!error.to_string().contains(char::is_control));
    }
    if let Err(error) = Target::check_name("service", text) {
        assert!(!error.to_string().contains(char::is_control));
    }
    if let Ok(peer) = text.parse::<PeerAddr>() {
        assert_eq!(peer.to_string().parse(), Ok(peer));
    }
    if let Ok(address) = text.parse::<DialAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(host_port) = text.parse::<HostPort>() {
        assert_eq!(host_port.to_string().parse(), Ok(host_port));
    }
    if let Err(error) = text.parse::<HookCommand>() {
        assert!(!error.to_string().contains(char::is_control));
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        assert!(key.to_string() == text || key.to_hex() == text.to_ascii_lowercase());
    }
}
