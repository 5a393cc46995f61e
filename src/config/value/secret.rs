//! Secrets: a string, `{ env = "NAME" }` or `{ file = "PATH" }`; and the
//! store's URL, which may hold one. Nothing here repeats a value.

use std::path::Path;

use super::{Context, Fault, quoted};
use crate::base::secret::Secret;
use crate::config::settings::StoreUrl;
use crate::config::tree::Value;
use crate::session::settings::StoreLocation;
use crate::session::store::postgres::url::PostgresUrl;
use crate::session::store::redis::RedisUrl;

/// More is no secret but the wrong file.
const LARGEST: u64 = 64 * 1024;

/// Reads a secret.
///
/// # Errors
///
/// It is of another form, its variable is not set, its file cannot be read, or
/// it is empty.
pub fn read(value: &Value, context: &Context<'_>) -> Result<Secret, Fault> {
    let entries = match value {
        Value::String(text) if text.is_empty() => {
            return Err(Fault::new("this secret is empty", HOW_TO_MAKE));
        }
        Value::String(text) => return Ok(Secret::new(text.as_bytes())),
        Value::Table(entries) => entries,
        _ => return Err(not_a_secret(value)),
    };
    match entries.as_slice() {
        [entry] => match (entry.key.as_str(), &entry.node.value) {
            ("env", Value::String(name)) => from_variable(name, context),
            ("file", Value::String(path)) => from_file(path, context),
            _ => Err(not_a_secret(value)),
        },
        _ => Err(not_a_secret(value)),
    }
}

/// How a secret is made; for messages.
pub const HOW_TO_MAKE: &str = "make one with `openssl rand -base64 32`";

fn not_a_secret(value: &Value) -> Fault {
    let what = match value {
        Value::Table(_) => "this table does not say where the secret is".to_string(),
        _ => format!("expected a secret, found {}", value.describe()),
    };
    Fault::new(
        what,
        "write { env = \"NAME\" }, { file = \"/run/secrets/name\" } or a string",
    )
}

fn from_variable(name: &str, context: &Context<'_>) -> Result<Secret, Fault> {
    // A secret that was put in the place of its variable's name must not be
    // repeated.
    if !looks_like_a_variable(name) {
        return Err(Fault::new(
            "this is not the name of an environment variable",
            "write the variable's name here, as in { env = \"CLOAKROOM_SECRET\" }, and the secret into the variable",
        ));
    }
    let value = context.environment.and_then(|all| all.value(name));
    match value.map(without_newline) {
        None => Err(Fault::new(
            format!("the environment variable {name} is not set"),
            format!("set it, for example with export {name}=\"$(openssl rand -base64 32)\""),
        )),
        Some([]) => Err(Fault::new(
            format!("the environment variable {name} is empty"),
            HOW_TO_MAKE,
        )),
        Some(bytes) => Ok(Secret::new(bytes)),
    }
}

/// Whether this can be the name of an environment variable, and is not likely a
/// secret that was put in its place.
pub fn looks_like_a_variable(name: &str) -> bool {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let long_word = name.len() >= 32 && !name.contains('_');
    letters && !long_word && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

fn from_file(path: &str, context: &Context<'_>) -> Result<Secret, Fault> {
    let place = context.path(path);
    let fault = |reason: String| {
        Fault::new(
            format!(
                "the secret's file {} cannot be used: {reason}",
                quoted(path)
            ),
            "check the path (it is counted from the folder of this configuration), and that Cloakroom's user may read it",
        )
    };
    let bytes = read_bounded(&place).map_err(|error| fault(plain_reason(&error)))?;
    match without_newline(&bytes) {
        [] => Err(Fault::new(
            format!("the secret's file {} is empty", quoted(path)),
            HOW_TO_MAKE,
        )),
        bytes => Ok(Secret::new(bytes)),
    }
}

fn read_bounded(path: &Path) -> std::io::Result<zeroize::Zeroizing<Vec<u8>>> {
    use std::io::Read;
    // A pipe without a writer would block for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    std::fs::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(std::io::Error::other("it is larger than 64 KiB"));
    }
    Ok(bytes)
}

