//! The checks beside an exporter: everything between exporter and scrapers, in order.

use anyhow::Context;

use super::{
    super::{agent, data_dir, output::shortened},
    Flags,
    clock::{self, PeerTime},
    expected_peer::ExpectedPeer,
    exporter, files, link, long_packets, lookup, nat, node,
    presence::Presence,
    reachability, registering,
    report::{Check, Checks, Report},
    targets,
};
use crate::{
    identity::{PeerAddr, PublicKey, SharedSecret},
    wire::{Alias, Ticket},
};

/// Makes the checks of an agent with these flags.
pub(super) async fn examine(flags: &mut Flags, agent: &agent::Args, report: &mut Report) -> anyhow::Result<()> {
    let (check, secret) = if agent.ticket.is_given() {
        let (check, ticket) = files::ticket(&agent.ticket);
        (check, ticket.map(|ticket| flags.join_by(&ticket)))
    } else {
        files::secret(flags.secret_file.first().context("no secret file is given")?)
    };
    report.add(check)?;
    let flags = &*flags;
    let kept = |file| data_dir::kept(flags.data_dir.as_deref(), "agent", file);
    let own = match flags.key.clone().or_else(|| kept("agent.key")) {
        Some(path) => {
            let (check, key) = files::key(&path);
            report.add(check)?;
            key.map(|key| key.public())
        }
        None => {
            report.add(Check::skipped("key file", "there is none yet; an agent makes one at its first start"))?;
            None
        }
    };
    let (checks, targets) = targets::read(agent);
    checks.into_iter().try_for_each(|check| report.add(check))?;
    let aliases: Vec<Alias> = match &flags.alias[..] {
        [] => targets.iter().map(|spec| &spec.target.alias).chain(&agent.link.self_alias).cloned().collect(),
        asked => asked.to_vec(),
    };
    let presence = Presence::start(&flags.bootstrap, flags.mdns, kept("addresses"), flags.timeout).await?;
    let scrapers = flags.scraper.iter().filter(|scraper| scraper.hint.is_some());
    let scrapers = scrapers.map(|scraper| -> Checks<'_> {
        let what = flags.name("scraper", scraper);
        let presence = &presence;
        Box::pin(async move { reachability::reach(presence, &what, scraper, ExpectedPeer::Scraper).await })
    });
    let checks = exporter::checks(&targets, flags.timeout).into_iter().chain(node::checks(&presence)).chain(scrapers);
    report.add_all(checks).await?;
    report.add(nat::kind(&presence).await)?;
    let (mut peer_time, mut found) = (None, None);
    for scraper in &flags.scraper {
        let (look_up, announced) = lookup::find(&presence, flags.name("look-up", scraper), &scraper.key).await;
        report.add(look_up)?;
        let link = link::check(&presence, flags.name("link", scraper), scraper, announced.as_ref()).await;
        let linked = link.is_ok();
        report.add(link)?;
        let secret = secret.as_ref().filter(|_| linked);
        let time = flags.register(report, &presence, scraper, secret, own, &aliases).await?;
        if let Some(secret) = secret {
            let name = |transport: &str| flags.name(&format!("long packets, {transport}"), scraper);
            report.add_all([long_packets::checks(&presence, name, scraper, secret)]).await?;
        }
        (peer_time, found) = (peer_time.or(time), found.or(announced));
    }
    report.add(clock::check(peer_time, found.as_ref(), "the scraper's announcement fits it, to an hour"))?;
    report.add(nat::dial_back(&presence).await)?;
    presence.end().await;
    Ok(())
}

impl Flags {
    /// Checks the handshake and the aliases. Both need a link and a secret.
    async fn register(
        &self,
        report: &mut Report,
        presence: &Presence,
        scraper: &PeerAddr,
        secret: Option<&SharedSecret>,
        own: Option<PublicKey>,
        aliases: &[Alias],
    ) -> anyhow::Result<Option<PeerTime>> {
        let name = |alias: &Alias| self.name(&format!("alias {alias}"), scraper);
        let (handshake, channel) = match secret {
            Some(secret) => {
                let name = self.name("secret", scraper);
                registering::handshake(presence, name, &scraper.key, ExpectedPeer::Scraper, secret).await
            }
            None => {
                (Check::skipped(self.name("secret", scraper), "it takes a link to the scraper and a secret file"), None)
            }
        };
        report.add(handshake)?;
        let (checks, time) = match channel {
            Some(channel) => registering::aliases(channel, self.timeout, name, own, aliases).await,
            None => {
                let skipped = |alias| Check::skipped(name(alias), "it takes an accepted secret");
                (aliases.iter().map(skipped).collect(), None)
            }
        };
        checks.into_iter().try_for_each(|check| report.add(check))?;
        Ok(time)
    }

    /// Takes the scrapers, each at its first address, and the nodes of a ticket; its secret.
    fn join_by(&mut self, ticket: &Ticket) -> SharedSecret {
        for scraper in ticket.scrapers() {
            if self.scraper.iter().all(|known| known.key != scraper.key) {
                self.scraper.push(scraper.clone());
            }
        }
        self.bootstrap.extend(ticket.bootstrap().iter().cloned());
        ticket.secret().clone()
    }

    /// The name of a check. With several scrapers the name includes the scraper.
    fn name(&self, check: &str, scraper: &PeerAddr) -> String {
        match self.scraper.len() {
            1 => check.to_owned(),
            _ => format!("{check} at {}", shortened(&scraper.key)),
        }
    }
}
