//! The clients of a crowd, in a process that is told over standard input when they start and end.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use narthex::{Client, PeerAddr, SharedSecret, TargetBuilder, client::EventKind};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, Stdin},
    sync::broadcast::error::RecvError,
    task::JoinSet,
};

use crate::BoxError;

/// Answers `start` with nothing, `links` with the number of links made so far, `end` with a line once all have ended.
pub(crate) async fn run(
    scraper: &str,
    secret: &str,
    first: usize,
    count: usize,
    aliases: usize,
) -> Result<(), BoxError> {
    let (scraper, secret): (PeerAddr, SharedSecret) = (scraper.parse()?, secret.parse()?);
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    println!("here");
    expect(&mut words, "start").await?;
    let (links, mut starting) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for number in 0..count {
        let client = (0..aliases).fold(Client::builder(scraper.clone(), secret.clone()), |client, alias| {
            let target = TargetBuilder::new(format!("c{first}-{number}-{alias}")).service("load");
            client.target(target.metrics(|| Ok::<_, fmt::Error>("m 1\n".to_owned())))
        });
        starting.spawn(client.start());
    }
    let mut clients = Vec::new();
    while let Some(client) = starting.join_next().await {
        let client = client??;
        let (mut events, links) = (client.events(), Arc::clone(&links));
        tokio::spawn(async move {
            loop {
                match events.recv().await.map(|event| event.kind) {
                    Ok(EventKind::LinkUp { .. }) => drop(links.fetch_add(1, Relaxed)),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        clients.push(client);
    }
    while let Some(word) = words.next_line().await? {
        match word.as_str() {
            "links" => println!("{}", links.load(Relaxed)),
            "end" => break,
            other => return Err(format!("told {other:?}").into()),
        }
    }
    let mut ending: JoinSet<()> = clients.into_iter().map(Client::shutdown).collect();
    while ending.join_next().await.is_some() {}
    println!("ended");
    std::future::pending().await
}

async fn expect(words: &mut Lines<BufReader<Stdin>>, wanted: &str) -> Result<(), BoxError> {
    match words.next_line().await? {
        Some(word) if word == wanted => Ok(()),
        other => Err(format!("told {other:?} instead of {wanted}").into()),
    }
}
