//! Uploads of processes that are gone.

use violetd::base::{Class, Classified as _, Digest, Repository};
use violetd::catalog::{Catalog, UploadRecord};
use violetd::registry::{Client, Mount, Uploaded, Uploads as _};

use super::{
    Blob, CHUNK_BYTES, MIB, Notes, connect, kill_after, methods, repository, unfinished_uploads,
};
use crate::support::{
    Auth, Daemon, Distribution, Images, Nginx, Package, Setup, TestRegistry, noise, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_where_the_registry_is() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(4 * CHUNK_BYTES), Notes::default());
    let size_bytes = blob.descriptor.size_bytes;
    for share in [10, 50, 90] {
        let client = Client::new(server.options()).unwrap();
        kill_after(size_bytes * share / 100, &blob, &client, &server, &notes).await;
        assert_eq!((server.sessions(), notes.len()), (1, 1));
    }
    let client = connect(server.options()).await;
    server.take_received();
    let (bytes, resumed_bytes) = blob.send(&client, &notes).await;
    assert!(resumed_bytes >= size_bytes * 9 / 10, "{resumed_bytes}");
    assert_eq!(bytes + resumed_bytes, size_bytes);
    assert_eq!(client.counters().bytes_resumed, resumed_bytes);
    assert_eq!(server.received_bytes(), size_bytes);
    assert_eq!(methods(&server.take_received()), ["GET", "PATCH", "PUT"]);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_with_a_small_blob_too() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(CHUNK_BYTES / 2), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(4 * MIB, &blob, &client, &server, &notes).await;
    let client = Client::new(server.options()).unwrap();
    let (bytes, resumed_bytes) = blob.send(&client, &notes).await;
    assert!(resumed_bytes >= 4 * MIB, "{resumed_bytes}");
    assert_eq!(bytes + resumed_bytes, CHUNK_BYTES / 2);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_passes_on_whole_requests_every_registry_keeps_whole_chunks() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = Nginx::start(registry.address(), "client_max_body_size 100m;", "");
    let (blob, notes) = (Blob::new(4 * CHUNK_BYTES), Notes::default());
    let client = Client::new(registry.options_via(nginx.address)).unwrap();
    tokio::select! {
        uploaded = blob.upload(&client, Mount::No, &notes) => {
            panic!("expected the upload to be killed, found {uploaded:?}")
        }
        () = notes.wait_for_offset(2 * CHUNK_BYTES) => {}
    }
    let client = Client::new(registry.options_via(nginx.address)).unwrap();
    let (bytes, resumed_bytes) = blob.send(&client, &notes).await;
    assert_eq!((bytes, resumed_bytes), (2 * CHUNK_BYTES, 2 * CHUNK_BYTES));
    assert_eq!(blob.found(&client).await, Some(blob.descriptor.size_bytes));
    assert_eq!(unfinished_uploads(&registry), 0);
    assert_eq!(notes.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_registry_has_forgotten_is_begun_anew() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &server, &notes).await;
    server.purge();
    let client = connect(server.options()).await;
    server.take_received();
    assert_eq!(
        blob.send(&client, &notes).await,
        (blob.descriptor.size_bytes, 0)
    );
    assert_eq!(
        methods(&server.take_received()),
        ["GET", "POST", "PATCH", "PATCH", "PUT"]
    );
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_were_joined_wrongly_are_sent_once_more_and_are_no_damage() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &server, &notes).await;
    server.garble();
    let client = Client::new(server.options()).unwrap();
    let (bytes, _) = blob.send(&client, &notes).await;
    assert!(bytes >= blob.descriptor.size_bytes, "{bytes}");
    assert_eq!((server.sessions(), notes.len()), (0, 0));

    // Without a failure in between it is what was sent that is wrong.
    let mut wrong = Blob::new(CHUNK_BYTES);
    wrong.descriptor.digest = Digest::of(b"another");
    let error = wrong.upload(&client, Mount::No, &notes).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_mounted_meanwhile_leaves_no_session() {
    let server = Distribution::start().await;
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &server, &notes).await;
    let (from, source): (Repository, _) = ("b".parse().unwrap(), blob.source());
    let uploading = client.upload_blob(&from, &blob.descriptor, &source, Mount::No, &notes);
    within("the upload", uploading).await.unwrap();
    assert_eq!((server.sessions(), notes.len()), (1, 1));
    let mounting = blob.upload(&client, Mount::From(&from), &notes).await;
    assert_eq!(mounting.unwrap(), Uploaded::Mounted);
    assert_eq!((server.sessions(), notes.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_registry_that_has_moved_is_begun_anew() {
    let (former, server) = (Distribution::start().await, Distribution::start().await);
    let (blob, notes) = (Blob::new(2 * CHUNK_BYTES), Notes::default());
    let client = Client::new(former.options()).unwrap();
    kill_after(CHUNK_BYTES, &blob, &client, &former, &notes).await;
    let client = Client::new(server.options()).unwrap();
    assert_eq!(
        blob.send(&client, &notes).await,
        (blob.descriptor.size_bytes, 0)
    );
    assert_eq!(blob.found(&client).await, Some(blob.descriptor.size_bytes));
    assert_eq!(former.received_bytes(), CHUNK_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_killed_sends_what_is_missing_and_leaves_no_session() {
    let server = Distribution::start().await;
    let mut images = Images::default();
    let large = noise(7, usize::try_from(2 * CHUNK_BYTES).unwrap());
    images.add("large", "v1", &[large]);
    let package = Package::operator("large", images);
    let setup = Setup::new("none").target("global-a", "primary", server.address(), "");
    // In the second chunk, and in the third one, which is what is left of the second.
    let mut daemon = Daemon::start(setup);
    daemon.setup.drop_package(&package);
    for reached in [80 * MIB, 100 * MIB] {
        server.hold_at(reached);
        server.wait_for_bytes(reached).await;
        let setup = daemon.kill();
        server.release();
        server.wait_until_idle().await;
        assert!(server.sessions() > 0);
        server.hold_at(100 * MIB);
        daemon = Daemon::start(setup);
    }
    server.release();
    daemon.wait_in_sync(1);
    assert_eq!(server.sessions(), 0);
    let blobs = package.images.placed.iter().flat_map(|image| &image.blobs);
    let blob_bytes: u64 = blobs.map(|blob| blob.size_bytes).sum();
    assert_eq!(server.received_bytes(), blob_bytes);
    let setup = daemon.stop();
    let catalog = Catalog::open(&setup.state_dir).unwrap();
    assert_eq!(
        catalog.list_uploads(&"global-a".parse().unwrap()).unwrap(),
        []
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_no_package_wants_is_cancelled_by_the_next_run() {
    let server = Distribution::start().await;
    let setup = Setup::new("none").target("global-a", "primary", server.address(), "");
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&Package::small("wanted"));
    daemon.wait_in_sync(1);
    let setup = daemon.stop();

    let (blob, notes) = (Blob::new(CHUNK_BYTES), Notes::default());
    let client = Client::new(server.options()).unwrap();
    let reached = server.received_bytes() + MIB;
    kill_after(reached, &blob, &client, &server, &notes).await;
    assert_eq!(server.sessions(), 1);
    let left = notes.find(&repository(), &blob.descriptor.digest).unwrap();
    let record = UploadRecord {
        target: "global-a".parse().unwrap(),
        repository: repository(),
        digest: blob.descriptor.digest,
        url: left.url.expose().to_owned(),
        offset_bytes: left.offset_bytes,
        size_bytes: left.size_bytes,
        begun_at: left.begun_at,
    };
    let catalog = Catalog::open(&setup.state_dir).unwrap();
    catalog.put_upload(&record).unwrap();
    drop(catalog);

    let daemon = Daemon::start(setup);
    daemon.sync();
    assert_eq!(server.sessions(), 0);
    let lines = daemon.log_lines("upload of an earlier run was cancelled");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains("_state"), "{lines:?}");
    let setup = daemon.stop();
    let catalog = Catalog::open(&setup.state_dir).unwrap();
    assert_eq!(catalog.list_uploads(&record.target).unwrap(), []);
}
