//! Which images packages hold, under which names, and whether they are whole.

use std::collections::BTreeSet;

use serde_json::json;

use super::builder::{
    Builder, MANIFEST, MEDIA_TYPE_LAYER, MemorySink, Raw, code_of, code_with, file,
    operator_package, read, read_into, tar_of, tgz_of,
};
use crate::base::oci::{
    Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST,
};
use crate::base::{Chain, Class, Classified, Digest, PackageKind};
use crate::package::{Contents, Limits};

/// Returns the package manifest of a plugin that holds nothing else.
const LIGHT: &str = "kind: PackageManifest\nmetadata: {name: logs}\nspec:\n  type: plugin\n  \
                     platforms: [linux/amd64]\n  relatedImages: ['registry.example/a/b:1']\n";
const PLUGIN: &str = "kind: ModulePlugin\nmetadata: {name: log-center}\n";

fn names(contents: &Contents) -> Vec<String> {
    contents
        .images
        .iter()
        .map(|image| image.reference.to_string())
        .collect()
}

#[test]
fn an_operator_package_is_read_with_all_its_facts() {
    let (builder, files) = operator_package();
    for bytes in [tgz_of(&files), tar_of(&files)] {
        let contents = read(&bytes).unwrap();
        assert_eq!(contents.kind, PackageKind::Operator);
        assert_eq!(contents.name.as_ref().unwrap().as_str(), "redis-operator");
        assert_eq!(contents.version.as_deref(), Some("v1.2.3"));
        assert_eq!(
            names(&contents),
            [
                "registry.example/ops/redis:7",
                "registry.example/ops/redis-operator-bundle:v1.2.3",
            ]
        );
        let platforms: Vec<&str> = contents.platforms.iter().map(AsRef::as_ref).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        assert_eq!(contents.images[0].descriptor.media_type, MEDIA_TYPE_INDEX);
        let expected: Vec<_> = builder
            .blobs
            .iter()
            .map(|(d, c)| (*d, c.len() as u64))
            .collect();
        assert_eq!(contents.blobs.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn layouts_are_found_in_any_folder_and_complete_their_names() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    // A bare tag in a folder: the folder is the repository.
    let contents = read(&tgz_of(
        &builder.layout("images/redis/", &[(Some("7"), &image)]),
    ))
    .unwrap();
    assert_eq!(names(&contents), ["redis:7"]);
    assert_eq!(contents.kind, PackageKind::Images);
    assert_eq!(
        contents.platforms[0].as_str(),
        "linux/amd64",
        "from the configuration"
    );
    // The package manifest knows better.
    let mut files = builder.layout("images/redis/", &[(Some("7"), &image)]);
    files.push(file(
        "package/manifest.yaml",
        "kind: PackageManifest\nspec: {relatedImages: ['registry.example/ops/redis:7']}",
    ));
    assert_eq!(
        names(&read(&tgz_of(&files)).unwrap()),
        ["registry.example/ops/redis:7"]
    );
    // Nothing knows it at the root.
    let files = builder.layout("", &[(Some("7"), &image)]);
    assert_eq!(code_of(&tgz_of(&files)), "unnamed-image");
    let files = builder.layout("", &[(None, &image)]);
    assert_eq!(code_of(&tgz_of(&files)), "unnamed-image");
    // A digest pinned in the manifest names what has no name.
    let mut files = builder.layout("", &[(None, &image)]);
    let pinned = format!("registry.example/a/b@{}", image.digest);
    files.push(file(
        "manifest.yaml",
        format!("kind: PackageManifest\nspec: {{relatedImages: ['{pinned}']}}"),
    ));
    assert_eq!(names(&read(&tgz_of(&files)).unwrap()), [pinned]);
    // What has no name but is a part of another image needs none.
    let multi = builder.multi("x");
    let files = builder.layout("", &[(Some("a/b:1"), &multi), (None, &image)]);
    assert_eq!(read(&tgz_of(&files)).unwrap().images.len(), 1);
}

#[test]
fn several_layouts_share_one_pool_of_blobs() {
    let mut builder = Builder::default();
    let (one, two) = (builder.image("one", "amd64"), builder.image("two", "arm64"));
    let mut files = builder.layout("one/", &[(Some("1"), &one)]);
    files.extend(builder.layout("two/", &[(Some("2"), &two)]));
    let mut sink = MemorySink::default();
    let unpacked = read_into(&mut sink, &tgz_of(&files)).unwrap();
    let contents = unpacked.package.unwrap();
    assert_eq!(names(&contents), ["one:1", "two:2"]);
    assert_eq!(sink.blobs, builder.blobs, "each blob once");
}

#[test]
fn a_registry_tree_is_read_without_host_and_with_the_manifests_names() {
    let mut builder = Builder::default();
    let (one, two) = (builder.multi("one"), builder.image("two", "amd64"));
    for folder in ["", "./res/registry/"] {
        let mut files = builder.tree(folder, &[("asm/one", "v1", &one), ("two", "v2", &two)]);
        files.push(file("res/resources.yaml", PLUGIN));
        let contents = read(&tgz_of(&files)).unwrap();
        assert_eq!(names(&contents), ["asm/one:v1", "two:v2"]);
        assert_eq!(contents.images[0].descriptor, one);
        assert_eq!(contents.kind, PackageKind::Plugin);
        assert_eq!(contents.name.as_ref().unwrap().as_str(), "log-center");
        assert_eq!(contents.resources.len(), 1);
        files.push(file(
            "manifest.yaml",
            "kind: PackageManifest\nspec: {relatedImages: ['registry.example/asm/one:v1']}",
        ));
        assert_eq!(
            names(&read(&tgz_of(&files)).unwrap()),
            ["two:v2", "registry.example/asm/one:v1"]
        );
    }
    let files = builder.tree("", &[("a", "v1", &one)]);
    let without_index: Vec<Raw> = files
        .into_iter()
        .filter(|file| !String::from_utf8_lossy(&file.name).contains(&one.digest.hex()))
        .collect();
    assert_eq!(code_of(&tgz_of(&without_index)), "missing-blob");
    let bad = file(
        "docker/registry/v2/repositories/a/_manifests/tags/v/current/link",
        "x",
    );
    assert_eq!(code_of(&tgz_of(&[bad])), "tag-link");
}

#[test]
fn a_chart_is_an_image_and_known_by_its_configuration() {
    let mut builder = Builder::default();
    let config = builder.blob(
        "application/vnd.cncf.helm.config.v1+json",
        r#"{"name":"c"}"#,
    );
    let layer = builder.blob(
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "chart",
    );
    let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST,
                          "config": config, "layers": [layer]});
    let chart = builder.json(MEDIA_TYPE_MANIFEST, &manifest);
    let mut files = builder.layout("", &[(Some("registry.example/charts/c:1"), &chart)]);
    files.push(file(
        "manifest.yaml",
        "kind: PackageManifest\nspec: {artifact: 'registry.example/charts/c:1'}",
    ));
    let contents = read(&tgz_of(&files)).unwrap();
    assert_eq!(contents.kind, PackageKind::Chart);
    assert_eq!(contents.name.unwrap().as_str(), "c");
    assert!(contents.platforms.is_empty());
}

