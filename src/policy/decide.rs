//! The decision about a request, from facts alone.

use super::route::{Access, OnRefusal, Route};
use crate::base::refusal::Refusal;
use crate::session::{Lookup, Session};

/// What happens to a request.
#[derive(Debug)]
pub enum Decision {
    /// It goes to the application.
    Forward(Permit),
    /// The browser goes to the login page, for this reason.
    Login(Refusal),
    /// It is answered with the refusal's status.
    Refuse(Refusal),
}

/// The proof that policy let a request pass. Its fields are private to this
/// module and [`decide`] alone makes one, so nothing can be forwarded without
/// a decision.
#[derive(Debug)]
pub struct Permit {
    upstream: usize,
    session: Option<Session>,
}

impl Permit {
    /// Which upstream it is for.
    pub fn upstream(&self) -> usize {
        self.upstream
    }

    /// Whose request it is, if anybody's.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

/// Whether somebody sits before a page and can be sent to the login page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// A safe method, and not an upgrade: a redirect loses nothing.
    pub can_follow: bool,
    /// A page is loaded, not a script's request.
    pub navigates: bool,
    /// There is a login page to go to.
    pub has_page: bool,
}

/// Decides. Pure: the same facts always give the same decision.
pub fn decide(route: &Route, asker: Asker, lookup: Lookup) -> Decision {
    let forward = |session| {
        Decision::Forward(Permit {
            upstream: route.upstream,
            session,
        })
    };
    match (&route.access, lookup) {
        (Access::Deny, _) => Decision::Refuse(Refusal::RouteDenied),
        (Access::Public, _) => forward(None),
        (Access::Optional, Lookup::Live(session)) => forward(Some(session)),
        (Access::Optional, Lookup::Dead(_) | Lookup::NotNeeded) => forward(None),
        (Access::Login { roles }, Lookup::Live(session)) => {
            if roles.is_empty() || session.has_any_role(roles) {
                forward(Some(session))
            } else {
                Decision::Refuse(Refusal::MissingRole)
            }
        }
        (Access::Login { .. }, Lookup::Dead(reason)) => refuse(route, asker, reason),
        // A caller that did not look must not let anybody in.
        (Access::Login { .. }, Lookup::NotNeeded) => Decision::Refuse(Refusal::InternalError),
    }
}

fn refuse(route: &Route, asker: Asker, reason: Refusal) -> Decision {
    let to_login = match route.on_refusal {
        OnRefusal::Status => false,
        OnRefusal::Auto => asker.navigates && asker.can_follow,
        OnRefusal::Login => asker.can_follow,
    };
    if to_login && asker.has_page {
        Decision::Login(reason)
    } else {
        Decision::Refuse(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::route::{AmbiguousPaths, HostPattern};

    fn route(access: Access, on_refusal: OnRefusal) -> Route {
        Route {
            host: HostPattern::Any,
            path: "/".into(),
            exact: false,
            methods: Vec::new(),
            access,
            upstream: 3,
            on_refusal,
            ambiguous_paths: AmbiguousPaths::SameRule,
            body_bytes: None,
            label: "/".into(),
        }
    }

    fn asker(can_follow: bool, navigates: bool) -> Asker {
        Asker {
            can_follow,
            navigates,
            has_page: true,
        }
    }

    fn login() -> Access {
        Access::Login { roles: Vec::new() }
    }

    fn outcome(access: Access, on: OnRefusal, asker: Asker, lookup: Lookup) -> &'static str {
        match decide(&route(access, on), asker, lookup) {
            Decision::Forward(permit) => {
                assert_eq!(permit.upstream(), 3);
                "forward"
            }
            Decision::Login(_) => "login",
            Decision::Refuse(refusal) => refusal.label(),
        }
    }

    #[test]
    fn without_a_live_session_only_public_and_optional_routes_pass() {
        let dead = || Lookup::Dead(Refusal::IdleExpired);
        let auto = OnRefusal::Auto;
        let script = asker(true, false);
        assert_eq!(
            outcome(Access::Public, auto, script, Lookup::NotNeeded),
            "forward"
        );
        assert_eq!(outcome(Access::Optional, auto, script, dead()), "forward");
        assert_eq!(outcome(login(), auto, script, dead()), "idle_expired");
        assert_eq!(
            outcome(login(), auto, script, Lookup::NotNeeded),
            "internal_error"
        );
        assert_eq!(
            outcome(Access::Deny, auto, script, Lookup::NotNeeded),
            "route_denied"
        );
    }

    #[test]
    fn only_those_who_can_follow_are_sent_to_the_login_page() {
        let dead = || Lookup::Dead(Refusal::NoCookie);
        for (on, follow, navigates, expected) in [
            (OnRefusal::Auto, true, true, "login"),
            (OnRefusal::Auto, true, false, "no_cookie"),
            (OnRefusal::Auto, false, true, "no_cookie"),
            (OnRefusal::Status, true, true, "no_cookie"),
            (OnRefusal::Login, true, false, "login"),
            (OnRefusal::Login, false, false, "no_cookie"),
        ] {
            let asker = asker(follow, navigates);
            assert_eq!(
                outcome(login(), on, asker, dead()),
                expected,
                "{on:?} {asker:?}"
            );
            let nowhere = Asker {
                has_page: false,
                ..asker
            };
            assert_eq!(outcome(login(), on, nowhere, dead()), "no_cookie");
        }
    }
}
