//! TLS of the HTTP side: what the names in a web configuration file mean to rustls.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::{
    client_certificates::ClientCertificates,
    web_config::{ClientAuth, TlsServer},
};

/// The content of the files that a configuration names, or of its own texts.
pub(super) struct Material<'a> {
    pub(super) certificate: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) client_ca: Option<&'a [u8]>,
}

/// What a listener needs. The error is one line.
pub(super) fn server_config(settings: &TlsServer, material: &Material<'_>) -> Result<Arc<ServerConfig>, String> {
    let versions = versions(settings.min_version.as_deref(), settings.max_version.as_deref())?;
    let base = aws_lc_rs::default_provider();
    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(&settings.cipher_suites)?,
        kx_groups: curves(&settings.curve_preferences)?,
        ..base
    });
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| format!("tls_server_config: {error}"))?;
    let builder = match settings.client_auth_type {
        ClientAuth::NoClientCert => builder.with_no_client_auth(),
        auth => {
            let roots = material.client_ca.map(roots).transpose()?;
            let verifier = ClientCertificates::new(provider, auth, roots, settings.client_allowed_sans.clone())?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(material.key).map_err(|_| "the key is no private key in PEM".to_owned())?;
    let unfit = |error| format!("the key does not fit the certificate: {error}");
    let mut config =
        builder.with_single_cert(certificates("the certificate", material.certificate)?, key).map_err(unfit)?;
    config.ignore_client_order = settings.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn versions(min: Option<&str>, max: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let read = |field: &str, name: Option<&str>, default: u8| match name {
        None | Some("") => Ok(default),
        Some("TLS12") => Ok(12),
        Some("TLS13") => Ok(13),
        Some(old @ ("TLS10" | "TLS11")) => Err(format!("{field}: {old} is broken, and not served: say TLS12 or TLS13")),
        Some(other) => Err(format!("{field}: {other:?} is not known: there are TLS12 and TLS13")),
    };
    let (min, max) = (read("min_version", min, 12)?, read("max_version", max, 13)?);
    let versions: Vec<_> = [(12, &TLS12), (13, &TLS13)]
        .into_iter()
        .filter(|(number, _)| (min..=max).contains(number))
        .map(|(_, v)| v)
        .collect();
    if versions.is_empty() { Err("min_version is above max_version".into()) } else { Ok(versions) }
}

/// The suites of TLS 1.2 that are named; as in Go, those of TLS 1.3 are not to be chosen.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, String> {
    let all = aws_lc_rs::default_provider().cipher_suites;
    if names.is_empty() {
        return Ok(all);
    }
    let name = |suite: &SupportedCipherSuite| {
        suite.suite().as_str().map(|name| name.replacen("TLS13_", "TLS_", 1)).unwrap_or_default()
    };
    if let Some(unknown) = names.iter().find(|wanted| !all.iter().any(|suite| is_named(wanted, &name(suite)))) {
        let known: Vec<_> = all.iter().map(name).collect();
        return Err(format!("cipher_suites: {unknown:?} is not served: there are {}", known.join(", ")));
    }
    let is_chosen = |suite: &SupportedCipherSuite| {
        suite.tls13().is_some() || names.iter().any(|wanted| is_named(wanted, &name(suite)))
    };
    Ok(all.into_iter().filter(is_chosen).collect())
}

/// Go has a short name for two suites, too.
fn is_named(wanted: &str, name: &str) -> bool {
    wanted == name || (wanted.ends_with("CHACHA20_POLY1305") && name.strip_suffix("_SHA256") == Some(wanted))
}

fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    if names.is_empty() {
        return Ok(aws_lc_rs::default_provider().kx_groups);
    }
    let curve = |name: &String| -> Result<&'static dyn SupportedKxGroup, String> {
        match name.as_str() {
            "X25519" => Ok(aws_lc_rs::kx_group::X25519),
            "CurveP256" => Ok(aws_lc_rs::kx_group::SECP256R1),
            "CurveP384" => Ok(aws_lc_rs::kx_group::SECP384R1),
            "X25519MLKEM768" => Ok(aws_lc_rs::kx_group::X25519MLKEM768),
            other => Err(format!(
                "curve_preferences: {other:?} is not served: there are X25519, CurveP256, CurveP384, X25519MLKEM768"
            )),
        }
    };
    names.iter().map(curve).collect()
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA of clients", pem)? {
        roots.add(certificate).map_err(|error| format!("the CA of clients cannot be used: {error}"))?;
    }
    Ok(roots)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|read| !read.is_empty()).ok_or_else(|| format!("{what} is no certificate in PEM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_of_go_choose_versions_suites_and_curves() {
        assert_eq!(versions(None, None).expect("fine"), [&TLS12, &TLS13]);
        assert_eq!(versions(Some("TLS13"), None).expect("fine"), [&TLS13]);
        assert_eq!(versions(None, Some("TLS12")).expect("fine"), [&TLS12]);
        let chosen = suites(&texts(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"])).expect("fine");
        assert_eq!(chosen.iter().filter(|suite| suite.tls13().is_none()).count(), 1);
        assert!(suites(&texts(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_AES_128_GCM_SHA256"])).is_ok());
        assert_eq!(curves(&texts(&["CurveP384", "X25519"])).expect("fine").len(), 2);
    }

    #[test]
    fn what_rustls_cannot_do_is_refused_by_name() {
        for (error, said) in [
            (versions(Some("TLS10"), None).map(drop), "min_version: TLS10 is broken"),
            (versions(Some("SSL3"), None).map(drop), "\"SSL3\" is not known"),
            (versions(Some("TLS13"), Some("TLS12")).map(drop), "above max_version"),
            (suites(&texts(&["TLS_RSA_WITH_AES_128_CBC_SHA"])).map(drop), "TLS_RSA_WITH_AES_128_CBC_SHA"),
            (curves(&texts(&["CurveP521"])).map(drop), "\"CurveP521\" is not served"),
        ] {
            let error = error.expect_err(said);
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
    }
}
