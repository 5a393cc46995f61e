//! Our own endpoints, under `endpoints.prefix`.

mod agent;
mod devices;
mod login;
mod logout;
mod session;

use http::{Method, Response};
use hyper::body::Incoming;
use serde_json::{Map, Value};

use super::exchange::Exchange;
use super::respond::{self, Form};
use super::state::State;
use crate::base::refusal::Failure;
use crate::session::SessionRules;
use crate::session::data::{Field, Fields};
use crate::session::layout::Layout;
use crate::wire::body::Body;

/// What Cloakroom answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET`: the page. `POST`: signing in.
    Login,
    /// `POST`: signing out.
    Logout,
    /// `POST`: signing out everywhere.
    LogoutAll,
    /// `GET`: who is signed in.
    Session,
    /// `GET`: where this user is signed in.
    Sessions,
    /// `DELETE`: ending one of them, by its handle.
    OneSession,
    /// `POST`: the same, for forms.
    Revoke,
    /// `POST`: ending all of them but this one.
    RevokeOthers,
}

impl Endpoint {
    /// The endpoint with this path. Anything else under the prefix follows the
    /// routes.
    pub fn find(state: &State, path: &str) -> Option<Self> {
        match path.strip_prefix(state.endpoints.as_str())? {
            "/login" => Some(Self::Login),
            "/logout" => Some(Self::Logout),
            "/logout-all" => Some(Self::LogoutAll),
            "/session" => Some(Self::Session),
            "/sessions" => Some(Self::Sessions),
            "/sessions/revoke-others" => Some(Self::RevokeOthers),
            path => {
                let below = path.strip_prefix("/sessions/")?;
                let (handle, endpoint) = match below.strip_suffix("/revoke") {
                    Some(handle) => (handle, Self::Revoke),
                    None => (below, Self::OneSession),
                };
                (!handle.is_empty() && !handle.contains('/')).then_some(endpoint)
            }
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::Login => "GET, HEAD, POST",
            Self::Logout | Self::LogoutAll | Self::Revoke | Self::RevokeOthers => "POST",
            Self::Session | Self::Sessions => "GET, HEAD",
            Self::OneSession => "DELETE",
        }
    }
}

/// Answers a request to one of our own endpoints; `form` is that of refusals.
///
/// # Errors
///
/// What each endpoint refuses.
pub async fn serve(
    endpoint: Endpoint,
    exchange: &mut Exchange,
    body: Incoming,
    form: Form,
) -> Result<Response<Body>, Failure> {
    let method = exchange.head.method.clone();
    // None of them opens a socket.
    let reads = matches!(method, Method::GET | Method::HEAD) && !exchange.is_connect();
    let posts = method == Method::POST;
    let deletes = method == Method::DELETE;
    if posts || deletes {
        let headers = &exchange.head.headers;
        exchange
            .state
            .cross_site
            .check(headers, exchange.own_origin().as_ref())?;
    }
    match endpoint {
        Endpoint::Login if posts => login::sign_in(exchange, body).await,
        Endpoint::Login if reads && exchange.state.login_page => login::page(exchange).await,
        Endpoint::Logout if posts => logout::one(exchange).await,
        Endpoint::LogoutAll if posts => logout::all(exchange).await,
        Endpoint::Session if reads => session::show(exchange).await,
        Endpoint::Sessions if reads => devices::list(exchange).await,
        Endpoint::OneSession if deletes => devices::revoke(exchange).await,
        Endpoint::Revoke if posts => devices::revoke(exchange).await,
        Endpoint::RevokeOthers if posts => devices::revoke_others(exchange).await,
        _ => {
            let id = exchange.record.request_id.clone();
            exchange.record.reason = Some(crate::base::refusal::Refusal::MethodNotAllowed);
            Ok(respond::method_not_allowed(
                &exchange.state,
                endpoint.methods(),
                form,
                &id,
            ))
        }
    }
}

/// What clients are told of a signed-in user: the record's fields, with the
/// user id as `id` and roles always as a list.
fn user_json(data: Fields<'_>, rules: &SessionRules) -> Value {
    let settings = &rules.settings;
    let mut user = Map::new();
    if let Some(Field::One(id)) = data.at(&settings.user) {
        user.insert("id".into(), id.into());
    }
    let roles = data
        .at(&settings.roles)
        .map_or_else(Vec::new, Field::into_values);
    user.insert("roles".into(), roles.into());
    let top = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let shown = [top(&settings.user), top(&settings.roles)];
    // What else an application keeps in its record is not for the browser.
    if let Layout::Express(layout) = &rules.layout {
        for path in layout.identity.iter().filter(|path| !path.contains('.')) {
            if let Some(Field::One(value)) = data.at(path).filter(|_| !shown.contains(path)) {
                user.entry(path.clone()).or_insert(value.into());
            }
        }
        return Value::Object(user);
    }
    // Sealed records are ours and parse.
    if let Ok(Value::Object(fields)) = serde_json::from_str(data.text()) {
        for (name, value) in fields {
            if !shown.contains(&name) {
                user.entry(name).or_insert(value);
            }
        }
    }
    Value::Object(user)
}
