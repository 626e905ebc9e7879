//! The indexes of a table, which agree with its entries at all times.

use std::time::SystemTime;

use super::{Entry, OfSecret, Table, Tenant};
use crate::{identity::SecretId, registry::lease::later};

impl Table {
    pub(super) fn of_secret(&self, secret: &SecretId) -> OfSecret {
        self.by_secret.get(secret).copied().unwrap_or_default()
    }

    /// What all secrets of the tenant have.
    pub(super) fn of_tenant(&self, tenant: &Tenant) -> OfSecret {
        let others = tenant.kin.iter().filter(|id| **id != tenant.secret);
        let all = others.chain([&tenant.secret]).map(|id| self.of_secret(id));
        all.fold(OfSecret::default(), |sum, has| OfSecret {
            aliases: sum.aliases + has.aliases,
            bytes: sum.bytes + has.bytes,
        })
    }

    /// Inserts the entry, replacing the alias's previous one.
    pub(super) fn insert(&mut self, entry: Entry) {
        let alias = entry.lease.alias.clone();
        self.ended.take(&alias);
        if let Some(old) = self.entries.remove(&alias) {
            self.unindex(&old);
        }
        self.by_peer.entry(entry.lease.peer).or_default().insert(alias.clone());
        if let Some(secret) = entry.lease.secret {
            let of_secret = self.by_secret.entry(secret).or_default();
            of_secret.aliases += 1;
            of_secret.bytes += entry.bytes;
        }
        self.due.insert((self.due_at(&entry), alias.clone()));
        self.lapsed += usize::from(entry.lapsed);
        self.bytes += entry.bytes;
        self.entries.insert(alias, entry);
    }

    /// Removes an entry from the other indexes after its removal from `entries`.
    pub(super) fn unindex(&mut self, entry: &Entry) {
        let alias = &entry.lease.alias;
        self.due.remove(&(self.due_at(entry), alias.clone()));
        self.lapsed -= usize::from(entry.lapsed);
        if let Some(secret) = entry.lease.secret
            && let Some(of_secret) = self.by_secret.get_mut(&secret)
        {
            of_secret.aliases -= 1;
            of_secret.bytes -= entry.bytes;
            if of_secret.aliases == 0 {
                self.by_secret.remove(&secret);
            }
        }
        self.bytes -= entry.bytes;
        if let Some(aliases) = self.by_peer.get_mut(&entry.lease.peer) {
            aliases.remove(alias);
            if aliases.is_empty() {
                self.by_peer.remove(&entry.lease.peer);
            }
        }
    }

    pub(super) fn due_at(&self, entry: &Entry) -> SystemTime {
        let expires_at = entry.lease.expires_at;
        if entry.lapsed { later(expires_at, self.config.retention) } else { expires_at }
    }
}
