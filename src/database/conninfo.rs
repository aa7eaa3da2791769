//! Connection strings: URLs and lists of keywords and values, split into parameters.
//!
//! libpq's URLs are not quite URLs (several hosts, percent-encoded socket folders), so that a general parser would not
//! do. Source: PostgreSQL manual, "Connection Strings", and `conninfo_uri_parse_options` in `fe-connect.c`.
//! Errors never repeat the string, since it may hold a password.

use percent_encoding::percent_decode_str;

use super::Error;

/// Name and value of each parameter that the string sets, in its order.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, Error> {
    let url = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let parameters = match url {
        Some(rest) => parse_url(rest),
        None if text.contains("://") => Err("a URL begins with postgres:// or postgresql://".to_owned()),
        None => parse_keywords(text),
    };
    parameters.map_err(|problem| Error::ConnectionString { problem })
}

/// `[user[:password]@][host[:port][,…]][/database][?name=value[&…]]`
fn parse_url(rest: &str) -> Result<Vec<(String, String)>, String> {
    // As libpq does: what comes before the first @, if no slash is in between, is user and password.
    let (credentials, rest) = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => (&rest[..at], &rest[at + 1..]),
        _ => ("", rest),
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    if hosts.contains('@') {
        return Err("a second @: percent-encode it as %40 in user and password".to_owned());
    }
    let (hosts, ports) = split_hosts(hosts)?;
    let mut parameters = Vec::new();
    let parts = [("user", user), ("password", password), ("host", &hosts), ("port", &ports), ("dbname", database)];
    for (name, value) in parts {
        if !value.is_empty() {
            parameters.push((name.to_owned(), decode(name, value)?));
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("a parameter of the query lacks its `=`")?;
        if value.contains('=') {
            return Err("a parameter of the query has a second `=`: percent-encode it as %3D".to_owned());
        }
        let name = decode("a parameter's name", name)?;
        let value = decode(&name, value)?;
        parameters.push(match (name.as_str(), value.as_str()) {
            // As libpq does for JDBC's URLs.
            ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
            _ => (name, value),
        });
    }
    Ok(parameters)
}

/// The lists of hosts and of ports, each joined with commas; without ports, an empty list.
fn split_hosts(text: &str) -> Result<(String, String), String> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for item in text.split(',') {
        let (host, port) = if let Some(rest) = item.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or("an IPv6 address lacks its closing bracket")?;
            match (rest, rest.strip_prefix(':')) {
                ("", _) => (address, ""),
                (_, Some(port)) => (address, port),
                _ => return Err("a colon and a port are expected after an IPv6 address".to_owned()),
            }
        } else {
            item.split_once(':').unwrap_or((item, ""))
        };
        if port.contains(':') {
            return Err("more than one colon in a host: an IPv6 address stands in brackets".to_owned());
        }
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { ports.join(",") };
    let hosts = if hosts.iter().all(|host| host.is_empty()) { String::new() } else { hosts.join(",") };
    Ok((hosts, ports))
}

fn decode(name: &str, value: &str) -> Result<String, String> {
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        let digits = rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits {
            None => return Err(format!("{name}: a % is not followed by two hex digits; a bare one is %25")),
            Some("00") => return Err(format!("{name}: %00 is not allowed")),
            Some(_) => rest = &rest[at + 3..],
        }
    }
    let text = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
    Ok(text.into_owned())
}

/// `name = value …`; values with spaces stand in single quotes, `\'` and `\\` are escapes.
fn parse_keywords(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or("`=` is missing after a parameter's name")?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err("`=` is missing after a parameter's name".to_owned());
        }
        let (value, after) = keyword_value(after.trim_start())?;
        parameters.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(parameters)
}

fn keyword_value(text: &str) -> Result<(String, &str), String> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            _ if !quoted && character.is_whitespace() => return Ok((value, &body[at..])),
            _ => value.push(character),
        }
    }
    if quoted { Err("a quoted value does not end".to_owned()) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        parse(text).unwrap().iter().map(|(name, value)| format!("{name}={value};")).collect()
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn urls() {
        assert_eq!(parsed("postgres://"), "");
        assert_eq!(
            parsed("postgresql://u%40x:p%3aw@db.example:5433/d%2Fb?sslmode=verify-full&sslrootcert=/a%20b"),
            "user=u@x;password=p:w;host=db.example;port=5433;dbname=d/b;sslmode=verify-full;sslrootcert=/a b;"
        );
        assert_eq!(parsed("postgres://a:1,b,[::1]:3/d"), "host=a,b,::1;port=1,,3;dbname=d;");
        assert_eq!(parsed("postgres://%2Fvar%2Frun/d"), "host=/var/run;dbname=d;");
        assert_eq!(parsed("postgres:///d?host=/tmp&port=1"), "dbname=d;host=/tmp;port=1;");
        assert_eq!(parsed("postgres://h?ssl=true"), "host=h;sslmode=require;");
    }

    #[test]
    fn keywords() {
        assert_eq!(parsed("host=a port = 1  password='p \\'q\\\\' dbname="), "host=a;port=1;password=p 'q\\;dbname=;");
        assert_eq!(parsed(""), "");
    }

    #[test]
    fn what_cannot_be_read_is_said_without_repeating_it() {
        for text in [
            "postgres://u:secret@x@host/d",
            "postgres://u:secret%zz@host/d",
            "postgres://u:secret%00@host/d",
            "postgres://u:secret@[::1/d",
            "postgres://u:secret@::1/d",
            "postgres://u:secret@h/d?x",
            "postgres://u:secret@h/d?x=a=b",
            "mysql://u:secret@h/d",
            "host=a secret",
            "host=a password='secret",
            "host a=secret",
        ] {
            assert!(!problem(text).contains("secret"), "{text}: {}", problem(text));
        }
    }
}
