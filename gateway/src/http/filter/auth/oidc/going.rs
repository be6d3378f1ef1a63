//! How a session goes on whose access token has ended. Owns what is asked of the provider and what its answer means for the
//! session; that it is asked once, `refresh` sees to.

use std::sync::Arc;

use tokio::time::timeout;

use super::browser::Origin;
use super::provider::Trouble;
use super::refresh::{self, Outcome, Seat};
use super::session::Session;
use super::{Call, Oidc, Verdict, proof};
use crate::upstream::fetch::Kept;

impl Oidc {
    /// Has a session go on whose access token has ended. `None`: it does not.
    pub(super) async fn go_on(self: &Arc<Self>, call: Call<'_>, session: Session) -> Option<Verdict> {
        let origin = Origin::of(&call.head.headers);
        let access = session.access.clone()?;
        let token = access.refresh?;
        let (lead, mut waiting) = match refresh::join(self.sealer.bound(), &token, access.until) {
            Seat::Lead(lead, waiting) => (Some(lead), waiting),
            Seat::Wait(waiting) => (None, waiting),
            // As with a provider that is away.
            Seat::None => return Some(Verdict::Known(Arc::new(session.identity()))),
        };
        if let Some(lead) = lead {
            let (own, old, now) = (Arc::clone(self), session.clone(), call.local.now());
            // The token is spent, whether this client waits for what is given for it or not.
            tokio::task::spawn_local(async move {
                let outcome = own.refreshed(old, &token, now).await;
                lead.send_replace(Some(outcome));
            });
        }
        // Metadata, tokens and keys are asked for one after another.
        let patience = self.model.timeout * 4;
        let outcome = match timeout(patience, waiting.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            _ => None,
        };
        match outcome {
            Some(Outcome::New(new)) => Some(self.noted(call, self.jar(&origin), (*new).clone())),
            Some(Outcome::Ended) => None,
            Some(Outcome::Away) | None => Some(Verdict::Known(Arc::new(session.identity()))),
        }
    }

    /// What the provider makes of a session.
    async fn refreshed(&self, mut session: Session, token: &str, now: u64) -> Outcome {
        match self.refresh(&mut session, token, now).await {
            Ok(()) => Outcome::New(Arc::new(session)),
            Err(Trouble::Refused(reason)) => {
                tracing::info!(reason, "a session has ended: the provider does not go on with it");
                Outcome::Ended
            }
            Err(Trouble::Away(reason)) => {
                tracing::warn!(reason, "a session can not be refreshed, and goes on");
                Outcome::Away
            }
        }
    }

    async fn refresh(&self, session: &mut Session, token: &str, now: u64) -> Result<(), Trouble> {
        let refused = |reason: &str| Trouble::Refused(reason.to_owned());
        let away = |reason: &str| Trouble::Away(reason.to_owned());
        self.learn().await;
        let known = self
            .known()
            .ok_or_else(|| away("the provider's metadata were never read"))?;
        let endpoints = known.read.as_ref().map_err(|reason| away(reason))?;
        let tokens = endpoints.refresh(&self.model, &Kept::default(), token).await?;
        let access = session
            .access
            .as_mut()
            .ok_or_else(|| refused("there is nothing to refresh"))?;
        if let Some(id) = &tokens.id {
            let proven = self.proven(id, now).await?;
            // OpenID Connect Core 1.0, 12.2.
            if proven.claims.get("sub").and_then(serde_json::Value::as_str) != Some(&access.subject) {
                return Err(refused("the new ID token is of somebody else"));
            }
            proof::fits(&self.model, &proven, id, tokens.access.as_deref(), now)
                .map_err(|fault| Trouble::Refused(format!("of the ID token: {fault}")))?;
            access.until = now.saturating_add(tokens.lasts.max(1));
            access.refresh = tokens.refresh.or_else(|| Some(token.to_owned()));
            session.learn(&proven, &self.model.claims);
        } else {
            access.until = now.saturating_add(tokens.lasts.max(1));
            access.refresh = tokens.refresh.or_else(|| Some(token.to_owned()));
        }
        session.scopes = tokens
            .scopes
            .unwrap_or_else(|| std::mem::take(&mut session.scopes));
        Ok(())
    }
}
