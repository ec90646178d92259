//! Operator bundles.

use proptest::prelude::*;
use serde_json::json;

use super::super::builder::{Builder, Raw, entry, file, gzip, read, tar_of, tgz_of};
use super::{
    ANNOTATIONS, BUNDLE, CSV, add_image, bundle_package, labels, layer, operator, package, problem,
    problem_with,
};
use crate::base::{OperatorDescription, PackageKind};
use crate::package::{DescribeError, Limits};

#[test]
fn a_bundle_describes_an_operator_whose_manifest_says_little() {
    let mut builder = Builder::default();
    let layers = [
        layer(&[("manifests/redis.clusterserviceversion.yaml", CSV)]),
        layer(&[
            ("./metadata/annotations.yaml", ANNOTATIONS),
            ("manifests/crd.yaml", "kind: X"),
        ]),
    ];
    let bundle = add_image(&mut builder, &labels(), &layers);
    let index = builder.index(&[(bundle.clone(), "amd64"), (bundle, "arm64")]);
    let redis = builder.image("redis", "amd64");
    let spec = format!("artifact: '{BUNDLE}', relatedImages: ['registry.example/ops/redis:7']");
    let images = [(BUNDLE, &index), ("registry.example/ops/redis:7", &redis)];
    let contents = read(&package(&builder, &spec, &images)).unwrap();
    assert_eq!(
        operator(&contents),
        &OperatorDescription {
            package: Some("redis-operator".to_owned()),
            csv_name: Some("redis-operator.v4.2.0".to_owned()),
            version: Some("4.2.0".to_owned()),
            display_name: Some("Redis".to_owned()),
            summary: Some("Runs Redis.".to_owned()),
            channels: vec!["stable".to_owned(), "alpha".to_owned()],
            default_channel: Some("stable".to_owned()),
            related_images: vec![
                "registry.example/ops/redis:7".to_owned(),
                "other.example/ops/exporter:v1".to_owned(),
            ],
        }
    );
    assert_eq!(contents.description_problem, None);
    assert_eq!(contents.kind, PackageKind::Operator);
    assert_eq!(contents.name.as_ref().unwrap().as_str(), "redis-operator");
    assert_eq!(contents.version.as_deref(), Some("4.2.0"));
    assert_eq!(contents.display_name.as_deref(), Some("Redis"));
    assert_eq!(
        contents.list_missing_images(),
        ["other.example/ops/exporter:v1"]
    );
}

#[test]
fn the_package_manifest_wins_over_its_main_image() {
    let mut builder = Builder::default();
    let files = [
        ("manifests/csv.yaml", CSV),
        ("metadata/annotations.yaml", ANNOTATIONS),
    ];
    let bundle = add_image(&mut builder, &labels(), &[layer(&files)]);
    let manifest = format!(
        "kind: PackageManifest\nmetadata: {{name: other}}\nspec: {{artifact: '{BUNDLE}', type: images, \
         version: v9, displayName: Other}}"
    );
    let mut files = vec![file("manifest.yaml", manifest)];
    files.extend(builder.layout("", &[(Some(BUNDLE), &bundle)]));
    let contents = read(&tgz_of(&files)).unwrap();
    assert_eq!(contents.kind, PackageKind::Images);
    assert_eq!(contents.name.as_ref().unwrap().as_str(), "other");
    assert_eq!(contents.version.as_deref(), Some("v9"));
    assert_eq!(contents.display_name.as_deref(), Some("Other"));
    assert_eq!(operator(&contents).version.as_deref(), Some("4.2.0"));
}

#[test]
fn the_topmost_layer_wins_and_whiteouts_hide_what_is_below() {
    let csv = |name: &str| CSV.replace("redis-operator.v4.2.0", name);
    let base = csv("base");
    let base: &[(&str, &str)] = &[
        ("manifests/csv.yaml", &base),
        ("metadata/annotations.yaml", ANNOTATIONS),
    ];
    let top = csv("top");
    let cases: &[(&str, Vec<Raw>, Option<&str>)] = &[
        ("nothing", vec![], Some("base")),
        (
            "other-file",
            vec![file("manifests/a.yaml", "kind: X")],
            Some("base"),
        ),
        (
            "same-file",
            vec![file("./manifests/csv.yaml", top.clone())],
            Some("top"),
        ),
        (
            "whiteout-and-new-file",
            vec![
                file("manifests/.wh.csv.yaml", ""),
                file("manifests/new.json", top.clone()),
            ],
            Some("top"),
        ),
        ("whiteout-of-folder", vec![file(".wh.manifests", "")], None),
        (
            "whiteout-of-other-folder",
            vec![file(".wh.manifest", "")],
            Some("base"),
        ),
        (
            "opaque-folder",
            vec![
                file("manifests/.wh..wh..opq", ""),
                file("manifests/new.yaml", top.clone()),
            ],
            Some("top"),
        ),
        ("opaque-root", vec![file(".wh..wh..opq", "")], None),
        (
            "link-instead",
            vec![entry(b'2', b"manifests/csv.yaml", b"")],
            None,
        ),
        ("file-instead-of-folder", vec![file("manifests", "x")], None),
        (
            "twice-in-one-layer",
            vec![
                file("manifests/csv.yaml", csv("early")),
                file("manifests/csv.yaml", top.clone()),
            ],
            Some("top"),
        ),
    ];
    for (name, files, expected) in cases {
        let contents = read(&bundle_package(&[layer(base), gzip(&tar_of(files))])).unwrap();
        let found = operator(&contents).csv_name.as_deref();
        assert_eq!(found, *expected, "{name}");
        let code = contents
            .description_problem
            .as_ref()
            .map(DescribeError::code);
        assert_eq!(code, expected.is_none().then_some("csv-absent"), "{name}");
    }
}

