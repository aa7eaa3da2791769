//! The folder of `--write-to`: written beside its place and renamed, so that it is there as a whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::{Error, Successor};
use crate::cluster::yaml;

const VALUES_HEAD: &str = "\
# Helm values for the restored release, made from those of the backed-up one. Credentials are in no line of this file: where
# one stood, REPLACE-ME stands, or the name of a Secret.
";
const CLEAR_HEAD: &str = "\
# SECRET. Credentials of the backed-up release, in clear. Give it to helm with a second -f, and delete it then.
";

/// The file that is written last: what is left to do.
const STEPS: &str = "NEXT-STEPS.txt";

/// Refuses a folder that has something in it, but for what a restore of `bundle` (of any, while it is not known) has written that
/// was cut off behind that. Whether it is the very same is seen by [`write`].
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::Write`].
pub fn check_folder(folder: &Path, bundle: Option<Uuid>) -> Result<(), Error> {
    if is_empty(folder)? {
        return Ok(());
    }
    match fs::read_to_string(folder.join(STEPS)) {
        Ok(steps) if bundle.is_none_or(|bundle| steps.ends_with(&of_bundle(bundle))) => Ok(()),
        _ => Err(Error::NotEmpty(folder.to_owned())),
    }
}

/// How the steps that are left end.
fn of_bundle(bundle: Uuid) -> String {
    format!("\nAll of this is for what was restored from bundle {bundle}.\n")
}

/// Whether there is no such folder, or nothing in it.
fn is_empty(folder: &Path) -> Result<bool, Error> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::Write { path: folder.to_owned(), source }),
    }
}

/// Whether two folders have the same files.
fn is_same(one: &Path, other: &Path) -> std::io::Result<bool> {
    let names = |folder: &Path| {
        let names: std::io::Result<BTreeSet<_>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect();
        names
    };
    let both = names(one)?;
    if both != names(other)? {
        return Ok(false);
    }
    for name in both {
        let (one, other) = (one.join(&name), other.join(&name));
        let is_same = match (one.is_dir(), other.is_dir()) {
            (true, true) => is_same(&one, &other)?,
            (false, false) => fs::read(&one)? == fs::read(&other)?,
            _ => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes everything of `bundle` into `folder`, or finds it there already; `with_clear`: the credentials in clear, too. Returns the
/// files' names.
///
/// # Errors
/// [`Error::NotEmpty`] where anything else is there; [`Error::Write`].
pub fn write(
    successor: &Successor,
    steps: &str,
    bundle: Uuid,
    folder: &Path,
    with_clear: bool,
) -> Result<Vec<String>, Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| Error::Write { path: parent.to_owned(), source })?;
    // Gone again if something goes wrong.
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent);
    let partial = partial.map_err(|source| Error::Write { path: parent.to_owned(), source })?;
    let mut files = FolderWriter { folder: partial.path().to_owned(), written: Vec::new() };
    files.yaml("values.yaml", VALUES_HEAD, &successor.values)?;
    if with_clear {
        files.yaml("values.secret.yaml", CLEAR_HEAD, &successor.clear)?;
    }
    for secret in &successor.secrets {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        files.yaml(&file_name("secrets", name), "", secret)?;
    }
    for map in &successor.config_maps {
        let name = map.metadata.name.as_deref().unwrap_or_default();
        files.yaml(&file_name("configmaps", name), "", map)?;
    }
    if let Some(policy) = &successor.policy {
        files.yaml("networkpolicy.yaml", "", policy)?;
    }
    files.file(STEPS, &(steps.to_owned() + &of_bundle(bundle)))?;
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    if !is_empty(folder)? {
        return match is_same(partial.path(), folder).map_err(failed)? {
            true => Ok(files.written),
            false => Err(Error::NotEmpty(folder.to_owned())),
        };
    }
    // Takes the place of an empty folder, too, and of no other.
    fs::rename(partial.path(), folder).map_err(failed)?;
    let _ = partial.keep();
    Ok(files.written)
}

/// Names from a bundle: nothing in them may lead out of the folder, and a file's name has at most 255 bytes.
fn file_name(folder: &str, name: &str) -> String {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' }).collect();
    let short: String = safe.chars().take(240).collect();
    let dots = if short.trim_matches('.').is_empty() { "_" } else { "" };
    format!("{folder}/{dots}{short}.yaml")
}

struct FolderWriter {
    folder: PathBuf,
    written: Vec<String>,
}

impl FolderWriter {
    fn yaml(&mut self, name: &str, head: &str, value: &impl Serialize) -> Result<(), Error> {
        let text = yaml::to_string(value).map_err(|source| Error::Yaml { path: name.to_owned(), source })?;
        self.file(name, &format!("{head}{text}"))
    }

    /// Everything is for the owner's eyes alone.
    fn file(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        let failed = |source| Error::Write { path: path.clone(), source };
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        self.written.push(name.to_owned());
        Ok(())
    }
}
