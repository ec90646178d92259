//! Tests of the planner: golden text, and invariants over random inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::super::blobs::{Freed, Gathered};
use super::super::policy::Rule;
use super::*;
use crate::catalog::Content;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn package(name: &str, version: &str, days_old: i64) -> Package {
    Package {
        digest: Digest::of(format!("{name} {version} {days_old}").as_bytes()),
        name: name.parse().unwrap(),
        version: (!version.is_empty()).then(|| version.to_owned()),
        kind: PackageKind::Operator,
        ready_at: now() - TimeDelta::days(days_old),
        is_pinned: false,
        pending_on: None,
        published_on: None,
    }
}

fn rule(names: &str, keep_last: usize) -> Rule {
    Rule {
        names: vec![names.parse().unwrap()],
        kinds: Vec::new(),
        keep_last,
        keep_younger: Duration::ZERO,
        keeps_published: false,
    }
}

fn plan(rules: Vec<Rule>, packages: Vec<Package>) -> Plan {
    Plan::new(&Policy { rules }, packages, now())
}

/// Returns the versions that would go.
fn removed(plan: &Plan) -> Vec<&str> {
    let removals = plan.removals.iter();
    removals
        .map(|it| it.package.version.as_deref().unwrap_or("-"))
        .collect()
}

#[test]
fn without_a_rule_everything_is_kept() {
    let plan = plan(Vec::new(), vec![package("a", "1.0.0", 900)]);
    insta::assert_snapshot!(plan, @"keep   a 1.0.0 (f49aa718a878): no rule is about it");
    assert_eq!(plan.id, PlanId::of(&[]));
}

