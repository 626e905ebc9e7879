//! TLS to an exporter: trusted CAs and client certificates.
//!
//! Certificates and keys are read for every new connection and compared with the ones in use. Rotated files are used
//! from the next connection on; sessions are resumed as long as nothing changes.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, InvalidMessage, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, task};
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

use super::verifier::{Verifier, is_untrusted};
use crate::{
    secret_file::{self, SecretFileError},
    small_file,
};

/// Most bytes of a file of certificates: several times a system's whole bundle.
const MAX_CERTIFICATES: u64 = 4 * 1024 * 1024;

/// The system's CAs. Read once: they are hundreds, and the same for every target.
static SYSTEM_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(error = error as &dyn Error, "a system certificate could not be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
});

/// How an `https://` exporter is verified, and how the agent authenticates itself by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSettings {
    /// PEM file of CA certificates, or of the exporter's own certificate. Default: the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// A client certificate, for an exporter that asks for one.
    pub client: Option<ClientCertificate>,
    /// The name that the exporter's certificate must be for. Default: the URL's host.
    pub server_name: Option<String>,
    /// Accepts any certificate: anybody on the way can read the metrics and the password.
    pub insecure_skip_verify: bool,
}

/// A client certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificate {
    /// PEM: the certificate, then its chain.
    pub cert_file: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key_file: PathBuf,
}

impl ClientCertificate {
    /// A certificate and its key, read from these files when they are needed.
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self { cert_file: cert_file.into(), key_file: key_file.into() }
    }
}

/// Why a TLS connection to an exporter failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of certificates could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file holds no certificate, or a broken one.
    #[error("{} holds no certificate in PEM", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// The private key's file cannot be used.
    #[error(transparent)]
    KeyFile(#[from] SecretFileError),
    /// The private key's file holds something else, or the key of another certificate.
    #[error("{} does not hold the key of {}", key.display(), cert.display())]
    Key {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The system has no CA certificates.
    #[error("this system has no CA certificates: install them, or give ca_file")]
    NoRoots,
    /// The server's name is neither a DNS name nor an address.
    #[error("{name:?} is no name that a certificate could be for")]
    Name {
        /// The name.
        name: String,
        /// The fault in the name.
        source: InvalidDnsNameError,
    },
    /// The exporter's certificate does not come from a trusted CA.
    #[error("its certificate does not come from {trusted}; give the right CA with ca_file")]
    Untrusted {
        /// The trusted CAs, in words.
        trusted: String,
    },
    /// The exporter's certificate has expired.
    #[error("its certificate has expired")]
    Expired,
    /// The answer is not TLS.
    #[error("it does not speak TLS here; is its URL http://?")]
    NoTls,
    /// The handshake failed in another way: a certificate for another name, or a client certificate is missing.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The task that reads files was aborted.
    #[error("files could not be read")]
    Aborted(#[source] task::JoinError),
}

pub(crate) struct Tls {
    settings: TlsSettings,
    built: Built,
}

/// The configuration in use, and the files' content behind it.
type Built = Arc<Mutex<Option<(Material, Arc<ClientConfig>)>>>;

impl Tls {
    pub(crate) fn new(settings: TlsSettings) -> Self {
        Self { settings, built: Arc::default() }
    }

    /// Makes a TLS connection to `host` over the stream.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = self.settings.server_name.as_deref().unwrap_or(host);
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|source| TlsError::Name { name: name.to_owned(), source })?;
        let (settings, built) = (self.settings.clone(), Arc::clone(&self.built));
        let config =
            task::spawn_blocking(move || current_config(&settings, &built)).await.map_err(TlsError::Aborted)??;
        TlsConnector::from(config).connect(server_name, stream).await.map_err(|error| self.explain(error))
    }

    /// Why the agent's own files cannot be used now, if so. Blocks.
    #[cfg(feature = "cli")]
    pub(super) fn unusable(&self) -> Option<TlsError> {
        let has_files = self.settings.ca_file.is_some() || self.settings.client.is_some();
        has_files.then(|| current_config(&self.settings, &self.built).err())?
    }

    fn explain(&self, error: io::Error) -> TlsError {
        use rustls::Error::{InvalidCertificate, InvalidMessage as Invalid};
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(cause) if is_untrusted(cause) => TlsError::Untrusted {
                trusted: self.settings.ca_file.as_ref().map_or_else(
                    || "a CA that this system trusts".to_owned(),
                    |path| format!("the CA in {}", path.display()),
                ),
            },
            Some(InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                TlsError::Expired
            }
            Some(Invalid(InvalidMessage::InvalidContentType)) => TlsError::NoTls,
            _ => TlsError::Handshake(error),
        }
    }
}

type Pem = Zeroizing<Vec<u8>>;

#[derive(PartialEq, Eq)]
struct Material {
    ca: Option<Pem>,
    client: Option<(Pem, Pem)>,
}

/// The configuration for the files' present content. Blocks.
fn current_config(settings: &TlsSettings, built: &Built) -> Result<Arc<ClientConfig>, TlsError> {
    let read = |path: &PathBuf| match small_file::read(path, MAX_CERTIFICATES) {
        Ok((pem, _)) => Ok(pem),
        Err(source) => Err(TlsError::Read { path: path.clone(), source }),
    };
    let ca = settings.ca_file.as_ref().map(read).transpose()?;
    let client = match &settings.client {
        Some(client) => Some((read(&client.cert_file)?, secret_file::read(&client.key_file)?)),
        None => None,
    };
    let material = Material { ca, client };
    let mut built = built.lock().unwrap_or_else(PoisonError::into_inner);
    match &*built {
        Some((known, config)) if *known == material => Ok(Arc::clone(config)),
        _ => {
            let config = Arc::new(material.config(settings)?);
            *built = Some((material, Arc::clone(&config)));
            Ok(config)
        }
    }
}

impl Material {
    fn config(&self, settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let trusted = (!settings.insecure_skip_verify).then(|| self.trusted(settings)).transpose()?;
        let verifier = Verifier::new(provider, trusted).map_err(|_| TlsError::NoRoots)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let (Some((certs, key)), Some(client)) = (&self.client, &settings.client) else {
            return Ok(builder.with_no_client_auth());
        };
        let unfit = || TlsError::Key { key: client.key_file.clone(), cert: client.cert_file.clone() };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| unfit())?;
        builder.with_client_auth_cert(certificates(&client.cert_file, certs)?, key).map_err(|_| unfit())
    }

    /// The trusted CAs, and the certificates in `ca_file`.
    fn trusted(&self, settings: &TlsSettings) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), TlsError> {
        let (Some(pem), Some(path)) = (&self.ca, &settings.ca_file) else {
            return Ok((Arc::clone(&SYSTEM_ROOTS), Vec::new()));
        };
        let listed = certificates(path, pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &listed {
            roots.add(certificate.clone()).map_err(|_| TlsError::Certificates { path: path.clone() })?;
        }
        Ok((Arc::new(roots), listed))
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let none = || TlsError::Certificates { path: path.to_owned() };
    read.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(none)
}
