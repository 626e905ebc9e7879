//! What cannot be saved of a registration: the scraper's part of two handshakes, without a socket.

use std::{fs, time::Duration};

use futures::future;
use libp2p::{
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    identity::Keypair,
    noise,
};
use narthex::{
    KeyPair, SharedSecret,
    wire::{Initiator, REGISTER_PROTOCOL, Responder},
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::BoxError;

const ROUNDS: u32 = 300;
const NOISE: &str = "/noise";

/// The CPU time of the link's handshake (half of what both sides take), and of the registration's.
pub(crate) async fn measure() -> Result<[Duration; 2], BoxError> {
    let [near, far] = [(); 2].map(|()| Keypair::generate_ed25519());
    let (near, far) = (noise::Config::new(&near)?, noise::Config::new(&far)?);
    let began = cpu()?;
    for _ in 0..ROUNDS {
        let (left, right) = tokio::io::duplex(4096);
        let dialled = near.clone().upgrade_outbound(left.compat(), NOISE);
        let accepted = far.clone().upgrade_inbound(right.compat(), NOISE);
        future::try_join(dialled, accepted).await?;
    }
    let link = (cpu()? - began) / ROUNDS / 2;

    let (client, scraper, secret) = (KeyPair::generate(), KeyPair::generate(), SharedSecret::generate());
    let mut registration = Duration::ZERO;
    for _ in 0..ROUNDS {
        let (initiator, first) = Initiator::start(&client, &scraper.public(), &secret, REGISTER_PROTOCOL)?;
        let began = cpu()?;
        let responder = Responder::read(&scraper, &client.public(), REGISTER_PROTOCOL, &first)?;
        let (_, response) = responder.respond(&secret)?;
        registration += cpu()? - began;
        initiator.finish(&response)?;
    }
    Ok([link, registration / ROUNDS])
}

/// Of this thread, so far.
fn cpu() -> Result<Duration, BoxError> {
    let spent = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(spent.split_whitespace().next().ok_or("odd /proc/thread-self/schedstat")?.parse()?))
}
