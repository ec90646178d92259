//! The bytes of the record, and every way to break them.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::base::{Class, Classified as _, Digest, PackageKind, Timestamp};
use crate::sys::fs as durable;

/// A program of one version for ever, unlike the one that is tested.
const PROGRAM: &str = "violetd 0.1.0";

pub(super) fn now() -> Timestamp {
    "2026-11-21T10:00:00.25Z".parse().unwrap()
}

pub(super) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.join(DIR),
        file_bytes_max: 1500,
    }
}

/// What is said of a file of this name in every case.
fn judged(name: &str, verdict: Verdict) -> PackageVerdict {
    PackageVerdict {
        verdict,
        path: format!("/drop/{name}.tgz"),
        file_name: format!("{name}.tgz"),
        digest: None,
        size_bytes: 7,
        carried_by: None,
        policy: Policy {
            name: "none".to_owned(),
            signatures_min: 0,
        },
        trusted_by: None,
        signers: Vec::new(),
        sidecars: Vec::new(),
        package: None,
        refusal: None,
        missing_blobs: None,
    }
}

/// A verdict about a file of this name.
pub(super) fn verdict(name: &str) -> Event {
    Event::Package(Box::new(PackageVerdict {
        digest: Some(Digest::of(name.as_bytes())),
        policy: Policy {
            name: "signature".to_owned(),
            signatures_min: 1,
        },
        trusted_by: Some(Trust::Signature),
        signers: vec![Signer {
            fingerprint: "0123456789ABCDEF0123456789ABCDEF01234567".to_owned(),
            user_id: Some("Alice <alice@site.example>".to_owned()),
            signed_at: "2026-11-20T08:00:00Z".parse().unwrap(),
        }],
        sidecars: vec![Sidecar {
            file_name: format!("{name}.tgz.sig"),
            size_bytes: 1,
            digest: Digest::of(b"s"),
        }],
        package: Some(Package {
            name: name.parse().unwrap(),
            version: Some("v1".to_owned()),
            kind: PackageKind::Operator,
        }),
        ..judged(name, Verdict::Accepted)
    }))
}

fn refusal() -> PackageVerdict {
    PackageVerdict {
        refusal: Some(Refusal {
            code: "no-signature".to_owned(),
            reason: "expected a signature".to_owned(),
        }),
        ..judged("x", Verdict::Refused)
    }
}

/// A record of five lines in three files.
fn written() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let options = options(root.path());
    let dir = options.dir.clone();
    let log = Log::open(options, now()).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        log.append(&verdict(name), now()).unwrap();
    }
    let files = files(&dir);
    assert_eq!(files.len(), 3, "{files:?}");
    (root, dir)
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replace(path: &Path, bytes: &[u8]) {
    durable::replace_file(path, bytes, 0o600).unwrap();
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn write_lines(path: &Path, lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    replace(path, text.as_bytes());
}

/// Returns the breaks as text.
pub(super) fn breaks(dir: &Path) -> Vec<String> {
    let findings = check(dir, |_, _| {}).unwrap();
    assert_eq!(findings.breaks_total, findings.breaks.len() as u64);
    findings.breaks.iter().map(ToString::to_string).collect()
}

/// Returns the names of the events, in order.
pub(super) fn events(dir: &Path) -> Vec<&'static str> {
    let mut events = Vec::new();
    let visit = |_: Line<'_>, entry: &Entry| events.push(entry.event.as_ref().unwrap().name());
    check(dir, visit).unwrap();
    events
}

