//! A scraper on a Unix socket, behind the sample for nginx.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use narthex::identity::{self, KeyPair, PeerAddr};

use crate::support::{
    SOON, eventually_true,
    exporter::{Exporter, Reply},
    fleet::{Fleet, narthex, text},
    peers::Monitor,
    ports::{free_port, loopback},
    process::{Process, Run},
    program::program,
};

const SOCKET: &str = "/run/narthex/http.sock";

#[test]
fn prometheus_scrapes_by_nginx_what_listens_on_a_socket() {
    let (fleet, exporter) = (Fleet::new(), Exporter::start([("/metrics", Reply::text("m 1\n"))]));
    let (socket, key) = (fleet.path().join("http.sock"), KeyPair::generate());
    let key_file = fleet.path().join("scraper.key");
    identity::create_key(&key_file, &key).expect("the key is written");
    let (port, http) = (free_port(), format!("unix:{}", text(&socket)));
    let start = || {
        let mut command = narthex("scraper");
        command.args(["--key", &text(&key_file), "--secret-file", &text(&fleet.secret_file())]);
        command.args(["--data-dir", &text(&fleet.path().join("data")), "--http", &http]);
        Process::spawn("scraper", fleet.path(), command.args(["--listen", &loopback(port).to_string()]))
    };
    let mut scraper = start();
    scraper.wait_log(&["scraper runs", &http]);
    let mode = fs::metadata(&socket).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "for its user and group");
    let peer = PeerAddr::at(key.public(), "127.0.0.1", port).to_string();
    let target = format!("--target=web-1={}", exporter.url("/metrics"));
    let _agent = fleet.agent("agent", &["--scraper", &peer, &target]);

    let ask = |arguments: &[&str]| Run::of(narthex(arguments[0]).args(&arguments[1..]));
    eventually_true("the alias is scraped by the socket", SOON, || {
        ask(&["scrape", "web-1", "--url", &http]).stdout == "m 1\n"
    });
    let listed = ask(&["targets", "--url", &http]);
    assert!(listed.stdout.contains("web-1"), "{}", listed.stderr);
    let healthy = ask(&["doctor", "--http", &http, "--key", &text(&key_file)]);
    assert!(healthy.stdout.contains(&format!("a scraper answers at {http}")), "{} {}", healthy.stdout, healthy.stderr);
    let second = ask(&["scraper", "--http", &http, "--listen", "127.0.0.1:0", "--data-dir", &text(fleet.path())]);
    assert!(second.code == Some(1) && second.stderr.contains("another process listens there"), "{}", second.stderr);

    let Some(nginx) = program("nginx", "nginx") else { return };
    let (dir, address) = (text(fleet.path()), loopback(free_port()));
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nginx/narthex.conf");
    let sample = fs::read_to_string(sample).expect("the sample is read");
    assert!(sample.contains(SOCKET), "{sample}");
    let server = sample.replace(SOCKET, &text(&socket)).replace("127.0.0.1:9960", &address.to_string());
    let config = fleet.path().join("nginx.conf");
    let main = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n{server}}}\n"
    );
    fs::write(&config, main).expect("written");
    let mut serve = Command::new(nginx);
    let _nginx = Process::spawn("nginx", fleet.path(), serve.args(["-e", "stderr", "-p", &dir, "-c", &text(&config)]));
    let Some(prometheus) = Monitor::prometheus(fleet.path(), address, &[]) else { return };
    prometheus.wait_value("m{instance=\"web-1\"}", 1.0);

    // What a killed scraper leaves is no obstacle, and a scraper that ends leaves nothing.
    scraper.kill();
    assert!(socket.exists());
    prometheus.wait_health("web-1", "down");
    let mut scraper = start();
    prometheus.wait_health("web-1", "up");
    assert!(scraper.terminate(SOON).success());
    assert!(!socket.exists());
}
