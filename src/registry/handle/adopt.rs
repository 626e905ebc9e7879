//! What other scrapers have changed in a shared store, taken over into the table.

use std::time::SystemTime;

use super::{Registry, State};
use crate::registry::{Foreign, Note, SharedEvent, shared::Position, table::Effects};

impl Registry {
    /// Takes an event of a shared store over.
    pub(super) fn take_event(&self, event: SharedEvent, now: SystemTime) {
        let mut state = self.write();
        let mut effects = Effects::default();
        match event {
            SharedEvent::Changed { changes, at } => {
                Self::adopt_news(&mut state, changes, now, &mut effects);
                state.position.reach(at);
                effects.notes.push(Note::Reached(at));
            }
            SharedEvent::Reset { all, at } => {
                state.position = Position::new(at);
                effects.notes.push(Note::Reset);
                if let Some(table) = &mut state.table {
                    table.merge(all, now, &mut effects);
                }
                effects.notes.push(Note::Reached(at));
            }
        }
        let notification = self.publish(&mut state, effects, None);
        drop(state);
        self.notify(notification);
    }

    /// Adopts what stands in place of changes that were not applied.
    pub(super) fn adopt(&self, overtaken: Vec<Foreign>) {
        let mut state = self.write();
        let mut effects = Effects::default();
        Self::adopt_news(&mut state, overtaken, SystemTime::now(), &mut effects);
        let notification = self.publish(&mut state, effects, None);
        drop(state);
        self.notify(notification);
    }

    fn adopt_news(state: &mut State, changes: Vec<Foreign>, now: SystemTime, effects: &mut Effects) {
        let State { table: Some(table), position, .. } = state else { return };
        for foreign in changes {
            if position.take(&foreign) {
                table.adopt(foreign, now, effects);
            }
        }
    }
}
