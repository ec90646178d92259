//! What several signatures say together.

use super::{Error, Signer};

/// What was found, in the order of the sidecars.
#[derive(Debug, Default)]
pub(super) struct Findings {
    good: Vec<Signer>,
    faults: Vec<Error>,
}

/// How much a fault tells, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The content is not what a known signer signed.
    Wrong,
    /// The signature or the key of a known signer is at fault.
    Signer,
    /// Nothing is known that speaks for or against the content.
    Nothing,
}

impl Findings {
    pub(super) fn push(&mut self, found: Result<Signer, Error>) {
        match found {
            Ok(signer) => self.good.push(signer),
            Err(fault) => self.faults.push(fault),
        }
    }

    /// Returns these findings and others after them.
    #[must_use]
    pub(super) fn and(mut self, others: Self) -> Self {
        self.good.extend(others.good);
        self.faults.extend(others.faults);
        self
    }

    /// Returns the signers, each certificate once, if they are enough or if there are no signatures at all.
    ///
    /// A signature that does not fit is an error whatever else there is. Other faults matter only where good signatures
    /// are not enough without: while a key is rotated, files carry signatures by the old and the new one.
    pub(super) fn weigh(mut self, signatures_min: u32) -> Result<Vec<Signer>, Error> {
        self.faults.sort_by_key(rank);
        if self
            .faults
            .first()
            .is_some_and(|fault| rank(fault) == Rank::Wrong)
        {
            return Err(self.faults.swap_remove(0));
        }
        let mut signers: Vec<Signer> = Vec::new();
        for signer in self.good {
            if !signers
                .iter()
                .any(|it| it.fingerprint == signer.fingerprint)
            {
                signers.push(signer);
            }
        }
        if signers.is_empty() {
            return match self.faults.into_iter().next() {
                Some(fault) => Err(fault),
                None => Ok(signers),
            };
        }
        if (signers.len() as u64) < u64::from(signatures_min) {
            return Err(Error::TooFewSigners {
                expected: signatures_min,
                found: signers,
                faults: self.faults,
            });
        }
        Ok(signers)
    }
}

impl Error {
    /// Returns whether this is as if there were no signature: nothing in it speaks against the content.
    pub(super) fn counts_for_nothing(&self) -> bool {
        rank(self) == Rank::Nothing
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the rest says something about a known signer"
)]
fn rank(fault: &Error) -> Rank {
    match fault {
        Error::BadSignature { .. } => Rank::Wrong,
        Error::UnknownSigner { .. } | Error::SignerNotAllowed { .. } => Rank::Nothing,
        Error::TooFewSigners { faults, .. } => {
            faults.iter().map(rank).min().unwrap_or(Rank::Nothing)
        }
        _ => Rank::Signer,
    }
}
