//! Changing a users file: read, edit, replace in one step.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};
use toml_edit::{ArrayOfTables, DocumentMut, Item, RawString, Table};

use crate::login::htpasswd::is_htpasswd;
use crate::login::users_file::{self, Problem};

/// What stands at the head of a new file.
const HEAD: &str =
    "# Users of Cloakroom, one table each. Change them here or with `cloakroom user`.\n";

/// A users file on its way to a new content. Nothing is written before
/// [`Edit::commit`].
pub(super) struct Edit {
    /// As it was named.
    named: PathBuf,
    /// The file itself, behind any symbolic links, which stay.
    real: PathBuf,
    folder: PathBuf,
    existed: bool,
    document: DocumentMut,
    /// Held to the end, so that two edits at once do not undo each other.
    _lock: File,
}

impl Edit {
    /// Reads the file; `create` starts an empty one where there is none.
    ///
    /// Fails if it is missing or unreadable, is not TOML, or is an htpasswd
    /// file.
    pub(super) fn begin(path: &Path, create: bool) -> Result<Self, String> {
        let cannot = |e: io::Error| format!("{} cannot be read: {e}", path.display());
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(e) if create && e.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(e) => return Err(cannot(e)),
        };
        let folder = match real.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let lock = File::open(&folder)
            .map_err(|e| format!("the folder {} cannot be opened: {e}", folder.display()))?;
        lock.lock()
            .map_err(|e| format!("the folder {} cannot be locked: {e}", folder.display()))?;
        let (text, existed) = match fs::read_to_string(&real) {
            Ok(text) => (text, true),
            Err(e) if create && e.kind() == io::ErrorKind::NotFound => (HEAD.to_owned(), false),
            Err(e) => return Err(cannot(e)),
        };
        if is_htpasswd(&text) {
            return Err(format!(
                "{} is an htpasswd file; change it with `htpasswd -B` (and `htpasswd -D` to remove)",
                path.display()
            ));
        }
        // The parser's own message would show the line, with a hash in it.
        let document: DocumentMut =
            text.parse()
                .map_err(|e: toml_edit::TomlError| match users_file::parse(&text) {
                    Err(problems) => describe(path, &problems),
                    Ok(_) => format!("{}: {}", path.display(), e.message()),
                })?;
        Ok(Self {
            named: path.to_owned(),
            real,
            folder,
            existed,
            document,
            _lock: lock,
        })
    }

    /// The `[[user]]` tables, none at first.
    pub(super) fn users(&mut self) -> Result<&mut ArrayOfTables, String> {
        self.document
            .as_table_mut()
            .entry("user")
            .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
            .as_array_of_tables_mut()
            .ok_or_else(|| {
                format!(
                    "{}: users that are not written as [[user]] tables must be changed by hand",
                    self.named.display()
                )
            })
    }

    /// Adds a user at the end, after an empty line.
    pub(super) fn push(&mut self, mut user: Table) -> Result<(), String> {
        let first = self.document.as_table().iter().all(|(_, item)| {
            item.as_array_of_tables()
                .is_some_and(ArrayOfTables::is_empty)
        });
        // Without any table the comments count as what follows the last one.
        let above = if first {
            let head = prefix(Some(self.document.trailing()));
            self.document.set_trailing("");
            head.trim_end().to_owned()
        } else {
            String::new()
        };
        user.decor_mut().set_prefix(match above.as_str() {
            "" if first => String::new(),
            "" => "\n".to_owned(),
            head => format!("{head}\n\n"),
        });
        self.users()?.push(user);
        Ok(())
    }

    /// Removes a user. Comments right above the table go with it; what stands
    /// further up, past an empty line, or at the head of the file stays.
    pub(super) fn remove(&mut self, index: usize) -> Result<(), String> {
        let users = self.users()?;
        let Some(user) = users.get(index) else {
            return Ok(());
        };
        let above = prefix(user.decor().prefix());
        let keep = match above.rfind("\n\n") {
            Some(end) => above.get(..=end).unwrap_or_default().to_owned(),
            None if index == 0 && above.contains('#') => above.trim_end().to_owned() + "\n",
            None => String::new(),
        };
        users.remove(index);
        if keep.trim().is_empty() {
            return Ok(());
        }
        match users.get_mut(index) {
            Some(next) => {
                let below = prefix(next.decor().prefix());
                let gap = if below.starts_with('\n') { "" } else { "\n" };
                next.decor_mut().set_prefix(format!("{keep}{gap}{below}"));
            }
            None => {
                let below = prefix(Some(self.document.trailing()));
                self.document.set_trailing(format!("{keep}{below}"));
            }
        }
        Ok(())
    }

    /// Replaces the file: a new one in the same folder, written through to the
    /// disk, takes its name. Owner and mode stay; a new file has mode 0600.
    pub(super) fn commit(self) -> Result<(), String> {
        self.replace()
            .map_err(|e| format!("{} cannot be written: {e}", self.named.display()))
    }

    fn replace(&self) -> io::Result<()> {
        let mut fresh: NamedTempFile = Builder::new()
            .prefix(".cloakroom-users-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)?;
        if self.existed {
            let (old, new) = (fs::metadata(&self.real)?, fresh.as_file().metadata()?);
            // Otherwise the proxy's own user might not read it any more.
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(fresh.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            let mode = Permissions::from_mode(old.mode() & 0o777);
            fresh.as_file().set_permissions(mode)?;
        }
        fresh.write_all(self.document.to_string().as_bytes())?;
        fresh.as_file().sync_all()?;
        fresh.persist(&self.real).map_err(|e| e.error)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Problems of a file, one a line.
pub(super) fn describe(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {problem}", path.display()))
        .collect();
    lines.join("\n")
}

fn prefix(raw: Option<&RawString>) -> String {
    raw.and_then(RawString::as_str)
        .unwrap_or_default()
        .to_owned()
}