#[test]
fn a_light_package_needs_a_manifest_and_a_type_that_makes_sense() {
    let contents = read(&tgz_of(&[
        file("manifest.yaml", LIGHT),
        file("moduleplugin.yaml", PLUGIN),
    ]))
    .unwrap();
    assert_eq!(contents.kind, PackageKind::Plugin);
    assert_eq!(contents.name.unwrap().as_str(), "logs");
    assert_eq!(contents.platforms.len(), 1);
    let images = LIGHT.replace("plugin", "images");
    assert_eq!(code_of(&tgz_of(&[file("manifest.yaml", images)])), "empty");
    assert_eq!(
        code_of(&tgz_of(&[file("moduleplugin.yaml", PLUGIN)])),
        "empty"
    );
    assert_eq!(code_of(&tgz_of(&[file("README", "nothing")])), "empty");
    assert_eq!(code_of(&tgz_of(&[])), "empty");
}

/// Returns the code for a package of one image whose manifest is made by `make`.
fn code_of_image(make: impl FnOnce(&mut Builder) -> Descriptor) -> &'static str {
    let mut builder = Builder::default();
    let image = make(&mut builder);
    code_of(&tgz_of(&builder.layout("", &[(Some("a/b:1"), &image)])))
}

#[test]
fn incomplete_and_contradictory_images_are_refused_each_with_its_code() {
    let missing = |media_type: &str| Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(b"elsewhere"),
        size_bytes: 9,
    };
    let manifest = |config: &Descriptor, layer: &Descriptor| json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": [layer]});
    assert_eq!(
        code_of_image(|_| missing(MEDIA_TYPE_MANIFEST)),
        "missing-blob"
    );
    assert_eq!(
        code_of_image(|b| b.index(&[(missing(MEDIA_TYPE_MANIFEST), "amd64")])),
        "missing-blob"
    );
    assert_eq!(
        code_of_image(|b| {
            let config = b.blob(MEDIA_TYPE_CONFIG, "{}");
            b.json(
                MEDIA_TYPE_MANIFEST,
                &manifest(&config, &missing(MEDIA_TYPE_LAYER)),
            )
        }),
        "missing-blob"
    );
    assert_eq!(
        code_of_image(|b| {
            let config = b.blob(MEDIA_TYPE_CONFIG, "{}");
            let layer = Descriptor {
                size_bytes: 4,
                ..b.blob(MEDIA_TYPE_LAYER, "layer")
            };
            b.json(MEDIA_TYPE_MANIFEST, &manifest(&config, &layer))
        }),
        "size-mismatch"
    );
    assert_eq!(
        code_of_image(|b| Descriptor {
            size_bytes: 3,
            ..b.image("x", "amd64")
        }),
        "size-mismatch"
    );
    assert_eq!(
        code_of_image(|b| Descriptor {
            media_type: MEDIA_TYPE_DOCKER_LIST.to_owned(),
            ..b.image("x", "amd64")
        }),
        "media-type-mismatch"
    );
    assert_eq!(
        code_of_image(|b| b.blob(MEDIA_TYPE_MANIFEST, r#"{"schemaVersion":2}"#)),
        "manifest-invalid"
    );
    assert_eq!(
        code_of_image(|b| {
            let mut image = b.image("x", "amd64");
            for _ in 0..5 {
                image = b.index(&[(image, "amd64")]);
            }
            image
        }),
        "nesting-too-deep"
    );
}

#[test]
fn the_deepest_path_counts_even_where_manifests_are_shared() {
    let mut builder = Builder::default();
    let mut chain = vec![builder.image("x", "amd64")];
    for level in 0..4 {
        let index = builder.index(&[(chain[level].clone(), "amd64")]);
        chain.push(index);
    }
    // Every level is reached as an image of its own before the deepest one is.
    let names: Vec<String> = (0..5).map(|level| format!("a/b:{level}")).collect();
    let images: Vec<_> = names
        .iter()
        .map(|name| Some(name.as_str()))
        .zip(&chain)
        .collect();
    read(&tgz_of(&builder.layout("", &images))).unwrap();
    let limits = Limits {
        nesting_max: 3,
        ..Limits::default()
    };
    assert_eq!(
        code_with(&tgz_of(&builder.layout("", &images)), &limits),
        "nesting-too-deep"
    );
}

#[test]
fn names_that_differ_by_their_host_cannot_stand_for_two_images() {
    let mut builder = Builder::default();
    let (one, two) = (builder.image("one", "amd64"), builder.image("two", "amd64"));
    let of = |builder: &Builder, second: &Descriptor| {
        let images = [
            (Some("a.example/x/y:1"), &one),
            (Some("b.example/x/y:1"), second),
        ];
        code_of(&tgz_of(&builder.layout("", &images)))
    };
    assert_eq!(of(&builder, &two), "conflicting-images");
    assert_eq!(of(&builder, &one), "none");
}

#[test]
fn foreign_layers_need_not_be_there_and_other_layers_must_wherever_else_they_are() {
    let code = |media_type: &str| {
        code_of_image(|b| {
            let config = b.blob(MEDIA_TYPE_CONFIG, "{}");
            let layer = json!({"mediaType": media_type, "digest": Digest::of(b"f"), "size": 1,
                "urls": ["http://127.0.0.1"]});
            let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config,
                "layers": [layer]});
            b.json(MEDIA_TYPE_MANIFEST, &manifest)
        })
    };
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    assert_eq!(code(foreign), "none");
    assert_eq!(code(MEDIA_TYPE_LAYER), "missing-blob");
}

