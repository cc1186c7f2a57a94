//! Users, preauth keys and API keys.

use mesh_model::{
    ApiKey, ApiKeyId, Node, PreauthKey, PreauthKeyId, Timestamp, User, UserId, check_user_name,
};

use crate::register::sorted;
use crate::{Context, Draft, NewPreauthKey, NewSecret, NewUser, Outcome, Refusal};

/// An API key's last use is kept no finer than this.
const LAST_SEEN_STEP: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

impl Draft {
    pub(crate) fn create_user(
        &mut self,
        new: &NewUser,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        self.check_free_user_name(&new.name)?;
        let id = UserId(Self::next_id(&mut self.state.counters.user));
        Ok(Outcome::User(self.put_user(User {
            id,
            name: new.name.clone(),
            display_name: new.display_name.clone(),
            email: new.email.clone(),
            profile_pic_url: new.profile_pic_url.clone(),
            provider: String::new(),
            provider_id: String::new(),
            created_at: context.now,
        })))
    }

    pub(crate) fn rename_user(&mut self, user: UserId, name: &str) -> Result<Outcome, Refusal> {
        let user = self.state.tailnet.user(user).ok_or(Refusal::UserNotFound)?.clone();
        if user.name != name {
            self.check_free_user_name(name)?;
        }
        Ok(Outcome::User(self.put_user(User { name: name.to_owned(), ..User::clone(&user) })))
    }

    fn check_free_user_name(&self, name: &str) -> Result<(), Refusal> {
        check_user_name(name)?;
        match self.state.tailnet.user_by_name(name) {
            Some(_) => Err(Refusal::NameTaken(name.to_owned())),
            None => Ok(()),
        }
    }

    pub(crate) fn delete_user(
        &mut self,
        user: UserId,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        self.state.tailnet.user(user).ok_or(Refusal::UserNotFound)?;
        let nodes = self.state.tailnet.nodes_of_user(user).count();
        if nodes > 0 {
            return Err(Refusal::UserHasNodes(nodes));
        }
        let made_by_user = |key: &&std::sync::Arc<PreauthKey>| key.user == Some(user);
        let keys: Vec<_> =
            self.state.tailnet.preauth_keys().filter(made_by_user).cloned().collect();
        for key in keys {
            if key.tags.is_empty() {
                self.forget_preauth_key(key.id, context);
            } else {
                self.put_preauth_key(PreauthKey { user: None, ..PreauthKey::clone(&key) });
            }
        }
        self.remove_user(user);
        Ok(Outcome::Done)
    }

    pub(crate) fn create_preauth_key(
        &mut self,
        new: &NewPreauthKey,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        if let Some(user) = new.user {
            self.state.tailnet.user(user).ok_or(Refusal::UserNotFound)?;
        } else if new.tags.is_empty() {
            return Err(Refusal::NoOwner);
        }
        let id = PreauthKeyId(Self::next_id(&mut self.state.counters.preauth_key));
        Ok(Outcome::PreauthKey(self.put_preauth_key(PreauthKey {
            id,
            public_id: new.secret.public_id.clone(),
            hash: new.secret.hash.clone(),
            user: new.user,
            tags: sorted(new.tags.clone()),
            reusable: new.reusable,
            ephemeral: new.ephemeral,
            used_at: None,
            used_by: None,
            expires_at: new.expires_at,
            revoked_at: None,
            created_at: context.now,
        })))
    }

    pub(crate) fn revoke_preauth_key(
        &mut self,
        key: PreauthKeyId,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let key = self.state.tailnet.preauth_key(key).ok_or(Refusal::PreauthKeyNotFound)?.clone();
        let revoked_at = key.revoked_at.or(Some(context.now));
        let key = self.put_preauth_key(PreauthKey { revoked_at, ..PreauthKey::clone(&key) });
        Ok(Outcome::PreauthKey(key))
    }

    pub(crate) fn delete_preauth_key(
        &mut self,
        key: PreauthKeyId,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        self.state.tailnet.preauth_key(key).ok_or(Refusal::PreauthKeyNotFound)?;
        self.forget_preauth_key(key, context);
        Ok(Outcome::Done)
    }

    /// Removes a key; the nodes that came in with it stay and no longer name it.
    pub(crate) fn forget_preauth_key(&mut self, key: PreauthKeyId, context: &Context) {
        let used_it = |node: &&std::sync::Arc<Node>| node.preauth_key == Some(key);
        let nodes: Vec<_> = self.state.tailnet.nodes().filter(used_it).cloned().collect();
        for node in nodes {
            self.put_node(Node { preauth_key: None, ..Node::clone(&node) }, context);
        }
        self.remove_preauth_key(key);
    }

    pub(crate) fn create_api_key(
        &mut self,
        secret: &NewSecret,
        expires_at: Option<Timestamp>,
        context: &Context,
    ) -> Outcome {
        let id = ApiKeyId(Self::next_id(&mut self.state.counters.api_key));
        Outcome::ApiKey(self.put_api_key(ApiKey {
            id,
            public_id: secret.public_id.clone(),
            hash: secret.hash.clone(),
            expires_at,
            created_at: context.now,
            last_seen_at: None,
        }))
    }

    pub(crate) fn expire_api_key(
        &mut self,
        key: ApiKeyId,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let key = self.state.tailnet.api_key(key).ok_or(Refusal::ApiKeyNotFound)?.clone();
        let expires_at = key.expires_at.into_iter().chain([context.now]).min();
        Ok(Outcome::ApiKey(self.put_api_key(ApiKey { expires_at, ..ApiKey::clone(&key) })))
    }

    pub(crate) fn delete_api_key(&mut self, key: ApiKeyId) -> Result<Outcome, Refusal> {
        self.state.tailnet.api_key(key).ok_or(Refusal::ApiKeyNotFound)?;
        self.remove_api_key(key);
        Ok(Outcome::Done)
    }

    pub(crate) fn touch_api_key(&mut self, key: ApiKeyId, context: &Context) -> Outcome {
        let stale =
            |last_seen_at: Timestamp| context.now.duration_since(last_seen_at) >= LAST_SEEN_STEP;
        if let Some(key) = self.state.tailnet.api_key(key).cloned()
            && key.last_seen_at.is_none_or(stale)
        {
            self.put_api_key(ApiKey { last_seen_at: Some(context.now), ..ApiKey::clone(&key) });
        }
        Outcome::Done
    }
}