#[test]
fn the_bytes_of_a_line_are_golden() {
    let encoded = |sequence, previous, event: &Event| {
        let line = line::encode(PROGRAM, sequence, now(), previous, event);
        String::from_utf8(line).unwrap()
    };
    assert_eq!(
        encoded(1, BEGINNING, &Event::Package(Box::new(refusal()))),
        concat!(
            r#"{"version":1,"sequence":1,"time":"2026-11-21T10:00:00.250Z","program":"violetd 0.1.0","#,
            r#""previous":"sha256:0000000000000000000000000000000000000000000000000000000000000000","#,
            r#""event":"package","fields":{"verdict":"refused","path":"/drop/x.tgz","file_name":"x.tgz","#,
            r#""digest":null,"size_bytes":7,"policy":{"name":"none","signatures_min":0},"#,
            r#""refusal":{"code":"no-signature","reason":"expected a signature"}},"#,
            r#""check":"sha256:0f01ff4956f3b715d3b0a1988a72ca6874324f544a717b02e4bd23a57f358a2c"}"#
        )
    );
    assert_eq!(
        encoded(2, Digest::of(b"x"), &verdict("a")),
        concat!(
            r#"{"version":1,"sequence":2,"time":"2026-11-21T10:00:00.250Z","program":"violetd 0.1.0","#,
            r#""previous":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","#,
            r#""event":"package","fields":{"verdict":"accepted","path":"/drop/a.tgz","file_name":"a.tgz","#,
            r#""digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","size_bytes":7,"#,
            r#""policy":{"name":"signature","signatures_min":1},"trusted_by":"signature","#,
            r#""signers":[{"fingerprint":"0123456789ABCDEF0123456789ABCDEF01234567","#,
            r#""user_id":"Alice <alice@site.example>","signed_at":"2026-11-20T08:00:00Z"}],"#,
            r#""sidecars":[{"file_name":"a.tgz.sig","size_bytes":1,"#,
            r#""digest":"sha256:043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89"}],"#,
            r#""package":{"name":"a","version":"v1","kind":"operator"}},"#,
            r#""check":"sha256:8835d0d1e77b27c125c1ebf794e91f5c3e0517f3f1fec55e92adf401895ac4b1"}"#
        )
    );
}

#[test]
fn the_notes_about_the_record_itself_are_golden() {
    let recovered = Event::Recovered(Recovered {
        file: "audit-000001.jsonl".to_owned(),
        size_bytes: 3,
        digest: BEGINNING,
    });
    let broken = Event::Broken(Broken {
        file: "audit-000001.jsonl".to_owned(),
        line: Some(2),
        code: "altered-line".to_owned(),
        reason: "expected ..".to_owned(),
    });
    let zeros = BEGINNING;
    assert_eq!(
        serde_json::to_string(&[recovered, broken]).unwrap(),
        format!(
            r#"[{{"event":"recovered","fields":{{"file":"audit-000001.jsonl","size_bytes":3,"digest":"{zeros}"}}}},"#
        ) + r#"{"event":"broken","fields":{"file":"audit-000001.jsonl","line":2,"code":"altered-line","reason":"expected .."}}]"#
    );
}

