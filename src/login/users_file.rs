//! A users file: TOML or htpasswd, read again whenever it changes.
//!
//! Names are compared byte for byte: `Bob` is not `bob`, and two spellings of
//! an accented letter in Unicode (composed and decomposed) are two names. So a
//! name in the file never lets in somebody who typed another one.
//!
//! A change that cannot be read, and a file that vanishes, leave the users as
//! they were; the log says what is wrong, once.

mod toml;

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::htpasswd;
use super::password::hash::Hash;
use crate::base::identity::Identity;

/// The longest user name, id or role in bytes.
pub const MAX_NAME: usize = 256;

/// The largest users file in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A file that was written this recently may be written again without its
/// time of change telling, so it is read again until it has rested.
const SETTLING: Duration = Duration::from_secs(2);

/// Something wrong with a users file. Never holds a password or a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both counted from 1, the column in characters; `None`
    /// where the file as a whole is meant.
    pub place: Option<(usize, usize)>,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl Problem {
    /// A problem at a line and column.
    pub fn at(line: usize, column: usize, message: impl Into<String>) -> Self {
        Self {
            place: Some((line, column)),
            message: message.into(),
        }
    }

    /// A problem of the whole file.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            place: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// One user of a file.
#[derive(Clone, Debug)]
pub struct User {
    /// What is typed at login.
    pub name: String,
    /// Who that is.
    pub identity: Identity,
    /// The password's hash.
    pub hash: Hash,
}

impl User {
    /// A user of whom only the name is known; it is the id too.
    ///
    /// # Errors
    ///
    /// When the name cannot be one; see [`name_problem`].
    pub fn named(name: &str, hash: Hash) -> Result<Self, String> {
        if let Some(problem) = name_problem("name", name) {
            return Err(problem);
        }
        let mut claims = Map::new();
        claims.insert("name".to_owned(), Value::from(name));
        Ok(Self {
            name: name.to_owned(),
            identity: Identity {
                user: name.to_owned(),
                roles: Vec::new(),
                claims,
            },
            hash,
        })
    }
}

/// What is wrong with a user name, an id or a role (`what`), if anything: it
/// must not be empty, longer than [`MAX_NAME`], or hold a control character.
pub fn name_problem(what: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        Some(format!("the {what} is empty"))
    } else if text.len() > MAX_NAME {
        Some(format!("the {what} is longer than {MAX_NAME} bytes"))
    } else if text.chars().any(char::is_control) {
        Some(format!("the {what} holds a control character"))
    } else {
        None
    }
}

/// What is wrong with a role, if anything. Roles are joined with commas in an
/// identity header, so they hold none.
pub fn role_problem(role: &str) -> Option<String> {
    name_problem("role", role).or_else(|| {
        role.contains(',')
            .then(|| "a role must not hold a comma; write one role per item".to_owned())
    })
}

/// The users of a file, in its order.
#[derive(Clone, Debug, Default)]
pub struct Users {
    list: Vec<(User, usize)>,
    index: HashMap<String, usize>,
}

impl Users {
    /// Adds the user that stands in this line.
    ///
    /// # Errors
    ///
    /// When there already is one of that name.
    pub fn add(&mut self, user: User, line: usize) -> Result<(), String> {
        if let Some((_, first)) = self.index.get(&user.name).and_then(|i| self.list.get(*i)) {
            return Err(format!(
                "the user {:?} is already in line {first}; names are unique",
                user.name
            ));
        }
        self.index.insert(user.name.clone(), self.list.len());
        self.list.push((user, line));
        Ok(())
    }

    /// The user of exactly this name.
    pub fn find(&self, name: &str) -> Option<&User> {
        let (user, _) = self.list.get(*self.index.get(name)?)?;
        Some(user)
    }

