//! A server and the sessions on it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, config};

use super::endpoint::{Endpoint, default_socket_folder, endpoints};
use super::error::class;
use super::passfile::{self, Password};
use super::resolve::Settings;
use super::session::{NEWER_SETTINGS, Setting};
use super::tls::{SslMode, Tls};
use super::{Environment, Error, SESSION_SETTINGS, Session};
use crate::failure::Class;

/// Seconds to wait for one host where `connect_timeout` is not set.
const CONNECT_TIMEOUT: u64 = 30;
/// The first pause before a server that was lost is asked again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The first `server_version_num` that has the setting `event_triggers`.
const EVENT_TRIGGERS_SINCE: u32 = 170_000;

/// Seconds of silence after which keepalives begin, where `keepalives_idle` is not set: less than the idle limits of
/// the usual balancers and NATs, which a session that only holds a snapshot would run into.
const KEEPALIVES_IDLE: u64 = 60;

/// A server's connection parameters. Cheap to clone; clones stay with the host that answered first.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    /// Whether sessions leave all settings but timeouts as the server has them.
    bare: bool,
    /// Whether event triggers fire for sessions.
    event_triggers: bool,
}

struct Inner {
    endpoints: Vec<Endpoint>,
    user: String,
    passfile: Option<PathBuf>,
    tls: Tls,
    settings: Settings,
    config: Config,
    timeout: Option<Duration>,
    /// What children need besides.
    inherited: Vec<(OsString, OsString)>,
    /// The endpoint that answered first: a snapshot belongs to one server.
    chosen: OnceLock<usize>,
    /// `server_version_num`, once it is known.
    version: OnceLock<u32>,
}

/// Without secrets.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address()).field("settings", &self.inner.settings).finish()
    }
}

