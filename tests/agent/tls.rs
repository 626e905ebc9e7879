//! Exporters that want TLS, a certificate, a password or a token; and those that are not who they should be.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use narthex::agent::{Auth, ClientCertificate, TlsSettings};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    asking::{self, Asked, failure, text},
    support::{
        exporter::{Exporter, Reply},
        tls::{Authority, Certified, in_front_of},
    },
};

struct Setup {
    dir: TempDir,
    ca: Authority,
    exporter: Exporter,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Authority::new(dir.path(), "ca");
        Self { dir, ca, exporter: Exporter::start([("/metrics", Reply::text("m 1\n"))]) }
    }

    /// The exporter behind a certificate for 127.0.0.1.
    async fn behind_tls(&self, clients: Option<&Authority>) -> SocketAddr {
        in_front_of(self.exporter.address, &self.ca.certify("127.0.0.1"), clients).await
    }

    fn trusting(&self) -> TlsSettings {
        tls(|tls| tls.ca_file = Some(self.ca.file()))
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        write_secret(&path, text);
        path
    }
}

fn tls(set: impl FnOnce(&mut TlsSettings)) -> TlsSettings {
    let mut settings = TlsSettings::default();
    set(&mut settings);
    settings
}

#[tokio::test]
async fn an_exporter_of_a_private_ca_is_asked_and_its_connection_kept() {
    let setup = Setup::new();
    let address = setup.behind_tls(None).await;
    let source = source(address, setup.trusting());
    for _ in 0..2 {
        assert_eq!(text(&source).await, "m 1\n");
    }
    assert_eq!(setup.exporter.all_requests()[0].header("host"), Some(address.to_string().as_str()));
}

