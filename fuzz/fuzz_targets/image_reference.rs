//! Everything that is parsed from one line of text: image references first, then names, digests, amounts, addresses.
//!
//! What is accepted must come back equal from the text that it is written as.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use violetd::base::{
    ClusterName, Digest, ImageReference, NamePattern, ObjectName, PackageKind, PackageName,
    Platform, Repository, Tag, TargetName,
};
use violetd::config::Host;
use violetd::verify::Fingerprint;
use violetd_fuzz::check_message;

/// Checks that a value comes back from the text that `write` makes of it.
fn check<T>(text: &str, write: impl Fn(&T) -> String)
where
    T: FromStr<Err: Display> + PartialEq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = write(&value);
            match written.parse::<T>() {
                Ok(again) => assert_eq!(again, value, "{text:?} written as {written:?}"),
                Err(error) => panic!("{text:?} written as {written:?}: {error}"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|text: &str| {
    check::<ImageReference>(text, ImageReference::encode);
    if let Ok(reference) = text.parse::<ImageReference>() {
        check_message(&reference);
        let by_tag = reference.by_tag();
        assert_eq!(by_tag.encode().parse().as_ref(), Ok(&by_tag));
    }
    check::<Repository>(text, ToString::to_string);
    check::<Tag>(text, ToString::to_string);
    check::<Platform>(text, ToString::to_string);
    check::<Digest>(text, ToString::to_string);
    check::<PackageName>(text, ToString::to_string);
    check::<TargetName>(text, ToString::to_string);
    check::<ClusterName>(text, ToString::to_string);
    check::<ObjectName>(text, ToString::to_string);
    check::<PackageKind>(text, |kind| kind.name().to_owned());
    check::<NamePattern>(text, ToString::to_string);
    check::<Fingerprint>(text, ToString::to_string);
    check::<Host>(text, |host| host.as_str().to_owned());
});
