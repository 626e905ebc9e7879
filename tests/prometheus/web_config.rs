//! The samples of TLS, passwords and users, with a real promtool, Prometheus and vmagent; and client certificates.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, Scraper, narthex, text},
    http,
    peers::Monitor,
    process::{Process, Run},
    program::program,
    tls::{Authority, Certified},
};

/// A directory with the samples, and all that they name.
struct Samples {
    directory: PathBuf,
    ca: Authority,
    server: Certified,
}

impl Samples {
    fn new(directory: &Path) -> Self {
        let ca = Authority::new(directory, "ca");
        let server = ca.certify("127.0.0.1");
        let samples = Self { directory: directory.to_owned(), ca, server };
        fs::copy(&samples.server.cert_file, samples.path("server.crt")).expect("copied");
        fs::copy(&samples.server.key_file, samples.path("server.key")).expect("copied");
        samples.write("prometheus.password", "change-me");
        samples.write("tenant-a.token", "a-token-of-the-tenant");
        samples
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("written");
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).expect("set");
    }

    /// Puts a sample where its files are.
    fn put(&self, name: &str) {
        self.write(name, &sample(name));
    }

    /// A scraper with the flags of the samples, whose files say nothing yet; and two agents of two tenants.
    fn scraper(&self, fleet: &Fleet, exporter: &Exporter) -> (Scraper, [Process; 2]) {
        self.write("web-config.yml", "");
        self.write("users.toml", "");
        let flags = ["--web.config.file", &text(&self.path("web-config.yml"))];
        let scraper = fleet.scraper(&[&flags[..], &["--web.users-file", &text(&self.path("users.toml"))]].concat());
        let agents = ["a", "b"].map(|tenant| {
            let target = [(format!("web-{tenant}"), exporter.url("/metrics"))];
            fleet.agent_of(&scraper, tenant, target, &["--label", &format!("tenant={tenant}")])
        });
        ["web-a", "web-b"].into_iter().for_each(|alias| drop(scraper.wait_listed(alias)));
        (scraper, agents)
    }
}

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/prometheus").join(name);
    fs::read_to_string(path).expect("the sample is read")
}

/// Waits until the files count: nobody is answered without TLS.
fn wait_for_tls(scraper: &Scraper) {
    eventually_true("the scraper speaks TLS", SOON, || http::get(scraper.http, "/-/ready", &[]).is_err());
}

/// The items of `scrape_configs`, as a Prometheus takes them that looks every second for this scraper.
fn jobs(config: &str, samples: &Samples, scraper: &Scraper) -> String {
    let jobs = config.split_once("scrape_configs:\n").expect("jobs").1;
    let jobs = jobs.replace("127.0.0.1:19960", &scraper.http.to_string()).replace("15s", "1s");
    ["prometheus.password", "ca.pem", "tenant-a.token", "client.crt", "client.key"]
        .iter()
        .fold(jobs, |jobs, name| jobs.replace(name, &text(&samples.path(name))))
}

