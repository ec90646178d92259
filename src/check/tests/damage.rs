//! One damage for each code.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "`inflict` names every code; the functions below it get those of one kind"
)]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use super::super::{Code, Depth, Options};
use super::fixture::{State, ingest, layer_of};
use crate::base::{Digest, Timestamp};
use crate::catalog::{
    Column, CondemnedRecord, Content, ImageRecord, IngestState, PinRecord, TargetRecord, raw,
};
use crate::sys::fault::Faults;
use crate::sys::fs as durable;
use crate::sys::lock::Owner;

/// How a damage is to be looked for.
#[derive(Debug, Default)]
pub(super) struct Damage {
    pub(super) options: Options,
    pub(super) owner: Option<Owner>,
    /// What the finding is about, where there is exactly one.
    pub(super) subject: Option<String>,
    /// What fails meanwhile.
    pub(super) faults: Option<Faults>,
}

impl Damage {
    fn of(subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..Self::default()
        }
    }

    fn deep(subject: impl Into<String>) -> Self {
        let mut damage = Self::of(subject);
        damage.options.depth = Depth::Deep;
        damage
    }

    fn with(subject: impl Into<String>, change: impl FnOnce(&mut Options)) -> Self {
        let mut damage = Self::of(subject);
        change(&mut damage.options);
        damage
    }
}

/// Does the damage of a code to a state. Only root can give a file away, as [`Code::WrongOwner`] wants.
pub(super) fn inflict(code: Code, state: &State) -> Damage {
    match code {
        Code::FormatMissing
        | Code::FormatUnreadable
        | Code::FormatUnknown
        | Code::DaemonRunning
        | Code::FolderMissing
        | Code::WrongKind
        | Code::ForeignFile
        | Code::Unreadable
        | Code::TemporaryFile
        | Code::StagedFiles
        | Code::Quarantined
        | Code::DiskLow
        | Code::DiskCritical => in_directory(code, state),
        Code::SymbolicLink | Code::WrongMode | Code::WrongOwner | Code::HardLink => {
            in_modes(code, state)
        }
        Code::BlobMissing
        | Code::BlobSize
        | Code::BlobCorrupt
        | Code::BlobMisplaced
        | Code::BlobsUnreferenced
        | Code::CondemnedWanted
        | Code::CondemnedGone => in_blobs(code, state),
        Code::RecordUnreadable
        | Code::RecordUnknown
        | Code::RecordMisnamed
        | Code::RecordMissing
        | Code::RowMissing
        | Code::RecordDiffers
        | Code::ChangeUnfinished
        | Code::RemovalUnfinished
        | Code::TombstoneStale => in_records(code, state),
        Code::CatalogMissing
        | Code::CatalogCorrupt
        | Code::CatalogUnknown
        | Code::RowCorrupt
        | Code::ContentMissing
        | Code::ContentDiffers
        | Code::ContentOrphan
        | Code::PinOrphan
        | Code::PinDiffers
        | Code::IngestOrphan
        | Code::TargetUnknown => in_catalog(code, state),
        Code::TotalsDiffer
        | Code::ImageUnreadable
        | Code::ImageDiffers
        | Code::ContentIncomplete
        | Code::ContentSurplus
        | Code::OmittedDiffers => in_package(code, state),
        Code::AuditMissing | Code::AuditBroken | Code::AuditIncomplete => in_audit(code, state),
    }
}

fn in_directory(code: Code, state: &State) -> Damage {
    let format = state.path("FORMAT");
    let quarantine = state.path("quarantine");
    match code {
        Code::FormatMissing => durable::remove_file(&format).unwrap(),
        Code::FormatUnreadable => replace(&format, b"{"),
        Code::FormatUnknown => replace(&format, b"{\"version\":2}"),
        Code::DaemonRunning => {
            let owner = Some(Owner::Process(4711));
            return Damage {
                owner,
                ..Damage::of("LOCK")
            };
        }
        Code::FolderMissing => {
            std::fs::remove_dir(&quarantine).unwrap();
            return Damage::of("quarantine");
        }
        Code::WrongKind => {
            std::fs::remove_dir(&quarantine).unwrap();
            replace(&quarantine, b"");
            return Damage::of("quarantine");
        }
        Code::ForeignFile => {
            replace(&state.path("blobs/sha256/notes.txt"), b"x");
            return Damage::of("blobs/sha256/notes.txt");
        }
        Code::Unreadable => {
            // It is inspected once, and fails to be read.
            let path = state.record_path("one");
            let faults = Some(Faults::after(1, &path));
            return Damage {
                faults,
                ..Damage::of(below(state, &path))
            };
        }
        Code::TemporaryFile => {
            replace(&state.path("packages/.violetd-AbCdEf"), b"x");
            return Damage::of("packages/.violetd-AbCdEf");
        }
        Code::StagedFiles => {
            replace(&state.path("ingest/staged"), b"x");
            return Damage::of("ingest");
        }
        Code::Quarantined => {
            replace(&state.path("quarantine/x.0"), b"x");
            return Damage::of("quarantine/x.0");
        }
        Code::DiskLow => return Damage::with(".", |it| it.disk_low_bytes = u64::MAX),
        Code::DiskCritical => {
            return Damage::with(".", |it| {
                (it.disk_low_bytes, it.disk_critical_bytes) = (u64::MAX, u64::MAX);
            });
        }
        _ => unreachable!("not in the directory"),
    }
    Damage::of("FORMAT")
}

