//! What sharing sessions with Express applications needs: `store.layout = "express"`
//! and `session.share_with_app`.

use crate::config::problem::Problem;
use crate::config::settings::{Defect, Settings};
use crate::session::layout::express::is_dropped;
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
    if matches!(store.location, StoreLocation::Redis(_)) || section.is_faulty("url") {
        return;
    }
    problems.push(
        Problem::error(
            &section.place("layout"),
            format!("layout = \"express\", and no application can reach {shown}"),
        )
        .why("connect-redis keeps its sessions in Redis")
        .help("write the application's url = \"redis://HOST:6379\" in [store], or remove `layout`"),
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
