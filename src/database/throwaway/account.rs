//! Whom a server runs as: PostgreSQL refuses root.

use std::fs;

use super::ThrowawayError;

/// An account of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// PostgreSQL's own account, or nobody's, if this process is root; `None`: the server runs as this process does.
    pub(super) fn needed() -> Result<Option<Self>, ThrowawayError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = ["postgres", "nobody"].iter().find_map(|name| Self::find(&passwd, name));
        found.map(Some).ok_or(ThrowawayError::Root)
    }

    fn find(passwd: &str, name: &str) -> Option<Self> {
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        fields.into_iter().find_map(|fields| match fields.as_slice() {
            [found, _, uid, gid, ..] if *found == name => {
                let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
                // Another name for root would be refused, too.
                (uid != 0).then(|| Self { name: name.to_owned(), uid, gid })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:7::/:\nnobody:x:65534:65533:n:/:/x\nodd:x:0:1::/:\n";
        let nobody = Account { name: "nobody".to_owned(), uid: 65534, gid: 65533 };
        assert_eq!(Account::find(passwd, "nobody"), Some(nobody));
        assert_eq!(Account::find(passwd, "postgres"), None);
        assert_eq!(Account::find(passwd, "odd"), None);
    }
}
