//! What sessions that Express applications share need beyond the rules of all sessions:
//! these applications end, prolong and make sessions by themselves.

use http::HeaderMap;

use super::data::Data;
use super::known::Known;
use super::layout::Layout;
use super::layout::express::Record;
use super::rules::{Presented, SessionRules};
use super::sessions::Sessions;
use super::store::Listener;
use crate::base::metrics::StoreOperation;
use crate::base::refusal::{Failure, Refusal};

impl Sessions {
    /// The fields of a login's record, with those of the anonymous session that the
    /// browser has at an application that shares its sessions. A session that has or
    /// had somebody is never taken over.
    pub(super) async fn with_anonymous(
        &self,
        rules: &SessionRules,
        presented: &HeaderMap,
        login: Data,
    ) -> Result<Data, Failure> {
        let Layout::Express(layout) = &rules.layout else {
            return Ok(login);
        };
        let Presented::Tokens(tokens) = rules.presented(presented) else {
            return Ok(login);
        };
        let Some((token, _)) = tokens.first().filter(|_| rules.share_with_app) else {
            return Ok(login);
        };
        let key = rules.key(token);
        let loaded = self
            .timed(StoreOperation::Load, self.store.load(&key))
            .await;
        let stored = match loaded {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(login),
            // It goes with the login, which it must not prevent.
            Err(failure) if failure.refusal == Refusal::SessionUnreadable => return Ok(login),
            Err(failure) => return Err(failure),
        };
        let opened = layout.open(&stored.value).ok().flatten();
        let anonymous = opened
            .filter(|opened| opened.head.is_none() && names_nobody(&opened.record, &layout.user));
        Ok(anonymous
            .and_then(|opened| layout.take_over(&opened.record, &login))
            .unwrap_or(login))
    }

    /// Deletes every record of a user that there is now.
    pub(super) async fn delete_all_of(&self, user: &str) -> Result<(), Failure> {
        let found = self.timed(StoreOperation::OfUser, self.store.of_user(user));
        for found in found.await? {
            let deleted = self.timed(StoreOperation::Delete, self.store.delete(&found.key));
            let deleted = deleted.await;
            self.shared.record_changed(&found.key);
            deleted?;
        }
        Ok(())
    }

    /// Deletes a record that is over by a rule of ours which applications that share it
    /// do not know: they would go on with it.
    pub(super) async fn end_for_applications(&self, known: &Known) -> Result<(), Failure> {
        if known.terms.is_some() {
            let deleted = self.store.delete(known.key());
            let deleted = self.timed(StoreOperation::Delete, deleted).await;
            self.shared.record_changed(known.key());
            deleted?;
        }
        Ok(())
    }
}

/// Whether a record names nobody, neither where Cloakroom looks for the user nor where
/// Passport does. What is there in any form, also in one that is no id to us, is
/// somebody to the application.
fn names_nobody(record: &Record, user: &str) -> bool {
    [user, "passport.user"].iter().all(|path| {
        let ends = path.match_indices('.').map(|(at, _)| at);
        let mut steps = ends.chain([path.len()]);
        steps.all(|end| {
            let step = path.get(..end).unwrap_or_default();
            match record.data().raw(step) {
                None | Some("null" | "false" | "\"\"") => true,
                // What leads there is an object, and what stands there is not to be one.
                Some(value) => value.starts_with('{') && end < path.len(),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_somebody_to_the_application_is_not_nobody() {
        let nobody = |json: &str, user: &str| {
            let cookie = r#""cookie":{"originalMaxAge":1000,"path":"/"}"#;
            let json = format!("{{{cookie},{json}}}");
            let record = Record::read(json.as_bytes()).unwrap().unwrap();
            names_nobody(&record, user)
        };
        for json in [
            r#""cart":1"#,
            r#""userId":null"#,
            r#""userId":"""#,
            r#""passport":{}"#,
            r#""passport":{"user":null}"#,
        ] {
            assert!(nobody(json, "userId"), "{json}");
            assert!(nobody(json, "passport.user"), "{json}");
        }
        for json in [
            r#""userId":"u1""#,
            r#""userId":0"#,
            r#""userId":{"id":1}"#,
            r#""passport":{"user":"u1"}"#,
            r#""passport":{"user":0}"#,
            r#""passport":{"user":{"id":"a"}}"#,
            r#""passport":"odd""#,
        ] {
            assert!(!nobody(json, "userId"), "{json}");
        }
        assert!(!nobody(r#""passport":{"user":"a"}"#, "passport.user.id"));
    }
}
