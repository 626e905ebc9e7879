//! The group's list for a command, at each change: a host that came, went or was heard of no more, or other labels.

use std::{iter, time::Duration};

use bytes::Bytes;
use tokio::time;

use super::member::Member;
use crate::{
    hook::Lists,
    lobby::{Group, Host},
};

/// The lists of a member, as `/v1/discoveries` answers, in one line.
pub(super) struct Changes {
    member: Member,
    /// The pause between two looks.
    every: Duration,
    /// Names and labels of the last list.
    last: Option<Vec<(String, Vec<String>)>>,
}

impl Changes {
    pub(super) fn new(member: Member, every: Duration) -> Self {
        Self { member, every, last: None }
    }

    /// The list, if it says something else than the last one. When a host last said hi is no change.
    fn taken(&mut self, hosts: &[Host]) -> Option<Bytes> {
        let said = hosts.iter().map(|host| (host.hostname.clone(), host.labels.clone())).collect();
        if self.last.as_ref() == Some(&said) {
            return None;
        }
        self.last = Some(said);
        Some(serde_json::to_vec(hosts).expect("text is JSON").into())
    }
}

impl Lists for Changes {
    type List = iter::Once<Bytes>;

    async fn next(&mut self) -> Self::List {
        loop {
            if let Ok(hosts) = self.member.hosts().await
                && let Some(list) = self.taken(&hosts)
            {
                return iter::once(list);
            }
            time::sleep(self.every).await;
        }
    }
}
