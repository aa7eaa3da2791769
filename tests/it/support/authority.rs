//! A certificate authority that openssl makes.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::postgres::run;

/// A certificate authority, and what it signed.
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["ca", "other-ca"] {
            authority.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} \
                 -keyout {name}.key -out {name}.crt"
            ));
        }
        authority.sign("server", "/CN=ignored", "subjectAltName=DNS:localhost");
        authority.sign("common-name", "/CN=localhost", "basicConstraints=CA:FALSE");
        authority.sign("client", "/CN=certified", "basicConstraints=CA:FALSE");
        authority
    }

    fn openssl(&self, arguments: &str) {
        run(Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.folder.path()));
    }

    pub fn sign(&self, name: &str, subject: &str, extension: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj {subject} -keyout {name}.key -out {name}.csr"
        ));
        std::fs::write(self.folder.path().join("extensions"), extension).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -days 2 -extfile extensions -out {name}.crt"
        ));
        self.set_mode(&format!("{name}.key"), 0o600);
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.folder.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}
