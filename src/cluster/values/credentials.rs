//! Which of Helm's values are credentials, and their replacement by a placeholder.
//!
//! The chart's own are known by name. Of others, names and shapes tell; where in doubt a value is taken for one, since a
//! placeholder is told and can be mended, and what was written in clear cannot be taken back.

use serde_json::{Map, Value};

/// What stands where a credential stood.
pub const PLACEHOLDER: &str = "REPLACE-ME";

/// Credentials of the source's own environment: the target has others (chart, `values.yaml`, 2.0 to 2.12).
const ENVIRONMENT: [&str; 16] = [
    "global.postgresql.postgresqlPassword",
    "global.postgresql.postgresqlPostgresPassword",
    "postgresql.postgresqlPassword",
    "postgresql.postgresqlPostgresPassword",
    "pachd.storage.amazon.id",
    "pachd.storage.amazon.secret",
    "pachd.storage.amazon.token",
    "pachd.storage.google.cred",
    "pachd.storage.microsoft.id",
    "pachd.storage.microsoft.secret",
    "pachd.storage.minio.id",
    "pachd.storage.minio.secret",
    "pachd.tls.newSecret.key",
    "ingress.tls.newSecret.key",
    "proxy.tls.newSecret.key",
    "enterpriseServer.tls.newSecret.key",
];

/// Ends of names, in lower case, that a credential has.
const SUFFIXES: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "licensekey",
    "privatekey",
    "accesskey",
    "secretkey",
    "apikey",
    "cred",
    "credentials",
    "jsonconfig",
    "dockerconfigjson",
];
/// Ends of names that say where a credential lies.
const REFERENCES: [&str; 4] = ["secretname", "existingsecret", "existingsecretkey", "clientsecretkey"];

/// A credential that was replaced.
#[derive(Clone, PartialEq)]
pub struct Replaced {
    /// The value's keys, joined with dots; list items by their number.
    pub path: String,
    /// What stood there; `None` for one of the source's environment, which is of no use elsewhere.
    pub original: Option<Value>,
}

/// Puts [`PLACEHOLDER`] in the place of every credential, and returns what stood there.
pub fn replace(values: &mut Map<String, Value>) -> Vec<Replaced> {
    let mut replaced = Vec::new();
    for (key, value) in values {
        walk(key, key, value, &mut replaced);
    }
    replaced
}

fn walk(path: &str, key: &str, value: &mut Value, replaced: &mut Vec<Replaced>) {
    match value {
        Value::Object(map) => {
            // An environment variable in a list: {name: X_PASSWORD, value: …}.
            let named = map.get("name").and_then(Value::as_str).is_some_and(is_named_so);
            for (below, value) in map.iter_mut() {
                let key = if named && below == "value" { "password" } else { below };
                walk(&format!("{path}.{below}"), key, value, replaced);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                walk(&format!("{path}.{at}"), key, item, replaced);
            }
        }
        Value::String(text) if text.is_empty() || text == PLACEHOLDER => {}
        Value::String(_) | Value::Number(_) => {
            let environment = ENVIRONMENT.iter().any(|known| is_below(path, known));
            let credential = environment || is_named_so(key) || value.as_str().is_some_and(is_shaped_so);
            if credential {
                let original = std::mem::replace(value, Value::from(PLACEHOLDER));
                replaced.push(Replaced { path: path.to_owned(), original: (!environment).then_some(original) });
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether `path` is `known`, or `known` below the key of a chart that brings Pachyderm's.
fn is_below(path: &str, known: &str) -> bool {
    path.strip_suffix(known).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

fn is_named_so(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    SUFFIXES.iter().any(|suffix| key.ends_with(suffix)) && !REFERENCES.iter().any(|suffix| key.ends_with(suffix))
}

/// A private key, a cloud's key file, a URL with a password.
fn is_shaped_so(text: &str) -> bool {
    let with_password = |url: &str| url::Url::parse(url).is_ok_and(|url| url.password().is_some());
    text.contains("PRIVATE KEY-----")
        || text.contains("\"private_key\"")
        || (text.contains("://") && text.split_whitespace().any(with_password))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_are_found_and_nothing_else() {
        let mut values = json!({
            "global": { "postgresql": { "postgresqlPassword": "p", "postgresqlHost": "h", "postgresqlExistingSecretName": "n",
                "postgresqlExistingSecretKey": "k" } },
            "pachd": {
                "rootToken": "t", "rootTokenSecretName": "n", "enterpriseLicenseKey": "l", "oauthClientID": "pachd",
                "storage": { "amazon": { "id": "AKIA", "secret": "s", "bucket": "b" }, "microsoft": { "container": "c" } },
                "tls": { "secretName": "tls", "newSecret": { "create": true, "key": "k", "crt": "c" } },
                "env": [{ "name": "API_TOKEN", "value": "x" }, { "name": "LOG", "value": "info" }],
            },
            "oidc": { "upstreamIDPs": [{ "id": "x", "jsonConfig": "{}" }], "mockIDP": true },
            "mine": { "db": "postgres://u:pw@h/d", "docs": "https://h/d", "pem": "-----BEGIN RSA PRIVATE KEY-----", "token": "",
                "password": 1234, "hasToken": false, "apiKey": "a" },
            "umbrella": { "pachd": { "storage": { "amazon": { "id": "AKIA" } } } },
        });
        let Value::Object(map) = &mut values else { panic!() };
        let replaced = replace(map);
        let environment: Vec<&str> =
            replaced.iter().filter(|one| one.original.is_none()).map(|one| one.path.as_str()).collect();
        let amazon = ["pachd.storage.amazon.id", "pachd.storage.amazon.secret"];
        assert_eq!(
            environment,
            [
                &["global.postgresql.postgresqlPassword"],
                &amazon[..],
                &["pachd.tls.newSecret.key", "umbrella.pachd.storage.amazon.id"],
            ]
            .concat()
        );
        let others: Vec<&str> =
            replaced.iter().filter(|one| one.original.is_some()).map(|one| one.path.as_str()).collect();
        let wanted = [
            "mine.apiKey",
            "mine.db",
            "mine.password",
            "mine.pem",
            "oidc.upstreamIDPs.0.jsonConfig",
            "pachd.enterpriseLicenseKey",
            "pachd.env.0.value",
            "pachd.rootToken",
        ];
        assert_eq!(others, wanted);
        assert_eq!(values["global"]["postgresql"]["postgresqlExistingSecretKey"], "k");
        assert_eq!(
            values["pachd"]["storage"]["amazon"],
            json!({ "id": PLACEHOLDER, "secret": PLACEHOLDER, "bucket": "b" })
        );
        let Value::Object(map) = &mut values else { panic!() };
        assert!(replace(map).is_empty(), "once is enough");
    }
}
