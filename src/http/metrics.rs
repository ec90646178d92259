//! Metrics in the Prometheus text format. All names are here; they are never renamed, only retired.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::status::{self, Sources};
use super::view::{DiskState, DiskView, TargetView};
use crate::catalog::RunCounts;

/// Labels of what is counted per target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
    role: String,
}

/// Returns the metrics as text.
pub(super) fn render(sources: &Sources) -> Result<String, status::Error> {
    let mut registry = Registry::with_prefix("violetd");
    register_ingest(&mut registry, sources);
    register_store(&mut registry, sources);
    register_disk(&mut registry, &sources.disk()?);
    register_targets(&mut registry, &sources.targets()?);
    super::pace::register(&mut registry, sources);
    super::retain::register(&mut registry, &sources.retain.counters);
    super::scrub::register(&mut registry, &sources.scrub.overview());
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a String cannot fail");
    Ok(text)
}

fn register_ingest(registry: &mut Registry, sources: &Sources) {
    let counters = &sources.ingest_counters;
    for (name, help, value) in [
        (
            "ingest_packages_ready",
            "Packages that became ready since the start",
            &counters.packages_ready,
        ),
        (
            "ingest_packages_repeated",
            "Files that were packages known already",
            &counters.packages_repeated,
        ),
        (
            "ingest_packages_rejected",
            "Files that were rejected",
            &counters.packages_rejected,
        ),
        (
            "ingest_written_bytes",
            "Bytes of blobs written to the store",
            &counters.bytes_written,
        ),
        (
            "ingest_known_bytes",
            "Bytes of blobs that the store had already",
            &counters.bytes_known,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(value.load(Ordering::Relaxed)));
    }
}

fn register_store(registry: &mut Registry, sources: &Sources) {
    let packages = i64::try_from(sources.catalog.package_count()).unwrap_or(i64::MAX);
    registry.register("packages", "Packages that are ready", gauge(packages));
    let rejected = sources
        .files()
        .iter()
        .filter(|file| file.state == "rejected")
        .count();
    let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
    registry.register(
        "files_rejected",
        "Files on record as rejected",
        gauge(rejected),
    );
}

fn register_disk(registry: &mut Registry, disk: &DiskView) {
    for (name, help, bytes) in [
        (
            "disk_available_bytes",
            "Free space for the store",
            disk.available_bytes,
        ),
        (
            "disk_total_bytes",
            "Size of the file system of the store",
            disk.total_bytes,
        ),
        (
            "disk_low_bytes",
            "Free space below which no package is begun",
            disk.low_bytes,
        ),
        (
            "disk_critical_bytes",
            "Free space below which ingest stops",
            disk.critical_bytes,
        ),
    ] {
        registry.register(name, help, gauge(i64::try_from(bytes).unwrap_or(i64::MAX)));
    }
    let state = match disk.state {
        DiskState::Ok => 0,
        DiskState::Low => 1,
        DiskState::Critical => 2,
    };
    let help = "How short space is: 0 ok, 1 low (no package is begun), 2 critical (ingest stops)";
    registry.register("disk_state", help, gauge(state));
}

pub(super) fn gauge(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

/// What is measured of a target. Nothing where it does not apply yet.
type Measure = fn(&TargetView) -> Option<i64>;

/// What is measured of each target: name, help and value.
const OF_TARGETS: [(&str, &str, Measure); 8] = [
    (
        "target_in_sync",
        "Whether the target holds every package",
        |target| Some(i64::from(target.is_in_sync)),
    ),
    (
        "target_lag_seconds",
        "Age of the oldest package not in sync",
        |target| Some(target.lag_seconds.unwrap_or(0)),
    ),
    (
        "target_packages_wanted",
        "Packages meant for the target",
        |target| Some(signed(target.packages_wanted as u64)),
    ),
    (
        "target_packages_in_sync",
        "Packages that the target holds",
        |target| Some(signed(target.packages_in_sync as u64)),
    ),
    (
        "target_last_success_timestamp_seconds",
        "End of the last complete run",
        |target| target.last_success_at.map(|at| at.timestamp()),
    ),
    (
        "target_last_run_sent_bytes",
        "Bytes of blobs sent by the last run",
        |target| of_run(target, |counts| counts.bytes_sent),
    ),
    (
        "target_last_run_resumed_bytes",
        "Bytes of blobs that the last run found there from an earlier upload, and did not send again",
        |target| of_run(target, |counts| counts.bytes_resumed),
    ),
    (
        "target_last_run_requests",
        "Requests made by the last run",
        |target| of_run(target, |counts| counts.requests),
    ),
];

fn of_run(target: &TargetView, count: fn(&RunCounts) -> u64) -> Option<i64> {
    let run = target.last_run.as_ref()?;
    Some(signed(count(&run.counts)))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn register_targets(registry: &mut Registry, targets: &[TargetView]) {
    for (name, help, measure) in OF_TARGETS {
        let family = Family::<TargetLabels, Gauge>::default();
        for target in targets {
            let labels = TargetLabels {
                target: target.name.to_string(),
                role: target.role.clone(),
            };
            if let Some(value) = measure(target) {
                family.get_or_create(&labels).set(value);
            }
        }
        registry.register(name, help, family);
    }
}
