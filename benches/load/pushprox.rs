//! The same crowd with PushProx, by its documented flags: a proxy, and a process for each client.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    BoxError,
    crowd::{Row, Step, free_address, until},
    process::Child,
    scrape,
};

/// As long as narthex's clients have before the proxy is killed.
const SETTLED: Duration = Duration::from_secs(3);

/// The processes of the clients start inside the time: PushProx has no library. A client that ends does not say so, and the
/// proxy lists it until its registration times out.
pub(crate) async fn measure(proxy: &Path, client: &Path, clients: usize, idle: Duration) -> Result<Row, BoxError> {
    let address = free_address()?;
    let start = || Child::run(proxy, &[&format!("--web.listen-address={address}")]);
    let front = start()?;
    until(async || listed(&address).await.is_ok()).await?;
    let before = front.memory_kib()?;
    let mut row = Row { system: "PushProx", clients, links_each: 1.0, links_each_returning: 1.0, ..Row::default() };

    let (began, cpu) = (Instant::now(), front.cpu()?);
    let mut crowd = Vec::new();
    for number in 0..clients {
        let (url, name) = (format!("--proxy-url=http://{address}/"), format!("--fqdn=c{number}"));
        crowd.push(Child::run(client, &[&url, &name, "--metrics-addr=127.0.0.1:0", "--log.level=error"])?);
    }
    until(async || listed(&address).await.is_ok_and(|listed| listed == clients)).await?;
    row.coming = Step::new(began, front.cpu()? - cpu, clients);
    let kib_each =
        |front: &Child| Ok::<_, BoxError>(front.memory_kib()?.saturating_sub(before) as f64 / clients as f64);
    row.kib_each[0] = kib_each(&front)?;
    sleep(SETTLED).await;
    let cpu = front.cpu()?;
    sleep(idle).await;
    row.idle_of_a_core = (front.cpu()? - cpu).as_secs_f64() / idle.as_secs_f64().max(f64::MIN_POSITIVE);
    row.kib_each[1] = kib_each(&front)?;

    drop(front);
    let front = start()?;
    let began = Instant::now();
    until(async || listed(&address).await.is_ok_and(|listed| listed == clients)).await?;
    row.returning = Step::new(began, front.cpu()?, clients);
    drop(crowd);
    row.left = listed(&address).await?;
    Ok(row)
}

/// Clients that the proxy knows.
async fn listed(address: &str) -> Result<usize, BoxError> {
    let list: Vec<serde_json::Value> = serde_json::from_str(&scrape::text(address, "/clients").await?)?;
    Ok(list.len())
}
