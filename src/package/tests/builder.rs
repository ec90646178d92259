//! Packages made in memory, well-formed and not, for the tests of this module.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Cursor, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::base::Digest;
use crate::base::oci::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_INDEX,
    MEDIA_TYPE_MANIFEST,
};
use crate::package::{
    Contents, DiscardError, DiscardSink, Error, Limits, Sink, UnpackError, Unpacked, unpack,
};

pub(super) const MEDIA_TYPE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One raw tar entry.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) name: Vec<u8>,
    pub(super) kind: u8,
    pub(super) content: Vec<u8>,
}

pub(super) fn file(name: &str, content: impl Into<Vec<u8>>) -> Raw {
    Raw {
        name: name.as_bytes().to_vec(),
        kind: b'0',
        content: content.into(),
    }
}

pub(super) fn entry(kind: u8, name: &[u8], content: &[u8]) -> Raw {
    Raw {
        name: name.to_vec(),
        kind,
        content: content.to_vec(),
    }
}

/// Returns the header and content of an entry, padded, whatever nonsense it holds.
pub(super) fn encode(raw: &Raw) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(raw.content.len() as u64);
    let name = if raw.name.len() > 100 {
        // Too long for the header: a GNU long name comes before.
        b"long".to_vec()
    } else {
        raw.name.clone()
    };
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(&name);
    bytes[156] = raw.kind;
    header.set_cksum();
    let mut out = Vec::new();
    if raw.name.len() > 100 {
        out.extend(encode(&entry(
            b'L',
            b"././@LongLink",
            &[&raw.name[..], b"\0"].concat(),
        )));
    }
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&raw.content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub(super) fn tar_of(entries: &[Raw]) -> Vec<u8> {
    let mut out: Vec<u8> = entries.iter().flat_map(encode).collect();
    out.extend([0; 1024]);
    out
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

pub(super) fn tgz_of(entries: &[Raw]) -> Vec<u8> {
    gzip(&tar_of(entries))
}

pub(super) fn read(bytes: &[u8]) -> Result<Contents, UnpackError<DiscardError>> {
    read_with(bytes, &Limits::default())
}

pub(super) fn read_with(
    bytes: &[u8],
    limits: &Limits,
) -> Result<Contents, UnpackError<DiscardError>> {
    let unpacked = read_all_with(bytes, limits)?;
    Ok(unpacked.package.expect("the file is a package by itself"))
}

/// Reads a file with what is nested in it.
pub(super) fn read_all(bytes: &[u8]) -> Result<Unpacked, UnpackError<DiscardError>> {
    read_all_with(bytes, &Limits::default())
}

pub(super) fn read_all_with(
    bytes: &[u8],
    limits: &Limits,
) -> Result<Unpacked, UnpackError<DiscardError>> {
    unpack(
        Cursor::new(bytes.to_vec()),
        limits,
        &mut DiscardSink::default(),
    )
}

/// Reads a file into a sink that never fails.
pub(super) fn read_into(
    sink: &mut impl Sink<Error = Infallible>,
    bytes: &[u8],
) -> Result<Unpacked, Error> {
    match unpack(Cursor::new(bytes.to_vec()), &Limits::default(), sink) {
        Ok(unpacked) => Ok(unpacked),
        Err(UnpackError::Package(error)) => Err(error),
        Err(UnpackError::Sink(never)) => match never {},
    }
}

/// Returns the code of the error that reading `bytes` gives.
pub(super) fn code_of(bytes: &[u8]) -> &'static str {
    code_with(bytes, &Limits::default())
}

pub(super) fn code_with(bytes: &[u8], limits: &Limits) -> &'static str {
    match read_all_with(bytes, limits) {
        Ok(_) => "none",
        Err(UnpackError::Package(error)) => error.code(),
        Err(UnpackError::Sink(_)) => "sink",
    }
}

/// A sink that keeps everything.
#[derive(Debug, Default)]
pub(super) struct MemorySink {
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    /// What was there before.
    pub(super) base: BTreeMap<Digest, Vec<u8>>,
    current: Vec<u8>,
    is_expected: bool,
}

impl MemorySink {
    fn content(&self, digest: &Digest) -> &[u8] {
        self.blobs.get(digest).unwrap_or_else(|| &self.base[digest])
    }
}

impl Sink for MemorySink {
    type Error = Infallible;

    fn begin(&mut self, expected: Option<Digest>, _: u64) -> Result<(), Self::Error> {
        self.is_expected = expected.is_some();
        self.current.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.current.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<Digest, Self::Error> {
        let digest = Digest::of(&self.current);
        let replaced = self.blobs.insert(digest, std::mem::take(&mut self.current));
        assert!(
            replaced.is_none() || !self.is_expected,
            "each expected digest is given at most once"
        );
        Ok(digest)
    }

    fn find(&self, digest: &Digest) -> Result<Option<u64>, Self::Error> {
        Ok(self.blobs.get(digest).map(|blob| blob.len() as u64))
    }

    fn find_base(&self, digest: &Digest) -> Result<Option<u64>, Self::Error> {
        Ok(self.base.get(digest).map(|blob| blob.len() as u64))
    }

    fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, Self::Error> {
        Ok(self.content(digest).to_vec())
    }

    fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Read + '_>>, Self::Error> {
        Ok(Some(Box::new(self.content(digest))))
    }
}

