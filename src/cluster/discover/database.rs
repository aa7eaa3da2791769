//! The databases: what pachd connects to without pg-bouncer in between, and how pg-bouncer secures the same way.
//!
//! Sources: `etc/helm/pachyderm/templates/pachd/deployment.yaml` and `…/pgbouncer/deployment.yaml` at each 2.x tag;
//! defaults from `src/internal/pachconfig`.

use serde::Serialize;

use super::workload::Workload;
use super::{Error, Found};
use crate::secret::Secret;

/// What the chart writes for a password where Cloud SQL's proxy logs in by IAM.
const IAM_LOGIN: &str = "Using-iamLogin";
/// libpq's modes, weakest first.
const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// A PostgreSQL server, and Pachyderm's databases on it.
#[derive(Clone, Debug, Serialize)]
pub struct Database {
    /// The host, as pods of the namespace know it.
    pub host: Found<String>,
    /// The port.
    pub port: Found<u16>,
    /// The role.
    pub user: Found<String>,
    /// Its password; `None` where Cloud SQL's proxy logs in by IAM.
    pub password: Option<Found<Secret>>,
    /// The main database.
    pub pachyderm: Found<String>,
    /// Dex's database, which members of an enterprise server lack.
    pub dex: Found<String>,
    /// libpq's `sslmode`: the stronger one of pachd's and pg-bouncer's.
    pub sslmode: Found<String>,
    /// Certificates of authorities that pg-bouncer trusts, in PEM.
    pub authorities: Option<Found<Secret>>,
    /// Certificate and key that pg-bouncer shows, in PEM.
    pub client: Option<Client>,
}

/// A client certificate.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// The certificate.
    pub certificate: Found<Secret>,
    /// Its key.
    pub key: Found<Secret>,
}

impl Database {
    /// Reads it from `pachd` (or `pach-enterprise`) and, for TLS, from `bouncer`.
    pub(super) async fn read(pachd: &Workload<'_>, bouncer: Option<&Workload<'_>>) -> Result<Self, Error> {
        let default = |value: &str| Found::new(value.to_owned(), "default of pachd");
        let host = pachd.required("POSTGRES_HOST").await?.plain();
        let port = match pachd.variable("POSTGRES_PORT").await? {
            None => Found::new(5432, "default of PostgreSQL"),
            Some(found) => match found.text().trim().parse::<u16>() {
                Ok(port @ 1..) => found.map(|_| port),
                _ => return Err(Error::Value { found_in: found.found_in, problem: "it is no port".to_owned() }),
            },
        };
        let own = pachd.variable("POSTGRES_SSL").await?.map(Found::plain);
        let bouncers = match bouncer {
            Some(bouncer) => bouncer.variable("PGBOUNCER_SERVER_TLS_SSLMODE").await?.map(Found::plain),
            None => None,
        };
        Ok(Self {
            host,
            port,
            user: pachd.required("POSTGRES_USER").await?.plain(),
            password: pachd.variable("POSTGRES_PASSWORD").await?.filter(|found| found.text() != IAM_LOGIN),
            pachyderm: pachd.variable("POSTGRES_DATABASE").await?.map_or_else(|| default("pachyderm"), Found::plain),
            dex: pachd.variable("IDENTITY_SERVER_DATABASE").await?.map_or_else(|| default("dex"), Found::plain),
            sslmode: stronger(own.unwrap_or_else(|| default("disable")), bouncers),
            authorities: mounted(bouncer, "PGBOUNCER_SERVER_TLS_CA_FILE").await?,
            client: match (
                mounted(bouncer, "PGBOUNCER_SERVER_TLS_CERT_FILE").await?,
                mounted(bouncer, "PGBOUNCER_SERVER_TLS_KEY_FILE").await?,
            ) {
                (Some(certificate), Some(key)) => Some(Client { certificate, key }),
                _ => None,
            },
        })
    }

    /// Whether Cloud SQL's proxy logs in, so that there is no password.
    #[must_use]
    pub fn logs_in_by_iam(&self) -> bool {
        self.password.is_none()
    }

    /// Whether the cluster makes sure of whom it speaks to.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.sslmode.value.starts_with("verify-")
    }
}

/// The one that demands more. A word that libpq does not know demands nothing.
fn stronger(one: Found<String>, other: Option<Found<String>>) -> Found<String> {
    let rank = |found: &Found<String>| MODES.iter().position(|mode| *mode == found.value);
    match other {
        Some(other) if rank(&other) > rank(&one) => other,
        _ => one,
    }
}

/// The content of the file that a variable of pg-bouncer names.
async fn mounted(bouncer: Option<&Workload<'_>>, variable: &str) -> Result<Option<Found<Secret>>, Error> {
    let Some(bouncer) = bouncer else { return Ok(None) };
    let Some(path) = bouncer.variable(variable).await? else { return Ok(None) };
    bouncer.file(path.text()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_mode_counts() {
        let mode = |mode: &str| Found::new(mode.to_owned(), "");
        assert_eq!(stronger(mode("disable"), Some(mode("prefer"))).value, "prefer");
        assert_eq!(stronger(mode("require"), Some(mode("prefer"))).value, "require");
        assert_eq!(stronger(mode("disable"), Some(mode("nonsense"))).value, "disable");
        assert_eq!(stronger(mode("require"), None).value, "require");
    }
}
