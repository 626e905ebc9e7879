//! The alias policy as a property. A [`Model`] is what one scraper alone would do; whatever keeps the table, and however many
//! scrapers share it, each step is answered as the model answers it, and leaves what the model has.
//!
//! One after another, steps are answered exactly so. Of two at once at two scrapers, each alias is decided by itself (a scraper may
//! know of one change of a registration elsewhere and not yet of the next): for each alias both answers, and what is left of it,
//! are those of one of the two orders.
//!
//! Not held to the model, as docs/group.md promises no more:
//! - `renewed_at`: a plain renewal that does not move the end of the lease is not written, so that others do not hear of it.
//! - Plain renewals that do move it are written every few seconds. Here each step is followed by a flush: the ends are exact.
//! - Limits, of two steps at once: they hold for what each scraper knows.

use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::access::AliasPolicy;

mod group;
mod model;
#[cfg(feature = "nats")]
mod nats_server;
mod race;
mod steps;

use group::{Group, Stores};
use model::Model;
use race::Race;
use steps::{GRACE, LEASE, RETENTION, Step};

/// A lease may outlast its renewal where scrapers share a store, by `slack`.
fn config(policy: AliasPolicy, max_targets: usize, slack: Duration) -> RegistryConfig {
    RegistryConfig {
        policy,
        max_targets,
        slack,
        lease: LEASE,
        retention: RETENTION,
        takeover_grace: GRACE,
        start_grace: 2 * GRACE,
        max_stale: (!slack.is_zero()).then_some(LEASE),
        ..RegistryConfig::default()
    }
}

fn policies() -> impl Strategy<Value = AliasPolicy> {
    proptest::sample::select(vec![AliasPolicy::Live, AliasPolicy::Pinned, AliasPolicy::Overwrite])
}

/// Tests the property with so many values. A failure is made smaller for a while, as each attempt may wait for its deadline.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl AsyncFn(S::Value))
where
    S::Value: std::fmt::Debug + Clone,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds");
    let config = ProptestConfig { cases, max_shrink_iters: 48, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&strategy, |value| {
        runtime.block_on(property(value));
        Ok(())
    });
    run.expect("holds");
}

/// Each step is answered by the scraper as by the model, and all scrapers then have what the model has.
async fn follow(group: &mut Group, model: &mut Model, steps: &[(usize, Step)]) {
    for (at, step) in steps {
        if let Step::Restart = step {
            group.restart().await;
        }
        let answer = group.apply(*at, step, model).await;
        assert_eq!(answer, model.apply(step), "{step:?} at {at}");
        let leases = model.leases();
        if let Err(tables) = group.agree(|table| table == leases).await {
            panic!("after {step:?} at {at}: expected {leases:#?}, but the tables are {tables:#?}");
        }
        group.assert_guarded_as(model, step);
    }
}

/// The same of steps one after another, at scrapers of which each has heard of the others.
fn check_steps(
    cases: u32,
    stores: impl AsyncFn() -> Stores,
    scrapers: usize,
    slack: Duration,
    step: impl Strategy<Value = Step>,
) {
    let steps = proptest::collection::vec((0..scrapers, step), 1..16);
    check(cases, (policies(), steps), async |(policy, steps)| {
        let config = config(policy, 4, slack);
        let mut group = Group::start(config.clone(), stores().await, scrapers).await;
        let mut model = Model::new(config, group.now());
        follow(&mut group, &mut model, &steps).await;
        group.stop().await;
    });
}

/// Of two steps at once at two scrapers both are answered as if one came first, and so is what comes after them.
fn check_races(cases: u32, stores: impl AsyncFn() -> Stores) {
    let steps = |count| proptest::collection::vec((0..2_usize, steps::steps()), count);
    let races = (steps::registrations(), steps::registrations());
    check(cases, (policies(), steps(0..8), races, steps(0..4)), async |(policy, before, (one, two), after)| {
        let config = config(policy, 100, LEASE);
        let mut group = Group::start(config.clone(), stores().await, 2).await;
        let began = group.now();
        let mut model = Model::new(config.clone(), began);
        follow(&mut group, &mut model, &before).await;

        let answers = tokio::join!(group.apply(0, &one, &model), group.apply(1, &two, &model));
        let race = Race { one, two, answers };
        let orders = [true, false].map(|is_one_first| {
            let mut model = Model::new(config.clone(), began);
            before.iter().for_each(|(_, step)| drop(model.apply(step)));
            race.order(model, is_one_first)
        });
        let settled = group.agree(|table| race.is_in_order(&orders, table)).await;
        let leases = settled.unwrap_or_else(|tables| {
            panic!("{race:#?} after {before:?} leaves {tables:#?}, neither of {orders:#?}");
        });
        // Each alias by itself may be in another order: what follows is known if one order holds for all.
        let in_order = orders.into_iter().find(|order| order.is(&race, &leases));
        if let Some(mut model) = in_order.map(race::Order::into_model) {
            follow(&mut group, &mut model, &after).await;
        }
        group.stop().await;
    });
}

#[test]
fn scrapers_that_hear_of_each_other_answer_as_one_scraper_would() {
    check_steps(64, async || Stores::in_memory(), 3, LEASE, steps::steps());
}

#[test]
fn of_two_steps_at_once_at_two_scrapers_both_are_answered_as_if_one_came_first() {
    check_races(192, async || Stores::in_memory());
}

#[test]
fn one_scraper_answers_as_its_table_would_through_restarts_of_its_store() {
    let steps = prop_oneof![6 => steps::steps(), 1 => Just(Step::Restart)];
    check_steps(24, async || Stores::on_disk(), 1, Duration::ZERO, steps);
}

#[cfg(feature = "nats")]
#[test]
fn scrapers_over_nats_answer_as_one_scraper_would() {
    let Some(server) = nats_server::NatsServer::start() else { return };
    check_steps(12, async || Stores::in_nats(&server), 3, LEASE, steps::steps());
}

#[cfg(feature = "nats")]
#[test]
fn of_two_steps_at_once_over_nats_both_are_answered_as_if_one_came_first() {
    let Some(server) = nats_server::NatsServer::start() else { return };
    check_races(16, async || Stores::in_nats(&server));
}