#[test]
fn promtool_and_narthex_take_the_samples() {
    let directory = tempfile::tempdir().expect("a directory");
    let samples = Samples::new(directory.path());
    ["web-config.yml", "users.toml", "prometheus-tls.yml"].iter().for_each(|name| samples.put(name));
    let data = samples.path("data");
    let mut check = narthex("scraper");
    check.current_dir(&samples.directory).args(["--check-config", "--web.config.file", "web-config.yml"]);
    check.args(["--web.users-file", "users.toml", "--http", "0.0.0.0:19960", "--data-dir", &text(&data)]);
    let run = check.output().expect("runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    let Some(promtool) = program("promtool", "prometheus") else { return };
    for arguments in [["web-config", "web-config.yml"], ["config", "prometheus-tls.yml"]] {
        let mut check = Command::new(&promtool);
        let run = check.arg("check").args(arguments).current_dir(&samples.directory).output().expect("runs");
        assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn prometheus_scrapes_over_tls_with_a_password_and_a_tenant_with_a_token_its_own_targets() {
    let (fleet, exporter) = (Fleet::new(), Exporter::start([("/metrics", Reply::text("m 1\n"))]));
    let samples = Samples::new(fleet.path());
    let (scraper, _agents) = samples.scraper(&fleet, &exporter);
    samples.put("users.toml");
    samples.put("web-config.yml");
    wait_for_tls(&scraper);
    let by_proxy = format!(
        "  - job_name: proxy\n    proxy_url: https://{}\n    basic_auth: {{ username: prometheus, password: change-me }}\n    \
         tls_config: {{ ca_file: ca.pem }}\n    static_configs: [{{ targets: [web-b] }}]\n",
        scraper.http
    );
    let jobs = jobs(&(sample("prometheus-tls.yml") + &by_proxy), &samples, &scraper);
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &jobs, &[]) else { return };
    for (job, alias) in
        [("narthex", "web-a"), ("narthex", "web-b"), ("narthex-tenant-a", "web-a"), ("proxy", "web-b:80")]
    {
        prometheus.wait_value(&format!("m{{job=\"{job}\",instance=\"{alias}\"}}"), 1.0);
    }
    assert!(prometheus.query("up{job=\"narthex-tenant-a\",instance=\"web-b\"}").is_empty());

    // Another password counts at once, also for connections that are open.
    let changed = sample("web-config.yml").replace("  prometheus: ", "  somebody: ");
    samples.write("web-config.yml", &changed);
    prometheus.wait_value("up{job=\"narthex\",instance=\"web-a\"}", 0.0);
    prometheus.wait_value("up{job=\"narthex-tenant-a\",instance=\"web-a\"}", 1.0);
    prometheus.wait_error("web-b", "401");
}

#[test]
fn vmagent_scrapes_over_tls_with_a_password() {
    let (fleet, exporter) = (Fleet::new(), Exporter::start([("/metrics", Reply::text("m 1\n"))]));
    let samples = Samples::new(fleet.path());
    let (scraper, _agents) = samples.scraper(&fleet, &exporter);
    samples.put("users.toml");
    samples.put("web-config.yml");
    wait_for_tls(&scraper);
    let config = sample("prometheus-tls.yml").replace("        refresh_interval: 15s\n", "");
    let Some(vmagent) = Monitor::vmagent_on(fleet.path(), &jobs(&config, &samples, &scraper)) else { return };
    ["web-a", "web-b"].into_iter().for_each(|alias| drop(vmagent.wait_health(alias, "up")));
}

#[test]
fn prometheus_scrapes_with_a_client_certificate_and_without_one_it_does_not() {
    let (fleet, exporter) = (Fleet::new(), Exporter::start([("/metrics", Reply::text("m 1\n"))]));
    let samples = Samples::new(fleet.path());
    let client = samples.ca.certify("prometheus.example");
    fs::copy(client.cert_file, samples.path("client.crt")).expect("copied");
    fs::copy(client.key_file, samples.path("client.key")).expect("copied");
    let (scraper, _agents) = samples.scraper(&fleet, &exporter);
    samples.write(
        "web-config.yml",
        "tls_server_config: { cert_file: server.crt, key_file: server.key, client_ca_file: ca.pem, \
         client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus.example] }\n",
    );
    wait_for_tls(&scraper);
    let job = |name: &str, tls: &str| {
        format!(
            "  - job_name: {name}\n    http_sd_configs:\n      - url: https://127.0.0.1:19960/sd\n        refresh_interval: 1s\n        \
             tls_config: {tls}\n    scheme: https\n    tls_config: {tls}\n"
        )
    };
    let own = "{ ca_file: ca.pem, cert_file: client.crt, key_file: client.key }";
    let stranger = format!(
        "  - job_name: stranger\n    scheme: https\n    tls_config: {{ ca_file: ca.pem }}\n    static_configs: [{{ targets: [{}] }}]\n",
        scraper.http
    );
    let jobs = jobs(&format!("scrape_configs:\n{}{stranger}", job("narthex", own)), &samples, &scraper);
    let Some(prometheus) = Monitor::prometheus_on(fleet.path(), &jobs, &[]) else { return };
    prometheus.wait_value("m{instance=\"web-a\"}", 1.0);
    prometheus.wait_value("up{job=\"stranger\"}", 0.0);
}

/// A command of narthex that asks this scraper over TLS.
fn command(words: &[&str], url: &str, config: Option<&Path>) -> Run {
    let mut command = narthex(words[0]);
    command.args(&words[1..]).args(["--url", url]);
    Run::of(command.args(config.iter().flat_map(|path| ["--http-config.file".to_owned(), text(path)])))
}

#[test]
fn commands_show_who_they_are_by_the_file_that_promtool_takes() {
    let (fleet, exporter) = (Fleet::new(), Exporter::start([("/metrics", Reply::text("m 1\n"))]));
    let samples = Samples::new(fleet.path());
    let (scraper, _agents) = samples.scraper(&fleet, &exporter);
    ["users.toml", "web-config.yml", "http-config.yml"].iter().for_each(|name| samples.put(name));
    samples.write("operator.password", "change-me-too\n");
    samples
        .write("tenant.yml", "authorization: { credentials_file: tenant-a.token }\ntls_config: { ca_file: ca.pem }\n");
    samples.write("untrusted.yml", "basic_auth: { username: operator, password_file: operator.password }\n");
    wait_for_tls(&scraper);
    let (url, operator) = (format!("https://{}", scraper.http), samples.path("http-config.yml"));

    let listed = command(&["targets"], &url, Some(&operator));
    assert!(
        listed.code == Some(0) && listed.stdout.contains("web-a") && listed.stdout.contains("web-b"),
        "{}",
        listed.stderr
    );
    let tenant = samples.path("tenant.yml");
    assert_eq!(command(&["scrape", "web-a"], &url, Some(&tenant)).stdout, "m 1\n");
    let out = samples.path("out");
    fs::create_dir(&out).expect("made");
    let mut file_sd = narthex("file-sd");
    file_sd.args(["--from", &url, "--once", "--out", &text(&out), "--http-config.file", &text(&tenant)]);
    let written = Run::of(&mut file_sd);
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let released = command(&["alias", "release", "web-b"], &url, Some(&operator));
    assert_eq!(released.code, Some(0), "{}", released.stderr);

    let refused = |words: &[&str], config: Option<&Path>, said: &[&str]| {
        let run = command(words, &url, config);
        assert!(run.code == Some(1) && run.stderr.lines().count() == 1, "{words:?}: {}", run.stderr);
        for said in said {
            assert!(run.stderr.contains(said), "{words:?}: no {said:?} in {}", run.stderr);
        }
    };
    refused(
        &["targets"],
        Some(&samples.path("untrusted.yml")),
        &["no TLS with the scraper", "ca_file", "--http-config.file"],
    );
    samples.write("nobody.yml", "tls_config: { ca_file: ca.pem }\n");
    refused(
        &["targets"],
        Some(&samples.path("nobody.yml")),
        &["password, or a token, is needed", "give the right one in --http-config.file (401)"],
    );
    refused(&["scrape", "web-b"], Some(&tenant), &["404"]);
    refused(
        &["alias", "release", "web-a"],
        Some(&tenant),
        &["user \"tenant-a\" has no right admin", "--web.users-file (403)"],
    );

    // The promtool of Debian has no flag for such a file; the fields are those of a job.
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let fields: String = sample("http-config.yml").lines().map(|line| format!("    {line}\n")).collect();
    let job = format!("scrape_configs:\n  - job_name: x\n    static_configs: [{{ targets: [h] }}]\n{fields}");
    samples.write("job.yml", &job);
    let mut check = Command::new(&promtool);
    let run = Run::of(check.args(["check", "config", "job.yml"]).current_dir(&samples.directory));
    assert_eq!(run.code, Some(0), "{} {}", run.stdout, run.stderr);
}
