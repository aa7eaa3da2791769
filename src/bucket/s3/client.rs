//! The SDK's client: endpoint, region, credentials, certificates, proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use aws_types::service_config::ServiceConfigKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use super::super::url::S3Url;
use super::{BucketUrl, Error, Options};
use crate::bucket;

/// What stands for Amazon's own endpoints in a bucket's identity: there a bucket's name is enough.
const AMAZON: &str = "amazonaws.com";
/// Where servers of others lie, unless they say otherwise.
const DEFAULT_REGION: &str = "us-east-1";
const CONNECT: Duration = Duration::from_secs(10);

/// What speaks to a bucket.
pub(super) struct Built {
    pub(super) client: Client,
    /// The bucket's URL, with an endpoint that the environment or a profile gave: elsewhere, it would be another bucket.
    pub(super) url: S3Url,
    /// The endpoint as it goes into the bucket's identity.
    pub(super) place: String,
    /// Whether the endpoint speaks TLS.
    pub(super) is_encrypted: bool,
}

/// A client for the bucket at `url`.
pub(super) async fn build(url: &S3Url, options: &Options) -> Result<Built, Error> {
    let http = http_client(url, options.ca_file.as_deref(), None)?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = &url.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(given) = &options.credentials {
        let bucket::Credentials { access_key_id: id, secret_access_key: key, session_token: token } = given.clone();
        loader = loader.credentials_provider(Credentials::new(id, key, token, None, "pacharc"));
    }
    let shared = loader.load().await;
    let mut config = Builder::from(&shared)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // Many servers know no CRC trailers: `NotImplemented`, or a garbled object.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(url.path_style);
    if shared.region().is_none() {
        config = config.region(Region::new(DEFAULT_REGION));
    }
    if let Some(endpoint) = &url.endpoint {
        let mut near = endpoint.clone();
        if let Some(via) = options.via {
            // Fails for a URL without a host alone, which an endpoint has.
            let _ = near.set_port(Some(via.port()));
            // Others that the SDK speaks to, for credentials, are not behind it.
            config = config.http_client(http_client(url, options.ca_file.as_deref(), options.via)?);
        }
        config = config.endpoint_url(near.as_str().trim_end_matches('/'));
    }
    let endpoint = url.endpoint.clone().or_else(|| configured(&shared));
    Ok(Built {
        client: Client::from_conf(config.build()),
        place: place(endpoint.as_ref()),
        // Amazon's own do, where nothing else is said.
        is_encrypted: endpoint.as_ref().is_none_or(|url| url.scheme() == "https"),
        url: S3Url { endpoint, ..url.clone() },
    })
}

/// The endpoint that the SDK finds in environment and profile, S3's own before that of all services.
fn configured(shared: &SdkConfig) -> Option<Url> {
    let key =
        ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok()?;
    let own = shared.service_config().and_then(|config| config.load_config(key));
    Url::parse(&own.or_else(|| shared.endpoint_url().map(str::to_owned))?).ok()
}

/// The endpoint's host and port, spelt in one way.
fn place(endpoint: Option<&Url>) -> String {
    match endpoint.and_then(|url| Some((url.host_str()?, url.port_or_known_default()?, url.path()))) {
        Some((host, _, _)) if host.ends_with(AMAZON) => AMAZON.to_owned(),
        Some((host, port, path)) => format!("{host}:{port}{}", path.trim_end_matches('/')),
        None => AMAZON.to_owned(),
    }
}

/// Trusts the system's certificates (or those of `SSL_CERT_FILE`) and those in `ca_file`; goes through `HTTPS_PROXY`.
fn http_client(url: &S3Url, ca_file: Option<&Path>, via: Option<SocketAddr>) -> Result<SharedHttpClient, Error> {
    // The SDK takes it for a bug if it is to trust the system, and the system trusts nobody.
    let system = !rustls_native_certs::load_native_certs().certs.is_empty();
    let mut trusted = TrustStore::empty().with_native_roots(system);
    if let Some(path) = ca_file {
        let refuse = |reason: String| Error::Certificates { path: path.to_owned(), reason };
        let pem = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
        check_certificates(&pem).map_err(refuse)?;
        trusted = trusted.with_pem_certificate(pem);
    }
    let refuse = |e| Error::Tls { bucket: BucketUrl::S3(url.clone()).to_string(), source: Box::new(e) };
    let context = TlsContext::builder().with_trust_store(trusted).build().map_err(refuse)?;
    let client = aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder =
            aws_smithy_http_client::Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        builder = builder.tls_context(context.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        match via {
            Some(via) => builder.build_with_resolver(Fixed(via.ip())),
            None => builder.proxy_config(ProxyConfig::from_env()).build(),
        }
    });
    Ok(client)
}

/// Every name leads to one address.
#[derive(Clone, Debug)]
struct Fixed(IpAddr);

impl ResolveDns for Fixed {
    fn resolve_dns<'a>(&'a self, _: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![self.0]))
    }
}

/// The SDK would panic on certificates that cannot be used.
fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if store.is_empty() { Err("there are none".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_spelling() {
        for (url, expected) in [
            ("http://MinIO.example:80/", "minio.example:80"),
            ("http://minio.example", "minio.example:80"),
            ("https://minio.example", "minio.example:443"),
            ("https://s3.eu-west-1.amazonaws.com", AMAZON),
            ("http://gateway/s3/", "gateway:80/s3"),
        ] {
            assert_eq!(place(Some(&Url::parse(url).unwrap())), expected);
        }
        assert_eq!(place(None), AMAZON);
    }

    #[test]
    fn certificates_are_checked_first() {
        assert!(check_certificates(b"").is_err());
        assert!(check_certificates(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
