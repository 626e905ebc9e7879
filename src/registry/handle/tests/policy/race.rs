//! Two steps at once, and the two orders that they may have been in.

use super::{
    model::{Answer, Model},
    steps::{ALIASES, Step},
    *,
};

#[derive(Debug)]
pub(super) struct Race {
    pub(super) one: Step,
    pub(super) two: Step,
    pub(super) answers: (Answer, Answer),
}

/// One after the other, in the model.
#[derive(Debug)]
pub(super) struct Order {
    model: Model,
    answers: (Answer, Answer),
}

impl Race {
    /// What the model answers in this order.
    pub(super) fn order(&self, mut model: Model, is_one_first: bool) -> Order {
        let answers = if is_one_first {
            let one = model.apply(&self.one);
            (one, model.apply(&self.two))
        } else {
            let two = model.apply(&self.two);
            (model.apply(&self.one), two)
        };
        Order { model, answers }
    }

    /// True if each alias is as in one of the orders.
    pub(super) fn is_in_order(&self, orders: &[Order], leases: &[Lease]) -> bool {
        ALIASES.iter().all(|alias| orders.iter().any(|order| order.is_of(self, alias, leases)))
    }

    /// What both were answered of an alias.
    fn answered(&self, (one, two): &(Answer, Answer), alias: &str) -> [Option<AliasOutcome>; 2] {
        [answered(&self.one, one, alias), answered(&self.two, two, alias)]
    }
}

impl Order {
    /// True if all aliases are as in this order.
    pub(super) fn is(&self, race: &Race, leases: &[Lease]) -> bool {
        ALIASES.iter().all(|alias| self.is_of(race, alias, leases))
    }

    pub(super) fn into_model(self) -> Model {
        self.model
    }

    fn is_of(&self, race: &Race, alias: &str, leases: &[Lease]) -> bool {
        let answers = race.answered(&self.answers, alias) == race.answered(&race.answers, alias);
        let left = self.model.leases();
        let of = |leases: &[Lease]| leases.iter().find(|lease| lease.alias.as_str() == alias).cloned();
        answers && of(&left) == of(leases)
    }
}

/// The answer of an alias without what is only for information: a step that was decided twice finds granted what it was granted
/// at first, and released what it has released.
fn answered(step: &Step, answer: &Answer, of: &str) -> Option<AliasOutcome> {
    let (Step::Register { aliases, .. }, Answer::Registered(outcomes)) = (step, answer) else { return None };
    let (_, outcome) = aliases.iter().zip(outcomes).find(|(alias, _)| **alias == of)?;
    Some(if matches!(outcome, AliasOutcome::Granted { .. }) { RENEWED } else { outcome.clone() })
}
