//! A private CA, made for the test, and TLS in front of an exporter without.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// An authority and the directory where its PEM files are.
pub(crate) struct Authority {
    directory: PathBuf,
    name: &'static str,
    certificate: Certificate,
    key: KeyPair,
}

/// A certificate and its key, in memory and in PEM files.
pub(crate) struct Certified {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new(directory: &Path, name: &'static str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority = Self { directory: directory.to_owned(), name, certificate, key };
        fs::write(authority.file(), authority.certificate.pem()).expect("writes");
        authority
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(format!("{}.pem", self.name))
    }

    /// A certificate for that DNS name or address, in `<name>.crt` and `<name>.key`.
    pub(crate) fn certify(&self, name: &str) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.certificate, &self.key).expect("a certificate");
        Certified::written(&self.directory, &format!("{}-{name}", self.name), certificate, key)
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier")
    }
}

impl Certified {
    /// As `openssl req -x509 -addext "subjectAltName=..."` makes one: its own CA, with the last day of `until` (a year).
    pub(crate) fn self_signed(directory: &Path, name: &str, until: i32) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(until, 12, 31);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self::written(directory, &format!("self-{name}-{until}"), certificate, key)
    }

    fn written(directory: &Path, name: &str, certificate: Certificate, key: KeyPair) -> Self {
        let file = |end: &str| directory.join(format!("{name}.{end}"));
        let (cert_file, key_file) = (file("crt"), file("key"));
        fs::write(&cert_file, certificate.pem()).expect("writes");
        fs::write(&key_file, key.serialize_pem()).expect("writes");
        fs::set_permissions(&key_file, Permissions::from_mode(0o600)).expect("chmod");
        Self { cert_file, key_file, certificate, key }
    }
}

/// Listens on a port of 127.0.0.1 with that certificate and hands what is inside the TLS on to `behind`; with
/// `clients`, only to those that show a certificate of that authority.
pub(crate) async fn in_front_of(behind: SocketAddr, own: &Certified, clients: Option<&Authority>) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::try_from(own.key.serialize_der()).expect("a key");
    let config = builder.with_single_cert(vec![own.certificate.der().clone()], key).expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Errors are handshakes that the test wants to fail, and ends.
                if let Ok(mut outside) = acceptor.accept(stream).await
                    && let Ok(mut inside) = TcpStream::connect(behind).await
                {
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    });
    address
}
