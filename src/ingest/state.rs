//! The life of a dropped file, as a pure function.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::Digest;
use crate::catalog::{IngestState, Provenance};

/// Something that happened to a dropped file, or to a package in parts as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there for the first time, or has another size or modification time than before.
    Appeared,
    /// It has rested for the settle time, all its parts are there, and its sidecar is there or is not needed.
    Settled,
    /// It is what an allowed signer signed, or what the policy asks for.
    Verified(Provenance),
    /// All its blobs are in the store.
    Unpacked,
    /// Its packages are in the catalog.
    Committed {
        /// The digest of the file.
        package: Digest,
        /// Packages inside of the file.
        nested: Vec<Digest>,
        /// Whether all of them were there before.
        is_repeat: bool,
    },
    /// It builds on blobs that are not in the store, or on fewer of them than before.
    BaseMissing {
        /// The blobs, with their sizes in bytes.
        missing: BTreeMap<Digest, u64>,
        /// The other blobs that it builds on.
        present: BTreeSet<Digest>,
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
///                             │ ▲  ▲            │ │ ▲              │  ▲
///                             │ │  └─ a restart ┼─┼─┴──────────────┘  └── the same file again: from Verified
///                             │ │               │ │
///                             │ └── Settled ────┼─┼── Waiting ◄─┐
///                             │  (base is there)│ │ BaseMissing │ some of it is there
///                             ▼                 ▼ └────► ▲└─────┘
///                         Rejected          Rejected
/// ```
///
/// A restart, a failure that may pass by itself, and a base that has become complete begin again at `Settled`: nothing
/// that was verified by a process that died, or some time ago, is trusted.
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
        (Some(S::Verified { .. } | S::Waiting { .. }), Event::BaseMissing { missing, present })
            if !missing.is_empty() =>
        {
            let (missing, sizes_bytes) = missing.into_iter().unzip();
            Some(S::Waiting {
                missing,
                sizes_bytes,
                present: present.into_iter().collect(),
            })
        }
        (
            Some(S::Unpacked),
            Event::Committed {
                package,
                nested,
                is_repeat,
            },
        )
        | (
            Some(S::Verified { .. }),
            Event::Committed {
                package,
                nested,
                is_repeat: is_repeat @ true,
            },
        ) => Some(S::Ready {
            package,
            is_repeat,
            nested,
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
    use proptest::prelude::*;

    use super::*;

    fn committed(is_repeat: bool) -> Event {
        Event::Committed {
            package: Digest::of(b"p"),
            nested: Vec::new(),
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

    fn base_missing(count: u8) -> Event {
        let missing = (0..count).map(|it| (Digest::from_bytes([it; 32]), u64::from(it)));
        Event::BaseMissing {
            missing: missing.collect(),
            present: BTreeSet::from([Digest::from_bytes([0xff; 32])]),
        }
    }

    #[test]
    fn a_file_that_waits_begins_again_when_its_base_is_there() {
        let verified = IngestState::Verified {
            provenance: Provenance::Unchecked,
        };
        let waiting = next(Some(&verified), base_missing(2)).unwrap();
        let IngestState::Waiting {
            missing,
            sizes_bytes,
            ..
        } = &waiting
        else {
            panic!("expected to wait, found {waiting:?}");
        };
        assert_eq!(waiting.kept().count(), 3, "what is there and what is not");
        assert_eq!(verified.kept().count(), 0);
        assert_eq!((missing.len(), sizes_bytes.as_slice()), (2, &[0, 1][..]));
        let fewer = next(Some(&waiting), base_missing(1)).unwrap();
        assert_eq!(next(Some(&fewer), base_missing(0)), None);
        assert_eq!(next(Some(&fewer), refused()), None);
        assert_eq!(next(Some(&fewer), committed(false)), None);
        assert_eq!(
            next(Some(&fewer), Event::Settled),
            Some(IngestState::Settled)
        );
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => Just(Event::Appeared),
            3 => Just(Event::Settled),
            3 => Just(Event::Verified(Provenance::Unchecked)),
            2 => Just(Event::Unpacked),
            2 => any::<bool>().prop_map(committed),
            1 => (0_u8..3).prop_map(base_missing),
            1 => Just(refused()),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: a file is ready only after it was verified since it last settled, what
        /// is new only after it was unpacked, and a final state is left only when the file is replaced.
        #[test]
        fn no_order_of_events_skips_a_step(events in prop::collection::vec(any_event(), 0..60)) {
            let mut state: Option<IngestState> = None;
            let (mut is_verified, mut is_unpacked) = (false, false);
            for event in events {
                let Some(after) = next(state.as_ref(), event.clone()) else {
                    continue;
                };
                if state.as_ref().is_some_and(is_final) {
                    prop_assert_eq!(&event, &Event::Appeared);
                }
                match &event {
                    Event::Appeared | Event::Settled => (is_verified, is_unpacked) = (false, false),
                    Event::Verified(_) => is_verified = true,
                    Event::Unpacked => is_unpacked = true,
                    Event::Committed { .. } | Event::BaseMissing { .. } | Event::Refused { .. } => {}
                }
                match &after {
                    IngestState::Ready { is_repeat, .. } => {
                        prop_assert!(is_verified && (is_unpacked || *is_repeat));
                    }
                    IngestState::Unpacked => prop_assert!(is_verified),
                    IngestState::Waiting { missing, sizes_bytes, present } => {
                        prop_assert!(present.is_sorted());
                        prop_assert!(is_verified && !missing.is_empty());
                        prop_assert_eq!(missing.len(), sizes_bytes.len());
                        prop_assert!(missing.is_sorted());
                    }
                    IngestState::Seen
                    | IngestState::Settled
                    | IngestState::Verified { .. }
                    | IngestState::Rejected { .. } => {}
                }
                state = Some(after);
            }
        }
    }
}
