//! The checks beside an exporter: everything between exporter and scrapers, in order.

use std::{path::PathBuf, time::Duration};

use super::{
    super::agent,
    clock::{self, PeerTime},
    expected_peer::ExpectedPeer,
    exporter, files, link, lookup, nat, node,
    presence::Presence,
    reachability, registering,
    report::{Check, Checks, Report},
    short, targets,
};
use crate::{
    agent::TargetSpec,
    identity::{PeerAddr, PublicKey, SharedSecret},
    wire::Alias,
};

/// The settings of an agent.
pub(super) struct ClientSide {
    /// Longest wait for each answer.
    pub(super) wait: Duration,
    pub(super) scrapers: Vec<PeerAddr>,
    pub(super) nodes: Vec<PeerAddr>,
    pub(super) mdns: bool,
    pub(super) secret_file: PathBuf,
    /// The agent's key file, if one is named or exists.
    pub(super) key_file: Option<PathBuf>,
    /// The agent's file of known addresses, if the file exists.
    pub(super) addresses_file: Option<PathBuf>,
    /// Everything else of the agent: its targets, for one.
    pub(super) agent: agent::Args,
    /// Aliases to ask about; none means those that the agent registers.
    pub(super) aliases: Vec<Alias>,
}

impl ClientSide {
    pub(super) async fn examine(&self, report: &mut Report) -> anyhow::Result<()> {
        let (check, secret) = files::secret(&self.secret_file);
        report.add(check)?;
        let own = match &self.key_file {
            Some(path) => {
                let (check, key) = files::key(path);
                report.add(check)?;
                key.map(|key| key.public())
            }
            None => {
                report.add(Check::skipped("key file", "there is none yet; an agent makes one at its first start"))?;
                None
            }
        };
        let (checks, targets) = targets::read(&self.agent);
        checks.into_iter().try_for_each(|check| report.add(check))?;
        let aliases = self.aliases(&targets);
        let presence = Presence::start(&self.nodes, self.mdns, self.addresses_file.clone(), self.wait).await?;
        let scrapers = self.scrapers.iter().filter(|scraper| scraper.hint.is_some());
        let scrapers = scrapers.map(|scraper| -> Checks<'_> {
            let what = self.name("scraper", scraper);
            let presence = &presence;
            Box::pin(async move { reachability::reach(presence, &what, scraper, ExpectedPeer::Scraper).await })
        });
        let checks = exporter::checks(&targets, self.wait).into_iter().chain(node::checks(&presence)).chain(scrapers);
        report.add_all(checks).await?;
        report.add(nat::kind(&presence).await)?;
        let (mut peer_time, mut found) = (None, None);
        for scraper in &self.scrapers {
            let (look_up, announced) = lookup::find(&presence, self.name("look-up", scraper), &scraper.key).await;
            report.add(look_up)?;
            let link = link::check(&presence, self.name("link", scraper), scraper, announced.as_ref()).await;
            let linked = link.is_ok();
            report.add(link)?;
            let secret = secret.as_ref().filter(|_| linked);
            let time = self.register(report, &presence, scraper, secret, own, &aliases).await?;
            (peer_time, found) = (peer_time.or(time), found.or(announced));
        }
        report.add(clock::check(peer_time, found.as_ref(), "the scraper's announcement fits it, to an hour"))?;
        report.add(nat::dial_back(&presence).await)?;
        presence.end().await;
        Ok(())
    }

    /// The aliases to ask about.
    fn aliases(&self, targets: &[TargetSpec]) -> Vec<Alias> {
        if !self.aliases.is_empty() {
            return self.aliases.clone();
        }
        targets.iter().map(|spec| &spec.target.alias).chain(&self.agent.link.self_alias).cloned().collect()
    }

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
            Some(channel) => registering::aliases(channel, self.wait, name, own, aliases).await,
            None => {
                let skipped = |alias| Check::skipped(name(alias), "it takes an accepted secret");
                (aliases.iter().map(skipped).collect(), None)
            }
        };
        checks.into_iter().try_for_each(|check| report.add(check))?;
        Ok(time)
    }

    /// The name of a check. With several scrapers the name includes the scraper.
    fn name(&self, check: &str, scraper: &PeerAddr) -> String {
        match self.scrapers.len() {
            1 => check.to_owned(),
            _ => format!("{check} at {}", short(&scraper.key)),
        }
    }
}
