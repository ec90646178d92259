//! The exact bytes of every kind of row. What is written here was released: it changes only together with the version of
//! its column.

use serde::Serialize;
use serde_json::json;

use super::tests::{at, digest, hex, ingest, package, pin, placement, run, target_record};
use super::*;
use crate::base::{ChartDescription, Description, OperatorDescription};

/// Asserts that `record` has exactly this row, and that the row is read as that record.
fn assert_golden<T>(column: Column, record: &T, body: &str)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let row = codec::encode(column, record).unwrap();
    assert_eq!(row[0], 1);
    assert_eq!(std::str::from_utf8(&row[1..]).unwrap(), body);
    let old = [&[1], body.as_bytes()].concat();
    assert_eq!(codec::decode::<T>(column, b"k", &old).unwrap(), *record);
}

#[test]
fn golden_package() {
    let (one, two) = (hex(1), hex(2));
    let body = [
        format!(r#"{{"digest":"sha256:{one}","file_name":"redis-operator.amd64.v1.2.3.tgz","#),
        r#""size_bytes":18446744073709551615,"name":"redis-operator","version":"v1.2.3","#.to_owned(),
        r#""kind":"operator","platforms":["linux/amd64"],"#.to_owned(),
        r#""artifact":"registry.example/3rdparty/redis-bundle:v1.2.3","#.to_owned(),
        r#""images":[{"reference":"registry.example:5000/3rdparty/redis:7","#.to_owned(),
        format!(r#""digest":"sha256:{two}","media_type":"application/vnd.oci.image.index.v1+json","#),
        r#""size_bytes":3,"content_bytes":4}],"#.to_owned(),
        r#""resources":[{"kind":"ModulePlugin","ratio":0.1,"replicas":1}],"display_name":null,"#.to_owned(),
        r#""blob_count":5,"blob_bytes":6,"provenance":{"by":"signature","fingerprint":"AB12","#.to_owned(),
        r#""signed_at":"2026-01-01T00:00:01.001000001Z"},"ready_at":"2026-01-01T00:00:02.001000001Z"}"#.to_owned(),
    ];
    assert_golden(Column::Package, &package(1), &body.concat());
}

#[test]
fn golden_descriptions() {
    let operator = Description::Operator(OperatorDescription {
        package: Some("redis-operator".to_owned()),
        csv_name: Some("redis-operator.v1.2.3".to_owned()),
        version: Some("1.2.3".to_owned()),
        display_name: Some("Redis".to_owned()),
        summary: None,
        channels: vec!["stable".to_owned()],
        default_channel: None,
        related_images: vec!["registry.example/redis:7".to_owned()],
    });
    let chart = Description::Chart(ChartDescription {
        name: "web".to_owned(),
        version: "v1".to_owned(),
        app_version: None,
        description: Some("Serves.".to_owned()),
        images: vec!["ait/web:v1".to_owned()],
        has_plugin_config: true,
    });
    let operator_text = concat!(
        r#""description":{"of":"operator","package":"redis-operator","csv_name":"redis-operator.v1.2.3","#,
        r#""version":"1.2.3","display_name":"Redis","summary":null,"channels":["stable"],"default_channel":null,"#,
        r#""related_images":["registry.example/redis:7"]},"#,
    );
    let chart_text = concat!(
        r#""description":{"of":"chart","name":"web","version":"v1","app_version":null,"description":"Serves.","#,
        r#""images":["ait/web:v1"],"has_plugin_config":true},"#,
    );
    let plain = codec::encode(Column::Package, &package(1)).unwrap();
    let plain = std::str::from_utf8(&plain[1..]).unwrap();
    for (description, text) in [(operator, operator_text), (chart, chart_text)] {
        let mut record = package(1);
        record.description = Some(description);
        let body = plain.replace(r#""blob_count""#, &format!(r#"{text}"blob_count""#));
        assert_golden(Column::Package, &record, &body);
    }
}

#[test]
fn golden_supplement_inside_of_another_file() {
    let mut supplement = package(1);
    supplement.blobs = [(digest(3), 7)].into();
    supplement.carried_by = Some(digest(4));
    let row = codec::encode(Column::Package, &supplement).unwrap();
    let text = std::str::from_utf8(&row[1..]).unwrap();
    let (_, tail) = text.split_at(text.find(r#""blob_bytes""#).unwrap());
    let expected = format!(
        r#""blob_bytes":6,"blobs":{{"sha256:{}":7}},"carried_by":"sha256:{}","provenance":{{"by":"signature","fingerprint":"AB12","signed_at":"2026-01-01T00:00:01.001000001Z"}},"ready_at":"2026-01-01T00:00:02.001000001Z"}}"#,
        hex(3),
        hex(4)
    );
    assert_eq!(tail, expected);
    let found: PackageRecord = codec::decode(Column::Package, b"k", &row).unwrap();
    assert_eq!(found, supplement);
}

/// Asserts that a file in `state` has the row of which `text` is the state.
fn assert_golden_ingest(state: IngestState, text: &str) {
    let one = hex(1);
    let body = format!(
        "{{\"path\":\"/drop/x.tgz\",\"size_bytes\":7,\"modified_at\":\"2026-01-01T00:00:03.001000001Z\",\
         \"digest\":\"sha256:{one}\",\"state\":{text},\"updated_at\":\"2026-01-01T00:00:04.001000001Z\"}}"
    );
    assert_golden(Column::Ingest, &ingest("/drop/x.tgz", state), &body);
}

#[test]
fn golden_ingests() {
    let one = hex(1);
    let checksum = Provenance::Checksum {
        sidecar: "x.sha256".to_owned(),
    };
    let provenance = Provenance::Unchecked;
    let signed_by_two = Provenance::Signature {
        fingerprint: "AB".to_owned(),
        signed_at: at(1),
        cosigners: vec![Cosigner {
            fingerprint: "CD".to_owned(),
            signed_at: at(2),
        }],
    };
    let rejected = |hint: Option<String>| IngestState::Rejected {
        code: "c".to_owned(),
        reason: "r".to_owned(),
        hint,
    };
    for (state, text) in [
        (IngestState::Seen, r#"{"name":"seen"}"#.to_owned()),
        (IngestState::Settled, r#"{"name":"settled"}"#.to_owned()),
        (
            IngestState::Verified { provenance },
            r#"{"name":"verified","provenance":{"by":"unchecked"}}"#.to_owned(),
        ),
        (
            IngestState::Verified {
                provenance: checksum,
            },
            r#"{"name":"verified","provenance":{"by":"checksum","sidecar":"x.sha256"}}"#.to_owned(),
        ),
        (
            IngestState::Verified {
                provenance: signed_by_two,
            },
            r#"{"name":"verified","provenance":{"by":"signature","fingerprint":"AB","#.to_owned()
                + r#""signed_at":"2026-01-01T00:00:01.001000001Z","cosigners":[{"fingerprint":"CD","#
                + r#""signed_at":"2026-01-01T00:00:02.001000001Z"}]}}"#,
        ),
        (IngestState::Unpacked, r#"{"name":"unpacked"}"#.to_owned()),
        (
            IngestState::Ready {
                package: digest(1),
                is_repeat: true,
                nested: Vec::new(),
            },
            format!(r#"{{"name":"ready","package":"sha256:{one}","is_repeat":true}}"#),
        ),
        (
            rejected(None),
            r#"{"name":"rejected","code":"c","reason":"r","hint":null}"#.to_owned(),
        ),
        (
            rejected(Some("h".to_owned())),
            r#"{"name":"rejected","code":"c","reason":"r","hint":"h"}"#.to_owned(),
        ),
        (
            IngestState::Waiting {
                missing: vec![digest(1)],
                sizes_bytes: Vec::new(),
                present: Vec::new(),
            },
            format!(r#"{{"name":"waiting","missing":["sha256:{one}"]}}"#),
        ),
    ] {
        assert_golden_ingest(state, &text);
    }
}

/// Fields that came later: what has none of them is written as before.
#[test]
fn golden_ingests_with_nested_packages_and_sizes() {
    let one = hex(1);
    for (state, text) in [
        (
            IngestState::Ready {
                package: digest(1),
                is_repeat: false,
                nested: vec![digest(1), digest(1)],
            },
            format!(
                r#"{{"name":"ready","package":"sha256:{one}","is_repeat":false,"nested":["sha256:{one}","sha256:{one}"]}}"#
            ),
        ),
        (
            IngestState::Waiting {
                missing: vec![digest(1)],
                sizes_bytes: vec![u64::MAX],
                present: Vec::new(),
            },
            format!(
                r#"{{"name":"waiting","missing":["sha256:{one}"],"sizes_bytes":[18446744073709551615]}}"#
            ),
        ),
        (
            IngestState::Waiting {
                missing: vec![digest(1)],
                sizes_bytes: vec![7],
                present: vec![digest(2), digest(3)],
            },
            format!(
                r#"{{"name":"waiting","missing":["sha256:{one}"],"sizes_bytes":[7],"present":["sha256:{}","sha256:{}"]}}"#,
                hex(2),
                hex(3)
            ),
        ),
    ] {
        assert_golden_ingest(state, &text);
    }
}

#[test]
fn golden_placement() {
    let body = format!(
        r#"{{"target":"global-b","repository":"3rdparty/redis","tag":"7","digest":"sha256:{}","placed_at":"2026-01-01T00:00:05.001000001Z"}}"#,
        hex(8)
    );
    assert_golden(
        Column::Placement,
        &placement("global-b", "3rdparty/redis", "7"),
        &body,
    );
}

const GOLDEN_RUN: &str = concat!(
    r#"{"target":"global-b","started_at":"2026-01-01T00:00:06.001000001Z","#,
    r#""finished_at":"2026-01-01T00:00:07.001000001Z","reason":"schedule","outcome":"incomplete","#,
    r#""counts":{"images_wanted":0,"images_in_sync":0,"images_pushed":0,"images_failed":0,"#,
    r#""resources_wanted":0,"resources_applied":0,"resources_failed":0,"blobs_sent":0,"blobs_mounted":0,"#,
    r#""blobs_skipped":0,"blobs_resumed":0,"bytes_sent":0,"bytes_resumed":0,"requests":11,"retries":0},"#,
    r#""problems":[{"subject":"3rdparty/redis:7","class":"denied","#,
    r#""message":"expected status 201, found 403","hint":null}]}"#,
);

#[test]
fn golden_run_and_target() {
    let run = run("global-b", 11);
    assert_golden(Column::Run, &run, GOLDEN_RUN);
    let body = format!(
        r#"{{"target":"global-b","last_scheduled_at":"2026-01-01T00:00:08.001000001Z","synced_packages":["sha256:{}"],"last_run":{GOLDEN_RUN},"last_success_at":null}}"#,
        hex(9)
    );
    assert_golden(Column::Target, &target_record(&run), &body);
    for (outcome, name) in [
        (RunOutcome::InSync, json!("in_sync")),
        (RunOutcome::Incomplete, json!("incomplete")),
        (RunOutcome::Failed, json!("failed")),
    ] {
        assert_eq!(serde_json::to_value(outcome).unwrap(), name);
    }
}

#[test]
fn runs_from_before_what_was_resumed_was_counted_are_read() {
    let old = GOLDEN_RUN
        .replace(r#""blobs_resumed":0,"#, "")
        .replace(r#""bytes_resumed":0,"#, "");
    assert!(!old.contains("resumed"), "{old}");
    let row = [b"\x01", old.as_bytes()].concat();
    let read: RunRecord = codec::decode(Column::Run, b"k", &row).unwrap();
    assert_eq!(read, run("global-b", 11));
}

#[test]
fn golden_report() {
    let amount = |blobs| Amount { blobs, bytes: 300 };
    let image = ImageReport {
        image: "3rdparty/redis:7".to_owned(),
        digest: digest(8),
        state: ImageState::Pushed,
        planned: amount(2),
        sent: amount(1),
        mounted: Amount::default(),
        skipped: Amount::default(),
        resumed: Amount::default(),
        bytes: 300,
        requests: 5,
        retries: 1,
        milliseconds: 500,
        problem: None,
    };
    let report = ReportRecord {
        target: "global-b".parse().unwrap(),
        started_at: at(6),
        images: vec![image],
        images_left_out: 7,
    };
    let body = [
        r#"{"target":"global-b","started_at":"2026-01-01T00:00:06.001000001Z","#.to_owned(),
        format!(
            r#""images":[{{"image":"3rdparty/redis:7","digest":"sha256:{}","#,
            hex(8)
        ),
        r#""state":"pushed","planned":{"blobs":2,"bytes":300},"sent":{"blobs":1,"bytes":300},"#
            .to_owned(),
        r#""bytes":300,"requests":5,"retries":1,"milliseconds":500}],"images_left_out":7}"#
            .to_owned(),
    ];
    assert_golden(Column::Report, &report, &body.concat());
    for (state, name) in [
        (ImageState::Failed, json!("failed")),
        (ImageState::Pushed, json!("pushed")),
        (ImageState::Waiting, json!("waiting")),
        (ImageState::InPlace, json!("in_place")),
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), name);
        assert_eq!(state.name(), name);
    }
}

#[test]
fn golden_content() {
    let content: Content = [(digest(2), 258), (digest(1), u64::MAX), (digest(2), 258)]
        .into_iter()
        .collect();
    let row = [
        [1].as_slice(),
        &[1; 32],
        &[255; 8],
        &[2; 32],
        &[0, 0, 0, 0, 0, 0, 1, 2],
    ]
    .concat();
    assert_eq!(codec::encode_content(&content), row);
    assert_eq!(codec::decode_content(b"k", &row).unwrap(), content);
    assert_eq!(codec::encode_content(&Content::default()), [1]);
    // Not whole, and not in order.
    let unsorted = [[1].as_slice(), &row[41..], &row[1..41]].concat();
    for garbled in [&row[..row.len() - 1], &unsorted] {
        let error = codec::decode_content(b"k", garbled).unwrap_err();
        assert!(matches!(error, Error::Garbled { .. }), "{error}");
        assert_eq!(error.class(), Class::Corrupt);
    }
}

#[test]
fn golden_care() {
    let condemned = CondemnedRecord { since: at(1) };
    assert_golden(
        Column::Condemned,
        &condemned,
        r#"{"since":"2026-01-01T00:00:01.001000001Z"}"#,
    );
    let body = [
        format!(r#"{{"package":"sha256:{}","#, hex(1)),
        r#""pinned_at":"2026-01-01T00:00:02.001000001Z","reason":"audit"}"#.to_owned(),
    ];
    assert_golden(Column::Pin, &pin(1), &body.concat());
    let job = JobRecord {
        name: "scrub".to_owned(),
        last_scheduled_at: Some(at(3)),
        finished_at: None,
        state: json!({"next": 7}),
    };
    assert_golden(
        Column::Job,
        &job,
        r#"{"name":"scrub","last_scheduled_at":"2026-01-01T00:00:03.001000001Z","state":{"next":7}}"#,
    );
}

#[test]
fn golden_upload() {
    let upload = UploadRecord {
        target: "global-b".parse().unwrap(),
        repository: "3rdparty/redis".parse().unwrap(),
        digest: digest(1),
        url: "https://registry.example/v2/3rdparty/redis/blobs/uploads/7?_state=x%3D".to_owned(),
        offset_bytes: 67_108_864,
        size_bytes: u64::MAX,
        begun_at: at(3),
    };
    let body = [
        r#"{"target":"global-b","repository":"3rdparty/redis","#.to_owned(),
        format!(r#""digest":"sha256:{}","#, hex(1)),
        r#""url":"https://registry.example/v2/3rdparty/redis/blobs/uploads/7?_state=x%3D","#
            .to_owned(),
        r#""offset_bytes":67108864,"size_bytes":18446744073709551615,"#.to_owned(),
        r#""begun_at":"2026-01-01T00:00:03.001000001Z"}"#.to_owned(),
    ];
    assert_golden(Column::Upload, &upload, &body.concat());
    assert!(!format!("{upload:?}").contains("_state"), "{upload:?}");
}
