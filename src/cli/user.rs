//! `cloakroom user`: the users of a TOML users file.
//!
//! Edits keep comments and layout, and replace the file in one step, so that a
//! running proxy reads either the old users or the new ones. Neither passwords
//! nor hashes are ever printed.

mod file;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use toml_edit::{Array, Item, Table, Value};
use zeroize::Zeroizing;

use self::file::{Edit, describe};
use crate::base::secret::Secret;
use crate::login::password::hash::{Hash, MAX_PASSWORD};
use crate::login::users_file::{self, name_problem, role_problem};

/// What to do with the users of a file.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; asks for the password
    Add(AddUser),
    /// Give a user a new password
    SetPassword(SetPassword),
    /// Remove a user; sessions that are open stay open until they are revoked
    Remove(RemoveUser),
    /// List the users: name, id, e-mail, roles
    List(ListUsers),
}

/// `cloakroom user add`.
#[derive(Debug, Args)]
pub struct AddUser {
    /// What is typed at login
    pub name: String,
    /// The user id that the application knows [default: the name]
    #[arg(long)]
    pub id: Option<String>,
    /// The e-mail address
    #[arg(long)]
    pub email: Option<String>,
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Read the password from standard input; one newline at its end is dropped
    #[arg(long)]
    pub password_stdin: bool,
    /// The users file; made if there is none
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// `cloakroom user set-password`.
#[derive(Debug, Args)]
pub struct SetPassword {
    /// The user's name
    pub name: String,
    /// Read the password from standard input; one newline at its end is dropped
    #[arg(long)]
    pub password_stdin: bool,
    /// The users file
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// `cloakroom user remove`.
#[derive(Debug, Args)]
pub struct RemoveUser {
    /// The user's name
    pub name: String,
    /// The users file
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// `cloakroom user list`.
#[derive(Debug, Args)]
pub struct ListUsers {
    /// The users file, TOML or htpasswd
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
}

/// Runs the command. What was done goes to standard error, a list to standard
/// output.
///
/// # Errors
///
/// What went wrong, in a sentence; the file is as it was.
pub fn run(command: UserCommand) -> Result<(), String> {
    let done = match command {
        UserCommand::Add(args) => add(&args, || ask_password(args.password_stdin))?,
        UserCommand::SetPassword(args) => {
            set_password(&args, || ask_password(args.password_stdin))?
        }
        UserCommand::Remove(args) => remove(&args)?,
        UserCommand::List(args) => {
            let text = list(&args.file)?;
            return match io::stdout().lock().write_all(text.as_bytes()) {
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.to_string()),
                _ => Ok(()),
            };
        }
    };
    // Nothing is left to do if standard error is closed.
    drop(writeln!(io::stderr(), "{done}"));
    Ok(())
}

/// Everything that can be wrong is checked before the password is asked for.
fn add(
    args: &AddUser,
    password: impl FnOnce() -> Result<Secret, String>,
) -> Result<String, String> {
    let id = args.id.as_ref().unwrap_or(&args.name);
    let email = args.email.as_deref();
    let problem = name_problem("name", &args.name)
        .or_else(|| name_problem("id", id))
        .or_else(|| email.and_then(|email| name_problem("email", email)))
        .or_else(|| args.roles.iter().find_map(|role| role_problem(role)));
    if let Some(problem) = problem {
        return Err(problem);
    }
    // The file is not held while a person is typing, so it is looked at twice.
    refuse_taken(&mut Edit::begin(&args.file, true)?, args, id)?;
    let hash = Hash::create(&password()?)?;
    let mut edit = Edit::begin(&args.file, true)?;
    refuse_taken(&mut edit, args, id)?;
    let mut user = Table::new();
    user.insert("name", Item::from(args.name.as_str()));
    if let Some(id) = &args.id {
        user.insert("id", Item::from(id.as_str()));
    }
    if let Some(email) = email {
        user.insert("email", Item::from(email));
    }
    if !args.roles.is_empty() {
        let roles: Array = args.roles.iter().map(String::as_str).collect();
        user.insert("roles", Item::from(roles));
    }
    user.insert("password", Item::from(hash));
    edit.push(user)?;
    edit.commit()?;
    Ok(format!("Added {:?} to {}.", args.name, args.file.display()))
}

/// Names are unique; and two users of one id would be one person to the
/// application, which is hardly ever meant.
fn refuse_taken(edit: &mut Edit, args: &AddUser, id: &str) -> Result<(), String> {
    for user in edit.users()?.iter() {
        let name = text(user, "name").unwrap_or_default();
        if name == args.name {
            return Err(format!(
                "the user {name:?} is already in {}; use set-password to change the password",
                args.file.display()
            ));
        }
        if text(user, "id").unwrap_or(name) == id {
            return Err(format!(
                "the id {id:?} already belongs to the user {name:?}; give another one with --id"
            ));
        }
    }
    Ok(())
}

fn set_password(
    args: &SetPassword,
    password: impl FnOnce() -> Result<Secret, String>,
) -> Result<String, String> {
    position(&mut Edit::begin(&args.file, false)?, &args.name, &args.file)?;
    let hash = Hash::create(&password()?)?;
    let mut edit = Edit::begin(&args.file, false)?;
    let index = position(&mut edit, &args.name, &args.file)?;
    let Some(user) = edit.users()?.get_mut(index) else {
        return Err(missing(&args.name, &args.file));
    };
    match user.get_mut("password").and_then(Item::as_value_mut) {
        // A comment behind the old value stays.
        Some(value) => {
            let decor = value.decor().clone();
            *value = Value::from(hash);
            *value.decor_mut() = decor;
        }
        None => {
            user.insert("password", Item::from(hash));
        }
    }
    edit.commit()?;
    Ok(format!("{:?} has a new password.", args.name))
}

fn remove(args: &RemoveUser) -> Result<String, String> {
    let mut edit = Edit::begin(&args.file, false)?;
    let index = position(&mut edit, &args.name, &args.file)?;
    edit.remove(index)?;
    edit.commit()?;
    Ok(format!(
        "Removed {:?} from {}.",
        args.name,
        args.file.display()
    ))
}

/// The users as a table in text, with a head.
fn list(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let users = users_file::parse(&text).map_err(|found| describe(path, &found))?;
    let mut rows = vec![["NAME", "ID", "EMAIL", "ROLES"].map(str::to_owned)];
    for user in users.iter() {
        let email = user.identity.claims.get("email").and_then(|e| e.as_str());
        rows.push([
            user.name.clone(),
            user.identity.user.clone(),
            email.unwrap_or("-").to_owned(),
            match user.identity.roles.as_slice() {
                [] => "-".to_owned(),
                roles => roles.join(", "),
            },
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut out = String::new();
    for [name, id, email, roles] in &rows {
        let [first, second, third] = widths;
        out.push_str(&format!(
            "{name:first$}  {id:second$}  {email:third$}  {roles}\n"
        ));
    }
    Ok(out)
}

fn text<'t>(user: &'t Table, key: &str) -> Option<&'t str> {
    user.get(key).and_then(Item::as_str)
}

fn position(edit: &mut Edit, name: &str, path: &Path) -> Result<usize, String> {
    edit.users()?
        .iter()
        .position(|user| text(user, "name") == Some(name))
        .ok_or_else(|| missing(name, path))
}

fn missing(name: &str, path: &Path) -> String {
    format!("there is no user {name:?} in {}", path.display())
}

/// The password from standard input, or asked for twice on the terminal.
fn ask_password(from_stdin: bool) -> Result<Secret, String> {
    if from_stdin {
        return read_password(io::stdin().lock());
    }
    if !io::stdin().is_terminal() {
        return Err(
            "there is no terminal to ask for the password on; use --password-stdin".to_owned(),
        );
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map(Secret::new)
            .map_err(|e| format!("the password cannot be read: {e}"))
    };
    let first = bounded(ask("New password: ")?)?;
    if ask("The same again: ")? != first {
        return Err("the two passwords differ".to_owned());
    }
    Ok(first)
}

/// All that comes, but for one newline (LF or CR LF) at the end.
fn read_password(input: impl Read) -> Result<Secret, String> {
    // The longest password, its newline, and one byte more to tell too many.
    let most = (MAX_PASSWORD as u64).saturating_add(3);
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD.saturating_add(3)));
    input
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("the password cannot be read: {e}"))?;
    let password = match bytes.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => &bytes,
    };
    bounded(Secret::new(password))
}

fn bounded(password: Secret) -> Result<Secret, String> {
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    if password.len() > MAX_PASSWORD {
        return Err(format!("the password is longer than {MAX_PASSWORD} bytes"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests;
