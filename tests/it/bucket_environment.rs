//! What the S3 provider takes from its surroundings: credentials, proxies, certificates. The environment belongs to a whole
//! process, so each case runs in a child, which is this test program again.

use std::path::Path;
use std::process::Command;

use pacharc::bucket::{self, Error, Options};
use pacharc::failure::Explain as _;
use pacharc_format::Key;

use crate::support::fault_server::FaultServer;
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};
use crate::support::versitygw;

const URL: &str = "PACHARC_TEST_URL";
const CA_FILE: &str = "PACHARC_TEST_CA_FILE";

/// Not a test: what the child does. It looks for an object and says what came of it.
#[tokio::test]
#[ignore = "run by the other tests of this file"]
async fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let options = Options { ca_file: std::env::var_os(CA_FILE).map(Into::into), ..Options::default() };
    let found = match bucket::open(&url.parse().unwrap(), &options).await {
        Ok(bucket) => {
            println!("place: {} {}", bucket.identity(), bucket.url());
            bucket.head(&Key::from("k")).await
        }
        Err(error) => Err(error),
    };
    match found {
        Ok(_) => println!("outcome: found"),
        Err(Error::NotFound { .. }) => println!("outcome: absent"),
        Err(error) => println!("outcome: {} {error:?}", error.class().exit_code()),
    }
}

/// What the child said of its object, started with `variables` and nothing else.
async fn outcome(url: &str, variables: &[(&str, &str)]) -> String {
    said(url, variables, "outcome: ").await
}

async fn said(url: &str, variables: &[(&str, &str)], of: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "bucket_environment::child", "--ignored", "--nocapture"]).env_clear();
    command.env("AWS_EC2_METADATA_DISABLED", "true").env(URL, url).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains(SECRET_KEY), "{text}");
    let line = text.lines().find_map(|line| line.split_once(of));
    line.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];

#[tokio::test]
async fn credentials_come_from_the_usual_chain() {
    let Some(server) = versitygw::start().await else { return };
    let url = server.url("");
    assert_eq!(outcome(&url, &KEYS).await, "absent");

    let profiles = server.folder.path().join("profiles");
    let profile = format!("[backup]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    std::fs::write(&profiles, profile).unwrap();
    let profile = [("AWS_PROFILE", "backup"), ("AWS_SHARED_CREDENTIALS_FILE", profiles.to_str().unwrap())];
    assert_eq!(outcome(&url, &profile).await, "absent");

    let none = outcome(&url, &[]).await;
    assert!(none.starts_with("6 Credentials"), "{none}");
    let wrong = outcome(&url, &[KEYS[0], ("AWS_SECRET_ACCESS_KEY", "wrong")]).await;
    assert!(wrong.starts_with("6 Denied"), "{wrong}");
}

#[tokio::test]
async fn the_endpoint_may_come_from_the_environment() {
    let Some(server) = versitygw::start().await else { return };
    let endpoint = server.endpoint();
    for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let variables = [KEYS[0], KEYS[1], (name, &endpoint), ("AWS_REGION", "us-east-1")];
        assert_eq!(outcome("s3://bucket?path_style=true", &variables).await, "absent");
    }
}

/// Where a bucket is does not depend on what the environment says the next time.
#[tokio::test]
async fn an_endpoint_from_elsewhere_is_part_of_the_place() {
    let server = FaultServer::start().await;
    let endpoint = format!("http://127.0.0.1:{}", server.port());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let profile = format!("[profile lab]\nservices = own\n[services own]\ns3 =\n  endpoint_url = {endpoint}\n");
    std::fs::write(&file, profile).unwrap();
    let profile = [("AWS_PROFILE", "lab"), ("AWS_CONFIG_FILE", file.to_str().unwrap())];
    let expected = said(&format!("s3://b?endpoint={endpoint}&path_style=true"), &KEYS, "place: ").await;
    assert!(expected.starts_with(&format!("s3://127.0.0.1:{}/b/ s3://b?endpoint=", server.port())), "{expected}");
    for more in [vec![("AWS_ENDPOINT_URL", endpoint.as_str())], profile.to_vec()] {
        let variables = [KEYS.to_vec(), more].concat();
        assert_eq!(said("s3://b?path_style=true", &variables, "place: ").await, expected);
    }
}

#[tokio::test]
async fn proxies_are_used() {
    let server = FaultServer::start().await;
    server.hold("k", "x");
    let proxy = format!("http://127.0.0.1:{}", server.port());
    let url = "s3://bucket?endpoint=http://s3.invalid&path_style=true";
    let proxied = [KEYS[0], KEYS[1], ("HTTP_PROXY", proxy.as_str())];
    assert_eq!(outcome(url, &proxied).await, "found");
    assert_eq!(server.seen().len(), 1);
    let bypassed = [proxied[0], proxied[1], proxied[2], ("NO_PROXY", "s3.invalid")];
    let outcome = outcome(url, &bypassed).await;
    assert!(outcome.starts_with("7 Unreachable"), "{outcome}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn certificates_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    if !make_certificate(&certificate, &key) {
        return;
    }
    let Some(server) = versitygw::start_tls(&certificate, &key).await else { return };
    let url = format!("s3://bucket?endpoint=https://127.0.0.1:{}&path_style=true", server.port());
    let stranger = outcome(&url, &KEYS).await;
    assert!(stranger.starts_with("6 Tls"), "{stranger}");
    let path = certificate.to_str().unwrap();
    for variable in [CA_FILE, "SSL_CERT_FILE"] {
        assert_eq!(outcome(&url, &[KEYS[0], KEYS[1], (variable, path)]).await, "absent", "{variable}");
    }
    let no_certificate = outcome(&url, &[KEYS[0], KEYS[1], (CA_FILE, "/dev/null")]).await;
    assert!(no_certificate.starts_with("2 Certificates"), "{no_certificate}");
    let plain = outcome(&url.replace("https", "http"), &KEYS).await;
    assert!(!plain.starts_with("absent"), "{plain}");
}

/// A certificate for 127.0.0.1; `false` where openssl is missing, which is said.
pub(crate) fn make_certificate(certificate: &Path, key: &Path) -> bool {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]);
    command
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(certificate)
        .arg("-keyout")
        .arg(key);
    let made = command.output().is_ok_and(|output| output.status.success());
    if !made {
        eprintln!("skipped: openssl is not installed");
    }
    made
}
