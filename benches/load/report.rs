//! Medians, as a table and as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::{BoxError, scrape::Measured};

/// One combination of clients, size and concurrency.
pub(crate) struct Cell {
    name: &'static str,
    clients: usize,
    size: usize,
    at_once: usize,
    gzip_level: u8,
    pub(crate) direct: Vec<Measured>,
    pub(crate) through: Vec<Measured>,
    /// CPU seconds for 1000 scrapes: scraper, clients.
    pub(crate) cpu: Vec<(f64, f64)>,
    /// Peak memory so far: scraper, clients.
    pub(crate) peak_kib: (u64, u64),
}

impl Cell {
    pub(crate) fn new(clients: usize, size: usize, at_once: usize) -> Self {
        let (direct, through, cpu) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: "scrape", clients, size, at_once, gzip_level: 0, direct, through, cpu, peak_kib: (0, 0) }
    }

    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub(crate) fn gzip(mut self, level: u8) -> Self {
        self.gzip_level = level;
        self
    }

    fn row(&self) -> Row {
        let median_of = |runs: &[Measured], what: &dyn Fn(&Measured) -> f64| median(runs.iter().map(what));
        let ratios = |what: &dyn Fn(&Measured) -> f64| {
            median(self.through.iter().zip(&self.direct).map(|(through, direct)| what(through) / what(direct)))
        };
        Row {
            what: self.name,
            clients: self.clients,
            bytes: self.size,
            at_once: self.at_once,
            gzip_level: self.gzip_level,
            through_bytes: median_of(&self.through, &Measured::bytes_each),
            direct_per_s: median_of(&self.direct, &Measured::per_second),
            through_per_s: median_of(&self.through, &Measured::per_second),
            throughput_ratio: ratios(&Measured::per_second),
            direct_p50_ms: median_of(&self.direct, &|run| run.percentile_ms(0.5)),
            through_p50_ms: median_of(&self.through, &|run| run.percentile_ms(0.5)),
            p50_ratio: ratios(&|run| run.percentile_ms(0.5)),
            through_p99_ms: median_of(&self.through, &|run| run.percentile_ms(0.99)),
            scraper_cpu_s_per_1000: median(self.cpu.iter().map(|cpu| cpu.0)),
            client_cpu_s_per_1000: median(self.cpu.iter().map(|cpu| cpu.1)),
            scraper_peak_mib: self.peak_kib.0 / 1024,
            clients_peak_mib: self.peak_kib.1 / 1024,
        }
    }
}

#[derive(Serialize)]
struct Row {
    what: &'static str,
    clients: usize,
    bytes: usize,
    at_once: usize,
    gzip_level: u8,
    through_bytes: f64,
    direct_per_s: f64,
    through_per_s: f64,
    throughput_ratio: f64,
    direct_p50_ms: f64,
    through_p50_ms: f64,
    p50_ratio: f64,
    through_p99_ms: f64,
    scraper_cpu_s_per_1000: f64,
    client_cpu_s_per_1000: f64,
    scraper_peak_mib: u64,
    clients_peak_mib: u64,
}

#[derive(Serialize)]
struct Links {
    clients: usize,
    registered_in_s: f64,
    kib_per_link: f64,
    idle_cpu_of_a_core: Option<f64>,
}

#[derive(Default, Serialize)]
pub(crate) struct Report {
    links: Vec<Links>,
    cells: Vec<Row>,
}

impl Report {
    pub(crate) fn links(&mut self, clients: usize, took: Duration, before_kib: u64, after_kib: u64) {
        let kib_per_link = after_kib.saturating_sub(before_kib) as f64 / clients as f64;
        let registered_in_s = took.as_secs_f64();
        eprintln!("{clients} clients registered in {registered_in_s:.2} s, {kib_per_link:.1} KiB per link");
        self.links.push(Links { clients, registered_in_s, kib_per_link, idle_cpu_of_a_core: None });
    }

    pub(crate) fn idle(&mut self, of_a_core: f64) {
        eprintln!("idle: {:.2} % of a core", of_a_core * 100.0);
        if let Some(links) = self.links.last_mut() {
            links.idle_cpu_of_a_core = Some(of_a_core);
        }
    }

    pub(crate) fn cell(&mut self, cell: Cell) {
        let row = cell.row();
        eprintln!(
            "{} {} B x {} over {} clients, gzip {}: {:.3} of direct",
            row.what, row.bytes, row.at_once, row.clients, row.gzip_level, row.throughput_ratio
        );
        self.cells.push(row);
    }

    pub(crate) fn print(&self) -> Result<(), BoxError> {
        println!(
            "| | clients | bytes | at once | gzip | bytes through | direct/s | through/s | ratio | direct p50 ms | p50 ms | p50 ratio | p99 ms | CPU s per 1000: scraper | client | peak MiB: scraper | clients |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for row in &self.cells {
            println!(
                "| {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} | {:.3} | {:.3} | {} | {} |",
                row.what,
                row.clients,
                row.bytes,
                row.at_once,
                row.gzip_level,
                row.through_bytes,
                row.direct_per_s,
                row.through_per_s,
                row.throughput_ratio,
                row.direct_p50_ms,
                row.through_p50_ms,
                row.p50_ratio,
                row.through_p99_ms,
                row.scraper_cpu_s_per_1000,
                row.client_cpu_s_per_1000,
                row.scraper_peak_mib,
                row.clients_peak_mib,
            );
        }
        println!("\n| clients | registered in s | KiB per link | idle CPU of a core |\n|---|---|---|---|");
        for links in &self.links {
            let idle = links.idle_cpu_of_a_core.map_or_else(|| "-".to_owned(), |idle| format!("{:.2} %", idle * 100.0));
            println!("| {} | {:.2} | {:.1} | {idle} |", links.clients, links.registered_in_s, links.kib_per_link);
        }
        println!("\n{}", serde_json::to_string(self)?);
        Ok(())
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
