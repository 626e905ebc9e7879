//! The narthex agent before an exporter, each a process of its own, beside a direct scrape of the same exporter.

use std::{
    fs,
    io::Write,
    path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use crate::{
    Args, BoxError, peers,
    process::Child,
    report::{Cell, Report},
    scrape,
};

/// Who compresses.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    /// What the exporter answers.
    served: &'static str,
    /// The agent's --compression.
    compression: &'static str,
}

const FORMS: [Form; 3] = [
    Form { name: "plain", served: "plain", compression: "off" },
    Form { name: "gzip by the exporter", served: "gzip", compression: "off" },
    Form { name: "gzip on the link", served: "plain", compression: "gzip" },
];

/// Prints its address, then serves `/plain/<bytes>` and `/gzip/<bytes>` until killed.
pub(crate) async fn exporter() -> Result<(), BoxError> {
    peers::serve(Router::new().route("/{form}/{size}", get(serve))).await
}

async fn serve(Path((form, size)): Path<(String, usize)>) -> Response {
    let body = peers::body(size);
    match form.as_str() {
        "plain" => ([(header::CONTENT_TYPE, peers::TEXT)], body).into_response(),
        "gzip" => {
            let headers = [(header::CONTENT_TYPE, peers::TEXT), (header::CONTENT_ENCODING, "gzip")];
            gzipped(&body)
                .map_or_else(|_| StatusCode::NOT_FOUND.into_response(), |body| (headers, body).into_response())
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Compressed once: an exporter's own work is not what is measured.
fn gzipped(body: &Bytes) -> Result<Bytes, std::io::Error> {
    static KEPT: Mutex<Vec<(usize, Bytes)>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, done)) = kept.iter().find(|(size, _)| *size == body.len()) {
        return Ok(done.clone());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    let done = Bytes::from(encoder.finish()?);
    kept.push((body.len(), done.clone()));
    Ok(done)
}

/// Every form, size and concurrency; a fresh scraper and agent for each form and size, so that peaks are their own.
pub(crate) async fn measure(args: &Args) -> Result<(), BoxError> {
    let mut report = Report::default();
    for form in FORMS {
        for &size in &args.sizes {
            let exporter = ["exporter"].into_iter().chain(args.exposition.as_deref()).collect::<Vec<_>>();
            let exporter = Child::start(&exporter)?;
            let [direct] = exporter.ready::<1>()?;
            let scraper = Child::start(&["scraper"])?;
            let [key, secret, http] = scraper.ready::<3>()?;
            let files = tempfile::tempdir()?;
            let agent = agent(files.path(), &key, &secret, form, &format!("http://{direct}/{}/{size}", form.served))?;
            registered(&http).await?;
            for &at_once in &args.at_once {
                let through = |_: usize| (http.clone(), "/scrape/load/metrics".to_owned());
                let straight = |_: usize| (direct.clone(), format!("/{}/{size}", form.served));
                let mut cell = Cell::new(1, size, at_once).named(form.name);
                for _ in 0..args.rounds {
                    cell.direct.push(scrape::run(&straight, at_once, args.length, None).await?);
                    let cpu = (scraper.cpu()?, agent.cpu()?);
                    let measured = scrape::run(&through, at_once, args.length, None).await?;
                    cell.cpu.push(crate::per_thousand(scraper.cpu()? - cpu.0, agent.cpu()? - cpu.1, &measured));
                    cell.through.push(measured);
                }
                cell.peak_kib = (scraper.peak_memory_kib()?, agent.peak_memory_kib()?);
                report.cell(cell);
            }
        }
    }
    report.print()
}

/// Starts the agent of this build.
fn agent(files: &path::Path, scraper: &str, secret: &str, form: Form, url: &str) -> Result<Child, BoxError> {
    let secret_file = files.join("secret");
    narthex::identity::create_secret(&secret_file, &secret.parse()?)?;
    let data = files.join("data");
    fs::create_dir(&data)?;
    let (secret_file, data) = (secret_file.display().to_string(), data.display().to_string());
    let target = format!("load={url}");
    let flags = [
        "agent",
        "--log-level",
        "warn",
        "--scraper",
        scraper,
        "--secret-file",
        &secret_file,
        "--data-dir",
        &data,
        "--target",
        &target,
    ];
    Child::run(
        path::Path::new(env!("CARGO_BIN_EXE_narthex")),
        &[&flags[..], &["--compression", form.compression]].concat(),
    )
}

async fn registered(http: &str) -> Result<(), BoxError> {
    for _ in 0..500 {
        if scrape::length(http, "/scrape/load/metrics").await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("the agent did not register within 10 s".into())
}
