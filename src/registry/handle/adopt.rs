//! What other scrapers have changed in a shared store, taken over into the table.

use std::time::SystemTime;

use super::{Registry, State};
use crate::registry::{Cause, Foreign, Note, SharedEvent, shared::Position, table::Effects};

impl Registry {
    /// Takes an event of a shared store over.
    pub(super) fn take_event(&self, event: SharedEvent, now: SystemTime) {
        let mut state = self.write();
        let mut effects = Effects::default();
        let SharedEvent { changes, lost, at, reset } = event;
        if let Some(heard_to) = reset {
            state.position = Position::new(at);
            effects.notes.push(Note::Reset);
            if let Some(table) = &mut state.table {
                table.merge(changes, heard_to, now, &mut effects);
            }
        } else {
            if let State { table: Some(table), position, .. } = &mut *state {
                for foreign in changes.into_iter().filter(|foreign| position.take(foreign)) {
                    table.adopt(foreign, now, &mut effects);
                }
                lost.into_iter().for_each(|name| table.restore(name, at, now, &mut effects));
            }
            state.position.reach(at);
        }
        effects.notes.push(Note::Reached(at));
        let notification = self.publish(&mut state, effects, Cause::Elsewhere, None);
        drop(state);
        self.notify(notification);
    }

    /// Adopts what stands in place of changes that were not applied.
    pub(super) fn adopt(&self, overtaken: Vec<Foreign>) {
        let mut state = self.write();
        let mut effects = Effects::default();
        if let State { table: Some(table), position, .. } = &mut *state {
            for foreign in overtaken {
                if position.take_in_place_of_ours(&foreign) {
                    table.adopt(foreign, self.shared.clock.now(), &mut effects);
                }
            }
        }
        let notification = self.publish(&mut state, effects, Cause::Elsewhere, None);
        drop(state);
        self.notify(notification);
    }
}
