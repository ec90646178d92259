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

fn register_targets(registry: &mut Registry, targets: &[TargetView]) {
    let in_sync = Family::<TargetLabels, Gauge>::default();
    let lag = Family::<TargetLabels, Gauge>::default();
    let wanted = Family::<TargetLabels, Gauge>::default();
    let held = Family::<TargetLabels, Gauge>::default();
    let last_success = Family::<TargetLabels, Gauge>::default();
    let sent = Family::<TargetLabels, Gauge>::default();
    let resumed = Family::<TargetLabels, Gauge>::default();
    let requests = Family::<TargetLabels, Gauge>::default();
    for target in targets {
        let labels = TargetLabels {
            target: target.name.to_string(),
            role: target.role.clone(),
        };
        let put = |family: &Family<TargetLabels, Gauge>, value: i64| {
            family.get_or_create(&labels).set(value);
        };
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let large = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        put(&in_sync, i64::from(target.is_in_sync));
        put(&lag, target.lag_seconds.unwrap_or(0));
        put(&wanted, count(target.packages_wanted));
        put(&held, count(target.packages_in_sync));
        if let Some(at) = target.last_success_at {
            put(&last_success, at.timestamp());
        }
        if let Some(run) = &target.last_run {
            put(&sent, large(run.counts.bytes_sent));
            put(&resumed, large(run.counts.bytes_resumed));
            put(&requests, large(run.counts.requests));
        }
    }
    registry.register(
        "target_in_sync",
        "Whether the target holds every package",
        in_sync,
    );
    registry.register(
        "target_lag_seconds",
        "Age of the oldest package not in sync",
        lag,
    );
    registry.register(
        "target_packages_wanted",
        "Packages meant for the target",
        wanted,
    );
    registry.register(
        "target_packages_in_sync",
        "Packages that the target holds",
        held,
    );
    registry.register(
        "target_last_success_timestamp_seconds",
        "End of the last complete run",
        last_success,
    );
    registry.register(
        "target_last_run_sent_bytes",
        "Bytes of blobs sent by the last run",
        sent,
    );
    registry.register(
        "target_last_run_resumed_bytes",
        "Bytes of blobs that the last run found sent by an earlier upload",
        resumed,
    );
    registry.register(
        "target_last_run_requests",
        "Requests made by the last run",
        requests,
    );
}