#[test]
fn what_keeps_a_package_is_said_and_what_lets_it_go() {
    let target: TargetName = "global-b".parse().unwrap();
    let young = Rule {
        keep_younger: Duration::from_hours(10 * 24),
        keeps_published: true,
        kinds: vec![PackageKind::Operator],
        ..rule("redis-*", 1)
    };
    let mut packages: Vec<Package> = (1..8)
        .map(|minor| package("redis-x", &format!("1.{minor}.0"), 80 - 10 * minor))
        .collect();
    packages[0].is_pinned = true;
    packages[1].pending_on = Some(target.clone());
    packages[2].published_on = Some(target);
    packages[5].ready_at = now() - TimeDelta::days(9);
    packages.push(package("other", "1.0.0", 99));
    insta::assert_snapshot!(plan(vec![young], packages), @"
    remove redis-x 1.4.0 (ab8dab8ce571), 40 days, frees 0 bytes in 0 blobs; rule 1: redis-* (operator): last 1, younger than 10days, published
    remove redis-x 1.5.0 (09c0e2a4952e), 30 days, frees 0 bytes in 0 blobs; rule 1: redis-* (operator): last 1, younger than 10days, published
    keep   other 1.0.0 (5732217ee284): no rule is about it
    keep   redis-x 1.1.0 (28adbd3034f3): pinned
    keep   redis-x 1.2.0 (2546beaf74fd): not in sync on global-b
    keep   redis-x 1.3.0 (2ebebd0d370a): published on global-b, rule 1
    keep   redis-x 1.6.0 (073cd56d7cbe): young, rule 1
    keep   redis-x 1.7.0 (3f32cca385a0): one of the last 1, rule 1
    ");
}

#[test]
fn the_first_rule_that_fits_decides() {
    let packages = || vec![package("a", "1.0.0", 2), package("a", "2.0.0", 1)];
    assert_eq!(
        removed(&plan(vec![rule("a", 1), rule("*", 2)], packages())),
        ["1.0.0"]
    );
    assert!(removed(&plan(vec![rule("*", 2), rule("a", 1)], packages())).is_empty());
    // Another type is another series of versions.
    let mut packages = packages();
    packages[0].kind = PackageKind::Images;
    assert!(removed(&plan(vec![rule("*", 1)], packages)).is_empty());
}

#[test]
fn semantic_versions_are_ordered_as_such_and_others_by_time() {
    let series = |versions: &[(&str, i64)]| -> Vec<Package> {
        let packages = versions.iter();
        packages
            .map(|(version, days)| package("a", version, *days))
            .collect()
    };
    let removed = |keep_last, versions: &[(&str, i64)]| -> Vec<String> {
        let plan = plan(vec![rule("*", keep_last)], series(versions));
        removed(&plan).into_iter().map(str::to_owned).collect()
    };
    let versions = [("v1.10.0", 9), ("1.9.0", 1), ("1.10.0-rc.1", 2)];
    assert_eq!(removed(1, &versions), ["1.9.0", "1.10.0-rc.1"]);
    // What is equal as a version, or is none, goes by time; one that is none makes all of them go by it.
    assert_eq!(removed(1, &[("1.0.0+a", 1), ("1.0.0+b", 2)]), ["1.0.0+b"]);
    assert_eq!(removed(1, &[("10", 2), ("9", 1)]), ["10"]);
    assert_eq!(
        removed(1, &[("2.0.0", 3), ("nightly", 2), ("1.0.0", 1)]),
        ["2.0.0", "nightly"]
    );
    assert_eq!(removed(1, &[("", 3), ("", 2)]), ["-"]);
    // Packages of one version, such as one for each platform, are one version.
    assert_eq!(
        removed(1, &[("1.0.0", 3), ("2.0.0", 2), ("2.0.0", 1)]),
        ["1.0.0"]
    );
}

#[test]
fn plans_that_remove_the_same_have_the_same_identity() {
    let packages = || vec![package("a", "1.0.0", 2), package("a", "2.0.0", 1)];
    let one = plan(vec![rule("*", 1)], packages());
    let mut reversed = packages();
    reversed.reverse();
    assert_eq!(one.id, plan(vec![rule("*", 1)], reversed).id);
    let mut more = packages();
    more.push(package("b", "1.0.0", 1));
    assert_eq!(one.id, plan(vec![rule("a", 1)], more.clone()).id);
    more.push(package("b", "2.0.0", 1));
    assert_ne!(one.id, plan(vec![rule("*", 1)], more).id);
    assert_eq!(one.id.to_string().parse(), Ok(one.id));
    assert_eq!("ABCDEF0123456789".parse::<PlanId>(), Err(ParsePlanIdError));
}

#[test]
fn plans_survive_json() {
    let mut packages = vec![package("a", "1.0.0", 2), package("a", "2.0.0", 1)];
    packages.push(package("b", "1.0.0", 2));
    let plan = plan(vec![rule("a", 1)], packages);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

/// What is random of a package: name, version, age, kind, pinned, pending, published, blobs.
type Seed = (usize, usize, i64, bool, bool, bool, bool, BTreeSet<u8>);

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let seed = (
        0..3_usize,
        0..6_usize,
        0..60_i64,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::collection::btree_set(0..20_u8, 0..6),
    );
    proptest::collection::vec(seed, 0..24)
}

fn blob(number: u8) -> (Digest, u64) {
    (Digest::of(&[number]), u64::from(number) + 1)
}

proptest! {
    #[test]
    fn nothing_goes_that_must_stay_and_freed_bytes_are_those_of_a_count(
        seeds in seeds(), keep_last in 1..4_usize, younger_days in 0..30_u64, keeps_published: bool,
    ) {
        let versions = ["1.0.0", "1.1.0", "v2.0.0", "2.0.0-rc1", "nightly", ""];
        let mut contents: BTreeMap<Digest, BTreeSet<u8>> = BTreeMap::new();
        let mut packages = Vec::new();
        for (number, (name, version, days, is_images, pinned, pending, published, blobs)) in seeds.into_iter().enumerate() {
            let package = Package {
                digest: Digest::of(&number.to_be_bytes()),
                kind: if is_images { PackageKind::Images } else { PackageKind::Plugin },
                is_pinned: pinned && number % 5 == 0,
                pending_on: (pending && number % 3 == 0).then(|| "t".parse().unwrap()),
                published_on: published.then(|| "t".parse().unwrap()),
                ..package(["a", "b", "c"][name], versions[version], days)
            };
            contents.insert(package.digest, blobs);
            packages.push(package);
        }
        let rule = Rule {
            keep_younger: Duration::from_hours(24 * younger_days),
            keeps_published,
            names: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            ..rule("*", keep_last)
        };
        let plan = plan(vec![rule], packages.clone());

        let gone: BTreeSet<Digest> = plan.removals.iter().map(|it| it.package.digest).collect();
        let kept: BTreeSet<Digest> = plan.kept.iter().map(|it| it.package.digest).collect();
        prop_assert_eq!(gone.len() + kept.len(), packages.len());
        prop_assert_eq!(plan.removals.len() + plan.kept.len(), packages.len());
        prop_assert!(gone.is_disjoint(&kept));
        for package in &packages {
            let is_gone = gone.contains(&package.digest);
            let is_young = now() - package.ready_at < TimeDelta::days(i64::try_from(younger_days).unwrap());
            let is_published = keeps_published && package.published_on.is_some();
            let stays = package.is_pinned || package.pending_on.is_some() || is_young || is_published;
            prop_assert!(!is_gone || !(stays || package.name.as_str() == "c"));
            // As many versions as the rule keeps, or all, are left of each series, and none of those left is for nothing.
            let series: Vec<&Package> = packages
                .iter()
                .filter(|it| (&it.name, it.kind) == (&package.name, package.kind))
                .collect();
            let count = |packages: &[&&Package]| {
                let named: BTreeSet<&String> = packages.iter().filter_map(|it| it.version.as_ref()).collect();
                named.len() + packages.iter().filter(|it| it.version.is_none()).count()
            };
            let left: Vec<&&Package> = series.iter().filter(|it| !gone.contains(&it.digest)).collect();
            prop_assert!(count(&left) >= keep_last.min(count(&series.iter().collect::<Vec<_>>())));
        }

        let mut staying = Gathered::default();
        for (digest, blobs) in contents.iter().filter(|(digest, _)| !gone.contains(digest)) {
            prop_assert!(kept.contains(digest));
            staying.insert_content(&blobs.iter().map(|it| blob(*it)).collect::<Content>());
        }
        let mut freed = Freed::new(staying.finish());
        for (position, removal) in plan.removals.iter().enumerate() {
            let blobs = contents[&removal.package.digest].iter().map(|it| blob(*it));
            freed.add(position, &blobs.collect::<Content>());
        }
        let amounts = freed.finish(plan.removals.len());
        // After each prefix of the plan, what was freed is what nobody who is left keeps.
        let all: BTreeSet<u8> = contents.values().flatten().copied().collect();
        let mut sum = Amount::default();
        let mut left = contents.clone();
        for (removal, amount) in plan.removals.iter().zip(amounts) {
            left.remove(&removal.package.digest);
            sum.blobs += amount.blobs;
            sum.bytes += amount.bytes;
            let wanted: BTreeSet<u8> = left.values().flatten().copied().collect();
            let unwanted = all.difference(&wanted);
            prop_assert_eq!(sum.bytes, unwanted.clone().map(|it| blob(*it).1).sum::<u64>());
            prop_assert_eq!(sum.blobs, unwanted.count() as u64);
        }
    }
}
