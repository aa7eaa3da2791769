//! TLS to PostgreSQL, with the checks that libpq makes for each `sslmode`.
//!
//! Where root certificates are known, the server's certificate must lead to one of them; for `verify-full` it must also
//! hold the host's name. Without any, `require` and weaker encrypt without knowing to whom, as libpq does.
//! Source: PostgreSQL manual, "SSL Support", and libpq's `fe-secure-openssl.c`.

use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::resolve::Settings;
use super::{Environment, Error};

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// libpq's word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Where systems keep their root certificates, as one PEM file.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a server is to be spoken to.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) mode: SslMode,
    /// `None` for [`SslMode::Disable`].
    pub(super) connector: Option<MakeRustlsConnect>,
    pub(super) root: Option<PathBuf>,
    /// Client certificate and key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Reads the files that `settings` name or that lie in their usual places.
    pub(super) fn new(settings: &Settings, environment: &Environment, ca_file: Option<&Path>) -> Result<Self, Error> {
        let system = settings.text("sslrootcert") == Some("system");
        let mode = match settings.text("sslmode") {
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            None if system => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        };
        if system && mode != SslMode::VerifyFull {
            return Err(settings.error("sslmode", "with sslrootcert=system it must be verify-full"));
        }
        if settings.text("sslnegotiation") == Some("direct") && mode < SslMode::Require {
            return Err(settings.error("sslnegotiation", "`direct` needs an sslmode of at least require"));
        }
        if mode == SslMode::Disable {
            return Ok(Self { mode, connector: None, root: None, client: None });
        }
        let folder = environment.home().map(|home| home.join(".postgresql"));
        let usual = |name: &str| folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists());
        if let Some(path) = usual("root.crl") {
            let problem = format!("revocation lists are not supported, and {} exists", path.display());
            return Err(settings.error("sslcrl", problem));
        }
        let root = match settings.text("sslrootcert") {
            Some("system") => Some(system_roots(settings, environment)?),
            Some(path) => Some(PathBuf::from(path)),
            None => ca_file.map(Path::to_owned).or_else(|| usual("root.crt")),
        };
        if root.is_none() && mode >= SslMode::VerifyCa {
            let problem = "there are no root certificates: name their file, or `system`, or give --ca-file";
            return Err(settings.error("sslrootcert", problem));
        }
        let client = match (settings.text("sslcert"), settings.text("sslkey")) {
            (None, key) => usual("postgresql.crt").map(|cert| (cert, key.map(PathBuf::from))),
            (Some(cert), key) => Some((PathBuf::from(cert), key.map(PathBuf::from))),
        };
        let client = match client {
            None => None,
            Some((certificate, key)) => {
                let key = key.or_else(|| usual("postgresql.key"));
                Some((
                    certificate,
                    key.ok_or_else(|| settings.error("sslkey", "the client certificate lacks its key"))?,
                ))
            }
        };
        let config = client_config(settings, mode, root.as_deref(), client.as_ref())?;
        Ok(Self { mode, connector: Some(MakeRustlsConnect::new(config)), root, client })
    }
}

fn system_roots(settings: &Settings, environment: &Environment) -> Result<PathBuf, Error> {
    if let Some(path) = environment.os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let found = SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| settings.error("sslrootcert", "the system's certificates were not found: set SSL_CERT_FILE"))
}

fn client_config(
    settings: &Settings,
    mode: SslMode,
    root: Option<&Path>,
    client: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier {
        roots: root.map(Roots::read).transpose()?,
        check_name: mode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    });
    let versions: &[_] = match (settings.text("ssl_min_protocol_version"), settings.text("ssl_max_protocol_version")) {
        (Some("TLSv1.3"), Some("TLSv1.2")) => {
            return Err(settings.error("ssl_max_protocol_version", "it is below ssl_min_protocol_version"));
        }
        (Some("TLSv1.3"), _) => &[&version::TLS13],
        (_, Some("TLSv1.2")) => &[&version::TLS12],
        _ => &[&version::TLS13, &version::TLS12],
    };
    let builder = builder(provider, versions)?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = read_certificates("the client certificate", certificate)?;
            builder.with_client_auth_cert(chain, read_key(key)?).map_err(|error| Error::TlsFile {
                what: "the client key",
                path: key.clone(),
                problem: error.to_string(),
            })?
        }
    };
    config.enable_sni = settings.text("sslsni") != Some("0");
    if settings.text("sslnegotiation") == Some("direct") {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

fn builder(
    provider: Arc<CryptoProvider>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(Error::TlsSetup)
}

fn read_certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |problem: String| Error::TlsFile { what, path: path.to_owned(), problem };
    let content = std::fs::read(path).map_err(|source| Error::File { what, path: path.to_owned(), source })?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&content).collect::<Result<_, _>>().map_err(|error| fail(error.to_string()))?;
    if certificates.is_empty() { Err(fail("it holds no PEM certificate".to_owned())) } else { Ok(certificates) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let what = "the client key";
    let unreadable = |source| Error::File { what, path: path.to_owned(), source };
    let fail = |problem: &str| Error::TlsFile { what, path: path.to_owned(), problem: problem.to_owned() };
    // libpq's rule: the owner alone, or root and a group that may read.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let open_to_others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.permissions().mode() & open_to_others != 0 {
        return Err(fail("others can read it: set its permissions to 0600 (0640 or less where root owns it)"));
    }
    let content = std::fs::read(path).map_err(unreadable)?;
    if content.windows(9).any(|window| window == b"ENCRYPTED") {
        return Err(fail("it is encrypted, which is not supported: decrypt it with `openssl pkey`"));
    }
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| fail(&error.to_string()))
}

