//! Packages and charts in files inside of a package.

use serde_json::Value;

use super::builder::{
    MANIFEST, MemorySink, Raw, code_of, code_with, entry, file, gzip, operator_package, read,
    read_all, read_all_with, read_into, tar_of, tgz_of, zstd,
};
use crate::base::oci::Manifest as OciManifest;
use crate::base::{Chain, Class, Classified as _, Digest, PackageKind};
use crate::package::{Limits, Unpacked};

const CHART: &str = "apiVersion: v2\nname: redis\nversion: 1.2.3+build.5\nappVersion: \"7.0\"\n";

fn chart_files() -> Vec<Raw> {
    vec![
        file("redis/Chart.yaml", CHART),
        file("redis/values.yaml", "replicas: 1\n"),
        file("redis/templates/deployment.yaml", "kind: {{ .Values.x }}"),
        // Both mean nothing in a chart.
        file("redis/files/index.json", "[]"),
        file(
            "redis/charts/common-1.0.0.tgz",
            tgz_of(&[file("common/Chart.yaml", "name: common\nversion: 1.0.0\n")]),
        ),
    ]
}

/// Returns a light package of this name.
fn light(name: &str) -> Vec<Raw> {
    let manifest = format!(
        "kind: PackageManifest\nmetadata: {{name: {name}}}\nspec: {{type: plugin, version: v1}}\n"
    );
    vec![file("manifest.yaml", manifest)]
}

fn paths(unpacked: &Unpacked) -> Vec<&str> {
    unpacked
        .nested
        .iter()
        .map(|nested| nested.path.as_str())
        .collect()
}

