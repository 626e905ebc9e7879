//! The real peers: Prometheus, vmagent and node_exporter, as Debian packages them.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Command};

use serde_json::Value;

use super::{
    PROMETHEUS_NOTICES, SOON, eventually, eventually_true, http,
    ports::{free_port, loopback},
    process::Process,
    program::program,
};

/// One target in the API of Prometheus or vmagent.
#[derive(Clone, Debug)]
pub(crate) struct TargetView {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) health: String,
    pub(crate) last_error: String,
}

/// A Prometheus, or a vmagent, that knows nothing but `http_sd_configs: [{url}]`.
pub(crate) struct Monitor {
    address: SocketAddr,
    pub(crate) process: Process,
}

impl Monitor {
    /// Starts Prometheus on the http_sd list at `scraper`, with `more` flags.
    #[track_caller]
    pub(crate) fn prometheus(directory: &Path, scraper: SocketAddr, more: &[&str]) -> Option<Self> {
        Self::prometheus_on(directory, &http_sd(scraper, true), more)
    }

    /// Starts Prometheus with these items of `scrape_configs`, and `more` flags.
    #[track_caller]
    pub(crate) fn prometheus_on(directory: &Path, scrape_configs: &str, more: &[&str]) -> Option<Self> {
        Self::start_prometheus(directory, &write_config(directory, scrape_configs), more)
    }

    /// Starts Prometheus with the configuration and the alerts of `examples/prometheus`, for the scraper there; only that
    /// 15 s are 1 s in them, and no alert waits.
    #[track_caller]
    pub(crate) fn prometheus_with_alerts(directory: &Path, scraper: SocketAddr) -> Option<Self> {
        let example = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus").join(name);
            fs::read_to_string(path).expect("the example is read")
        };
        let config = example("prometheus.yml").replace("127.0.0.1:19960", &scraper.to_string()).replace("15s", "1s");
        let alerts = example("alerts.yml");
        let at_once: Vec<&str> = alerts.lines().filter(|line| !line.trim_start().starts_with("for:")).collect();
        let path = directory.join("prometheus.yml");
        fs::write(&path, config).expect("the configuration is written");
        fs::write(directory.join("alerts.yml"), at_once.join("\n")).expect("the alerts are written");
        Self::start_prometheus(directory, path.to_str().expect("temporary paths are plain"), &[])
    }

    #[track_caller]
    fn start_prometheus(directory: &Path, config: &str, more: &[&str]) -> Option<Self> {
        let program = program("prometheus", "prometheus")?;
        let address = loopback(free_port());
        let mut command = Command::new(program);
        command.arg(format!("--config.file={config}"));
        command.arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}")).args(more);
        let process = Process::spawn("prometheus", directory, &mut command);
        eventually_true("Prometheus is ready", SOON, || {
            http::get(address, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200)
        });
        Some(Self { address, process })
    }

    /// Starts vmagent on the http_sd list at `scraper`. What it scrapes is sent nowhere.
    #[track_caller]
    pub(crate) fn vmagent(directory: &Path, scraper: SocketAddr) -> Option<Self> {
        Self::vmagent_on(directory, &http_sd(scraper, false))
    }

    /// Starts vmagent with these items of `scrape_configs`. What it scrapes is sent nowhere.
    #[track_caller]
    pub(crate) fn vmagent_on(directory: &Path, scrape_configs: &str) -> Option<Self> {
        let program = program("vmagent", "victoria-metrics")?;
        let address = loopback(free_port());
        let mut command = Command::new(program);
        command.arg(format!("-promscrape.config={}", write_config(directory, scrape_configs)));
        command.arg("-promscrape.httpSDCheckInterval=1s").arg("-promscrape.fileSDCheckInterval=1s");
        command.arg(format!("-httpListenAddr={address}"));
        command.arg(format!("-remoteWrite.url=http://{}/write", loopback(free_port())));
        command.arg(format!("-remoteWrite.tmpDataPath={}", directory.join("vmagent-data").display()));
        let process = Process::spawn("vmagent", directory, &mut command);
        eventually_true("vmagent answers", SOON, || {
            http::get(address, "/health", &[]).is_ok_and(|answer| answer.status == 200)
        });
        Some(Self { address, process })
    }

    /// Its active targets by `instance`. vmagent's API has Prometheus's form.
    pub(crate) fn targets(&self) -> BTreeMap<String, TargetView> {
        let answer = self.api("/api/v1/targets?state=active");
        let targets = answer["data"]["activeTargets"].as_array().expect("a list of targets");
        targets.iter().map(TargetView::read).map(|view| (view.labels["instance"].clone(), view)).collect()
    }

    /// Waits until a target of that `instance` has that health (`up`, `down`).
    #[track_caller]
    pub(crate) fn wait_health(&self, instance: &str, health: &str) -> TargetView {
        eventually(&format!("{instance} is {health}"), PROMETHEUS_NOTICES, || {
            self.targets().remove(instance).filter(|target| target.health == health)
        })
    }

    /// Waits until a target of that `instance` is down for this reason. vmagent's are down, without one, until they
    /// were scraped for the first time.
    #[track_caller]
    pub(crate) fn wait_error(&self, instance: &str, error: &str) -> TargetView {
        eventually(&format!("{instance} is down with {error}"), PROMETHEUS_NOTICES, || {
            let down = |target: &TargetView| target.health == "down" && target.last_error.contains(error);
            self.targets().remove(instance).filter(down)
        })
    }

    #[track_caller]
    pub(crate) fn wait_gone(&self, instance: &str) {
        let gone = || !self.targets().contains_key(instance);
        eventually_true(&format!("{instance} is no longer a target"), PROMETHEUS_NOTICES, gone);
    }

    /// An instant query: labels and value of every series. Prometheus only.
    pub(crate) fn query(&self, expression: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let answer = self.api(&format!("/api/v1/query?query={}", encoded(expression)));
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("no vector: {answer}"));
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a sample");
        series.iter().map(|one| (texts(&one["metric"]), value(one))).collect()
    }

    /// The samples of a range such as `up[1m]`, of all its series: seconds since the Unix epoch, and the value. Prometheus only.
    pub(crate) fn samples(&self, range: &str) -> Vec<(f64, f64)> {
        let answer = self.api(&format!("/api/v1/query?query={}", encoded(range)));
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("no range: {answer}"));
        let samples = series.iter().filter_map(|one| one["values"].as_array()).flatten();
        let read = |sample: &Value| Some((sample[0].as_f64()?, sample[1].as_str()?.parse().ok()?));
        samples.map(|sample| read(sample).expect("a sample")).collect()
    }

    /// The exemplars of the series that the query selects: labels and value of each. Prometheus only, with
    /// `--enable-feature=exemplar-storage`.
    pub(crate) fn exemplars(&self, expression: &str) -> Vec<(BTreeMap<String, String>, String)> {
        let answer = self.api(&format!("/api/v1/query_exemplars?query={}", encoded(expression)));
        let series = answer["data"].as_array().unwrap_or_else(|| panic!("no exemplars: {answer}"));
        let exemplars = series.iter().filter_map(|one| one["exemplars"].as_array()).flatten();
        let value = |one: &Value| one["value"].as_str().unwrap_or_default().to_owned();
        exemplars.map(|one| (texts(&one["labels"]), value(one))).collect()
    }

    /// Waits until the query gives exactly this one value.
    #[track_caller]
    pub(crate) fn wait_value(&self, expression: &str, value: f64) -> BTreeMap<String, String> {
        eventually(&format!("{expression} is {value}"), PROMETHEUS_NOTICES, || {
            let mut series = self.query(expression);
            match series.pop() {
                Some((labels, found)) if series.is_empty() && found == value => Some(labels),
                _ => None,
            }
        })
    }

    /// Waits until exactly this alert fires for that `instance`; without a name, until none does.
    #[track_caller]
    pub(crate) fn wait_alert(&self, instance: &str, alert: Option<&str>) {
        let firing = format!("ALERTS{{instance=\"{instance}\", alertstate=\"firing\"}}");
        eventually_true(&format!("{alert:?} alone fires for {instance}"), PROMETHEUS_NOTICES, || {
            let firing = self.query(&firing);
            firing.iter().map(|(labels, _)| labels["alertname"].as_str()).eq(alert)
        });
    }

    fn api(&self, path: &str) -> Value {
        let answer = http::get(self.address, path, &[]).expect("the monitor answers");
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text()))
    }
}