#[test]
fn foreign_layers_that_come_along_must_be_what_the_manifest_says() {
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let files = |size_bytes: u64, is_there: bool| {
        let mut builder = Builder::default();
        let config = builder.blob(MEDIA_TYPE_CONFIG, "{}");
        let layer = builder.blob(foreign, "layer");
        let mut entry = json!(layer);
        entry["size"] = size_bytes.into();
        entry["urls"] = json!(["http://127.0.0.1"]);
        let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config,
            "layers": [entry]});
        let image = builder.json(MEDIA_TYPE_MANIFEST, &manifest);
        let mut files = builder.layout("", &[(Some("a/b:1"), &image)]);
        let name = format!("blobs/sha256/{}", layer.digest.hex());
        files.retain(|file| is_there || file.name != name.as_bytes());
        (layer.digest, files)
    };
    let (layer, with) = files(5, true);
    let contents = read(&tgz_of(&with)).unwrap();
    assert_eq!(contents.foreign, BTreeSet::from([layer]));
    assert_eq!(contents.blobs[&layer], 5);
    let contents = read(&tgz_of(&files(5, false).1)).unwrap();
    assert!(contents.foreign.is_empty());
    assert!(!contents.blobs.contains_key(&layer));
    assert_eq!(code_of(&tgz_of(&files(6, true).1)), "size-mismatch");
}

