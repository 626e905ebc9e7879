//! A scraper with a thousand clients is killed and started again: every client registers again and answers.
#![expect(clippy::print_stdout, reason = "what it cost is printed on demand")]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    MACHINE,
    clients::{Clients, alias},
    support::{
        SOON, eventually_true,
        fleet::{Fleet, Scraper},
    },
};

const CLIENTS: usize = 1000;
/// The scraper's limit on handshakes in flight.
const MOST_HANDSHAKES: f64 = 512.0;
/// Scrapes in flight while everybody is asked.
const AT_ONCE: usize = 16;
/// In a debug build, beside other tests.
const AT_LAST: Duration = Duration::from_secs(300);

#[test]
fn a_thousand_clients_are_back_after_their_scraper_was_killed() {
    let _alone = MACHINE.blocking_lock();
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let began = Instant::now();
    let _clients = Clients::start(&fleet, &scraper, CLIENTS);
    eventually_true("all register", AT_LAST, || all_are_back(&scraper));
    report("first registered", began, &scraper);
    everybody_answers(&scraper);

    scraper.process.kill();
    scraper.restart();
    let began = Instant::now();
    eventually_true("all are back", AT_LAST, || all_are_back(&scraper));
    report("back after the kill", began, &scraper);
    everybody_answers(&scraper);
    eventually_true("they stay", AT_LAST, || all_are_back(&scraper));
    let peak = scraper.count(&["narthex_handshakes_in_flight_peak"]);
    assert!(peak > 0.0 && peak <= MOST_HANDSHAKES, "{peak} handshakes at once");
    println!("the scraper's peak memory: {} MiB", scraper.process.peak_memory_kib() / 1024);
}

/// Every client is linked and has registered with this process.
fn all_are_back(scraper: &Scraper) -> bool {
    let all = |count: f64| count as usize == CLIENTS;
    let registered = ["updated", "renewed"].map(|outcome| scraper.count(&["narthex_registrations_total", outcome]));
    registered.iter().sum::<f64>() as usize >= CLIENTS
        && all(scraper.count(&["narthex_aliases", "active"]))
        && all(scraper.count(&["narthex_links", "direct"]))
}

/// One scrape of each. A starved ping may cost a link: a client that failed is scraped again, and few may fail.
#[track_caller]
fn everybody_answers(scraper: &Scraper) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= CLIENTS {
                        return;
                    }
                    let answer = scraper.scrape(&alias(number), SOON);
                    if answer.status != 200 {
                        wrong.lock().expect("sound").push((number, answer.status, answer.text()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("sound");
    println!("scrapes that failed: {} of {CLIENTS}", wrong.len());
    assert!(wrong.len() <= CLIENTS / 100, "{} of {CLIENTS} did not answer, such as {:?}", wrong.len(), wrong[0]);
    for (number, ..) in wrong {
        scraper.wait_scraped(&alias(number));
    }
}

fn report(what: &str, began: Instant, scraper: &Scraper) {
    println!("{what}: {:?}", began.elapsed());
    for (name, value) in scraper.samples() {
        if name.contains("in_flight_peak") || name.contains("refus") && value > 0.0 {
            println!("  {name} {value}");
        }
    }
}