impl Server {
    /// The server that `url`, the service it names, and `environment` describe. Nothing is connected yet.
    ///
    /// Where `url` comes `from_command_line`, a password in it is refused. `ca_file` stands in for `sslrootcert`.
    ///
    /// # Errors
    /// Of class *usage*: a string that cannot be read, a parameter that is not supported, a file that is missing or
    /// cannot be used.
    pub fn new(
        url: Option<&str>,
        from_command_line: bool,
        environment: &Environment,
        ca_file: Option<&Path>,
    ) -> Result<Self, Error> {
        let settings = Settings::resolve(url, from_command_line, environment)?;
        let endpoints = endpoints(&settings)?;
        let tls = Tls::new(&settings, environment, ca_file)?;
        if tls.mode == SslMode::VerifyFull && endpoints.iter().any(|endpoint| endpoint.host.is_empty()) {
            return Err(settings.error("sslmode", "verify-full needs a host name, which hostaddr is not"));
        }
        let user = settings.text("user").or(environment.os_user()).map(str::to_owned);
        let user = user.ok_or_else(|| settings.error("user", "no user is named"))?;
        let passfile = settings.text("passfile").map(PathBuf::from);
        let passfile = passfile.or_else(|| Some(environment.home()?.join(".pgpass")));
        let timeout = match settings.number::<i64>("connect_timeout")? {
            None => Some(Duration::from_secs(CONNECT_TIMEOUT)),
            Some(seconds) => u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs),
        };
        let config = config(&settings, &user)?;
        let inherited = ["PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR"]
            .iter()
            .filter_map(|name| Some((OsString::from(name), environment.os(name)?.to_owned())))
            .collect();
        let chosen = OnceLock::new();
        Ok(Self {
            inner: Arc::new(Inner {
                endpoints,
                user,
                passfile,
                tls,
                settings,
                config,
                timeout,
                inherited,
                chosen,
                version: OnceLock::new(),
            }),
            bare: false,
            event_triggers: true,
        })
    }

    /// The same server, whose sessions have the settings that role and database give them: to ask what those are.
    pub(super) fn bare(&self) -> Self {
        Self { bare: true, ..self.clone() }
    }

    /// The same server, for whose sessions no event triggers fire: those on login would for each. A superuser may do without
    /// them, from version 17 on.
    pub(super) fn without_event_triggers(&self) -> Self {
        Self { event_triggers: false, ..self.clone() }
    }

    /// Opens a session on `database`, with [`SESSION_SETTINGS`] in force.
    ///
    /// # Errors
    /// Class *credentials* where user or password are refused, else *unreachable*; [`Error::DatabaseMissing`] where
    /// the server has no such database; [`Error::SettingDropped`] where the settings do not arrive.
    pub async fn connect(&self, database: &str) -> Result<Session, Error> {
        if let Some(&chosen) = self.inner.chosen.get() {
            return self.connect_host(&self.inner.endpoints[chosen], database, "any").await;
        }
        // `prefer-standby` is: a standby, or else any.
        let passes: &[&str] = match self.inner.settings.text("target_session_attrs") {
            Some("prefer-standby") => &["standby", "any"],
            Some(wanted) => &[wanted],
            None => &["any"],
        };
        let mut failure = None;
        for wanted in passes {
            for (number, endpoint) in self.inner.endpoints.iter().enumerate() {
                match self.connect_host(endpoint, database, wanted).await {
                    Ok(session) => {
                        // Another task may have been faster: then both have a server, and the first one stays.
                        self.inner.chosen.get_or_init(|| number);
                        return Ok(session);
                    }
                    // As with libpq: who is refused by one host does not ask the next.
                    Err(error @ (Error::DatabaseMissing { .. } | Error::PasswordMissing { .. })) => return Err(error),
                    Err(Error::Connect { source, address, database }) if class(&source) == Class::Credentials => {
                        return Err(Error::Connect { source, address, database });
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
        // There is always at least one endpoint.
        Err(failure.unwrap_or_else(|| self.inner.settings.error("host", "no host is named")))
    }

    /// Opens a session on `database` as soon as the server takes one again, for `patience` at most; `tell` is told, once, if it does
    /// not do so at once.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn await_session(
        &self,
        database: &str,
        patience: Duration,
        tell: impl FnOnce(),
    ) -> Result<Session, Error> {
        let (begun, mut pause, mut tell) = (Instant::now(), FIRST_PAUSE, Some(tell));
        loop {
            match self.connect(database).await {
                Ok(session) => return Ok(session),
                Err(error) if error.is_transient() && begun.elapsed() + pause < patience => {
                    if let Some(tell) = tell.take() {
                        tell();
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The variables that pg_dump and psql need to speak to the same server in the same way, for a child that is
    /// started with an otherwise empty environment. They hold the password.
    #[must_use]
    pub fn child_environment(&self, database: &str) -> Vec<(OsString, OsString)> {
        let Inner { settings, tls, .. } = &*self.inner;
        let endpoint = self.endpoint();
        let mut variables = self.inner.inherited.clone();
        let mut set = |name: &str, value: OsString| variables.push((name.into(), value));
        // Messages in English, so that what is reported does not depend on the machine.
        set("LC_ALL", "C".into());
        if !endpoint.host.is_empty() {
            set("PGHOST", endpoint.host.clone().into());
        }
        if let Some(address) = endpoint.address {
            set("PGHOSTADDR", address.to_string().into());
        }
        set("PGPORT", endpoint.port.to_string().into());
        set("PGUSER", self.inner.user.clone().into());
        set("PGDATABASE", database.into());
        if let Some(password) = self.password(endpoint, database) {
            set("PGPASSWORD", password.expose().into());
        }
        set("PGAPPNAME", settings.text("application_name").unwrap_or("pacharc").into());
        // Before the first session the version is not known: a server that does not know a setting refuses the child.
        let version = self.inner.version.get().copied().unwrap_or(0);
        set("PGOPTIONS", self.options(version).into());
        let timeout = self.inner.timeout.map_or(0, |timeout| timeout.as_secs());
        set("PGCONNECT_TIMEOUT", timeout.to_string().into());
        set("PGGSSENCMODE", "disable".into());
        set("PGSSLMODE", tls.mode.as_str().into());
        if let Some(root) = &tls.root {
            set("PGSSLROOTCERT", root.clone().into());
        }
        if let Some((certificate, key)) = &tls.client {
            set("PGSSLCERT", certificate.clone().into());
            set("PGSSLKEY", key.clone().into());
        }
        for (name, variable) in [
            ("channel_binding", "PGCHANNELBINDING"),
            ("sslsni", "PGSSLSNI"),
            ("sslnegotiation", "PGSSLNEGOTIATION"),
            ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
            ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
        ] {
            if let Some(value) = settings.text(name) {
                set(variable, value.into());
            }
        }
        variables
    }

    /// The database that the URL, the service or `PGDATABASE` names.
    #[must_use]
    pub fn default_database(&self) -> Option<&str> {
        self.inner.settings.text("dbname")
    }

    /// `host:port` or the socket's path: of the host that answered, or all of them before one did.
    #[must_use]
    pub fn address(&self) -> String {
        match self.inner.chosen.get() {
            Some(&chosen) => self.inner.endpoints[chosen].to_string(),
            None => self.inner.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(","),
        }
    }

    /// The role that connects.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.inner.user
    }

    /// libpq's word for how it is spoken to: `sslmode`.
    #[must_use]
    pub fn sslmode(&self) -> &'static str {
        self.inner.tls.mode.as_str()
    }

    /// Whether a client certificate is shown to it.
    #[must_use]
    pub fn has_client_certificate(&self) -> bool {
        self.inner.tls.client.is_some()
    }

    fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoints[self.inner.chosen.get().copied().unwrap_or(0)]
    }

    fn password(&self, endpoint: &Endpoint, database: &str) -> Option<Password> {
        if let Some(password) = self.inner.settings.text("password") {
            return Some(Password::new(password));
        }
        let host = match endpoint {
            // libpq's rule: the default socket counts as localhost.
            Endpoint { host, .. } if host == default_socket_folder() => "localhost".to_owned(),
            Endpoint { host, address: Some(address), .. } if host.is_empty() => address.to_string(),
            Endpoint { host, .. } => host.clone(),
        };
        let wanted = passfile::Wanted { host: &host, port: endpoint.port, database, user: &self.inner.user };
        passfile::find(self.inner.passfile.as_deref()?, wanted)
    }

    async fn connect_host(&self, endpoint: &Endpoint, database: &str, wanted: &str) -> Result<Session, Error> {
        let attempt = self.connect_host_unlimited(endpoint, database, wanted);
        let Some(limit) = self.inner.timeout else { return attempt.await };
        match tokio::time::timeout(limit, attempt).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { address: endpoint.to_string(), seconds: limit.as_secs() }),
        }
    }

    async fn connect_host_unlimited(
        &self,
        endpoint: &Endpoint,
        database: &str,
        wanted: &str,
    ) -> Result<Session, Error> {
        let password = self.password(endpoint, database);
        let mut config = self.inner.config.clone();
        config.dbname(database).port(endpoint.port);
        // Without one, an empty one lets the server say whether it wants any; the client's own refusal to go on could
        // not be told from other failures.
        config.password(password.as_ref().map_or("", Password::expose));
        if let Some(address) = endpoint.address {
            config.hostaddr(address);
            let name = if endpoint.host.is_empty() { address.to_string() } else { endpoint.host.clone() };
            config.host(name);
        } else {
            config.host(endpoint.host.clone());
        }
        let opened = self.open_newest(config, endpoint).await;
        let session = opened.map_err(|source| {
            let address = endpoint.to_string();
            let database = database.to_owned();
            if source.code() == Some(&SqlState::INVALID_CATALOG_NAME) {
                Error::DatabaseMissing { address, database }
            } else if let Some(rustls::Error::InvalidCertificate(problem)) = tls_error(&source) {
                Error::Certificate { address, problem: problem.to_string() }
            } else if password.is_none() && source.code() == Some(&SqlState::INVALID_PASSWORD) {
                Error::PasswordMissing { address, user: self.inner.user.clone() }
            } else {
                Error::Connect { address, database, source: source.into() }
            }
        })?;
        let session = session.prepare(&endpoint.to_string(), |version| self.own_settings(version)).await?;
        self.inner.version.get_or_init(|| session.version_num());
        let fits = match wanted {
            "read-write" => !session.read_only,
            "read-only" => session.read_only,
            "primary" => !session.is_standby(),
            "standby" => session.is_standby(),
            _ => true,
        };
        if fits {
            Ok(session)
        } else {
            Err(Error::SessionAttributes { address: endpoint.to_string(), wanted: wanted.to_owned() })
        }
    }

    /// The settings that a session begins with on a server of this version: the user's options, then our own, of which
    /// the last one wins.
    fn options(&self, version: u32) -> String {
        let own = self.own_settings(version).into_iter().map(|(name, value)| format!("-c {name}={value}"));
        let users = self.inner.settings.text("options").filter(|_| !self.bare);
        let all: Vec<_> = users.map(str::to_owned).into_iter().chain(own).collect();
        all.join(" ")
    }

    /// Our own of them.
    fn own_settings(&self, version: u32) -> Vec<Setting> {
        let newer =
            NEWER_SETTINGS.iter().filter(|(since, ..)| version >= *since).map(|(_, name, value)| (*name, *value));
        let triggers = (!self.event_triggers && version >= EVENT_TRIGGERS_SINCE).then_some(("event_triggers", "off"));
        let own = SESSION_SETTINGS.iter().copied().chain(newer).chain(triggers);
        // A bare session has nothing but time to say what the server's own settings are.
        own.filter(|(name, _)| !self.bare || name.ends_with("_timeout")).collect()
    }

    /// Opens a session whose settings hold from its first moment: set later, a timeout could be quicker. As long as the
    /// server's version is not known, that of a new server is assumed, until the server does not refuse the settings.
    async fn open_newest(&self, mut config: Config, endpoint: &Endpoint) -> Result<Session, tokio_postgres::Error> {
        if let Some(&version) = self.inner.version.get() {
            return self.open(config.options(self.options(version)).clone(), endpoint).await;
        }
        for (version, ..) in NEWER_SETTINGS.iter().rev() {
            match self.open(config.options(self.options(*version)).clone(), endpoint).await {
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {}
                outcome => return outcome,
            }
        }
        self.open(config.options(self.options(0)).clone(), endpoint).await
    }

    /// Tries with TLS and without, in the order of `sslmode`.
    async fn open(&self, mut config: Config, endpoint: &Endpoint) -> Result<Session, tokio_postgres::Error> {
        let connector = self.inner.tls.connector.as_ref().filter(|_| !endpoint.is_socket());
        if connector.is_none() {
            return Session::open(config.ssl_mode(config::SslMode::Disable), None).await;
        }
        // A second attempt is for a server that refuses the first kind, not for a wrong password.
        let refused =
            |error: &tokio_postgres::Error| error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        match self.inner.tls.mode {
            SslMode::Allow => match Session::open(config.ssl_mode(config::SslMode::Disable), None).await {
                Err(error) if refused(&error) => {
                    Session::open(config.ssl_mode(config::SslMode::Require), connector).await
                }
                result => result,
            },
            SslMode::Prefer => match Session::open(config.ssl_mode(config::SslMode::Prefer), connector).await {
                Err(error) if refused(&error) || tls_error(&error).is_some() => {
                    Session::open(config.ssl_mode(config::SslMode::Disable), None).await
                }
                result => result,
            },
            _ => Session::open(config.ssl_mode(config::SslMode::Require), connector).await,
        }
    }
}

fn config(settings: &Settings, user: &str) -> Result<Config, Error> {
    let mut config = Config::new();
    config.user(user).application_name(settings.text("application_name").unwrap_or("pacharc"));
    config.channel_binding(match settings.text("channel_binding") {
        Some("disable") => config::ChannelBinding::Disable,
        Some("require") => config::ChannelBinding::Require,
        _ => config::ChannelBinding::Prefer,
    });
    if settings.text("sslnegotiation") == Some("direct") {
        config.ssl_negotiation(config::SslNegotiation::Direct);
    }
    let seconds = |name| {
        let number = settings.number::<u64>(name)?;
        Ok::<_, Error>(number.filter(|n| *n > 0).map(Duration::from_secs))
    };
    config.keepalives(settings.number::<i32>("keepalives")? != Some(0));
    config.keepalives_idle(seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(KEEPALIVES_IDLE)));
    if let Some(interval) = seconds("keepalives_interval")? {
        config.keepalives_interval(interval);
    }
    if let Some(count) = settings.number::<u32>("keepalives_count")?.filter(|n| *n > 0) {
        config.keepalives_retries(count);
    }
    if let Some(milliseconds) = settings.number::<u64>("tcp_user_timeout")?.filter(|n| *n > 0) {
        config.tcp_user_timeout(Duration::from_millis(milliseconds));
    }
    Ok(config)
}

/// What the TLS library said, where the failure is of its making.
fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let io = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    io.get_ref()?.downcast_ref()
}
