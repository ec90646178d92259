//! What a token allows: sets of `type:name:action,action`.
//!
//! # References
//!
//! Distribution project, "Token Scope Documentation".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::base::Repository;

/// The scopes of one token request. Merging and comparing are per resource, so that no two requests that mean the same
/// look different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Nothing but to be known: what `GET /v2/` needs.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// To read from a repository.
    pub(super) fn pull(repository: &Repository) -> Self {
        Self::default().with(repository, &["pull"])
    }

    /// To read from and write to a repository.
    pub(super) fn push(repository: &Repository) -> Self {
        Self::default().with(repository, &["pull", "push"])
    }

    /// To list the repositories.
    pub(super) fn catalog() -> Self {
        let mut scopes = Self::default();
        scopes.merge("registry:catalog:*");
        scopes
    }

    /// Adds reading from another repository, which a mount needs.
    pub(super) fn and_pull(self, repository: &Repository) -> Self {
        self.with(repository, &["pull"])
    }

    /// Adds all of `other`.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (resource, actions) in &other.0 {
            let own = self.0.entry(resource.clone()).or_default();
            own.extend(actions.iter().cloned());
        }
        self
    }

    /// Returns how many resources there are.
    pub(super) fn resources(&self) -> usize {
        self.0.len()
    }

    fn with(mut self, repository: &Repository, actions: &[&str]) -> Self {
        self.0
            .entry(format!("repository:{repository}"))
            .or_default()
            .extend(actions.iter().map(|action| (*action).to_owned()));
        self
    }

    /// Adds the scopes of a challenge, which are separated by spaces. What is not a scope is skipped.
    pub(super) fn merge(&mut self, text: &str) {
        for scope in text.split_whitespace() {
            // A name may hold a colon (`host:port/path`), a type and an action may not.
            if let Some((resource, actions)) = scope.rsplit_once(':')
                && resource.contains(':')
            {
                self.0.entry(resource.to_owned()).or_default().extend(
                    actions
                        .split(',')
                        .filter(|action| !action.is_empty())
                        .map(str::to_owned),
                );
            }
        }
    }

    /// Returns whether a token for `self` serves where one for `other` is needed.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(resource, actions)| {
            self.0
                .get(resource)
                .is_some_and(|own| own.is_superset(actions))
        })
    }

    /// Returns the scopes one by one, as they are asked for: one query parameter each.
    pub(super) fn iter(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().collect();
        f.write_str(&all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    #[test]
    fn a_mount_asks_for_two_repositories() {
        let scopes = Scopes::push(&repository("a/b")).and_pull(&repository("c"));
        let list: Vec<_> = scopes.iter().collect();
        assert_eq!(list, ["repository:a/b:pull,push", "repository:c:pull"]);
        assert!(scopes.covers(&Scopes::pull(&repository("c"))));
        assert!(scopes.covers(&Scopes::none()));
        assert!(!scopes.covers(&Scopes::push(&repository("c"))));
        assert!(!Scopes::none().covers(&scopes));
    }

    #[test]
    fn a_mount_within_one_repository_is_one_scope() {
        let scopes = Scopes::push(&repository("a")).and_pull(&repository("a"));
        assert_eq!(scopes.to_string(), "repository:a:pull,push");
    }

    #[test]
    fn what_is_not_a_scope_is_skipped() {
        let mut scopes = Scopes::none();
        scopes.merge("nonsense registry:catalog:* repository:h:5000/a:pull,  a:b");
        assert_eq!(
            scopes.to_string(),
            "registry:catalog:* repository:h:5000/a:pull"
        );
    }

    proptest! {
        #[test]
        fn printing_and_merging_round_trip(
            names in proptest::collection::vec(("[a-z]{1,5}(/[a-z]{1,5})?", any::<bool>()), 0..6),
        ) {
            let scopes = names.iter().fold(Scopes::none(), |scopes, (name, is_push)| {
                let actions: &[&str] = if *is_push { &["pull", "push"] } else { &["pull"] };
                scopes.with(&repository(name), actions)
            });
            let mut merged = Scopes::none();
            merged.merge(&scopes.to_string());
            prop_assert!(merged.covers(&scopes) && scopes.covers(&merged));
            prop_assert_eq!(merged, scopes);
        }
    }
}
