//! When two pulls are the same: what both say is equal, secrets included.

use std::hash::{Hash, Hasher};

use kevel_contract::{
    Scope,
    transfer::{Credentials, Pull},
};

/// What a pull asks for, as a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Same {
    /// Everything but the credentials, which print themselves without their secret.
    text: String,
    credentials: Option<Credentials>,
}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Same {
    pub(crate) fn of(scope: &Scope, pull: &Pull) -> Self {
        let mut pull = Pull { progress: None, ..pull.clone() };
        let credentials = pull.registry.credentials.take();
        Self { text: format!("{scope:?} {pull:?}"), credentials }
    }
}

#[cfg(test)]
mod tests {
    use kevel_model::Namespace;

    use super::*;

    #[test]
    fn pulls_are_told_apart() {
        let scope = Scope::new(Namespace::k8s());
        let pull = |reference: &str, secret: &str| {
            let credentials = Credentials { secret: secret.into(), ..Credentials::default() };
            let mut pull = Pull { reference: reference.into(), ..Pull::default() };
            pull.registry.credentials = Some(credentials);
            pull
        };
        let same = |pull: &Pull| Same::of(&scope, pull);
        assert!(same(&pull("a", "x")) == same(&pull("a", "x")));
        assert!(same(&pull("a", "x")) != same(&pull("a", "y")), "secrets count");
        assert!(same(&pull("a", "x")) != same(&pull("b", "x")));
        let mut other = pull("a", "x");
        other.all_metadata = true;
        assert!(same(&pull("a", "x")) != same(&other));
        assert!(same(&pull("a", "x")) != Same::of(&scope.with_lease("l"), &pull("a", "x")));
    }
}