#[test]
fn names_that_contradict_are_refused() {
    let mut builder = Builder::default();
    let (one, two) = (builder.image("one", "amd64"), builder.image("two", "amd64"));
    let mut files = builder.layout("x/", &[(Some("a/b:1"), &one)]);
    files.extend(builder.layout("y/", &[(Some("a/b:1"), &two)]));
    assert_eq!(code_of(&tgz_of(&files)), "conflicting-images");
    let pinned = format!("a/b@{}", two.digest);
    let files = builder.layout("", &[(Some(pinned.as_str()), &one)]);
    assert_eq!(code_of(&tgz_of(&files)), "pinned-digest");
    let files = builder.layout("", &[(Some("a/B:1"), &one)]);
    assert_eq!(code_of(&tgz_of(&files)), "image-name");
}

#[test]
fn what_the_manifest_names_must_be_there() {
    let (_, files) = operator_package();
    let named = |name: &str| {
        let mut files = files.clone();
        files[0] = file("manifest.yaml", format!("{MANIFEST}  - {name}\n"));
        code_of(&tgz_of(&files))
    };
    assert_eq!(named("registry.example/ops/redis:8"), "image-not-included");
    assert_eq!(
        named("other.example/ops/redis:7"),
        "none",
        "the host plays no part"
    );
    let absent = Digest::of(b"elsewhere");
    assert_eq!(
        named(&format!("registry.example/a@{absent}")),
        "image-not-included"
    );
}

#[test]
fn content_without_an_image_is_refused() {
    let (builder, _) = operator_package();
    assert_eq!(
        code_of(&tgz_of(&builder.blob_files("blobs/sha256/", ""))),
        "unindexed-blobs"
    );
    let mut light = builder.blob_files("blobs/sha256/", "");
    light.push(file("manifest.yaml", LIGHT));
    assert_eq!(code_of(&tgz_of(&light)), "unindexed-blobs");
    let docker = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]"#;
    let error = read(&tgz_of(&[
        file("manifest.json", docker),
        file("c.json", "{}"),
    ]))
    .unwrap_err();
    assert_eq!(error.class(), Class::Rejected);
    assert!(error.hint().unwrap().contains("skopeo"));
    assert!(
        Chain(&error).to_string().contains("docker-archive"),
        "{error}"
    );
}