#[test]
fn a_chart_by_itself_is_an_oci_artifact_with_the_file_as_its_layer() {
    let bytes = tgz_of(&chart_files());
    let mut sink = MemorySink::default();
    let unpacked = read_into(&mut sink, &bytes).unwrap();
    assert!(
        unpacked.nested.is_empty(),
        "what a chart holds is its own affair"
    );
    let contents = unpacked.package.unwrap();
    assert_eq!(contents.kind, PackageKind::Chart);
    assert_eq!(contents.name.unwrap().as_str(), "redis");
    assert_eq!(contents.version.as_deref(), Some("1.2.3+build.5"));
    assert_eq!(contents.artifact.unwrap().encode(), "/redis:1.2.3_build.5");
    assert_eq!(contents.manifest, None);
    let manifest = &sink.blobs[&contents.images[0].descriptor.digest];
    let (OciManifest::Image { config, layers, .. }, _) = OciManifest::parse(manifest).unwrap()
    else {
        panic!("expected an image");
    };
    assert_eq!(layers[0].descriptor.digest, Digest::of(&bytes));
    assert_eq!(sink.blobs[&layers[0].descriptor.digest], bytes);
    let config: Value = serde_json::from_slice(&sink.blobs[&config.digest]).unwrap();
    assert_eq!(config["appVersion"], "7.0");
    assert_eq!(contents.blobs.len(), 3);
    insta::assert_snapshot!(String::from_utf8_lossy(manifest).replace(&Digest::of(&bytes).to_string(), "LAYER").replace(&bytes.len().to_string(), "SIZE"), @r#"{"annotations":{"org.opencontainers.image.title":"redis","org.opencontainers.image.version":"1.2.3+build.5"},"config":{"digest":"sha256:d03ce8477c7debb0d92e7c8bdeddc6600133c18e8905ae50adfd6c08e0142b6f","mediaType":"application/vnd.cncf.helm.config.v1+json","size":79},"layers":[{"digest":"LAYER","mediaType":"application/vnd.cncf.helm.chart.content.v1.tar+gzip","size":SIZE}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#);
}

#[test]
fn what_is_no_chart_is_not_taken_for_one() {
    // Without the files that make it another kind of package.
    let with = |path: &str| tgz_of(&[&chart_files()[..2], &[file(path, "")]].concat());
    let linked = [chart_files(), vec![entry(b'2', b"redis/link", b"")]].concat();
    let nameless = vec![file("redis/Chart.yaml", "version: 1.0.0\n")];
    for (code, bytes) in [
        ("empty", tgz_of(&[file("redis/values.yaml", CHART)])),
        ("empty", tar_of(&chart_files()[..3])),
        ("empty", with("other/x")),
        ("empty", with("x")),
        ("symbolic-link", tgz_of(&linked)),
        ("metadata-invalid", tgz_of(&nameless)),
        (
            "metadata-invalid",
            tgz_of(&[file("redis/Chart.yaml", "name: UPPER\nversion: 1.0.0\n")]),
        ),
        ("metadata-invalid", tgz_of(&[file("redis/Chart.yaml", "{")])),
    ] {
        assert_eq!(code_of(&bytes), code);
    }
}

#[test]
fn a_folder_of_packages_and_charts_gives_each_of_them() {
    let (_, operator) = operator_package();
    let inner = [
        ("set/operator.tgz", tgz_of(&operator)),
        ("set/light.tar", tar_of(&light("light"))),
        ("set/zstd.tar.zst", zstd(&tar_of(&light("zstd")))),
        ("set/chart.tar.gz", tgz_of(&chart_files())),
        (
            "set/tools.tgz",
            tgz_of(&[
                entry(b'2', b"link", b""),
                file("bin/x", "x"),
                file("bin/index.json", vec![b' '; 5 << 20]),
            ]),
        ),
        ("set/text.tgz", b"not an archive at all".to_vec()),
        ("set/text.gz.tar", gzip(&[b'x'; 2000])),
    ];
    let mut files: Vec<Raw> = inner
        .iter()
        .map(|(path, content)| file(path, content.clone()))
        .collect();
    files.push(file("README", "text"));
    let expected = read_all(&tar_of(&files)).unwrap();
    assert_eq!(expected.package, None);
    assert_eq!(
        paths(&expected),
        [
            "set/chart.tar.gz",
            "set/light.tar",
            "set/operator.tgz",
            "set/zstd.tar.zst"
        ]
    );
    for nested in &expected.nested {
        let (_, content) = inner.iter().find(|(path, _)| *path == nested.path).unwrap();
        assert_eq!(nested.digest, Digest::of(content));
        assert_eq!(nested.size_bytes, content.len() as u64);
        assert_eq!(
            nested.contents,
            read(content).unwrap(),
            "as if it came alone"
        );
    }
    files.reverse();
    assert_eq!(read_all(&tgz_of(&files)).unwrap(), expected);
}

#[test]
fn a_chart_inside_of_a_package_is_one_of_its_images() {
    let (_, mut files) = operator_package();
    files.push(file("charts/redis.tgz", tgz_of(&chart_files())));
    let unpacked = read_all(&tgz_of(&files)).unwrap();
    assert!(unpacked.nested.is_empty());
    let contents = unpacked.package.unwrap();
    let names: Vec<String> = contents
        .images
        .iter()
        .map(|image| image.reference.encode())
        .collect();
    assert!(
        names.contains(&"/redis:1.2.3_build.5".to_owned()),
        "{names:?}"
    );
    assert_eq!(contents.kind, PackageKind::Operator);
    // The package manifest knows its full name.
    let manifest =
        "kind: PackageManifest\nspec: {artifact: 'registry.example/asm/redis:1.2.3_build.5'}\n";
    let files = [
        file("manifest.yaml", manifest),
        file("redis.tgz", tgz_of(&chart_files())),
    ];
    let contents = read(&tgz_of(&files)).unwrap();
    assert_eq!(
        contents.images[0].reference.to_string(),
        "registry.example/asm/redis:1.2.3_build.5"
    );
    assert_eq!(contents.kind, PackageKind::Chart);
}

#[test]
fn two_different_charts_of_one_name_in_a_package_are_refused_in_whatever_order() {
    let chart = tgz_of(&chart_files());
    let other = tgz_of(&chart_files()[..2]);
    let package = |charts: [&[u8]; 2]| {
        let [first, second] = charts.map(<[u8]>::to_vec);
        let files = vec![file("a.tgz", first), file("x/b.tgz", second)];
        tgz_of(&[light("outer"), files].concat())
    };
    assert_eq!(code_of(&package([&chart, &other])), "conflicting-images");
    assert_eq!(code_of(&package([&other, &chart])), "conflicting-images");
    // The same one twice is one.
    let contents = read(&package([&chart, &chart])).unwrap();
    assert_eq!(contents.images.len(), 1);
}

#[test]
fn packages_inside_of_packages_are_found_down_to_the_limit() {
    let innermost = tgz_of(&light("innermost"));
    let inner = tgz_of(&[light("inner"), vec![file("x/innermost.tgz", innermost)]].concat());
    let outer = tgz_of(&[light("outer"), vec![file("inner.tgz", inner.clone())]].concat());
    let unpacked = read_all(&outer).unwrap();
    assert_eq!(
        unpacked
            .package
            .as_ref()
            .unwrap()
            .name
            .as_ref()
            .unwrap()
            .as_str(),
        "outer"
    );
    assert_eq!(paths(&unpacked), ["inner.tgz", "inner.tgz/x/innermost.tgz"]);
    let limits = Limits {
        archives_nested_max: 1,
        ..Limits::default()
    };
    assert_eq!(code_with(&outer, &limits), "archives-too-deep");
    read_all_with(&inner, &limits).unwrap();
    // Through an archive that is nothing by itself.
    let wrapped = tar_of(&[file(
        "folder.tar",
        tar_of(&[file("inner.tgz", tgz_of(&light("light")))]),
    )]);
    assert_eq!(
        paths(&read_all(&wrapped).unwrap()),
        ["folder.tar/inner.tgz"]
    );
}

#[test]
fn what_is_wrong_with_an_inner_package_is_wrong_with_the_file_and_says_where() {
    let (_, mut files) = operator_package();
    let whole = tgz_of(&files);
    files.remove(1);
    let linked = [light("x"), vec![entry(b'2', b"link", b"")]].concat();
    let hidden = [vec![entry(b'2', b"link", b"")], light("x")].concat();
    let mut flipped = whole.clone();
    let position = flipped.len() - 8;
    flipped[position] ^= 1;
    let mut damaged = tar_of(&light("x"));
    damaged[0] ^= 1;
    for (code, inner) in [
        ("header-corrupt", gzip(&damaged)),
        ("unindexed-blobs", tgz_of(&files)),
        ("symbolic-link", tgz_of(&linked)),
        ("symbolic-link", tgz_of(&hidden)),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("gzip-corrupt", flipped),
        ("trailing-bytes", [&whole[..], b"x"].concat()),
        (
            "several-manifests",
            tgz_of(&[light("x"), vec![file("a/manifest.yaml", MANIFEST)]].concat()),
        ),
    ] {
        for outer in [light("outer"), Vec::new()] {
            let bytes = tar_of(&[outer, vec![file("in/ner.tgz", inner.clone())]].concat());
            assert_eq!(code_of(&bytes), code);
            let error = read_all(&bytes).unwrap_err();
            assert!(
                Chain(&error).to_string().contains("`in/ner.tgz`"),
                "{error}"
            );
            assert_eq!(error.class(), Class::Rejected);
        }
    }
}

#[test]
fn limits_count_for_all_levels_together() {
    let light = tgz_of(&light("x"));
    let files: Vec<Raw> = (0..5)
        .map(|number| file(&format!("{number}.tgz"), light.clone()))
        .collect();
    let bytes = tar_of(&files);
    let limits = Limits::default();
    for (entries_max, code) in [(10, "none"), (9, "too-many-entries")] {
        let limits = Limits {
            entries_max,
            ..limits
        };
        assert_eq!(code_with(&bytes, &limits), code);
    }
    let chart = tgz_of(&chart_files());
    for bytes in [tar_of(&[file("a.tgz", chart.clone())]), chart.clone()] {
        for (less, code) in [(0, "none"), (1, "chart-too-large")] {
            let limits = Limits {
                chart_bytes_max: chart.len() as u64 - less,
                ..limits
            };
            assert_eq!(code_with(&bytes, &limits), code);
        }
    }
}

#[test]
fn a_bomb_inside_of_an_archive_is_refused_early() {
    // Each level expands by less than the limit, both together by far more.
    let zeros = file("zeros", vec![0; 150 << 20]);
    let inner = gzip(&tar_of(&[zeros]));
    let bomb = gzip(&tar_of(&[file("bomb.tgz", inner)]));
    let limits = Limits {
        expansion_ratio_max: 2000,
        ..Limits::default()
    };
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    assert_eq!(code_with(&bomb, &limits), "expansion-ratio");
}

#[test]
fn what_no_package_may_hold_does_no_harm_where_there_is_no_package() {
    let revision = "docker/registry/v2/repositories/a/_manifests/revisions/sha256/x/link";
    for data in [file(revision, "x"), entry(b'2', b"link", b"")] {
        let inner = file("data.tgz", tgz_of(&[data]));
        let bytes = tar_of(&[light("outer"), vec![inner]].concat());
        assert_eq!(paths(&read_all(&bytes).unwrap()), [""; 0]);
    }
}
