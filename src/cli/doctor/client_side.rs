//! Beside an exporter: everything between it and the scrapers, in the order of the chain.

use std::{path::PathBuf, time::Duration};

use super::{
    super::agent,
    clock::{self, Told},
    exporter, files, link, lookup, nat, node, place,
    presence::Presence,
    registering,
    report::{Check, Checks, Report},
    short, targets,
    whose::Whose,
};
use crate::{
    agent::TargetSpec,
    identity::{PeerAddr, PublicKey, SharedSecret},
    wire::Alias,
};

/// What an agent would be given.
pub(super) struct ClientSide {
    /// For each answer.
    pub(super) wait: Duration,
    pub(super) scrapers: Vec<PeerAddr>,
    pub(super) nodes: Vec<PeerAddr>,
    pub(super) mdns: bool,
    pub(super) secret_file: PathBuf,
    /// The agent's key file, if there should be one.
    pub(super) key_file: Option<PathBuf>,
    /// The file where the agent keeps addresses, if it is there.
    pub(super) addresses_file: Option<PathBuf>,
    /// What it registers.
    pub(super) agent: agent::Args,
    /// Those to ask about; none means those that the agent registers.
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
        let places = self.scrapers.iter().filter(|scraper| scraper.hint.is_some());
        let places = places.map(|scraper| -> Checks<'_> {
            let what = self.name("scraper", scraper);
            let presence = &presence;
            Box::pin(async move { place::reach(presence, &what, scraper, Whose::Scraper).await })
        });
        let checks = exporter::checks(&targets, self.wait).into_iter().chain(node::checks(&presence)).chain(places);
        report.add_all(checks).await?;
        report.add(nat::kind(&presence).await)?;
        let (mut told, mut found) = (None, None);
        for scraper in &self.scrapers {
            let place = lookup::find(&presence, self.name("look-up", scraper), &scraper.key).await;
            report.add(place.0)?;
            let link = link::check(&presence, self.name("link", scraper), scraper, place.1.as_ref()).await;
            let linked = link.is_ok();
            report.add(link)?;
            let secret = secret.as_ref().filter(|_| linked);
            let time = self.register(report, &presence, scraper, secret, own, &aliases).await?;
            (told, found) = (told.or(time), found.or(place.1));
        }
        report.add(clock::check(told, found.as_ref(), "the scraper's announcement fits it, to an hour"))?;
        report.add(nat::dial_back(&presence).await)?;
        presence.end().await;
        Ok(())
    }

    /// Those to ask about.
    fn aliases(&self, targets: &[TargetSpec]) -> Vec<Alias> {
        if !self.aliases.is_empty() {
            return self.aliases.clone();
        }
        targets.iter().map(|spec| &spec.target.alias).chain(&self.agent.link.self_alias).cloned().collect()
    }

    /// The handshake, and the aliases; without a link or a secret neither can be tried.
    async fn register(
        &self,
        report: &mut Report,
        presence: &Presence,
        scraper: &PeerAddr,
        secret: Option<&SharedSecret>,
        own: Option<PublicKey>,
        aliases: &[Alias],
    ) -> anyhow::Result<Option<Told>> {
        let name = |alias: &Alias| self.name(&format!("alias {alias}"), scraper);
        let (shaken, channel) = match secret {
            Some(secret) => {
                let name = self.name("secret", scraper);
                registering::handshake(presence, name, &scraper.key, Whose::Scraper, secret).await
            }
            None => {
                (Check::skipped(self.name("secret", scraper), "it takes a link to the scraper and a secret file"), None)
            }
        };
        report.add(shaken)?;
        let (checks, told) = match channel {
            Some(channel) => registering::aliases(channel, self.wait, name, own, aliases).await,
            None => {
                let skipped = |alias| Check::skipped(name(alias), "it takes an accepted secret");
                (aliases.iter().map(skipped).collect(), None)
            }
        };
        checks.into_iter().try_for_each(|check| report.add(check))?;
        Ok(told)
    }

    /// With several scrapers a check names the one that it is of.
    fn name(&self, check: &str, scraper: &PeerAddr) -> String {
        match self.scrapers.len() {
            1 => check.to_owned(),
            _ => format!("{check} at {}", short(&scraper.key)),
        }
    }
}