impl TargetView {
    fn read(target: &Value) -> Self {
        Self {
            labels: texts(&target["labels"]),
            health: target["health"].as_str().unwrap_or_default().to_owned(),
            last_error: target["lastError"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// Starts a node_exporter; gives its address.
#[track_caller]
pub(crate) fn node_exporter(directory: &Path) -> Option<(SocketAddr, Process)> {
    let program = program("prometheus-node-exporter", "prometheus-node-exporter")?;
    let address = loopback(free_port());
    let mut command = Command::new(program);
    command.arg(format!("--web.listen-address={address}"));
    let process = Process::spawn("node_exporter", directory, &mut command);
    eventually_true("node_exporter answers", SOON, || http::get(address, "/", &[]).is_ok());
    Some((address, process))
}

/// Starts a blackbox_exporter whose module `http_2xx` asks by HTTP; gives its address.
#[track_caller]
pub(crate) fn blackbox_exporter(directory: &Path) -> Option<(SocketAddr, Process)> {
    let program = program("prometheus-blackbox-exporter", "prometheus-blackbox-exporter")?;
    let (address, config) = (loopback(free_port()), directory.join("blackbox.yml"));
    fs::write(&config, "modules:\n  http_2xx:\n    prober: http\n").expect("the configuration is written");
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={address}"));
    let process = Process::spawn("blackbox_exporter", directory, &mut command);
    eventually_true("blackbox_exporter answers", SOON, || http::get(address, "/", &[]).is_ok());
    Some((address, process))
}

/// The whole configuration that a user writes. (vmagent takes the interval as a flag.)
fn http_sd(scraper: SocketAddr, refresh_in_config: bool) -> String {
    let refresh = if refresh_in_config { "\n        refresh_interval: 1s" } else { "" };
    format!("  - job_name: narthex\n    http_sd_configs:\n      - url: http://{scraper}/sd{refresh}\n")
}

fn encoded(expression: &str) -> String {
    expression.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn write_config(directory: &Path, scrape_configs: &str) -> String {
    let config = format!("global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n{scrape_configs}");
    let path = directory.join("monitor.yml");
    fs::write(&path, config).expect("the configuration is written");
    path.to_str().expect("temporary paths are plain").to_owned()
}

fn texts(object: &Value) -> BTreeMap<String, String> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}