/// The trusted certificates.
#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    /// As they are: one that is the server's own is trusted too.
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn read(path: &Path) -> Result<Self, Error> {
        let what = "the root certificates";
        let certificates = read_certificates(what, path)?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        if store.is_empty() {
            return Err(Error::TlsFile { what, path: path.to_owned(), problem: "none can be understood".to_owned() });
        }
        Ok(Self { store, certificates })
    }
}

/// Checks the server's certificate as libpq would.
#[derive(Debug)]
struct Verifier {
    roots: Option<Roots>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check_chain(
        &self,
        roots: &Roots,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if roots.certificates.iter().any(|root| root == end_entity) {
            // A self-signed certificate is its own authority: OpenSSL takes it, webpki would not.
            return check_validity(&parse(end_entity)?, now);
        }
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots.store,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            self.check_chain(roots, end_entity, intermediates, now)?;
            if self.check_name {
                check_name(&parse(end_entity)?, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, rustls::Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn check_validity(certificate: &Certificate, now: UnixTime) -> Result<(), rustls::Error> {
    let validity = &certificate.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The alternative names decide; the common name only where there are none (as in libpq, and unlike webpki).
fn check_name(certificate: &Certificate, server: &ServerName<'_>) -> Result<(), rustls::Error> {
    let alternatives = match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(found) => found.map(|(_, names)| names.0).unwrap_or_default(),
        Err(_) => return Err(CertificateError::BadEncoding.into()),
    };
    let wanted = server.to_str();
    let address: Option<IpAddr> = wanted.parse().ok();
    let mut presented = Vec::new();
    let mut decided = false;
    for name in &alternatives {
        match name {
            GeneralName::DnsName(name) => {
                decided = true;
                presented.push(name.as_str().to_owned());
            }
            GeneralName::IpAddress(octets) => {
                decided |= address.is_some();
                let octets = octets.as_bytes();
                let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
                presented
                    .extend(four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).map(|ip| ip.to_string()));
            }
            _ => {}
        }
    }
    if !decided {
        presented.extend(common_name(certificate));
    }
    let matches = |name: &String| match address {
        Some(address) => name.parse() == Ok(address),
        None => name_matches(name, &wanted),
    };
    if presented.iter().any(matches) {
        return Ok(());
    }
    let expected = server.to_owned();
    Err(CertificateError::NotValidForNameContext { expected, presented }.into())
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let mut attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|set| set.0.iter());
    let value = &attributes.rfind(|attribute| attribute.oid == CN)?.value;
    let utf8 = Utf8StringRef::try_from(value).map(|text| text.as_str().to_owned());
    utf8.or_else(|_| PrintableStringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .or_else(|_| Ia5StringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .or_else(|_| TeletexStringRef::try_from(value).map(|text| text.as_str().to_owned()))
        .ok()
}

/// `*.` stands for exactly one label at the front.
fn name_matches(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(domain), Some((label, rest))) => !label.is_empty() && domain.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn wildcards_stand_for_one_label() {
        assert!(name_matches("DB.example.com", "db.example.com"));
        assert!(name_matches("*.example.com", "db.example.com"));
        assert!(!name_matches("*.example.com", "a.db.example.com"));
        assert!(!name_matches("*.example.com", "example.com"));
        assert!(!name_matches("*.example.com", ".example.com"));
        assert!(!name_matches("d*.example.com", "db.example.com"));
    }
}