fn in_modes(code: Code, state: &State) -> Damage {
    let quarantine = state.path("quarantine");
    let blob = state.blob_path(&layer_of("one"));
    match code {
        Code::SymbolicLink => {
            let elsewhere = state.root.with_file_name("elsewhere");
            durable::move_file(&quarantine, &elsewhere).unwrap();
            std::os::unix::fs::symlink(elsewhere, &quarantine).unwrap();
            Damage::of("quarantine")
        }
        Code::WrongMode => {
            set_mode(&blob, 0o644);
            Damage::of(below(state, &blob))
        }
        Code::WrongOwner => {
            replace(&state.path("LOCK"), b"");
            chown(state.path("LOCK"), Some(4711), None).unwrap();
            Damage::default()
        }
        Code::HardLink => {
            let name = state.root.with_file_name("name");
            let linked = Command::new("ln").arg(&blob).arg(name).status();
            assert!(linked.unwrap().success());
            Damage::of(below(state, &blob))
        }
        _ => unreachable!("not in the modes"),
    }
}

fn in_blobs(code: Code, state: &State) -> Damage {
    let layer = layer_of("one");
    let path = state.blob_path(&layer);
    let condemn = |digest: Digest| {
        let since = Timestamp::UNIX_EPOCH;
        let condemned = [(digest, CondemnedRecord { since })];
        state.catalog().change_condemned(&condemned, &[]).unwrap();
        Damage::of(digest.to_string())
    };
    let mut bytes = std::fs::read(&path).unwrap();
    match code {
        Code::BlobMissing => durable::remove_file(&path).unwrap(),
        Code::BlobSize => {
            bytes.pop();
            durable::replace_file(&path, &bytes, 0o444).unwrap();
        }
        Code::BlobCorrupt => {
            bytes[0] ^= 1;
            durable::replace_file(&path, &bytes, 0o444).unwrap();
            return Damage::deep(layer.to_string());
        }
        Code::BlobMisplaced => {
            let shard = format!("{:02x}", layer.as_bytes()[0] ^ 1);
            let subject = format!("blobs/sha256/{shard}/{}", layer.hex());
            durable::replace_file(&state.path(&subject), &bytes, 0o444).unwrap();
            return Damage::of(subject);
        }
        Code::BlobsUnreferenced => {
            state.store_blob(b"nobody wants this");
            return Damage::of("blobs");
        }
        Code::CondemnedWanted => return condemn(layer),
        Code::CondemnedGone => return condemn(Digest::of(b"gone")),
        _ => unreachable!("not in the blobs"),
    }
    Damage::of(layer.to_string())
}

fn in_records(code: Code, state: &State) -> Damage {
    let (path, digest) = (state.record_path("one"), state.digest("one"));
    let removed = state.path(&format!("packages/removed/{}.json", digest.hex()));
    let subject = below(state, &path);
    match code {
        Code::RecordUnreadable => replace(&path, b"{"),
        Code::RecordUnknown => replace(&path, b"{\"format\":2}"),
        Code::RecordMisnamed => replace(&path, &std::fs::read(state.record_path("two")).unwrap()),
        Code::RecordMissing => {
            durable::remove_file(&path).unwrap();
            return Damage::of(digest.to_string());
        }
        Code::RowMissing => {
            for column in [Column::Package, Column::Content] {
                raw::put_raw(&state.root, column, digest.as_bytes(), None);
            }
            return Damage::of(digest.to_string());
        }
        Code::RecordDiffers => {
            let before = std::fs::read(&path).unwrap();
            state.change("one", |record, _| {
                record.display_name = Some("x".to_owned());
            });
            replace(&path, &before);
            return Damage::of(digest.to_string());
        }
        Code::ChangeUnfinished => {
            let next = path.with_extension("next");
            replace(&next, &std::fs::read(&path).unwrap());
            return Damage::of(below(state, &next));
        }
        Code::RemovalUnfinished => {
            durable::move_file(&path, &removed).unwrap();
            return Damage::of(digest.to_string());
        }
        Code::TombstoneStale => {
            replace(&removed, &std::fs::read(&path).unwrap());
            return Damage::of(below(state, &removed));
        }
        _ => unreachable!("not in the records"),
    }
    Damage::of(subject)
}

