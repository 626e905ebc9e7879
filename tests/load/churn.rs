//! Targets and agents that come and go for long, under a real Prometheus.

use std::{
    collections::BTreeSet,
    env,
    fmt::Display,
    time::{Duration, Instant},
};

use crate::{
    MACHINE,
    agents::{self, Agent},
    support::{
        PROMETHEUS_NOTICES, SOON, eventually_true,
        exporter::Exporter,
        fleet::{Fleet, Scraper},
        peers::Monitor,
        process::Process,
        random::Random,
    },
};

/// The first of them is never touched.
const AGENTS: usize = 8;
const MOST_TARGETS: usize = 30;
const INTERVAL_S: u32 = 2;
const REGISTRATIONS: &str = "narthex_registrations_total";
/// In `tests/run`; `NARTHEX_CHURN_SECONDS` is for longer.
const USUAL_SECONDS: u64 = 20;
/// What the same fleet may cost more at the end than halfway: allocators and connection pools breathe.
const BREATH_KIB: u64 = 12 * 1024;
const BREATH_DESCRIPTORS: usize = 2 * AGENTS * MOST_TARGETS;

#[test]
fn a_fleet_that_changes_for_long_is_listed_exactly_and_costs_no_more_at_its_end() {
    let _alone = MACHINE.blocking_lock();
    let seconds = env::var("NARTHEX_CHURN_SECONDS").map_or(USUAL_SECONDS, |text| text.parse().expect("seconds"));
    let fleet = Fleet::new();
    let scraper = fleet.scraper(&[]);
    let exporter = agents::exporter();
    let mut churn = Churn::start(&fleet, &scraper, &exporter);
    churn.wait_listed();
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &agents::scrape_config(&scraper, INTERVAL_S), &[])
    else {
        return;
    };
    churn.wait_up(&prometheus);

    let began = Instant::now();
    let start = churn.cost("start");
    churn.go_on_until(began + Duration::from_secs(seconds) / 2);
    churn.wait_up(&prometheus);
    let middle = churn.cost("middle");
    churn.go_on_until(began + Duration::from_secs(seconds));
    churn.wait_up(&prometheus);
    let end = churn.cost("end");
    report(&format!("{churn}; scrapes of the untouched agent: {}", untouched(&prometheus)));

    for (name, start, middle, end) in [
        ("scraper", &start.scraper, &middle.scraper, &end.scraper),
        ("untouched agent", &start.agent, &middle.agent, &end.agent),
    ] {
        let most = middle.memory_kib.max(start.memory_kib) + BREATH_KIB;
        assert!(end.memory_kib <= most, "{name}: {} KiB, after {} halfway", end.memory_kib, middle.memory_kib);
        let most = middle.descriptors.max(start.descriptors) + BREATH_DESCRIPTORS;
        assert!(end.descriptors <= most, "{name}: {} descriptors, after {}", end.descriptors, middle.descriptors);
    }
}

/// The fleet, and what it must look like.
struct Churn<'a> {
    fleet: &'a Fleet,
    scraper: &'a Scraper,
    exporter: &'a Exporter,
    agents: Vec<Agent>,
    /// The targets of each agent.
    targets: Vec<usize>,
    /// Of every change; the same in each run.
    random: Random,
    changes: usize,
    kills: usize,
    ends: usize,
}

impl<'a> Churn<'a> {
    fn start(fleet: &'a Fleet, scraper: &'a Scraper, exporter: &'a Exporter) -> Self {
        let targets = vec![MOST_TARGETS / 2; AGENTS];
        let start = |number| {
            Agent::start(fleet, scraper, exporter, format!("agent-{number}"), aliases(number, targets[number]))
        };
        let agents = (0..AGENTS).map(start).collect();
        Self { fleet, scraper, exporter, agents, targets, random: Random(1), changes: 0, kills: 0, ends: 0 }
    }

    /// Changes, ends and kills agents, and sees each time that the list is exactly what it should be.
    fn go_on_until(&mut self, end: Instant) {
        while Instant::now() < end {
            let number = 1 + self.random.below(AGENTS - 1);
            match self.random.below(4) {
                0 => {
                    self.agents[number].process.terminate(SOON);
                    let left = |agent| aliases(agent, if agent == number { 0 } else { self.targets[agent] });
                    self.wait_listed_as(&(0..AGENTS).flat_map(left).collect());
                    self.agents[number].restart(self.fleet, self.scraper);
                    self.ends += 1;
                }
                1 => {
                    self.agents[number].process.kill();
                    let registrations = self.scraper.count(&[REGISTRATIONS]);
                    self.agents[number].restart(self.fleet, self.scraper);
                    // An agent that has not registered releases nothing when it ends.
                    self.scraper.wait_scraped(&format!("t-{number}-0"));
                    self.scraper.wait_counted(&[REGISTRATIONS], registrations);
                    self.kills += 1;
                }
                _ => {
                    self.targets[number] = 1 + self.random.below(MOST_TARGETS);
                    let aliases = aliases(number, self.targets[number]);
                    self.agents[number].serve("first.json", self.exporter, aliases);
                    self.changes += 1;
                }
            }
            self.wait_listed();
        }
    }

    fn wait_listed(&self) {
        self.wait_listed_as(&(0..AGENTS).flat_map(|number| aliases(number, self.targets[number])).collect());
    }

    fn wait_listed_as(&self, expected: &BTreeSet<String>) {
        let listed = || self.scraper.listed().is_some_and(|listed| listed.keys().eq(expected.iter()));
        eventually_true("the list is what the agents serve", SOON, listed);
    }

    fn wait_up(&self, prometheus: &Monitor) {
        let all = self.targets.iter().sum::<usize>() as f64;
        let up = || prometheus.query("count(up == 1)").first().map_or(0.0, |(_, value)| *value);
        eventually_true("all are up", PROMETHEUS_NOTICES, || up() == all);
    }

    fn cost(&self, when: &str) -> Costs {
        let costs = Costs { scraper: Cost::of(&self.scraper.process), agent: Cost::of(&self.agents[0].process) };
        report(&format!("{when}: scraper {}, untouched agent {}", costs.scraper, costs.agent));
        costs
    }
}

impl Display for Churn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} changes, {} ends, {} kills", self.changes, self.ends, self.kills)
    }
}

struct Costs {
    scraper: Cost,
    agent: Cost,
}

struct Cost {
    memory_kib: u64,
    descriptors: usize,
}

impl Cost {
    fn of(process: &Process) -> Self {
        Self { memory_kib: process.memory_kib(), descriptors: process.descriptors() }
    }
}

impl Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} KiB, {} descriptors", self.memory_kib, self.descriptors)
    }
}

fn aliases(agent: usize, targets: usize) -> impl Iterator<Item = String> {
    (0..targets).map(move |target| format!("t-{agent}-{target}"))
}

/// How many scrapes of the agent that nobody touched failed, of how many.
fn untouched(prometheus: &Monitor) -> String {
    let count = |expression: &str| prometheus.query(expression).first().map_or(0.0, |(_, value)| *value);
    let all = count("sum(count_over_time(up{instance=~\"t-0-.*\"}[2h]))");
    let good = count("sum(sum_over_time(up{instance=~\"t-0-.*\"}[2h]))");
    format!("{all}, failed {}", all - good)
}

#[expect(clippy::print_stdout, reason = "the figures are what a long run is for")]
fn report(line: &str) {
    println!("churn: {line}");
}
