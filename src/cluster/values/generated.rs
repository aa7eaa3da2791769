//! The secrets that the chart makes at random where none is given, and takes from a Secret where one is named.
//!
//! A plain re-install makes them anew, and the restored databases know the old ones. So they go into one new Secret, and the
//! values name it. The chart keeps making its own Secrets with what is left, so that one of theirs would be in Helm's way.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::{Captured, remove, set};
use crate::cluster::helm::lookup;
use crate::cluster::yaml;

/// The Secret that holds them at the target.
pub const SECRET: &str = "pachyderm-restored";

/// One secret of the chart (chart, `templates/pachd/{auth,enterprise,idp,license}*secret*.yaml`,
/// `templates/console/secret.yaml`, from 2.1 on).
struct Generated {
    /// The value that names a Secret.
    reference: &'static str,
    /// The value in clear.
    clear: &'static str,
    /// The Secret that the chart makes otherwise.
    secret: &'static str,
    /// The key in either Secret.
    key: &'static str,
}

const fn generated(reference: &'static str, clear: &'static str, secret: &'static str, key: &'static str) -> Generated {
    Generated { reference, clear, secret, key }
}

const GENERATED: [Generated; 7] = [
    generated("pachd.rootTokenSecretName", "pachd.rootToken", "pachyderm-auth", "root-token"),
    generated(
        "pachd.oauthClientSecretSecretName",
        "pachd.oauthClientSecret",
        "pachyderm-auth",
        "pachd-oauth-client-secret",
    ),
    generated(
        "pachd.enterpriseSecretSecretName",
        "pachd.enterpriseSecret",
        "pachyderm-enterprise",
        "enterprise-secret",
    ),
    generated(
        "pachd.enterpriseLicenseKeySecretName",
        "pachd.enterpriseLicenseKey",
        "pachyderm-license",
        "enterprise-license-key",
    ),
    generated("oidc.upstreamIDPsSecretName", "oidc.upstreamIDPs", "pachyderm-identity", "upstream-idps"),
    generated(
        "oidc.additionalClientsSecretName",
        "oidc.additionalClients",
        "pachyderm-identity-extras",
        "additional-oidc-clients",
    ),
    generated(
        "console.config.oauthClientSecretSecretName",
        "console.config.oauthClientSecret",
        "pachyderm-console-secret",
        "OAUTH_CLIENT_SECRET",
    ),
];

/// The Secret that has them all in the charts 2.0 to 2.2 (`templates/pachd/config-secret.yaml`).
const BOOTSTRAP: &str = "pachyderm-bootstrap-config";

/// What [`BOOTSTRAP`] has for the value in clear at `clear`.
fn bootstrapped(captured: &Captured, clear: &str) -> Option<String> {
    let text = |key: &str| captured.secret_text(BOOTSTRAP, key);
    let found = match clear {
        "pachd.rootToken" => text("rootToken"),
        "pachd.enterpriseSecret" => text("enterpriseSecret"),
        "pachd.enterpriseLicenseKey" => text("license"),
        "oidc.upstreamIDPs" => text("idps"),
        "pachd.oauthClientSecret" => {
            let config: Value = yaml::from_str(&text("authConfig")?).ok()?;
            config.get("client_secret").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    };
    // `$NAME` stands for a Secret of the user's own.
    found.filter(|found| !found.starts_with('$'))
}

/// What came of them.
#[derive(Default)]
pub(super) struct Pinned {
    /// The new Secret, where there is anything to put into it.
    pub(super) secret: Option<Secret>,
    /// Values that this chart takes in clear alone.
    pub(super) clear: BTreeMap<&'static str, Value>,
}

/// Makes `values` refer to the secrets as they were at the source.
pub(super) fn pin(values: &mut Map<String, Value>, captured: &Captured) -> Pinned {
    let computed = captured.own_release().map(|release| &release.computed);
    let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
    let mut pinned = Pinned::default();
    for Generated { reference, clear, secret, key } in GENERATED {
        // The user had them in a Secret of his own, which comes back as it was.
        if lookup(values, reference).and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
            remove(values, clear);
            continue;
        }
        let Some(text) = captured.secret_text(secret, key).or_else(|| bootstrapped(captured, clear)) else { continue };
        if is_nothing(&text) {
            continue;
        }
        // Where Helm's values are not known, the chart is one of today's.
        let takes_reference = computed.is_none_or(|computed| lookup(computed, reference).is_some());
        if takes_reference {
            remove(values, clear);
            set(values, reference, SECRET.into());
            data.insert(key.to_owned(), ByteString(text.into_bytes()));
        } else {
            let value = match clear {
                // The one kind of value that is not text: the Secret holds it as YAML.
                "oidc.upstreamIDPs" | "oidc.additionalClients" => yaml::from_str(&text).unwrap_or(Value::Null),
                _ => Value::from(text),
            };
            pinned.clear.insert(clear, value);
        }
    }
    if !data.is_empty() {
        let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
        let type_ = Some("Opaque".to_owned());
        pinned.secret = Some(Secret { metadata, type_, data: Some(data), ..Secret::default() });
    }
    pinned
}

/// An empty list, as the chart writes it.
fn is_nothing(text: &str) -> bool {
    matches!(text.trim(), "" | "[]" | "null")
}