#[tokio::test]
async fn an_exporter_of_another_ca_is_refused_and_the_ca_named() {
    let setup = Setup::new();
    let address = setup.behind_tls(None).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    for other in [Authority::new(elsewhere.path(), "other"), Authority::new(elsewhere.path(), "ca")] {
        let tls = tls(|tls| tls.ca_file = Some(other.file()));
        let error = failure(&source(address, tls)).await;
        assert!(error.contains(&format!("does not come from the CA in {}", other.file().display())), "{error}");
    }
    // The system's roots do not hold it either; a system may have none at all.
    let error = failure(&source(address, TlsSettings::default())).await;
    assert!(error.contains("ca_file"), "{error}");
    assert!(setup.exporter.all_requests().is_empty());

    let skipping = tls(|tls| tls.insecure_skip_verify = true);
    assert_eq!(text(&source(address, skipping)).await, "m 1\n");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let setup = Setup::new();
    let own = setup.ca.certify("db.internal");
    let address = in_front_of(setup.exporter.address, &own, None).await;
    let error = failure(&source(address, setup.trusting())).await;
    assert!(error.contains("certificate not valid for name") && error.contains("db.internal"), "{error}");
    let mut named = setup.trusting();
    named.server_name = Some("db.internal".to_owned());
    assert_eq!(text(&source(address, named)).await, "m 1\n");
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_ca_and_nobody_elses() {
    let setup = Setup::new();
    let signed = |name, until| Certified::self_signed(setup.dir.path(), name, until);
    let trusting = |listed: &Certified| tls(|tls| tls.ca_file = Some(listed.cert_file.clone()));
    let own = signed("127.0.0.1", 4000);
    let address = in_front_of(setup.exporter.address, &own, None).await;
    assert_eq!(text(&source(address, trusting(&own))).await, "m 1\n");
    let asked = setup.exporter.all_requests().len();

    // Another one of the same name, in the file and at the system.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let imposter = Certified::self_signed(elsewhere.path(), "127.0.0.1", 4000);
    for tls in [trusting(&imposter), setup.trusting(), TlsSettings::default()] {
        let error = failure(&source(address, tls)).await;
        assert!(error.contains("does not come from") || error.contains("no CA certificates"), "{error}");
    }
    for (name, until, reason) in [("127.0.0.1", 2020, "has expired"), ("db.internal", 4000, "not valid for name")] {
        let unfit = signed(name, until);
        let address = in_front_of(setup.exporter.address, &unfit, None).await;
        let error = failure(&source(address, trusting(&unfit))).await;
        assert!(error.contains(reason), "{name} until {until}: {error}");
    }
    assert_eq!(setup.exporter.all_requests().len(), asked);
}

#[tokio::test]
async fn an_exporter_without_tls_differs_from_one_with_another_certificate() {
    let setup = Setup::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_u8().await.expect("what it takes for a request");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("writes");
        let _ = stream.read_to_end(&mut Vec::new()).await; // until the agent gives up
    });
    let error = failure(&source(address, setup.trusting())).await;
    assert!(error.contains("does not speak TLS here"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_sent_and_a_rotated_one_taken_up() {
    let setup = Setup::new();
    let clients = Authority::new(setup.dir.path(), "clients");
    let address = setup.behind_tls(Some(&clients)).await;
    assert!(failure(&source(address, setup.trusting())).await.contains(&format!("exporter https://{address}")));

    let with_certificate = |certified: &Certified| {
        let client = ClientCertificate::new(&certified.cert_file, &certified.key_file);
        let mut settings = setup.trusting();
        settings.client = Some(client);
        source(address, settings)
    };
    assert_eq!(text(&with_certificate(&clients.certify("agent"))).await, "m 1\n");

    let imposter = setup.ca.certify("imposter");
    let source = with_certificate(&imposter);
    failure(&source).await;
    // The files are replaced, the source is the same.
    let proper = clients.certify("proper");
    fs::copy(&proper.cert_file, &imposter.cert_file).expect("copies");
    assert!(failure(&source).await.contains("does not hold the key of"), "half of the pair is there");
    fs::copy(&proper.key_file, &imposter.key_file).expect("copies");
    assert_eq!(text(&source).await, "m 1\n");

    fs::set_permissions(&imposter.key_file, Permissions::from_mode(0o644)).expect("chmod");
    let error = failure(&with_certificate(&imposter)).await;
    assert!(error.contains("chmod 600") && error.contains("imposter.key"), "{error}");
}

#[tokio::test]
async fn files_that_are_no_pem_are_named() {
    let setup = Setup::new();
    let address = setup.behind_tls(None).await;
    let junk = setup.dir.path().join("junk.pem");
    let trusting_junk = || tls(|tls| tls.ca_file = Some(junk.clone()));
    let missing = failure(&source(address, trusting_junk())).await;
    assert!(missing.contains("cannot read") && missing.contains("junk.pem"), "{missing}");
    fs::write(&junk, "hunter2").expect("writes");
    let error = failure(&source(address, trusting_junk())).await;
    assert!(error.contains("junk.pem holds no certificate") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn passwords_and_tokens_come_from_files_and_follow_them() {
    let setup = Setup::new();
    let authorization =
        || setup.exporter.all_requests().pop().and_then(|asked| asked.header("authorization").map(str::to_owned));
    let with = |auth: Auth| asking::source(&setup.exporter.url("/metrics"), |settings| settings.auth = Some(auth));
    let password_file = setup.secret("password", "open sesame\n");
    text(&with(Auth::Basic { username: "Aladdin".into(), password_file })).await;
    assert_eq!(authorization().as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));

    let token_file = setup.secret("token", "first");
    let bearer = with(Auth::Bearer { token_file: token_file.clone() });
    text(&bearer).await;
    assert_eq!(authorization().as_deref(), Some("Bearer first"));
    write_secret(&token_file, "second\n");
    text(&bearer).await;
    assert_eq!(authorization().as_deref(), Some("Bearer second"));

    let asked = setup.exporter.all_requests().len();
    fs::set_permissions(&token_file, Permissions::from_mode(0o604)).expect("chmod");
    let error = failure(&bearer).await;
    assert!(error.contains("no credentials") && error.contains("mode 0604") && !error.contains("second"), "{error}");
    assert_eq!(setup.exporter.all_requests().len(), asked, "not asked without it");
}

fn source(address: SocketAddr, tls: TlsSettings) -> Asked {
    asking::source(&format!("https://{address}/metrics"), |settings| settings.tls = tls)
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).expect("writes");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("chmod");
}
