//! Verification of an `https://` exporter's certificate.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// The error of rustls for a certificate that is marked as a CA's: many exporters have such a self-signed one.
const CA_AS_EXPORTER: webpki::Error = webpki::Error::CaUsedAsEndEntity;

/// Checks the exporter's certificate, or accepts any. The handshake's signature is always checked.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    trusted: Option<Trusted>,
}

/// Who verifies certificates from a trusted CA, and the certificates in `ca_file` themselves.
type Trusted = (Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>);

impl Verifier {
    /// Accepts certificates from the trusted roots, and the listed ones; without any, accepts every certificate.
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        trusted: Option<(Arc<RootCertStore>, Vec<CertificateDer<'static>>)>,
    ) -> Result<Self, VerifierBuilderError> {
        let verifier = |roots| WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let trusted = match trusted {
            Some((roots, listed)) => Some((verifier(roots)?, listed)),
            None => None,
        };
        Ok(Self { provider, trusted })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some((by, listed)) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        match by.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // `openssl req -x509` makes a CA certificate. Prometheus's guide uses such a certificate as the exporter's own
            // and as `ca_file`. webpki returns this error after it has checked the dates, so the name remains.
            Err(error) if webpki_error(&error) == Some(&CA_AS_EXPORTER) && listed.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// True if the certificate does not come from a trusted CA.
pub(super) fn is_untrusted(error: &rustls::Error) -> bool {
    use rustls::Error::InvalidCertificate;
    // A bad signature means a CA of the same name with another key.
    matches!(error, InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature))
        || webpki_error(error) == Some(&CA_AS_EXPORTER)
}

/// The webpki error that rustls passes on as "other".
fn webpki_error(error: &rustls::Error) -> Option<&webpki::Error> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}