#[test]
fn events_of_later_programs_are_part_of_the_chain() {
    let event = Event::read("deletion", &serde_json::json!({"digest": "x"}));
    assert_eq!(event, None);
    let bytes = line::encode(PROGRAM, 1, now(), BEGINNING, &verdict("a"));
    let text = String::from_utf8(bytes).unwrap();
    let body = text.split(r#","check""#).next().unwrap();
    let body = body.replace(r#""event":"package""#, r#""event":"deletion","more":[1]"#);
    let check = Digest::of(body.as_bytes());
    let entry = line::decode(format!(r#"{body},"check":"{check}"}}"#).as_bytes()).unwrap();
    assert_eq!((entry.sequence, entry.event), (1, None));
}

#[test]
fn heads_round_trip() {
    let head = Head {
        sequence: 41,
        hash: Digest::of(b"x"),
    };
    assert_eq!(head.to_string().parse(), Ok(head));
    for bad in ["", "41", "41:", "x:sha256:00", "41:00"] {
        assert_eq!(bad.parse::<Head>(), Err(ParseHeadError), "{bad}");
    }
}

#[test]
fn a_record_goes_on_over_files_and_restarts() {
    let (root, dir) = written();
    let log = Log::open(options(root.path()), now()).unwrap();
    let head = log.append(&verdict("f"), now()).unwrap();
    let findings = check(&dir, |_, _| {}).unwrap();
    assert_eq!(findings.breaks, []);
    assert_eq!((findings.records, findings.head), (6, Some(head)));
    assert_eq!(log.head(), Some(head));
    assert_eq!(findings.first_time, Some(now()));
}

#[test]
fn an_absent_or_empty_folder_is_no_record() {
    let root = tempfile::tempdir().unwrap();
    let error = check(root.path(), |_, _| {}).unwrap_err();
    assert_eq!(error.class(), Class::Absent);
    let error = check(&root.path().join("absent"), |_, _| {}).unwrap_err();
    assert_eq!(error.class(), Class::Absent);
}

proptest! {
    #[test]
    fn any_change_of_any_byte_of_any_file_is_found(at in any::<prop::sample::Index>(), xor in 1..=255_u8) {
        let (_root, dir) = written();
        let files = files(&dir);
        let sizes: Vec<usize> = files.iter().map(|file| fs::read(file).unwrap().len()).collect();
        let mut position = at.index(sizes.iter().sum());
        let mut file = 0;
        while position >= sizes[file] {
            position -= sizes[file];
            file += 1;
        }
        let mut bytes = fs::read(&files[file]).unwrap();
        bytes[position] ^= xor;
        replace(&files[file], &bytes);
        let findings = check(&dir, |_, _| {}).unwrap();
        let name = files[file].file_name().unwrap().to_str().unwrap();
        prop_assert!(findings.breaks.iter().any(|finding| finding.file == name), "{:?}", findings.breaks);
    }

    #[test]
    fn any_cut_that_leaves_a_part_of_a_line_is_found(at in any::<prop::sample::Index>()) {
        let (_root, dir) = written();
        let last = files(&dir).pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        let length = at.index(bytes.len());
        prop_assume!(length > 0 && bytes[length - 1] != b'\n');
        replace(&last, &bytes[..length]);
        let found = breaks(&dir);
        prop_assert_eq!(found.len(), 1);
        prop_assert!(found[0].contains("expected a line feed at the end"), "{:?}", found);
    }
}

#[test]
fn every_kind_of_break_is_named_with_its_place_and_said_once() {
    type Change = fn(&[PathBuf]);
    let cases: [(&str, Change, &str); 7] = [
        (
            "changed byte",
            |files| {
                let text = fs::read_to_string(&files[0]).unwrap();
                replace(&files[0], text.replacen("Alice", "Mallo", 1).as_bytes());
            },
            "audit-000001.jsonl, line 1: expected a line with check sha256:",
        ),
        (
            "removed line",
            |files| {
                let lines = lines(&files[0]);
                write_lines(&files[0], &lines[1..]);
            },
            "audit-000001.jsonl, line 1: expected a line after sha256:0000",
        ),
        (
            "swapped lines",
            |files| {
                let mut lines = lines(&files[0]);
                lines.swap(0, 1);
                write_lines(&files[0], &lines);
            },
            "audit-000001.jsonl, line 1: expected a line after sha256:0000",
        ),
        (
            "truncated file",
            |files| {
                let bytes = fs::read(&files[0]).unwrap();
                replace(&files[0], &bytes[..bytes.len() - 9]);
            },
            "audit-000001.jsonl, line 2: expected a line feed at the end, found ",
        ),
        (
            "file cut at the end of a line",
            |files| {
                let lines = lines(&files[0]);
                write_lines(&files[0], &lines[..1]);
            },
            "audit-000002.jsonl, line 1: expected a line after sha256:",
        ),
        (
            "missing file",
            |files| durable::remove_file(&files[1]).unwrap(),
            "audit-000003.jsonl: expected `audit-000002.jsonl` before it, found no such file",
        ),
        (
            "no record at all",
            |files| replace(&files[1], b"{}\n"),
            "audit-000002.jsonl, line 1: expected a record, found too short",
        ),
    ];
    for (name, change, expected) in cases {
        let (_root, dir) = written();
        change(&files(&dir));
        let found = breaks(&dir);
        assert!(
            found.iter().any(|text| text.starts_with(expected)),
            "{name}: {found:#?}"
        );
    }
}

#[test]
fn an_end_that_was_cut_off_between_two_lines_shows_by_a_noted_head_only() {
    let (_root, dir) = written();
    let noted = check(&dir, |_, _| {}).unwrap().head.unwrap();
    let last = files(&dir).pop().unwrap();
    let kept = lines(&last);
    assert_eq!(kept.len(), 1, "five lines in files of two");
    durable::remove_file(&last).unwrap();
    let findings = check(&dir, |_, _| {}).unwrap();
    assert_eq!(
        findings.breaks,
        [],
        "no chain can show that its end is gone"
    );
    assert!(findings.head.unwrap().sequence < noted.sequence);
}

#[test]
fn an_endless_line_is_a_break_and_takes_no_memory() {
    let (root, dir) = written();
    let last = files(&dir).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend(vec![b'x'; 3 << 20]);
    bytes.push(b'\n');
    replace(&last, &bytes);
    let found = breaks(&dir);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("found a line of more than 1048576 bytes"),
        "{found:?}"
    );
    let log = Log::open(options(root.path()), now()).unwrap();
    log.append(&verdict("f"), now()).unwrap();
    assert_eq!(breaks(&dir), found);
}

#[test]
fn an_incomplete_last_line_stays_as_evidence_and_is_noted() {
    let (root, dir) = written();
    let last = files(&dir).pop().unwrap();
    let mut torn = fs::read(&last).unwrap();
    torn.extend_from_slice(br#"{"version":1,"sequ"#);
    replace(&last, &torn);
    assert_eq!(breaks(&dir).len(), 1);
    for _ in 0..3 {
        let log = Log::open(options(root.path()), now()).unwrap();
        log.append(&verdict("f"), now()).unwrap();
    }
    assert_eq!(fs::read(&last).unwrap(), torn, "nothing was changed");
    assert_eq!(breaks(&dir), Vec::<String>::new());
    let noted = events(&dir);
    assert_eq!(noted[5..], ["recovered", "package", "package", "package"]);
    // The evidence is evidence: once noted, it cannot be changed or removed any more.
    for changed in [&torn[..torn.len() - 1], &torn[..torn.len() - 18]] {
        replace(&last, changed);
        let is_gone = changed.ends_with(b"\n");
        assert_eq!(breaks(&dir).len(), usize::from(!is_gone), "{is_gone}");
    }
}

#[test]
fn a_damaged_record_goes_on_in_a_new_file_that_says_so_once() {
    let (root, dir) = written();
    let before = files(&dir);
    let text = fs::read_to_string(&before[2]).unwrap();
    replace(&before[2], text.replace("Alice", "Mallo").as_bytes());
    let found = breaks(&dir);
    assert_eq!(found.len(), 1);
    for _ in 0..4 {
        let log = Log::open(options(root.path()), now()).unwrap();
        log.append(&verdict("f"), now()).unwrap();
    }
    let after = files(&dir);
    assert_eq!(after[..3], before[..]);
    assert!(lines(&after[3])[0].contains(
        r#""event":"broken","fields":{"file":"audit-000003.jsonl","line":1,"code":"altered-line""#
    ));
    assert_eq!(
        events(&dir)
            .iter()
            .filter(|event| **event == "broken")
            .count(),
        1
    );
    assert_eq!(
        breaks(&dir),
        found,
        "the break stays one, and there is no other"
    );
}

#[test]
fn numbers_are_not_given_again_where_the_last_files_cannot_be_read() {
    let (root, dir) = written();
    let before = files(&dir);
    for file in &before[1..] {
        let text = fs::read_to_string(file).unwrap();
        replace(file, text.replace("Alice", "Mallo").as_bytes());
    }
    let found = breaks(&dir);
    let log = Log::open(options(root.path()), now()).unwrap();
    let head = log.append(&verdict("f"), now()).unwrap();
    assert!(head.sequence > 5, "found {head}");
    assert_eq!(breaks(&dir), found, "there is no other break");
}

#[test]
fn a_record_whose_end_is_taken_away_from_a_running_process_says_so() {
    for remove_all in [false, true] {
        let (root, dir) = written();
        let log = Log::open(options(root.path()), now()).unwrap();
        let mut removed = files(&dir);
        if !remove_all {
            removed.drain(..2);
        }
        for file in removed {
            durable::remove_file(&file).unwrap();
        }
        let head = log.append(&verdict("f"), now()).unwrap();
        assert_eq!(head.sequence, 7, "numbers are not given twice");
        let found = breaks(&dir);
        assert!(found[0].contains("found record 6"), "{found:?}");
        let last = files(&dir).pop().unwrap();
        assert!(lines(&last)[0].contains(r#""code":"cut-off""#));
    }
}

#[test]
fn reports_hold_what_is_about_a_package_and_tell_no_lies_by_control_characters() {
    let (root, dir) = written();
    let log = Log::open(options(root.path()), now()).unwrap();
    let evil = PackageVerdict {
        path: "/drop/x\nrecord 9\n  verdict:      accepted.tgz".to_owned(),
        ..refusal()
    };
    log.append(&Event::Package(Box::new(evil)), now()).unwrap();
    for selection in [
        "b",
        "b.tgz",
        &Digest::of(b"b").to_string(),
        &Digest::of(b"b").hex(),
    ] {
        let report = Report::make(&dir, selection, now()).unwrap();
        assert_eq!(report.records.len(), 1, "{selection}");
        let record = &report.records[0];
        assert_eq!((record.sequence, report.records_total), (2, 6));
        assert_eq!(Digest::of(record.line.as_bytes()), record.hash);
        let text = report.to_string();
        assert!(
            text.contains(&format!("line:         {}\n", record.line)),
            "{text}"
        );
        assert!(text.contains("signer:       0123456789ABCDEF0123456789ABCDEF01234567, Alice"));
    }
    let text = Report::make(&dir, "x.tgz", now()).unwrap().to_string();
    let verdicts = text.lines().filter(|line| line.starts_with("  verdict:"));
    assert_eq!(verdicts.count(), 1, "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("record "))
            .count(),
        1
    );
    let error = Report::make(&dir, "nobody", now()).unwrap_err();
    assert_eq!(error.class(), Class::Absent);
}

#[test]
fn a_removal_is_on_record_and_in_the_report_of_its_package() {
    let (root, dir) = written();
    let log = Log::open(options(root.path()), now()).unwrap();
    let removed = Removed {
        digest: Digest::of(b"a"),
        package: Package {
            name: "a".parse().unwrap(),
            version: None,
            kind: PackageKind::Images,
        },
        approved_by: "schedule".to_owned(),
        rule: "1: *: last 3".to_owned(),
    };
    log.append(&Event::Removed(removed.clone()), now()).unwrap();
    for selection in ["a", &Digest::of(b"a").to_string(), &Digest::of(b"a").hex()] {
        let report = Report::make(&dir, selection, now()).unwrap();
        let [verdict, removal] = report.records.as_slice() else {
            panic!("expected two records, found {report}");
        };
        assert!(verdict.package.is_some() && verdict.removed.is_none());
        assert!(removal.package.is_none());
        assert_eq!(removal.removed.as_ref(), Some(&removed));
        let golden = concat!(
            r#""event":"removed","fields":{"#,
            r#""digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","#,
            r#""package":{"name":"a","version":null,"kind":"images"},"#,
            r#""approved_by":"schedule","rule":"1: *: last 3"},"check":"#
        );
        assert!(removal.line.contains(golden), "{}", removal.line);
        assert!(report.to_string().contains("  verdict:      removed\n"));
    }
    assert!(breaks(&dir).is_empty());
}