fn in_catalog(code: Code, state: &State) -> Damage {
    let (one, absent) = (state.digest("one"), Digest::of(b"absent"));
    let pin = |package| PinRecord {
        package,
        pinned_at: Timestamp::UNIX_EPOCH,
        reason: None,
    };
    match code {
        Code::CatalogMissing => durable::empty_dir(&state.path("catalog")).unwrap(),
        Code::CatalogCorrupt => replace(&state.path("catalog/CURRENT"), b"MANIFEST-999999\n"),
        Code::CatalogUnknown => raw::put_column(&state.root),
        Code::RowCorrupt => {
            raw::put_raw(&state.root, Column::Job, b"scrub", Some(b"\x01{".to_vec()));
            return Damage::of("job/scrub");
        }
        Code::ContentMissing => {
            raw::put_raw(&state.root, Column::Content, one.as_bytes(), None);
            return Damage::of(one.to_string());
        }
        Code::ContentDiffers => {
            // Another blob of the same size, which another package keeps.
            let base = layer_of("base");
            let content = state.packages["one"].content.entries().iter().copied();
            let swapped = content.map(|(digest, size_bytes)| {
                let digest = if digest == base {
                    layer_of("two")
                } else {
                    digest
                };
                (digest, size_bytes)
            });
            raw::put_content(&state.root, &one, &swapped.collect());
            return Damage::of(one.to_string());
        }
        Code::ContentOrphan => {
            raw::put_content(&state.root, &absent, &Content::default());
            return Damage::of(absent.to_string());
        }
        Code::PinOrphan => {
            put_pin(state, &pin(absent));
            return Damage::of(absent.to_string());
        }
        Code::PinDiffers => {
            put_pin(state, &pin(one));
            return Damage::of(one.to_string());
        }
        Code::IngestOrphan => {
            let ready = IngestState::Ready {
                package: absent,
                is_repeat: false,
                nested: Vec::new(),
            };
            let record = ingest("/drop/absent.tgz", ready);
            state.catalog().put_ingest(&record).unwrap();
            return Damage::of("/drop/absent.tgz");
        }
        Code::TargetUnknown => {
            let target = TargetRecord::new("global-z".parse().unwrap());
            state.catalog().put_target(&target).unwrap();
            return Damage::with("global-z", |it| it.targets = Some(Vec::new()));
        }
        _ => unreachable!("not in the catalog"),
    }
    Damage::of("catalog")
}

fn in_package(code: Code, state: &State) -> Damage {
    let layer = layer_of("two");
    match code {
        Code::TotalsDiffer => {
            state.change("one", |record, _| record.blob_count += 1);
            return Damage::of(state.digest("one").to_string());
        }
        Code::ImageUnreadable => {
            let digest = state.store_blob(b"no manifest");
            state.change("one", |record, content| {
                record.images.push(ImageRecord {
                    reference: "registry.example/odd:v1".parse().unwrap(),
                    digest,
                    media_type: "x".to_owned(),
                    size_bytes: 11,
                    content_bytes: 11,
                });
                content.insert(digest, 11);
                record.blob_count += 1;
                record.blob_bytes += 11;
            });
        }
        Code::ImageDiffers => {
            state.change("one", |record, _| record.images[0].content_bytes += 1);
        }
        Code::ContentIncomplete => state.change("one", |record, content| {
            // Another package keeps it.
            let base = layer_of("base");
            record.blob_count -= 1;
            record.blob_bytes -= content.remove(&base).unwrap();
        }),
        Code::ContentSurplus => state.change("one", |record, content| {
            content.insert(layer, 46);
            record.blob_count += 1;
            record.blob_bytes += 46;
        }),
        Code::OmittedDiffers => state.change("one", |record, _| {
            record.omitted.insert(Digest::of(b"never named"));
        }),
        _ => unreachable!("not in a package"),
    }
    Damage::deep(state.digest("one").to_string())
}

fn in_audit(code: Code, state: &State) -> Damage {
    let name = "audit/audit-000001.jsonl";
    let append = |text: &[u8]| {
        let path = state.path(name);
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(text).unwrap();
        Damage::of(format!("{name}, line 1"))
    };
    match code {
        Code::AuditBroken => append(b"{}\n"),
        Code::AuditIncomplete => append(b"{\"version\":1,"),
        _ => {
            durable::empty_dir(&state.path("audit")).unwrap();
            Damage::of("audit")
        }
    }
}

fn put_pin(state: &State, pin: &PinRecord) {
    let mut row = vec![1];
    row.extend(serde_json::to_vec(pin).unwrap());
    raw::put_raw(&state.root, Column::Pin, pin.package.as_bytes(), Some(row));
}

fn replace(path: &Path, bytes: &[u8]) {
    durable::replace_file(path, bytes, 0o640).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn below(state: &State, path: &Path) -> String {
    let path = path.strip_prefix(&state.root).unwrap();
    path.display().to_string()
}
