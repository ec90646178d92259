//! Images and charts in the forms in which they are carried: in folders and archives, in parts, as deltas.

use std::ffi::OsStr;

use violetd::base::Digest;
use violetd::package::Request;
use violetd::sys::fs as durable;

use super::super::dropped_file;
use super::{Site, listed, make_list, push_list};
use crate::support::{Workshop, drop_into, names, parts_of_manifest, program, run, write};

/// Makes a chart file, and returns its digest.
fn make_chart(workshop: &Workshop, name: &str, version: &str, file: &str) -> Digest {
    let folder = workshop.path(name);
    durable::ensure_dir_all(&folder.join("templates")).unwrap();
    let chart = format!("apiVersion: v2\nname: {name}\nversion: {version}\nappVersion: '7'\n");
    write(&folder.join("Chart.yaml"), chart);
    write(&folder.join("values.yaml"), "replicas: 1\n");
    let document = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n";
    write(&folder.join("templates/map.yaml"), document);
    workshop.tar(&[
        "--create",
        "--gzip",
        "--format=ustar",
        &format!("--file={file}"),
        name,
    ]);
    Digest::of(&std::fs::read(workshop.path(file)).unwrap())
}

/// Fails the test unless the target has a chart as Helm stores it, with the file of this digest.
fn assert_holds_chart(site: &Site, workshop: &Workshop, name: &str, file: Digest) {
    let manifest = site.manifest(name);
    let config = &manifest["config"];
    assert_eq!(
        config["mediaType"],
        "application/vnd.cncf.helm.config.v1+json"
    );
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1, "{name}");
    let media_type = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    assert_eq!(layers[0]["mediaType"], media_type);
    assert_eq!(layers[0]["digest"], file.to_string());
    site.pull(workshop, name);
}

#[test]
fn charts_and_images_arrive_alone_in_a_folder_of_packages_and_in_a_tar_of_packages() {
    let (workshop, site) = (Workshop::new(), Site::new());
    let alone = make_chart(
        &workshop,
        "redis",
        "1.2.3+build.4",
        "redis-1.2.3+build.4.tgz",
    );
    let in_folder = make_chart(&workshop, "postgres", "2.0.0", "postgres-2.0.0.tgz");
    durable::ensure_dir_all(&workshop.path("set/charts")).unwrap();
    let in_tar = make_chart(&workshop, "nginx", "3.0.0", "set/charts/nginx-3.0.0.tgz");
    let archive = workshop.argument("set/app.tar");
    workshop.export("v2", &format!("docker-archive:{archive}:set/app:v2"));
    workshop.export("v1", &format!("oci:{}:v1", workshop.argument("layout")));
    workshop.tar(&["--create", "--gzip", "--file=set/layout.tgz", "layout"]);
    workshop.tar(&["--create", "--file=set.tar", "set"]);

    site.drop(&workshop, "redis-1.2.3+build.4.tgz");
    site.drop(&workshop, "set.tar");
    let folder = site.daemon.setup.drop_dir.join("2026-11");
    durable::ensure_dir_all(&folder).unwrap();
    let archive = workshop.argument("app.tar");
    workshop.export("v1", &format!("docker-archive:{archive}:folder/app:v1"));
    for name in ["postgres-2.0.0.tgz", "app.tar"] {
        let content = std::fs::read(workshop.path(name)).unwrap();
        drop_into(&folder, (name, &content), &[]);
    }
    site.daemon.wait_in_sync(6);
    assert_holds_chart(&site, &workshop, "redis:1.2.3_build.4", alone);
    assert_holds_chart(&site, &workshop, "postgres:2.0.0", in_folder);
    assert_holds_chart(&site, &workshop, "nginx:3.0.0", in_tar);
    for (name, version) in [("set/app:v2", "v2"), ("folder/app:v1", "v1")] {
        let parts = parts_of_manifest(&site.manifest(name));
        assert_eq!(parts[0], workshop.config_of(version), "{name}");
    }
    site.assert_holds(&workshop, &listed(&workshop, "layout"));
    site.stop();
}

