//! What ties an answer to the session that it is sent for.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use crate::base::refusal::Refusal;
use crate::session::Session;
use crate::session::live::Watch;
use crate::session::shared::Shared;

/// The session of a request, and the end of it. The answer's body asks for that end
/// when it is asked for its next piece, and the server where nobody asks for one: a
/// client that does not read would hold on to its answer otherwise.
pub struct Leash {
    session: Session,
    shared: Arc<Shared>,
    watch: Mutex<Option<Watch>>,
    over: OnceLock<Refusal>,
}

impl Leash {
    /// Of a request with this session.
    pub fn new(session: &Session, shared: &Arc<Shared>) -> Self {
        Self {
            session: session.clone(),
            shared: shared.clone(),
            watch: Mutex::default(),
            over: OnceLock::new(),
        }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Ready with the reason once the session is over, from then on each time. To be
    /// asked only where the answer has to be waited for: the first time costs
    /// something. Whoever asks last is woken.
    pub fn poll_over(&self, context: &mut Context<'_>) -> Poll<Refusal> {
        if let Some(why) = self.over.get() {
            return Poll::Ready(*why);
        }
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watch.get_or_insert_with(|| self.shared.watch(&self.session));
        let why = ready!(watch.poll_ended(context));
        Poll::Ready(*self.over.get_or_init(|| why))
    }

    /// Whether somebody has asked already.
    pub fn is_watched(&self) -> bool {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.is_some()
    }

    /// Why the session is over, as far as somebody was told.
    pub fn why(&self) -> Option<Refusal> {
        self.over.get().copied()
    }
}
