//! `narthex template`: files and reloads, and the example with a real nginx.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    ports::{free_port, loopback},
    process::{Process, Run},
    program::program,
    replace_file,
};

const TARGETS: &str = "{% for t in targets %}\n{{ t.target }} {{ t.labels.instance }}\n{% endfor %}\n";

/// A template, the file made of it, and a reload that notes what it finds.
struct Rig {
    fleet: Fleet,
    template: PathBuf,
    out: PathBuf,
    reloads: PathBuf,
}

impl Rig {
    fn new(template: &str) -> Self {
        let fleet = Fleet::new();
        let [template_path, out, reloads] = ["in.j2", "out.conf", "reloads"].map(|name| fleet.path().join(name));
        fs::write(&template_path, template).expect("writes");
        Self { fleet, template: template_path, out, reloads }
    }

    fn command(&self, from: &str) -> Command {
        let mut command = narthex("template");
        command.args(["--from", from, "--template", &text(&self.template), "--out", &text(&self.out)]);
        command
    }

    /// Five times a second, with a reload that notes the first line of the file, and fails while `broken` is there.
    fn keep(&self, from: &str) -> Process {
        let script = self.fleet.path().join("reload.sh");
        let lines = format!("head -n 1 '{}' >> '{}'\n! [ -e broken ]\n", text(&self.out), text(&self.reloads));
        fs::write(&script, lines).expect("writes");
        let mut command = self.command(from);
        command.current_dir(self.fleet.path()).args([
            "--interval",
            "200ms",
            "--reload",
            &format!("sh '{}'", text(&script)),
        ]);
        Process::spawn("template", self.fleet.path(), &mut command)
    }

    fn once(&self, from: &str, more: &[&str]) -> Run {
        Run::of(self.command(from).arg("--once").args(more))
    }

    #[track_caller]
    fn wait_out(&self, expected: &str) {
        eventually_true(expected, SOON, || read(&self.out) == expected);
    }

