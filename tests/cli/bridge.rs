//! `narthex import --from-bridge`: the services of a JavaScript bridge on their way to narthex.

use std::{fs, path::Path};

use serde_json::json;

use crate::support::{
    SOON,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    process::Run,
};

/// A client's key, as the bridge writes it.
const KEY: &str = "exatijpe81k7nekbjtqm44qw7fam8u17k3158s15ihf8o3smbq4y";

/// The bridge's file with these entries, in the bridge's form.
fn bridge_file(fleet: &Fleet, entries: &[&str]) -> String {
    let targets: Vec<String> = entries.iter().map(|entry| entry.replace("KEY", KEY)).collect();
    let groups = json!([{ "labels": { "job": "aliases" }, "targets": targets }]);
    let file = fleet.path().join("targets.json");
    fs::write(&file, serde_json::to_string_pretty(&groups).expect("JSON")).expect("writes");
    text(&file)
}

fn import(args: &[&str]) -> Run {
    Run::of(narthex("import").arg("--from-bridge").args(args))
}

#[test]
fn services_of_a_bridge_move_and_the_command_says_how_far_they_are() {
    let fleet = Fleet::new();
    let mut scraper = fleet.scraper(&[]);
    let data = text(&fleet.path().join("scraper-data"));
    let file = bridge_file(&fleet, &["web-2:KEY:h2:web", "web-1:KEY:h1:a \"web\"", "db-1:KEY:h1:db", "gone:KEY:h3:"]);

    let printed = import(&[&file]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let targets = "[[target]]\nalias = \"db-1\"\nurl = \"http://127.0.0.1:PORT/metrics\"\nservice = \"db\"\n\
        [[target]]\nalias = \"web-1\"\nurl = \"http://127.0.0.1:PORT/metrics\"\nservice = \"a \\\"web\\\"\"\n";
    assert!(printed.stdout.contains(&format!("\n# h1\n{targets}\n# h2\n")), "{}", printed.stdout);

    let progress = |expected: &str| {
        let run = import(&[&file, "--dry-run", "--data-dir", &data]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), expected), "{}", run.stderr);
    };
    let none = "not registered\n";
    progress(&format!("db-1: {none}web-1: {none}web-2: {none}gone: {none}0 of 4 are registered as in the file\n"));

    // As an operator would: the printed targets of a host, with the port filled in, in a directory of its agent.
    let exporter = Exporter::start([("/metrics", Reply::text("m 1\n"))]);
    let directory = fleet.path().join("targets");
    fs::create_dir(&directory).expect("makes");
    let filled = targets.replace("PORT", &exporter.address.port().to_string());
    fs::write(directory.join("h1.toml"), filled).expect("writes");
    let peer = scraper.peer().to_string();
    let mut agent = fleet.agent("h1", &["--scraper", &peer, "--targets-dir", &text(&directory), "--hostname", "h1"]);
    let mut other = fleet.agent_of(
        &scraper,
        "h2",
        [("web-2", exporter.url("/metrics"))],
        &["--hostname", "h-2", "--service", "www"],
    );
    for alias in ["db-1", "web-1", "web-2"] {
        scraper.wait_scraped(alias);
    }
    let moved = "db-1: active\nweb-1: active\n\
        web-2: active, service \"www\" rather than \"web\", hostname \"h-2\" rather than \"h2\"\n\
        gone: not registered\n2 of 4 are registered as in the file\n";
    progress(moved);

    // The same of a scraper that has ended.
    agent.kill();
    other.kill();
    assert!(scraper.process.terminate(SOON).success());
    progress(moved);
}

#[test]
fn a_target_without_its_port_is_refused_by_the_agent() {
    let fleet = Fleet::new();
    let file = fleet.path().join("agent.toml");
    let printed = import(&[&bridge_file(&fleet, &["web-1:KEY:h1:web"])]).stdout;
    let settings = format!("scraper = [\"{KEY}@127.0.0.1:9\"]\nsecret-file = {:?}\n", text(&fleet.secret_file()));
    fs::write(&file, settings + &printed).expect("writes");
    let run = Run::of(narthex("agent").args(["--config", &text(&file)]));
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("agent.toml, line 8: expected a URL such as"), "{}", run.stderr);
}

#[test]
fn each_bad_entry_of_a_bridge_is_named_with_its_place_and_nothing_is_printed() {
    let fleet = Fleet::new();
    let entries =
        ["web-1:KEY:h1:web", "a:b:KEY:h:s", "no alias:KEY:h:s", "x:short:h:s", "web-1:KEY:h2:web", "y:KEY:h\u{7f}:s"];
    let file = bridge_file(&fleet, &entries);
    for more in [&[][..], &["--dry-run"]] {
        let run = import(&[&[file.as_str()], more].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
        let lines: Vec<&str> = run.stderr.lines().collect();
        for (line, (place, reason)) in lines.iter().zip([
            (2, "has 5 parts between colons"),
            (3, "alias \"no alias\" is not 1 to 128"),
            (4, "got 5 characters"),
            (5, "alias web-1 is there twice"),
            (6, "hostname"),
        ]) {
            assert!(line.contains(&format!("targets.json: group 1, target {place}: ")), "{line}");
            assert!(line.contains(reason), "{line}");
        }
        assert_eq!(lines.len(), 6, "{}", run.stderr);
    }
    for other in ["", "{}", "[{\"labels\": {}}]"] {
        fs::write(Path::new(&file), other).expect("writes");
        let run = import(&[&file]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
        assert!(run.stderr.contains("targets.json: is not the list of targets that a bridge writes"), "{}", run.stderr);
    }
    fs::write(&file, "[]").expect("writes");
    assert_eq!(import(&[&file, "other.jsonl"]).code, Some(2));
}
