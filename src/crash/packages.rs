//! Packages of a few hundred bytes.

use std::collections::BTreeMap;

use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use crate::package::{Image, Manifest, WriteOptions, Writer};

/// Returns a package of one image with these layers. Layers that packages have in common are the same blobs.
pub(super) fn package_of(reference: &str, layers: &[&str]) -> Vec<u8> {
    write_package(&Manifest::default(), reference, layers)
}

/// Returns such a package that says its name and its version.
pub(super) fn release_of((name, version): (&str, &str), layers: &[&str]) -> Vec<u8> {
    let manifest = Manifest {
        name: Some(name.parse().unwrap()),
        version: Some(version.to_owned()),
        ..Manifest::default()
    };
    let reference = format!("registry.example/a/{name}:{version}");
    write_package(&manifest, &reference, layers)
}

fn write_package(about: &Manifest, reference: &str, layers: &[&str]) -> Vec<u8> {
    let mut blobs = BTreeMap::new();
    let mut put = |media_type: &str, content: &str| {
        let descriptor = Descriptor::of(media_type, content.as_bytes());
        blobs.insert(descriptor.digest, content.as_bytes().to_vec());
        descriptor
    };
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64", "config": {"Labels": {"own": reference}},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = put(MEDIA_TYPE_CONFIG, &config.to_string());
    let layers = layers.iter();
    let layers: Vec<Descriptor> = layers
        .map(|layer| put("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": layers,
    });
    let image = Image {
        reference: reference.parse().unwrap(),
        descriptor: put(MEDIA_TYPE_MANIFEST, &manifest.to_string()),
    };
    let options = WriteOptions::default();
    let mut writer = Writer::create(Vec::new(), about, &[image], options).unwrap();
    for (digest, content) in &blobs {
        let size_bytes = content.len() as u64;
        writer
            .add_blob(digest, size_bytes, &mut content.as_slice())
            .unwrap();
    }
    writer.finish().unwrap()
}
