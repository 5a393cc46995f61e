//! From settings to what requests need: defaults filled in, references
//! resolved, and everything that must fit together checked.

mod control;
mod cors;
mod edge;
mod login;
mod routes;
mod secrets;
mod session;
mod sharing;
mod upstreams;

pub use secrets::{PLACEHOLDERS, SHORTEST_SECRET};

use super::compiled::{Compiled, CrossSiteSettings, LogFormat, LogLevel, LogSettings};
use super::problem::{Place, Problem};
use super::settings::{Defect, PublicUrl, Settings};
use super::tree::{Entry, Value};
use crate::base::secret::Secret;
use crate::wire::cors::Cors;

/// What the compiler is told beside the settings.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// For where there is no `session.secrets`.
    pub fallback_secret: Option<&'a Secret>,
    /// Whether everybody on this machine may read the file.
    pub readable_by_all: bool,
    /// Whether a secret stands in the file itself.
    pub inline_secret: bool,
}

/// Compiles, and adds every problem of a combination. `None` only together
/// with an error.
pub fn compile(
    settings: &Settings,
    surroundings: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Compiled> {
    match assemble(settings, surroundings, problems) {
        Ok(compiled) => Some(compiled),
        Err(Defect(what)) => {
            problems.push(
                Problem::error(&Place::Whole, format!("a defect of Cloakroom: {what}"))
                    .help("please report this; nothing is wrong with the file"),
            );
            None
        }
    }
}

fn assemble(
    settings: &Settings,
    surroundings: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Compiled, Defect> {
    let mut notes = Vec::new();
    let edge = edge::compile(settings, problems)?;
    let admin = edge::admin(settings, &edge.server, problems)?;
    let upstreams = upstreams::compile(settings, problems)?;
    let routes = routes::compile(settings, &upstreams, problems, &mut notes)?;
    let public: Option<PublicUrl> = settings
        .section("server", "server")
        .optional("public_url")?;
    let session = session::compile(settings, surroundings, problems)?;
    let cookie = session::cookie(settings, public.as_ref(), &edge, problems)?;
    let (store, store_shown) = session::store(settings, problems)?;
    let prefix: String = settings.section("endpoints", "endpoints").get("prefix")?;
    let login = login::compile(settings, &routes, problems)?;
    let identity = login::identity(settings, problems)?;
    let share_with_app = sharing::compile(settings, &store, &store_shown, problems)?;
    let cors = cors::compile(settings, &cookie, public.as_ref(), problems)?;
    let cross_site = cross_site(settings, &cors, problems)?;
    routes::warn_of_shadows(settings, &routes, &prefix, problems);
    session::warn_of_unseen_cookie(settings, &cookie, &prefix, problems);

    Ok(Compiled {
        server: edge.server,
        requests_per_ip: edge.requests_per_ip,
        tunnel_idle_timeout: edge.tunnel_idle_timeout,
        public_origin: public.map(|public| public.origin),
        trust: edge.trust,
        upstreams,
        routes,
        session,
        share_with_app,
        cookie,
        store,
        store_shown,
        prefix,
        login,
        identity,
        cross_site,
        cors,
        admin,
        log: log(settings)?,
        notes,
    })
}

fn cross_site(
    settings: &Settings,
    cors: &Cors,
    problems: &mut Vec<Problem>,
) -> Result<CrossSiteSettings, Defect> {
    let csrf = settings.section("csrf", "csrf");
    let check = csrf.get::<String>("mode")? != "off";
    if !check {
        problems.push(
            Problem::warning(
                &csrf.place("mode"),
                "requests of other sites are not checked for",
            )
            .why("any web page can then act with the session of a visitor who opens it")
            .help("remove `mode = \"off\"`"),
        );
    }
    Ok(CrossSiteSettings {
        check,
        allow_same_site: csrf.get("allow_same_site")?,
        origins: cors.origins.clone(),
    })
}

fn log(settings: &Settings) -> Result<LogSettings, Defect> {
    let log = settings.section("log", "log");
    Ok(LogSettings {
        format: match log.get::<String>("format")?.as_str() {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(Defect(format!("log.format {other}"))),
        },
        level: match log.get::<String>("level")?.as_str() {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            other => return Err(Defect(format!("log.level {other}"))),
        },
        access: log.get("access")?,
    })
}

/// Whether `session.secrets` holds a plain string that stands in the file.
pub fn has_inline_secret(root: &[Entry]) -> bool {
    let inside = |entries: &[Entry], name: &str| -> Option<Value> {
        entries
            .iter()
            .find(|entry| entry.key == name)
            .map(|entry| entry.node.value.clone())
    };
    let Some(Value::Table(session)) = inside(root, "session") else {
        return false;
    };
    let Some(Value::Array(secrets)) = inside(&session, "secrets") else {
        return false;
    };
    secrets
        .iter()
        .any(|node| matches!(node.value, Value::String(_)) && matches!(node.place, Place::File(_)))
}