    #[track_caller]
    fn wait_reloads(&self, expected: &str) {
        eventually_true(&format!("the reloads found {expected:?}"), SOON, || read(&self.reloads) == expected);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// An http_sd server with these targets, each with its instance.
fn http_sd(targets: &[(&str, &str)]) -> Reply {
    let groups = targets
        .iter()
        .map(|(target, instance)| serde_json::json!({"targets": [target], "labels": {"instance": instance}}));
    Reply::text(&serde_json::Value::from_iter(groups).to_string())
}

/// Waits until narthex has asked three times more.
#[track_caller]
fn wait_asked(source: &Exporter) {
    let before = source.requests("/sd").len();
    eventually_true("it has asked", SOON, || source.requests("/sd").len() > before + 3);
}

#[test]
fn a_change_writes_the_file_and_reloads_and_nothing_else_does() {
    let rig = Rig::new(TARGETS);
    let source = Exporter::start([("/sd", http_sd(&[("h:1", "one")]))]);
    let mut template = rig.keep(&source.url(""));
    rig.wait_out("h:1 one\n");
    rig.wait_reloads("h:1 one\n");
    let written = fs::metadata(&rig.out).and_then(|file| file.modified()).expect("there");
    wait_asked(&source);
    assert_eq!(fs::metadata(&rig.out).and_then(|file| file.modified()).expect("there"), written);
    source.answer("/sd", http_sd(&[("h:2", "two"), ("h:1", "one")]));
    rig.wait_out("h:2 two\nh:1 one\n");
    rig.wait_reloads("h:1 one\nh:2 two\n");
    // Another list, the same text.
    source.answer("/sd", Reply::text(r#"[{"targets":["h:2"],"labels":{"instance":"two","x":"y"}},{"targets":["h:1"],"labels":{"instance":"one"}}]"#));
    wait_asked(&source);
    rig.wait_reloads("h:1 one\nh:2 two\n");
    // The scraper does not answer, or does not know.
    for reply in [Reply::CutLength { len: 10, sent: b"[]".to_vec() }, Reply::text("oops")] {
        source.answer("/sd", reply);
        wait_asked(&source);
    }
    template.wait_log(&["out of date", "no http_sd list"]);
    rig.wait_out("h:2 two\nh:1 one\n");
    assert!(template.terminate(SOON).success());
    rig.wait_reloads("h:1 one\nh:2 two\n");
}

#[test]
fn a_faulty_template_keeps_the_file_until_it_is_mended() {
    let rig = Rig::new(TARGETS);
    let source = Exporter::start([("/sd", http_sd(&[("h:1", "one")]))]);
    let template = rig.keep(&source.url("/sd"));
    rig.wait_out("h:1 one\n");
    replace_file(&rig.template, "fine\n{% for t in %}\n");
    template.wait_log(&["out of date", "in.j2:2: ", "syntax error"]);
    replace_file(&rig.template, "fine\n\n{{ targets[0].labels.nothing }}\n");
    template.wait_log(&["out of date", "in.j2:3: ", "undefined"]);
    wait_asked(&source);
    rig.wait_out("h:1 one\n");
    rig.wait_reloads("h:1 one\n");
    assert_eq!(template.log().matches("in.j2:2").count(), 1, "{}", template.log());
    replace_file(&rig.template, "mended {{ targets|length }}\n");
    rig.wait_out("mended 1\n");
    rig.wait_reloads("h:1 one\nmended 1\n");
}

#[test]
fn a_reload_that_fails_is_tried_again_until_it_succeeds() {
    let rig = Rig::new(TARGETS);
    let broken = rig.fleet.path().join("broken");
    fs::write(&broken, "").expect("writes");
    let source = Exporter::start([("/sd", http_sd(&[("h:1", "one")]))]);
    let template = rig.keep(&source.url("/sd"));
    eventually_true("it was tried twice", SOON, || read(&rig.reloads).lines().count() >= 2);
    template.wait_log(&["out of date", "--reload sh did not succeed"]);
    fs::remove_file(&broken).expect("removes");
    template.wait_log(&["up to date"]);
    let tries = read(&rig.reloads);
    wait_asked(&source);
    assert_eq!(read(&rig.reloads), tries);
}

#[test]
fn once_renders_once_and_its_exit_code_says_how_it_went() {
    let rig = Rig::new(TARGETS);
    let source = Exporter::start([("/sd", http_sd(&[("h:1", "one")])), ("/odd", Reply::text("{}"))]);
    let run = rig.once(&source.url("/sd"), &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(read(&rig.out), "h:1 one\n");
    let nobody = format!("http://{}", loopback(free_port()));
    for (from, reason) in [(nobody.as_str(), "--from"), (&source.url("/odd"), "no http_sd list")] {
        let run = rig.once(from, &[]);
        assert!(run.code == Some(1) && run.stderr.contains(reason), "{}", run.stderr);
        assert_eq!(read(&rig.out), "h:1 one\n");
    }
    // Nothing changed: the command does not run.
    assert_eq!(rig.once(&source.url("/sd"), &["--reload", "false"]).code, Some(0));
    source.answer("/sd", http_sd(&[]));
    let run = rig.once(&source.url("/sd"), &["--reload", "false"]);
    assert!(run.code == Some(1) && run.stderr.contains("--reload false"), "{}", run.stderr);
    assert_eq!(read(&rig.out), "");
    fs::write(&rig.template, "{{ nothing }}").expect("writes");
    let run = rig.once(&source.url("/sd"), &[]);
    assert!(run.code == Some(1) && run.stderr.contains("in.j2:1: "), "{}", run.stderr);
}

#[test]
fn nginx_takes_the_example() {
    let Some(nginx) = program("nginx", "nginx") else { return };
    let (fleet, scraper) = Fleet::with_scraper();
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let url = exporter.url("/metrics");
    let hostile = ["--service", "we; } evil { b", "--label", "x=\"; }"];
    let _web = fleet.agent_of(&scraper, "web", [("web-1", &url), ("web-2", &url)], &hostile);
    let _bare = fleet.agent_of(&scraper, "bare", [("bare-1", &url)], &[]);
    for alias in ["web-1", "web-2", "bare-1"] {
        scraper.wait_listed(alias);
    }
    let (out, config) = (fleet.path().join("narthex.conf"), fleet.path().join("nginx.conf"));
    let address = loopback(free_port());
    // As the example, on a port of the test's.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/template/nginx.conf.j2");
    let template = fleet.path().join("nginx.conf.j2");
    fs::write(&template, read(&example).replace("127.0.0.1:8081", &address.to_string())).expect("writes");
    let dir = text(fleet.path());
    let main = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; include {};\n}}\n",
        text(&out)
    );
    fs::write(&config, main).expect("writes");
    let check = format!("'{}' -t -e stderr -p '{dir}' -c '{}'", text(&nginx), text(&config));
    let render = |from: &str| {
        let mut command = narthex("template");
        command.args(["--once", "--from", from, "--template", &text(&template)]);
        let run = Run::of(command.args(["--out", &text(&out), "--reload", &check]));
        assert_eq!(run.code, Some(0), "{}\n{}", run.stderr, read(&out));
        assert!(run.stderr.contains("test is successful"), "{}", run.stderr);
    };
    let evil = "\"; } evil on; {";
    let labels = serde_json::json!({"instance": evil, "service": evil, "__metrics_path__": format!("/{evil}")});
    let list = serde_json::json!([{"targets": ["127.0.0.1:1"], "labels": labels}]);
    render(&Exporter::start([("/sd", Reply::text(&list.to_string()))]).url("/sd"));
    render(&format!("http://{}", scraper.http));

    let mut serve = Command::new(nginx);
    serve.args(["-e", "stderr", "-p", &dir, "-c", &text(&config)]);
    let mut serving = Process::spawn("nginx", fleet.path(), &mut serve);
    for alias in ["web-1", "bare-1"] {
        eventually_true("nginx hands on the metrics", SOON, || {
            crate::support::http::get(address, &format!("/{alias}"), &[]).is_ok_and(|answer| answer.text() == "m 1\n")
        });
    }
    serving.kill();
}