    /// All of them, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.list.iter().map(|(user, _)| user)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Reads the text of a users file, of either format.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of lines.
pub fn parse(text: &str) -> Result<Users, Vec<Problem>> {
    if htpasswd::is_htpasswd(text) {
        htpasswd::parse(text)
    } else {
        toml::parse(text)
    }
}

/// Reads a users file once and says how many users it has.
///
/// # Errors
///
/// Everything that is wrong with it, or that it cannot be read.
pub fn check(path: &Path) -> Result<usize, Vec<Problem>> {
    let read = read(path).map_err(|e| vec![Problem::whole(e)])?;
    decode(&read.bytes).map(|users| users.len())
}

/// A users file that is followed through its changes.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    users: Arc<Users>,
    /// Of what was last read, good or bad.
    stamp: Stamp,
    /// Whether the stamp can be relied on to tell the next change.
    settled: bool,
    bytes: Digest,
    /// What was last complained of, so that it is said once.
    complaint: Option<String>,
}

impl UsersFile {
    /// Reads the file for the first time. One that is not there yet has no
    /// users, and is read when it comes.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has any problem.
    pub fn open(path: &Path) -> Result<Self, Vec<Problem>> {
        if matches!(path.try_exists(), Ok(false)) {
            tracing::warn!(
                file = %path.display(),
                "there is no such users file; nobody in it can sign in until it is there"
            );
            return Ok(Self {
                path: path.to_owned(),
                users: Arc::default(),
                stamp: Stamp::default(),
                settled: false,
                bytes: digest(b""),
                complaint: None,
            });
        }
        let read = read(path).map_err(|e| vec![Problem::whole(e)])?;
        let users = decode(&read.bytes)?;
        Ok(Self {
            path: path.to_owned(),
            users: Arc::new(users),
            stamp: read.stamp,
            settled: read.settled,
            bytes: digest(&read.bytes),
            complaint: None,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The users in force.
    pub fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// Reads the file again if it has changed, which costs one `stat` if it
    /// has not. Says whether there are other users now. What cannot be read is
    /// logged, and the users stay.
    pub fn refresh(&mut self) -> bool {
        let stamp = std::fs::metadata(&self.path).map(|meta| Stamp::of(&meta));
        if self.settled && self.complaint.is_none() && stamp.as_ref().ok() == Some(&self.stamp) {
            return false;
        }
        let read = match read(&self.path) {
            Ok(read) => read,
            Err(message) => {
                self.complain(message);
                return false;
            }
        };
        self.stamp = read.stamp;
        self.settled = read.settled;
        let bytes = digest(&read.bytes);
        if bytes == self.bytes {
            self.complaint = None;
            return false;
        }
        match decode(&read.bytes) {
            Ok(users) => {
                self.users = Arc::new(users);
                self.bytes = bytes;
                self.complaint = None;
                tracing::info!(
                    file = %self.path.display(),
                    users = self.users.len(),
                    "users file read again"
                );
                true
            }
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                self.complain(lines.join("; "));
                false
            }
        }
    }

    fn complain(&mut self, message: String) {
        if self.complaint.as_ref() != Some(&message) {
            tracing::warn!(
                file = %self.path.display(),
                problem = %message,
                "users file cannot be used; the users read before stay in force"
            );
            self.complaint = Some(message);
        }
    }
}

/// By which a change is noticed, following symbolic links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
            inode: (meta.dev(), meta.ino()),
        }
    }
}

type Digest = [u8; 32];

fn digest(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    for (to, from) in out.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    out
}

struct ReadFile {
    bytes: Vec<u8>,
    stamp: Stamp,
    settled: bool,
}

/// Reads the whole file. The stamp is of the opened file and taken first, so a
/// write in between shows at the next look.
fn read(path: &Path) -> Result<ReadFile, String> {
    let cannot = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; make it with `cloakroom user add`".to_owned()
        }
        _ => format!("cannot be read: {e}"),
    };
    // Asked before opening, since opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {} MiB", MAX_FILE >> 20));
    }
    let rested = meta
        .modified()
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    Ok(ReadFile {
        bytes,
        stamp: Stamp::of(&meta),
        settled: rested.is_some_and(|span| span > SETTLING),
    })
}

fn decode(bytes: &[u8]) -> Result<Users, Vec<Problem>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let (line, column) = place(&String::from_utf8_lossy(before), before.len());
            Err(vec![Problem::at(line, column, "the file is not UTF-8")])
        }
    }
}

/// Line and column of a byte offset, both counted from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let tail = before.rsplit('\n').next().unwrap_or(before);
    (line, tail.chars().count().saturating_add(1))
}

#[cfg(test)]
mod tests;
