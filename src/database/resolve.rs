//! From where each connection parameter takes its value: connection string, service file, environment, in this order.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::parameters::{PARAMETERS, Support, check};
use super::{Environment, Error, conninfo, service};

/// The parameters that are set, each with its origin.
#[derive(Clone, Default)]
pub(super) struct Settings(BTreeMap<&'static str, Value>);

#[derive(Clone)]
struct Value {
    text: String,
    origin: String,
}

impl Settings {
    /// Reads `url` (or `PACHARC_POSTGRES` where there is none), the service it names, and the environment.
    pub(super) fn resolve(
        url: Option<&str>,
        from_command_line: bool,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let (text, from_command_line) = match url {
            Some(url) => (Some(url), from_command_line),
            None => (environment.text("PACHARC_POSTGRES")?, false),
        };
        let explicit = text.map(conninfo::parse).transpose()?.unwrap_or_default();
        if from_command_line && explicit.iter().any(|(name, _)| is_secret(name)) {
            return Err(Error::PasswordOnCommandLine);
        }
        let mut settings = Self::default();
        for parameter in PARAMETERS {
            let Some(variable) = parameter.variable else { continue };
            if let Some(value) = environment.text(variable)? {
                settings.set(parameter.name, value.to_owned(), variable)?;
            }
        }
        let mut strong = Self::default();
        for (name, value) in explicit {
            strong.set(&name, value, "connection string")?;
        }
        let service = strong.text("service").or_else(|| settings.text("service")).map(str::to_owned);
        if let Some(service) = service {
            let file = strong.text("servicefile").or_else(|| settings.text("servicefile"));
            for (name, value) in service::read(&service, file, environment)? {
                settings.set(&name, value, &format!("service \"{service}\""))?;
            }
        }
        settings.0.extend(strong.0);
        Ok(settings)
    }

    fn set(&mut self, name: &str, text: String, origin: &str) -> Result<(), Error> {
        let parameter = check(name, &text, origin)?;
        self.0.insert(parameter.name, Value { text, origin: origin.to_owned() });
        Ok(())
    }

    /// The value of `name`; an empty one counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(PARAMETERS.iter().any(|p| p.name == name && p.support != Support::None), "{name}");
        self.0.get(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// The value of `name` as a number.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        match self.text(name).map(|text| text.trim().parse()) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(self.error(name, "its value is not a number in range")),
        }
    }

    /// The error that `name`'s value cannot be used. The value is not repeated.
    pub(super) fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        let origin = self.0.get(name).map_or("default", |value| value.origin.as_str());
        Error::Parameter { name: name.to_owned(), origin: origin.to_owned(), problem: problem.into() }
    }
}

pub(super) fn is_secret(name: &str) -> bool {
    matches!(name, "password" | "sslpassword" | "oauth_client_secret" | "scram_client_key")
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &str, value: &Value| if is_secret(name) { "***".to_owned() } else { value.text.clone() };
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, shown(name, value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, Explain};

    fn environment<'a>(variables: &[(&'a str, &'a str)]) -> Environment {
        variables.iter().copied().collect()
    }

    #[test]
    fn the_connection_string_wins_over_the_service_and_that_over_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[prod]\nhost=service\nuser=service\n").unwrap();
        let environment = environment(&[
            ("PGHOST", "environment"),
            ("PGUSER", "environment"),
            ("PGPORT", "1"),
            ("PGSERVICE", "prod"),
            ("PGSERVICEFILE", file.path().to_str().unwrap()),
        ]);
        let settings = Settings::resolve(Some("postgres://url"), true, &environment).unwrap();
        assert_eq!(settings.text("host"), Some("url"));
        assert_eq!(settings.text("user"), Some("service"));
        assert_eq!(settings.text("port"), Some("1"));
    }

    #[test]
    fn an_explicit_empty_value_is_the_default() {
        let settings = Settings::resolve(Some("host="), true, &environment(&[("PGHOST", "a")])).unwrap();
        assert_eq!(settings.text("host"), None);
    }

    #[test]
    fn a_password_is_refused_on_the_command_line_alone() {
        for url in ["postgres://u:p@h", "postgres://h?password=p", "host=h password=p"] {
            let error = Settings::resolve(Some(url), true, &environment(&[])).unwrap_err();
            assert_eq!(error.class(), Class::Usage);
            assert!(error.advice().unwrap().contains("PACHARC_POSTGRES"));
            let settings = Settings::resolve(Some(url), false, &environment(&[])).unwrap();
            assert_eq!(settings.text("password"), Some("p"));
            assert!(!format!("{settings:?}").contains("\"p\""));
        }
        let settings = Settings::resolve(None, true, &environment(&[("PACHARC_POSTGRES", "postgres://u:p@h")]));
        assert_eq!(settings.unwrap().text("host"), Some("h"));
    }

    #[test]
    fn unsupported_parameters_are_refused_wherever_they_are_set() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[s]\nrequirepeer=x\n").unwrap();
        let file = file.path().to_str().unwrap();
        for (url, variables) in [
            (Some("postgres://h?requirepeer=x"), vec![]),
            (Some("postgres://h?nonsense=x"), vec![]),
            (None, vec![("PGREQUIREPEER", "x")]),
            (None, vec![("PGSSLMODE", "strict")]),
            (None, vec![("PGSERVICE", "s"), ("PGSERVICEFILE", file)]),
        ] {
            let error = Settings::resolve(url, true, &environment(&variables)).unwrap_err();
            assert_eq!(error.class(), Class::Usage, "{error}");
        }
    }
}
