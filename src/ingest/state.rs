//! The life of a dropped file, as a pure function.

use crate::base::Digest;
use crate::catalog::{IngestState, Provenance};

/// Something that happened to a dropped file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there for the first time, or has another size or modification time than before.
    Appeared,
    /// It has rested for the settle time, and its sidecar is there or is not needed.
    Settled,
    /// It is what an allowed signer signed, or what the policy asks for.
    Verified(Provenance),
    /// All its blobs are in the store.
    Unpacked,
    /// Its package is in the catalog.
    Committed {
        /// The digest of the file.
        package: Digest,
        /// Whether the package was there before.
        is_repeat: bool,
    },
    /// It will never become a package as it is.
    Refused {
        /// The stable code of the reason.
        code: String,
        /// The reason in words.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// Returns the state after `event`, or `None` where the event cannot happen in `state`.
///
/// ```text
///           Appeared (from every state: the file was replaced)
///              │
///              ▼    Settled         Verified           Unpacked          Committed
///            Seen ─────────► Settled ───────► Verified ───────► Unpacked ─────────► Ready
///                               │ ▲               │ ▲              │  ▲
///                               │ └── a restart ──┼─┴──────────────┘  └── the same file again: from Settled
///                               ▼                 ▼
///                           Rejected          Rejected
/// ```
///
/// A restart, or a failure that may pass by itself, begins again at `Settled`: nothing that was verified by a process
/// that died is trusted.
pub fn next(state: Option<&IngestState>, event: Event) -> Option<IngestState> {
    use IngestState as S;

    match (state, event) {
        (_, Event::Appeared) => Some(S::Seen),
        (
            Some(S::Seen | S::Settled | S::Verified { .. } | S::Unpacked | S::Waiting { .. }),
            Event::Settled,
        ) => Some(S::Settled),
        (Some(S::Settled), Event::Verified(provenance)) => Some(S::Verified { provenance }),
        (Some(S::Verified { .. }), Event::Unpacked) => Some(S::Unpacked),
        (Some(S::Settled | S::Verified { .. }), Event::Refused { code, reason, hint }) => {
            Some(S::Rejected { code, reason, hint })
        }
        (
            Some(S::Unpacked),
            Event::Committed {
                package,
                is_repeat: false,
            },
        ) => Some(S::Ready {
            package,
            is_repeat: false,
        }),
        (
            Some(S::Verified { .. }),
            Event::Committed {
                package,
                is_repeat: true,
            },
        ) => Some(S::Ready {
            package,
            is_repeat: true,
        }),
        (_, _) => None,
    }
}

/// Returns whether nothing more happens to a file in this state until it is replaced.
pub const fn is_final(state: &IngestState) -> bool {
    match state {
        IngestState::Ready { .. } | IngestState::Rejected { .. } => true,
        IngestState::Seen
        | IngestState::Settled
        | IngestState::Verified { .. }
        | IngestState::Unpacked
        | IngestState::Waiting { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(is_repeat: bool) -> Event {
        Event::Committed {
            package: Digest::of(b"p"),
            is_repeat,
        }
    }

    fn refused() -> Event {
        Event::Refused {
            code: "bad-signature".to_owned(),
            reason: String::new(),
            hint: None,
        }
    }

    #[test]
    fn the_way_to_ready() {
        let mut state = None;
        for event in [
            Event::Appeared,
            Event::Settled,
            Event::Verified(Provenance::Unchecked),
            Event::Unpacked,
            committed(false),
        ] {
            state = next(state.as_ref(), event);
            assert!(state.is_some());
        }
        assert!(is_final(&state.unwrap()));
    }

    #[test]
    fn nothing_becomes_ready_without_being_verified_first() {
        for state in [None, Some(IngestState::Seen), Some(IngestState::Settled)] {
            assert_eq!(next(state.as_ref(), committed(false)), None);
            assert_eq!(next(state.as_ref(), committed(true)), None);
            assert_eq!(next(state.as_ref(), Event::Unpacked), None);
        }
    }

    #[test]
    fn final_states_end_only_when_the_file_is_replaced() {
        let rejected = next(Some(&IngestState::Settled), refused()).unwrap();
        for event in [Event::Settled, Event::Unpacked, committed(false), refused()] {
            assert_eq!(next(Some(&rejected), event), None);
        }
        assert_eq!(
            next(Some(&rejected), Event::Appeared),
            Some(IngestState::Seen)
        );
    }
}