/// Blobs and images of a package to be made.
#[derive(Clone, Debug, Default)]
pub(super) struct Builder {
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Builder {
    pub(super) fn blob(&mut self, media_type: &str, content: impl Into<Vec<u8>>) -> Descriptor {
        let content = content.into();
        let descriptor = Descriptor::of(media_type, &content);
        self.blobs.insert(descriptor.digest, content);
        descriptor
    }

    pub(super) fn json(&mut self, media_type: &str, value: &serde_json::Value) -> Descriptor {
        self.blob(media_type, value.to_string())
    }

    /// Makes an image of two layers, one of which all images share.
    pub(super) fn image(&mut self, seed: &str, architecture: &str) -> Descriptor {
        let config = json!({"os": "linux", "architecture": architecture, "seed": seed});
        let config = self.json(MEDIA_TYPE_CONFIG, &config);
        let base = self.blob(MEDIA_TYPE_LAYER, vec![7; 3000]);
        let top = self.blob(MEDIA_TYPE_LAYER, format!("layer of {seed} {architecture}"));
        let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST,
                              "config": config, "layers": [base, top]});
        self.json(MEDIA_TYPE_MANIFEST, &manifest)
    }

    /// Makes an index of `children`, with the platforms given.
    pub(super) fn index(&mut self, children: &[(Descriptor, &str)]) -> Descriptor {
        let entries: Vec<_> = children
            .iter()
            .map(|(child, architecture)| {
                let mut entry = serde_json::to_value(child).unwrap();
                entry["platform"] = json!({"os": "linux", "architecture": architecture});
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX,
                           "manifests": entries});
        self.json(MEDIA_TYPE_INDEX, &index)
    }

    /// Makes an index for two architectures.
    pub(super) fn multi(&mut self, seed: &str) -> Descriptor {
        let (amd64, arm64) = (self.image(seed, "amd64"), self.image(seed, "arm64"));
        self.index(&[(amd64, "amd64"), (arm64, "arm64")])
    }

    /// Returns the files of an OCI layout in `folder`; a name with a slash becomes a full name.
    pub(super) fn layout(&self, folder: &str, images: &[(Option<&str>, &Descriptor)]) -> Vec<Raw> {
        let entries: Vec<_> = images
            .iter()
            .map(|(name, descriptor)| {
                let mut entry = serde_json::to_value(descriptor).unwrap();
                if let Some(name) = name {
                    let key = if name.contains('/') {
                        ANNOTATION_IMAGE_NAME
                    } else {
                        ANNOTATION_REF_NAME
                    };
                    entry["annotations"] = json!({ key: name });
                }
                entry
            })
            .collect();
        let index = json!({"schemaVersion": 2, "manifests": entries});
        let mut files = vec![
            file(
                &format!("{folder}oci-layout"),
                r#"{"imageLayoutVersion": "1.0.0"}"#,
            ),
            file(&format!("{folder}index.json"), index.to_string()),
        ];
        files.extend(self.blob_files(&format!("{folder}blobs/sha256/"), ""));
        files
    }

    /// Returns the files of a registry tree in `folder`.
    pub(super) fn tree(&self, folder: &str, tags: &[(&str, &str, &Descriptor)]) -> Vec<Raw> {
        let root = format!("{folder}docker/registry/v2");
        let mut files = Vec::new();
        for (digest, content) in &self.blobs {
            let hex = digest.hex();
            let path = format!("{root}/blobs/sha256/{}/{hex}/data", &hex[..2]);
            files.push(file(&path, content.clone()));
        }
        for (repository, tag, descriptor) in tags {
            let folder = format!("{root}/repositories/{repository}");
            let digest = descriptor.digest.to_string();
            let hex = descriptor.digest.hex();
            files.push(file(
                &format!("{folder}/_manifests/tags/{tag}/current/link"),
                digest.clone(),
            ));
            files.push(file(
                &format!("{folder}/_manifests/revisions/sha256/{hex}/link"),
                digest.clone(),
            ));
            files.push(file(&format!("{folder}/_layers/sha256/{hex}/link"), digest));
        }
        files
    }

    pub(super) fn blob_files(&self, prefix: &str, suffix: &str) -> Vec<Raw> {
        self.blobs
            .iter()
            .map(|(digest, content)| {
                file(
                    &format!("{prefix}{}{suffix}", digest.hex()),
                    content.clone(),
                )
            })
            .collect()
    }
}

/// A package manifest that names an artifact and one more image.
pub(super) const MANIFEST: &str = "kind: PackageManifest\nspec:\n  version: v1.2.3\n  \
    artifact: registry.example/ops/redis-operator-bundle:v1.2.3\n  relatedImages:\n  \
    - registry.example/ops/redis:7\n";

/// Returns the files of a whole operator package, and what it is made of.
pub(super) fn operator_package() -> (Builder, Vec<Raw>) {
    let mut builder = Builder::default();
    let bundle = builder.multi("bundle");
    let redis = builder.multi("redis");
    let mut files = vec![file("manifest.yaml", MANIFEST)];
    files.extend(builder.layout(
        "",
        &[
            (
                Some("registry.example/ops/redis-operator-bundle:v1.2.3"),
                &bundle,
            ),
            (Some("registry.example/ops/redis:7"), &redis),
        ],
    ));
    (builder, files)
}
