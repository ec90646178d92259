//! Docker-archives: images without manifests.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::builder::{
    MemorySink, Raw, code_of, code_with, entry, file, gzip, operator_package, read, read_into,
    tar_of, tgz_of,
};
use crate::base::Digest;
use crate::base::oci::{MEDIA_TYPE_CONFIG, Manifest as OciManifest};
use crate::package::Limits;

const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

fn layer(seed: &str) -> Vec<u8> {
    tar_of(&[file(seed, seed)])
}

fn config(layers: &[&Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({"os": "linux", "architecture": "arm64",
           "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

fn list(config: &str, tags: &Value, layers: &[&str]) -> Value {
    json!({"Config": config, "RepoTags": tags, "Layers": layers})
}

fn link(path: &str, target: &str) -> Raw {
    Raw {
        // `builder::encode` writes no link names: an extension header has it.
        ..entry(b'2', path.as_bytes(), target.as_bytes())
    }
}

/// Returns entries in which links are written as GNU tar does with long ones.
fn tar_with_links(files: &[Raw]) -> Vec<u8> {
    let entries: Vec<Raw> = files
        .iter()
        .flat_map(|raw| match raw.kind {
            b'2' => vec![
                entry(b'K', b"././@LongLink", &[&raw.content[..], b"\0"].concat()),
                entry(b'2', &raw.name, b""),
            ],
            _ => vec![raw.clone()],
        })
        .collect();
    tar_of(&entries)
}

/// Returns the files of `docker save` before version 25, of one image whose two last layers are equal.
fn old_docker() -> Vec<Raw> {
    let (base, top) = (layer("base"), layer("top"));
    let config = config(&[&base, &top, &top]);
    let id = |digit: &str| digit.repeat(64);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let paths = ["a", "b", "c"].map(|digit| format!("{}/layer.tar", id(digit)));
    let names = [paths[0].as_str(), &paths[1], &paths[2]];
    let list = json!([list(
        &config_name,
        &json!(["team/app:v1", "registry.example/team/app:v2"]),
        &names
    )]);
    let mut files = vec![
        file(&paths[0], base),
        file(&paths[1], top),
        link(&paths[2], &format!("../{}/layer.tar", id("b"))),
        file(&config_name, config),
        file("manifest.json", list.to_string()),
        file("repositories", "{}"),
    ];
    for digit in ["a", "b", "c"] {
        files.push(file(&format!("{}/VERSION", id(digit)), "1.0"));
        files.push(file(&format!("{}/json", id(digit)), "{}"));
    }
    files
}

#[test]
fn an_old_docker_save_becomes_a_valid_image_that_keeps_its_configuration() {
    let mut sink = MemorySink::default();
    let unpacked = read_into(&mut sink, &tar_with_links(&old_docker())).unwrap();
    let contents = unpacked.package.unwrap();
    let names: Vec<String> = contents
        .images
        .iter()
        .map(|image| image.reference.to_string())
        .collect();
    assert_eq!(
        names,
        ["docker.io/team/app:v1", "registry.example/team/app:v2"]
    );
    assert_eq!(contents.platforms[0].as_str(), "linux/arm64");
    let image = &contents.images[0].descriptor;
    let (
        OciManifest::Image {
            config: found,
            layers,
            ..
        },
        media_type,
    ) = OciManifest::parse(&sink.blobs[&image.digest]).unwrap()
    else {
        panic!("expected an image");
    };
    assert_eq!(media_type, image.media_type);
    let (base, top) = (layer("base"), layer("top"));
    assert_eq!(found.digest, Digest::of(&config(&[&base, &top, &top])));
    assert_eq!(found.media_type, MEDIA_TYPE_CONFIG);
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.descriptor.digest).collect();
    assert_eq!(
        digests,
        [Digest::of(&base), Digest::of(&top), Digest::of(&top)]
    );
    assert!(
        layers
            .iter()
            .all(|layer| layer.descriptor.media_type == LAYER_MEDIA_TYPE)
    );
    assert_eq!(
        contents.blobs.len(),
        4,
        "manifest, configuration, two layers"
    );
}

#[test]
fn the_manifest_of_a_docker_archive_is_golden() {
    let mut sink = MemorySink::default();
    let unpacked = read_into(&mut sink, &tar_with_links(&old_docker())).unwrap();
    let contents = unpacked.package.unwrap();
    let manifest = &sink.blobs[&contents.images[0].descriptor.digest];
    insta::assert_snapshot!(String::from_utf8_lossy(manifest), @r#"{"config":{"digest":"sha256:48e26dae37d45d237f9f108d34b7a62ec0f387183f460ff3ce8732a3a885caee","mediaType":"application/vnd.oci.image.config.v1+json","size":299},"layers":[{"digest":"sha256:f7032a33e8ae47aa321f803b1a790a1f1cf86155a7b73ca75a3b0ad49326a27e","mediaType":"application/vnd.oci.image.layer.v1.tar","size":2048},{"digest":"sha256:6b624d0ae0b063c711253fd16b18ead1be3ee0bc983149e679a0a0dbb3cc98b7","mediaType":"application/vnd.oci.image.layer.v1.tar","size":2048},{"digest":"sha256:6b624d0ae0b063c711253fd16b18ead1be3ee0bc983149e679a0a0dbb3cc98b7","mediaType":"application/vnd.oci.image.layer.v1.tar","size":2048}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#);
}

#[test]
fn an_oci_layout_beside_the_list_counts() {
    let (_, files) = operator_package();
    let expected = read(&tgz_of(&files)).unwrap();
    let list = json!([list("blobs/sha256/x", &json!(["a:1"]), &["nowhere"])]);
    let both = [files, vec![file("manifest.json", list.to_string())]].concat();
    assert_eq!(read(&tgz_of(&both)).unwrap(), expected);
}

#[test]
fn an_image_without_tags_is_named_by_the_package_manifest_or_refused() {
    let base = layer("base");
    let config = config(&[&base]);
    let (config_name, layer_name) = (
        format!("{}.json", Digest::of(&config).hex()),
        format!("{}.tar", Digest::of(&base).hex()),
    );
    let list = json!([list(&config_name, &Value::Null, &[&layer_name])]);
    let mut files = vec![
        file(&format!("images/{layer_name}"), base),
        file(&format!("images/{config_name}"), config),
        file("images/manifest.json", list.to_string()),
    ];
    assert_eq!(code_of(&tgz_of(&files)), "unnamed-image");
    files.push(file(
        "manifest.yaml",
        "kind: PackageManifest\nspec: {relatedImages: ['registry.example/a/b:1']}\n",
    ));
    let contents = read(&tgz_of(&files)).unwrap();
    assert_eq!(
        contents.images[0].reference.to_string(),
        "registry.example/a/b:1"
    );
}

/// Returns where the first file is whose name ends like this.
fn position_of(files: &[Raw], end: &str) -> usize {
    let ends = |raw: &Raw| raw.name.ends_with(end.as_bytes());
    files.iter().position(ends).unwrap()
}

/// Returns [`old_docker`] with the file whose name ends like this replaced, or left out.
fn old_docker_with(end: &str, replacement: Option<Raw>) -> Vec<u8> {
    let mut files = old_docker();
    let position = position_of(&files, end);
    files.splice(position..=position, replacement);
    tar_with_links(&files)
}

/// Returns the path of a layer of [`old_docker`]; the third is a link to the second.
fn layer_path(digit: &str) -> String {
    format!("{}/layer.tar", digit.repeat(64))
}

#[test]
fn links_lead_from_one_layer_to_the_file_of_another_and_nowhere_else() {
    let third = layer_path("c");
    let with = |path: &str, target: &str| old_docker_with(&third, Some(link(path, target)));
    for bytes in [
        old_docker_with(&layer_path("b"), None),
        old_docker_with("manifest.json", None),
        with(&third, "/etc/passwd"),
        with(&third, "../../layer.tar"),
        with(&third, "../manifest.json"),
        with(&third, &format!("../{third}")),
        with("link", &layer_path("b")),
    ] {
        assert_eq!(code_of(&bytes), "symbolic-link");
    }
    // Outside of the folder that the docker-archive is in.
    let mut files = old_docker();
    for raw in &mut files {
        raw.name = [b"images/", &raw.name[..]].concat();
    }
    assert_eq!(code_of(&tar_with_links(&files)), "none");
    files.push(link(&third, &format!("images/{}", layer_path("b"))));
    assert_eq!(code_of(&tar_with_links(&files)), "symbolic-link");
}

#[test]
fn damaged_docker_archives_are_refused_each_with_its_code() {
    let files = old_docker();
    let text = |end: &str| {
        let content = files[position_of(&files, end)].content.clone();
        String::from_utf8(content).unwrap()
    };
    let (first, third) = (layer_path("a"), layer_path("c"));
    let list = text("manifest.json");
    let configuration = format!("{}.json", Digest::of(text(".json").as_bytes()).hex());
    let with = |path: &str, content: String| old_docker_with(path, Some(file(path, content)));
    for (code, bytes) in [
        ("docker-file-absent", old_docker_with(&first, None)),
        ("docker-file-absent", old_docker_with(&third, None)),
        ("docker-file-absent", old_docker_with(&configuration, None)),
        ("diff-id-mismatch", with(&first, "other".to_owned())),
        (
            "layer-count",
            with("manifest.json", list.replace(&format!("\"{first}\","), "")),
        ),
        ("metadata-invalid", with(&configuration, "{}".to_owned())),
        (
            "image-name",
            with("manifest.json", list.replace("team/app:v1", "UPPER CASE")),
        ),
    ] {
        assert_eq!(code_of(&bytes), code);
    }
    let limits = Limits {
        manifest_bytes_max: 100,
        ..Limits::default()
    };
    assert_eq!(
        code_with(&tar_with_links(&files), &limits),
        "config-too-large"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_files_plays_no_part(files in Just(old_docker()).prop_shuffle()) {
        let expected = read(&tar_with_links(&old_docker())).unwrap();
        prop_assert_eq!(read(&tar_with_links(&files)).unwrap(), expected);
    }
}

/// Returns the files of an archive as `crane` and `kaniko` write it, of one image of these compressed layers.
fn crane(contents: &[&Vec<u8>], layers: &[Vec<u8>]) -> Vec<Raw> {
    let config = config(contents);
    let config_name = Digest::of(&config).to_string();
    let names: Vec<String> = layers
        .iter()
        .map(|layer| format!("{}.tar.gz", Digest::of(layer).hex()))
        .collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let list = json!([list(&config_name, &json!(["team/app:v1"]), &refs)]);
    let mut files = vec![file(&config_name, config)];
    files.extend(
        names
            .iter()
            .zip(layers)
            .map(|(name, layer)| file(name, layer.clone())),
    );
    files.push(file("manifest.json", list.to_string()));
    files
}

#[test]
fn compressed_layers_are_kept_as_they_are_and_checked_by_what_they_hold() {
    let (base, top) = (layer("base"), layer("top"));
    // One layer of several members, as formats that can be read in pieces have it.
    let members = [gzip(&top[..700]), gzip(b""), gzip(&top[700..])].concat();
    let layers = [gzip(&base), members, top.clone()];
    let files = crane(&[&base, &top, &top], &layers);
    let mut reversed = files.clone();
    reversed.reverse();
    let mut manifests = Vec::new();
    for files in [&files, &reversed] {
        let mut sink = MemorySink::default();
        let unpacked = read_into(&mut sink, &tgz_of(files)).unwrap();
        let contents = unpacked.package.unwrap();
        let image = &contents.images[0];
        assert_eq!(image.reference.to_string(), "docker.io/team/app:v1");
        let (manifest, _) = OciManifest::parse(&sink.blobs[&image.descriptor.digest]).unwrap();
        let kinds: Vec<(String, Digest)> = manifest
            .blobs()
            .skip(1)
            .map(|blob| (blob.media_type.clone(), blob.digest))
            .collect();
        let compressed = format!("{LAYER_MEDIA_TYPE}+gzip");
        let expected = [&compressed, &compressed, LAYER_MEDIA_TYPE].map(str::to_owned);
        let digests = layers.each_ref().map(|layer| Digest::of(layer));
        assert_eq!(kinds, expected.into_iter().zip(digests).collect::<Vec<_>>());
        for layer in &layers {
            assert_eq!(&sink.blobs[&Digest::of(layer)], layer);
        }
        manifests.push(image.descriptor.digest);
    }
    assert_eq!(manifests[0], manifests[1]);
}

#[test]
fn compressed_layers_that_are_damaged_foreign_or_bombs_are_refused_each_with_its_code() {
    let (base, top) = (layer("base"), layer("top"));
    let whole = gzip(&base);
    let mut flipped = whole.clone();
    let sum = flipped.len() - 8;
    flipped[sum] ^= 1;
    let many = [whole.clone(), gzip(b"").repeat(100_000)].concat();
    for (code, layer) in [
        ("none", whole.clone()),
        ("diff-id-mismatch", gzip(&top)),
        ("diff-id-mismatch", b"neither tar nor gzip".to_vec()),
        ("gzip-corrupt", flipped),
        ("gzip-corrupt", whole[..whole.len() - 1].to_vec()),
        ("gzip-corrupt", [&whole[..], b"more"].concat()),
        ("expansion-ratio", gzip(&vec![0; 100 << 20])),
        ("expansion-ratio", many),
    ] {
        assert_eq!(code_of(&tar_of(&crane(&[&base], &[layer]))), code);
    }
    // Without a list it is some file, whatever it is called.
    let (_, mut files) = operator_package();
    files.push(file(&format!("{}.tar.gz", "ab".repeat(32)), gzip(&base)));
    read(&tgz_of(&files)).unwrap();
}

#[test]
fn tags_count_as_images_and_their_number_is_bounded() {
    let config = config(&[]);
    let tags: Vec<String> = (0..1000).map(|tag| format!("a:{tag}")).collect();
    let list = json!([list("layer.tar", &json!(tags), &[])]);
    let bytes = tar_of(&[
        file("layer.tar", config),
        file("manifest.json", list.to_string()),
    ]);
    let limits = Limits::default();
    assert_eq!(code_with(&bytes, &limits), "none");
    let images_max = 999;
    let few_images = Limits {
        images_max,
        ..limits
    };
    assert_eq!(code_with(&bytes, &few_images), "too-many-images");
    // The text of the list has 8 KB.
    let little_memory = Limits {
        metadata_total_bytes_max: 32 << 10,
        ..limits
    };
    assert_eq!(
        code_with(&bytes, &little_memory),
        "metadata-total-too-large"
    );
}
