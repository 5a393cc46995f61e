//! The session cookie of a request that is forwarded.

use http::HeaderValue;

use super::exchange::Exchange;
use crate::session::Session;

impl Exchange {
    /// Where the application has the cookie too, it would go on with a session that is over
    /// by our rules. Looking it up removes it; what else comes of it is the application's
    /// affair here.
    pub(super) async fn end_what_is_over(&self) {
        let sessions = &self.worker.sessions;
        // In an outage the application has no sessions either.
        let headers = &self.head.headers;
        let _ = sessions.lookup(&self.state.sessions, headers, false).await;
    }

    /// Whether its cookie may have to be sent once more.
    pub(super) fn may_renew(&self, session: &Session) -> bool {
        session.secret != 0 || self.state.sessions.prolongs_cookie(session)
    }

    /// The session's cookie once more: signed anew with the first secret, where another
    /// one verified it, or to last for longer, where it ends with the idle timeout.
    pub async fn renewed_cookie(&self, session: &Session) -> Option<HeaderValue> {
        let rules = &self.state.sessions;
        let signed_anew = session.secret != 0 && self.worker.sessions.renew(rules, session).await;
        if !signed_anew && !rules.prolongs_cookie(session) {
            return None;
        }
        let now = self.worker.sessions.now();
        rules.cookie_again(session, now, self.is_secure())
    }
}
