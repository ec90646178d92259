//! Images in a registry, pulled by `oci-client`.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use oci_client::Reference;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use tokio::runtime::Handle;

use super::{Access, Error, Transport};
use crate::base::oci::{
    Descriptor, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX,
    MEDIA_TYPE_MANIFEST, Manifest,
};
use crate::base::{Digest, ImageReference};
use crate::transport::{USER_AGENT, ensure_crypto_provider};

/// What a registry is asked for: every manifest format that can be moved.
const ACCEPTED: [&str; 4] = [
    MEDIA_TYPE_INDEX,
    MEDIA_TYPE_DOCKER_LIST,
    MEDIA_TYPE_MANIFEST,
    MEDIA_TYPE_DOCKER_MANIFEST,
];

/// How often a broken transfer of one blob is continued. Chosen, not measured.
const RESUMES_MAX: u32 = 5;

/// Registries, read through one client. Blocking: to be used off the async threads.
#[derive(Clone)]
pub(super) struct Remote {
    client: Client,
    auth: RegistryAuth,
    runtime: Handle,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    /// Returns a client for registries that `access` opens.
    pub(super) fn new(access: &Access, runtime: Handle) -> Result<Self, Error> {
        let protocol = match access.transport {
            Transport::Https => ClientProtocol::Https,
            Transport::Http => ClientProtocol::Http,
        };
        let certificate = |pem: &Vec<u8>| oci_client::client::Certificate {
            encoding: oci_client::client::CertificateEncoding::Pem,
            data: pem.clone(),
        };
        let config = ClientConfig {
            protocol,
            extra_root_certificates: access.extra_roots.iter().map(certificate).collect(),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        ensure_crypto_provider();
        let client = Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))?;
        let auth = match &access.credentials {
            Some((username, password)) => {
                RegistryAuth::Basic(username.clone(), password.expose().to_owned())
            }
            None => RegistryAuth::Anonymous,
        };
        Ok(Self {
            client,
            auth,
            runtime,
        })
    }

    /// Returns the manifest that a reference points to now, with its bytes.
    pub(super) fn resolve(&self, image: &ImageReference) -> Result<(Descriptor, Vec<u8>), Error> {
        let bytes = self.pull_manifest(image, &reference(image))?;
        let digest = Digest::of(&bytes);
        if let Some(pinned) = image.digest().filter(|pinned| **pinned != digest) {
            return Err(Error::Moved {
                image: Box::new(image.clone()),
                pinned: *pinned,
                found: digest,
            });
        }
        let (_, media_type) = Manifest::parse(&bytes).map_err(|source| Error::Manifest {
            image: Box::new(image.clone()),
            digest,
            source,
        })?;
        let descriptor = Descriptor {
            media_type,
            digest,
            size_bytes: bytes.len() as u64,
        };
        Ok((descriptor, bytes.to_vec()))
    }

    /// Reads a manifest of the repository of `image`.
    pub(super) fn read_manifest(
        &self,
        image: &ImageReference,
        digest: &Digest,
    ) -> Result<Vec<u8>, Error> {
        let bytes = self.pull_manifest(image, &by_digest(image, digest))?;
        Ok(bytes.to_vec())
    }

    fn pull_manifest(&self, image: &ImageReference, reference: &Reference) -> Result<Bytes, Error> {
        let pulled = self.runtime.block_on(
            self.client
                .pull_manifest_raw(reference, &self.auth, &ACCEPTED),
        );
        let (bytes, _) = pulled.map_err(|source| Error::Pull {
            image: Box::new(image.clone()),
            source: Box::new(source),
        })?;
        Ok(bytes)
    }

    /// Opens a blob of the repository of `image`. Its digest is for the caller to check.
    pub(super) fn open_blob(&self, image: &ImageReference, blob: &Descriptor) -> Pull {
        Pull {
            remote: self.clone(),
            reference: by_digest(image, &blob.digest),
            descriptor: OciDescriptor {
                media_type: blob.media_type.clone(),
                digest: blob.digest.to_string(),
                size: i64::try_from(blob.size_bytes).unwrap_or(i64::MAX),
                ..OciDescriptor::default()
            },
            stream: None,
            chunk: Bytes::new(),
            offset_bytes: 0,
            resumes: 0,
            is_ended: false,
        }
    }
}

/// A blob on its way. A broken transfer is continued where it broke.
pub(super) struct Pull {
    remote: Remote,
    reference: Reference,
    descriptor: OciDescriptor,
    stream: Option<BoxStream<'static, io::Result<Bytes>>>,
    chunk: Bytes,
    offset_bytes: u64,
    resumes: u32,
    is_ended: bool,
}

impl Pull {
    /// Opens the stream at the present offset.
    fn connect(&self) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let Self {
            remote,
            reference,
            descriptor,
            offset_bytes,
            ..
        } = self;
        if *offset_bytes == 0 {
            let pulled = remote.client.pull_blob_stream(reference, descriptor);
            let whole = remote.runtime.block_on(pulled).map_err(io::Error::other)?;
            return Ok(whole.stream);
        }
        let pulled = remote
            .runtime
            .block_on(remote.client.pull_blob_stream_partial(
                reference,
                descriptor,
                *offset_bytes,
                None,
            ));
        match pulled.map_err(io::Error::other)? {
            BlobResponse::Partial(partial) => Ok(partial.stream),
            BlobResponse::Full(full) => Ok(skip(full.stream, *offset_bytes)),
        }
    }
}

/// Drops the first `bytes` of a stream: what a server that knows no ranges sends again.
fn skip(
    stream: BoxStream<'static, io::Result<Bytes>>,
    bytes: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let mut left = bytes;
    stream
        .map(move |chunk| {
            let mut chunk = chunk?;
            let dropped = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(dropped);
            left -= dropped as u64;
            Ok(chunk)
        })
        .boxed()
}

impl Read for Pull {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            // A stream must not be asked again after its end.
            if self.is_ended {
                return Ok(0);
            }
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.connect()?,
            };
            let next = self.remote.runtime.block_on(stream.next());
            match next {
                Some(Ok(chunk)) => {
                    self.chunk = chunk;
                    self.stream = Some(stream);
                }
                Some(Err(_)) if self.resumes < RESUMES_MAX => self.resumes += 1,
                Some(Err(error)) => return Err(error),
                None => {
                    self.is_ended = true;
                    return Ok(0);
                }
            }
        }
        let count = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        self.offset_bytes += count as u64;
        Ok(count)
    }
}

fn reference(image: &ImageReference) -> Reference {
    match (image.digest(), image.tag()) {
        (Some(digest), _) => by_digest(image, digest),
        (None, tag) => Reference::with_tag(
            image.registry().to_owned(),
            image.repository().to_string(),
            tag.map_or("latest", |tag| tag.as_str()).to_owned(),
        ),
    }
}

fn by_digest(image: &ImageReference, digest: &Digest) -> Reference {
    Reference::with_digest(
        image.registry().to_owned(),
        image.repository().to_string(),
        digest.to_string(),
    )
}
