//! What sharing sessions with Express applications needs: `store.layout = "express"`
//! and `session.share_with_app`.

use crate::config::problem::Problem;
use crate::config::settings::{Defect, Settings};
use crate::session::layout::express::{has_neighbours, is_dropped};
use crate::session::settings::{LayoutKind, StoreLocation, StoreSettings};

/// Compiles `session.share_with_app`, and checks what goes with the layout. `shown` is
/// the store in words.
pub fn compile(
    settings: &Settings,
    store: &StoreSettings,
    shown: &str,
    problems: &mut Vec<Problem>,
) -> Result<bool, Defect> {
    let session = settings.section("session", "session");
    let share: bool = session.get("share_with_app")?;
    let express = matches!(store.layout, LayoutKind::Express { .. });
    check_table(settings, store, express, problems);
    if express {
        check_store(settings, store, shown, problems);
        check_paths(settings, problems)?;
    }
    if !share {
        return Ok(false);
    }
    let place = session.place("share_with_app");
    if !express {
        problems.push(
            Problem::error(
                &place,
                "share_with_app = true, and the store's layout is \"sealed\"",
            )
            .why("no application can read or write a sealed record")
            .help("write layout = \"express\" in [store], or remove `share_with_app`"),
        );
    }
    let cookie = settings.section("session.cookie", "session.cookie");
    if !cookie.is_set("name") {
        let name: String = cookie.get("name")?;
        problems.push(
            Problem::warning(&place, format!("share_with_app = true, and the cookie's name is {name}"))
                .why("express-session calls its cookie connect.sid unless it is told otherwise, and sessions are shared under one name alone")
                .help("write the application's name in [session.cookie], such as name = \"connect.sid\""),
        );
    }
    Ok(share)
}

/// Applications must be able to reach the store.
fn check_store(
    settings: &Settings,
    store: &StoreSettings,
    shown: &str,
    problems: &mut Vec<Problem>,
) {
    let section = settings.section("store", "store");
    let reached = match &store.location {
        StoreLocation::Memory | StoreLocation::File(_) => false,
        StoreLocation::Redis(_) | StoreLocation::Postgres(_) => true,
    };
    if matches!(store.location, StoreLocation::Postgres(_)) && section.is_set("prefix") {
        problems.push(
            Problem::warning(
                &section.place("prefix"),
                "prefix is no part of the session ids in the application's table",
            )
            .why("connect-pg-simple knows none")
            .help("remove `prefix`"),
        );
    }
    if let StoreLocation::Redis(url) = &store.location
        && url.is_cluster()
        && !has_neighbours(&store.prefix)
    {
        problems.push(
            Problem::error(
                &section.place("prefix"),
                format!("prefix = \"{}\", and a cluster could keep nothing beside such a session", store.prefix),
            )
            .why("what Cloakroom knows of a session, such as that it has ended, must be in the slot of its key; a } without a whole {tag} before it makes that impossible")
            .help("give connect-redis and Cloakroom a prefix without }, or with a whole {tag}"),
        );
    }
    if reached || section.is_faulty("url") {
        return;
    }
    problems.push(
        Problem::error(
            &section.place("layout"),
            format!("layout = \"express\", and no application can reach {shown}"),
        )
        .why("connect-redis keeps its sessions in Redis, and connect-pg-simple in PostgreSQL")
        .help("write the application's url = \"redis://HOST:6379\" or \"postgres://…\" in [store], or remove `layout`"),
    );
}

/// Sealed records have tables of their own.
fn check_table(
    settings: &Settings,
    store: &StoreSettings,
    express: bool,
    problems: &mut Vec<Problem>,
) {
    let StoreLocation::Postgres(url) = &store.location else {
        return;
    };
    if express || !url.names_a_table() {
        return;
    }
    let section = settings.section("store", "store");
    problems.push(
        Problem::error(
            &section.place("url"),
            "the URL names a table, and the store's layout is \"sealed\"",
        )
        .why("sealed records are in the table cloakroom_session; table=NAME is the application's table, whose sessions are shared")
        .help("write layout = \"express\" in [store], or remove table=NAME from the URL"),
    );
}

/// What express-session does not load, no application could have written.
fn check_paths(settings: &Settings, problems: &mut Vec<Problem>) -> Result<(), Defect> {
    let session = settings.section("session", "session");
    for key in ["user", "roles"] {
        let path: String = session.get(key)?;
        let first = path.split('.').next().unwrap_or_default();
        if first == "cookie" || is_dropped(first) {
            problems.push(
                Problem::error(
                    &session.place(key),
                    format!("{key} = \"{path}\", and express-session keeps `{first}` for itself"),
                )
                .why("it drops a member of this name when it loads a session")
                .help("write the path under which the application keeps it, such as \"userId\" or \"passport.user\""),
            );
        }
    }
    Ok(())
}
