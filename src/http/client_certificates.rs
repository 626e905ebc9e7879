//! Which certificates of clients the HTTP side takes: the five ways of Go's `crypto/tls`.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use super::web_config::ClientAuth;

/// Asks clients for a certificate, and checks it. The handshake's signature is always checked.
pub(super) struct ClientCertificates {
    provider: Arc<CryptoProvider>,
    is_needed: bool,
    /// None if any certificate will do.
    trusted: Option<Arc<dyn ClientCertVerifier>>,
    /// One of the certificate's names must be one of these, if there are any.
    allowed_names: BTreeSet<String>,
}

impl ClientCertificates {
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        auth: ClientAuth,
        roots: Option<RootCertStore>,
        allowed_names: BTreeSet<String>,
    ) -> Result<Self, String> {
        let is_needed = matches!(auth, ClientAuth::RequireAnyClientCert | ClientAuth::RequireAndVerifyClientCert);
        let is_verified = matches!(auth, ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert);
        let verifier =
            |roots| WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let trusted = match roots {
            Some(roots) if is_verified => {
                Some(verifier(roots).map_err(|error| format!("the CA of clients cannot be used: {error}"))?)
            }
            _ => None,
        };
        Ok(Self { provider, is_needed, trusted, allowed_names })
    }

    /// As the exporter-toolkit compares `client_allowed_sans`: DNS names, addresses of mail, IP addresses and URIs, to the letter.
    fn check_names(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.allowed_names.is_empty() {
            return Ok(());
        }
        let unreadable = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).map_err(unreadable)?;
        let names = certificate.subject_alternative_name().map_err(unreadable_names)?;
        let mut names = names.iter().flat_map(|names| &names.value.general_names);
        let is_allowed = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                self.allowed_names.contains(*name)
            }
            GeneralName::IPAddress(bytes) => ip(bytes).is_some_and(|ip| self.allowed_names.contains(&ip.to_string())),
            _ => false,
        };
        let refused = rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if names.any(is_allowed) { Ok(()) } else { Err(refused) }
    }
}

fn unreadable_names(_: impl fmt::Debug) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::BadEncoding)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates").field("is_needed", &self.is_needed).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.is_needed
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trusted.as_ref().map_or(&[], |trusted| trusted.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if let Some(trusted) = &self.trusted {
            trusted.verify_client_cert(certificate, intermediates, now)?;
        }
        self.check_names(certificate)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