/// An I/O error without the system's number, which says nothing to people.
pub fn plain_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "reading it is not allowed".into(),
        _ => error.to_string(),
    }
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Understands the URL of a store that does not stand in a file. A relative
/// folder in it is counted from `folder`.
///
/// # Errors
///
/// In a sentence, without a word of the URL that may be secret.
pub fn store_url(url: &str, folder: &Path) -> Result<StoreUrl, String> {
    let context = Context {
        folder,
        environment: None,
    };
    read_store(&Value::String(url.to_owned()), &context).map_err(|fault| fault.sentence())
}

/// Reads the store's URL.
///
/// # Errors
///
/// It is no URL of a store, or of one that this version lacks.
pub fn read_store(value: &Value, context: &Context<'_>) -> Result<StoreUrl, Fault> {
    let secret = match value {
        // Whatever is wrong with the variable or the file, a URL belongs there.
        Value::String(_) | Value::Table(_) => {
            read(value, context).map_err(|fault| fault.with_help(EXAMPLES))?
        }
        _ => {
            return Err(Fault::new(
                format!("expected a string, found {}", value.describe()),
                EXAMPLES,
            ));
        }
    };
    let url = std::str::from_utf8(secret.expose())
        .map_err(|_| Fault::new("the store's URL is not UTF-8", EXAMPLES))?;
    let (scheme, rest) = url
        .split_once(':')
        .ok_or_else(|| Fault::new("this is not the URL of a store", EXAMPLES))?;
    match scheme {
        "memory" if rest.is_empty() => Ok(StoreUrl {
            location: StoreLocation::Memory,
            shown: "memory:".into(),
        }),
        "file" => file_store(rest, context),
        scheme if RedisUrl::knows(scheme) => redis_store(url, context),
        "postgres" | "postgresql" => postgres_store(url, context),
        _ => Err(Fault::new("this is not the URL of a store", EXAMPLES)),
    }
}

const EXAMPLES: &str = "write \"file:./cloakroom-data\", \"memory:\", \"redis://127.0.0.1:6379\" or \"postgres://cloakroom@127.0.0.1/sessions\"";

fn file_store(rest: &str, context: &Context<'_>) -> Result<StoreUrl, Fault> {
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => {
            return Err(Fault::new(
                "a file store's URL has no host",
                "write \"file:/var/lib/cloakroom\" or \"file:./cloakroom-data\"",
            ));
        }
        None => rest,
    };
    if path.is_empty() || path.chars().any(char::is_control) {
        return Err(Fault::new(
            "a file store needs a folder",
            "write \"file:./cloakroom-data\" or \"file:/var/lib/cloakroom\"",
        ));
    }
    let folder = context.path(path);
    Ok(StoreUrl {
        shown: format!("file:{}", folder.display()),
        location: StoreLocation::File(folder),
    })
}

/// The files of TLS are read as well, so that what is wrong with them is known at
/// start and not at the first request.
fn redis_store(url: &str, context: &Context<'_>) -> Result<StoreUrl, Fault> {
    let url = RedisUrl::parse(url)
        .map_err(|fault| Fault::new(fault.what, fault.help))?
        .with_paths(|path| context.path(&path.to_string_lossy()));
    url.check_files().map_err(|why| {
        Fault::new(
            why,
            "name PEM files that Cloakroom's user may read; relative paths are counted from the folder of this configuration",
        )
    })?;
    Ok(StoreUrl {
        shown: url.shown(),
        location: StoreLocation::Redis(Box::new(url)),
    })
}

fn postgres_store(url: &str, context: &Context<'_>) -> Result<StoreUrl, Fault> {
    let url = PostgresUrl::parse(url, |path| context.path(path)).map_err(|why| {
        Fault::new(
            "this PostgreSQL URL cannot be used",
            "write postgres://[user[:password]@]host[:port]/database[?sslmode=verify-full]",
        )
        .why(why)
    })?;
    Ok(StoreUrl {
        shown: url.shown().to_owned(),
        location: StoreLocation::Postgres(Box::new(url)),
    })
}