#[test]
fn layers_of_every_compression_are_read_and_what_is_no_file_is_skipped() {
    let long = format!("manifests/{}.yaml", "x".repeat(150));
    let files = [
        entry(b'g', b"pax_global_header", b"19 comment=nothing\n"),
        entry(b'5', b"manifests/", b""),
        entry(b'2', b"manifests/link.yaml", b""),
        entry(b'3', b"dev/null", b""),
        entry(b'6', b"run/pipe", b""),
        entry(b'0', b"../manifests/outside.yaml", CSV.as_bytes()),
        entry(b'0', b"manifests/\xff.yaml", CSV.as_bytes()),
        file("manifests/below/csv.yaml", CSV),
        file("manifests/notes.txt", CSV),
        file("/metadata/annotations.yaml", ANNOTATIONS),
        file(&long, CSV),
    ];
    let plain = tar_of(&files);
    let halves = plain.split_at(700);
    let without_padding = plain[..plain.len() - 1024 - (512 - CSV.len() % 512)].to_vec();
    let without_end = plain[..plain.len() - 1024].to_vec();
    for (name, bytes) in [
        ("gzip", gzip(&plain)),
        (
            "gzip of two members",
            [gzip(halves.0), gzip(halves.1)].concat(),
        ),
        ("zstd", zstd::encode_all(plain.as_slice(), 3).unwrap()),
        ("no end mark", without_end),
        ("no zeros after the last file", without_padding),
        ("plain", plain),
    ] {
        let contents = read(&bundle_package(&[bytes])).unwrap();
        assert_eq!(contents.description_problem, None, "{name}");
        assert_eq!(
            contents.name.as_ref().unwrap().as_str(),
            "redis-operator",
            "{name}"
        );
    }
}