/// Makes a package of images of a layout in `folder`, and returns what `violetd package` wrote with these options.
fn pack(workshop: &Workshop, folder: &str, output: &str, options: &[&OsStr]) {
    let mut package = program();
    package.arg("package").arg(workshop.path(folder));
    package
        .arg("--output")
        .arg(workshop.path(output))
        .args(options);
    run("violetd", &mut package);
}

/// Makes the folder of a package out of images of the layout `layout`.
fn create(workshop: &Workshop, folder: &str, tags: &[&str]) {
    let mut create = program();
    create.arg("create").arg(workshop.path(folder));
    create.args(["--type", "images", "--package-version", "1"]);
    for tag in tags {
        let layout = workshop.argument("layout");
        create.arg("--image");
        create.arg(format!("registry.example/layout:{tag}=oci:{layout}:{tag}"));
    }
    run("violetd", &mut create);
}

#[test]
fn images_of_other_tools_arrive_in_parts_and_as_a_delta_with_a_supplement() {
    let (workshop, site) = (Workshop::new(), Site::new());
    make_list(&workshop);
    let layout = format!("oci:{}", workshop.argument("layout"));
    for version in ["v1", "v2"] {
        workshop.export(version, &format!("{layout}:{version}"));
    }
    push_list(&workshop, &format!("{layout}:all"), &[]);
    let expected = listed(&workshop, "layout");
    create(&workshop, "base", &["v1"]);
    create(&workshop, "next", &["v2", "all"]);
    durable::ensure_dir_all(&workshop.path("parts")).unwrap();
    let split = ["--split", "8000"].map(OsStr::new);
    pack(&workshop, "base", "parts/base.tgz", &split);
    let parts = names(&workshop.path("parts"));
    assert!(parts.len() > 3, "{parts:?}");
    for name in parts.iter().rev() {
        let content = std::fs::read(workshop.path("parts").join(name)).unwrap();
        site.daemon.setup.drop_file(name, &content, &[]);
    }
    site.daemon.wait_in_sync(1);
    let of_base = expected.iter().filter(|(name, _)| name == "layout:v1");
    site.assert_holds(&workshop, &of_base.cloned().collect::<Vec<_>>());

    let inventory = workshop.argument("inventory");
    let listing = [
        "inventory",
        "--target",
        "global-a",
        "--output-file",
        &inventory,
    ];
    let output = site.daemon.setup.run(&listing);
    assert!(output.status.success(), "{output:?}");
    let base = [OsStr::new("--base"), OsStr::new(&inventory)];
    pack(&workshop, "next", "delta.tgz", &base);
    site.drop(&workshop, "delta.tgz");
    site.daemon.wait_in_sync(2);
    site.assert_holds(&workshop, &expected);
    site.stop();
    assert_delta_asks(&workshop, &expected);
}

/// Drops the delta where its base is not, and answers the request.
fn assert_delta_asks(workshop: &Workshop, expected: &[(String, Digest)]) {
    let site = Site::new();
    let delta = site.drop(workshop, "delta.tgz");
    site.daemon.wait_until("wait for the base", |status| {
        dropped_file(status, &delta).is_some_and(|file| file["state"] == "waiting")
    });
    let path = site
        .daemon
        .setup
        .drop_dir
        .join("requests/delta.tgz.request");
    let request = Request::parse(std::fs::read(&path).unwrap().as_slice()).unwrap();
    assert_eq!(request.missing.len(), 1, "one layer is shared: {request:?}");
    let answer = [OsStr::new("--for"), path.as_os_str()];
    pack(workshop, "base", "supplement.tgz", &answer);
    site.drop(workshop, "supplement.tgz");
    site.daemon.wait_in_sync(2);
    let of_next = expected.iter().filter(|(name, _)| name != "layout:v1");
    site.assert_holds(workshop, &of_next.cloned().collect::<Vec<_>>());
    site.stop();
}