#[test]
fn a_csv_may_be_json_and_lie_where_the_labels_say() {
    let csv = json!({"kind": "ClusterServiceVersion", "metadata": {"name": "x.v1"}, "spec": null});
    let mut builder = Builder::default();
    let labels = json!({
        "operators.operatorframework.io.bundle.manifests.v1": "/deep/down/",
        "operators.operatorframework.io.bundle.metadata.v1": "../out",
        "operators.operatorframework.io.bundle.package.v1": " x-operator ",
    });
    let files = [("deep/down/x.json", csv.to_string())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let bundle = add_image(&mut builder, &labels, &[layer(&files)]);
    let spec = format!("artifact: '{BUNDLE}'");
    let contents = read(&package(&builder, &spec, &[(BUNDLE, &bundle)])).unwrap();
    assert_eq!(contents.description_problem, None);
    assert_eq!(operator(&contents).csv_name.as_deref(), Some("x.v1"));
    assert_eq!(operator(&contents).package.as_deref(), Some("x-operator"));
}

fn csv_layer(text: &str) -> Vec<u8> {
    layer(&[("manifests/csv.yaml", text)])
}

/// Asserts that the image is described no further than this, and that nothing else comes of it.
fn assert_problems(cases: &[(&str, Vec<u8>, &str)]) {
    for (name, layer, code) in cases {
        let bytes = bundle_package(std::slice::from_ref(layer));
        assert_eq!(problem(&bytes), *code, "{name}");
    }
}

#[test]
fn layers_that_are_damaged_or_hostile_are_told_apart_and_their_images_are_kept() {
    let bomb = tar_of(&[file("x", vec![0; 65 << 20])]);
    let mut wrong_sum = tar_of(&[file("manifests/csv.yaml", CSV)]);
    wrong_sum[0] ^= 1;
    let whole = csv_layer(CSV);
    let many: Vec<Raw> = (0..10_001)
        .map(|number| file(&format!("manifests/{number}"), ""))
        .collect();
    let name = entry(b'L', b"././@LongLink", &vec![b'x'; 1 << 20]);
    let zstd_bomb = zstd::encode_all(bomb.as_slice(), 3).unwrap();
    let sparse = entry(b'S', b"x", b"");
    assert_problems(&[
        ("bomb", gzip(&bomb), "layers-unpacked-too-large"),
        ("bomb-of-zstd", zstd_bomb, "layers-unpacked-too-large"),
        ("no-archive", vec![b'x'; 2000], "layer-corrupt"),
        ("wrong-sum", gzip(&wrong_sum), "layer-corrupt"),
        ("cut", whole[..whole.len() / 2].to_vec(), "layer-corrupt"),
        ("cut-in-header", vec![0; 300], "layer-corrupt"),
        ("empty", vec![], "csv-absent"),
        ("many-entries", gzip(&tar_of(&many)), "layer-entries"),
        ("endless-name", gzip(&tar_of(&[name])), "layer-corrupt"),
        ("sparse", gzip(&tar_of(&[sparse])), "layer-corrupt"),
    ]);
    let small = Limits {
        bundle_bytes_max: 100,
        ..Limits::default()
    };
    let bytes = bundle_package(&[whole]);
    assert_eq!(problem_with(&bytes, &small), "layers-too-large");
}

#[test]
fn documents_that_are_damaged_or_hostile_are_told_apart_and_their_images_are_kept() {
    let aliases = format!("{CSV}  x: &x [1]\n  y: *x\n");
    let deep = format!("{CSV}  x: {}{}\n", "[".repeat(100), "]".repeat(100));
    let deep_json = format!(
        "{{\"kind\": \"ClusterServiceVersion\", \"x\": {}",
        "[".repeat(4000)
    );
    let giant = format!("{CSV}#{}", "x".repeat(4 << 20));
    let large = format!("{CSV}#{}", "x".repeat(3_900_000));
    let five: Vec<Raw> = (0..5)
        .map(|number| file(&format!("manifests/{number}.yaml"), large.as_str()))
        .collect();
    let two = [("manifests/a.yaml", CSV), ("manifests/b.yaml", CSV)];
    let annotated = [
        ("manifests/a.yaml", CSV),
        ("metadata/annotations.yaml", "[]"),
    ];
    let wrong_shape = "kind: ClusterServiceVersion\nspec: [1]";
    let other_kind = "kind: Service # ClusterServiceVersion";
    assert_problems(&[
        ("giant-csv", csv_layer(&giant), "file-too-large"),
        ("many-large-files", gzip(&tar_of(&five)), "files-too-large"),
        ("aliases", csv_layer(&aliases), "file-invalid"),
        ("deep", csv_layer(&deep), "file-invalid"),
        ("deep-json", csv_layer(&deep_json), "file-invalid"),
        (
            "no-yaml",
            csv_layer("kind: ClusterServiceVersion\n{"),
            "file-invalid",
        ),
        ("wrong-shape", csv_layer(wrong_shape), "file-invalid"),
        ("no-csv", csv_layer(other_kind), "csv-absent"),
        ("two-csvs", layer(&two), "several-csvs"),
        (
            "annotations-of-another-shape",
            layer(&annotated),
            "file-invalid",
        ),
    ]);
}

#[test]
fn texts_come_out_on_one_line_and_bounded() {
    let name = "x".repeat(5000);
    let csv = format!(
        "kind: ClusterServiceVersion\nspec: {{displayName: \" Red\\nis\\x1b[31m \", version: '{name}', \
         relatedImages: [{{image: ''}}, {{}}]}}"
    );
    let contents = read(&bundle_package(&[layer(&[("manifests/csv.yaml", &csv)])])).unwrap();
    assert_eq!(
        operator(&contents).display_name.as_deref(),
        Some("Red is [31m")
    );
    assert_eq!(operator(&contents).version.as_ref().unwrap().len(), 1000);
    assert!(operator(&contents).related_images.is_empty());
    assert_eq!(contents.name.unwrap().as_str(), "redis-by-label");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_never_panics_and_never_costs_the_images(
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_compressed in any::<bool>(),
    ) {
        let mut bytes = tar_of(&[
            file("manifests/csv.yaml", CSV),
            file(&format!("manifests/{}.yaml", "x".repeat(150)), "kind: X"),
            file("metadata/annotations.yaml", ANNOTATIONS),
        ]);
        if is_compressed {
            bytes = gzip(&bytes);
        }
        let position = position.index(bytes.len());
        bytes[position] = byte;
        problem(&bundle_package(&[bytes]));
    }
}
