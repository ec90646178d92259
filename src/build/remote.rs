//! Images in a registry, pulled by `oci-client`.
//!
//! What refers to an image is looked up by our own client: `oci-client` reads one page of the referrers API, and has no
//! request that tells a tag that is not there from one that may not be read.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use oci_client::Reference;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use tokio::runtime::Handle;

use super::referrers::{Linked, cosign_tags, fallback_tag};
use super::{Access, Error, Transport};
use crate::base::oci::{
    Descriptor, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX,
    MEDIA_TYPE_MANIFEST,
};
use crate::base::{Digest, ImageReference, Tag};
use crate::registry::{self, ManifestReference};
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

/// Of how many manifests it is asked at once what refers to them. Each takes up to five requests at once; chosen so that
/// this is about what other clients have open to one registry.
const LOOK_UPS: usize = 4;

/// Registries, read through one client. Blocking: to be used off the async threads.
pub(super) struct Remote {
    client: Client,
    /// Who we are, by the address of the registry.
    logins: Mutex<BTreeMap<String, RegistryAuth>>,
    runtime: Handle,
    access: Access,
    /// Our own clients, by the address of the registry.
    finders: Mutex<BTreeMap<String, registry::Client>>,
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
        Ok(Self {
            client,
            logins: Mutex::default(),
            runtime,
            access: access.clone(),
            finders: Mutex::default(),
        })
    }

    /// Returns what a registry has about `subjects`, which are manifests of the repository of `image`.
    pub(super) fn look_up(
        &self,
        image: &ImageReference,
        subjects: &[Digest],
    ) -> Result<Vec<Linked>, Error> {
        let finder = self.finder(image)?;
        let look_ups = futures_util::stream::iter(subjects)
            .map(|subject| look_up(&finder, image, *subject))
            .buffered(LOOK_UPS)
            .try_collect();
        self.runtime.block_on(look_ups)
    }

    /// Returns whether the repository of `image` has a blob.
    pub(super) fn holds_blob(
        &self,
        image: &ImageReference,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let finder = self.finder(image)?;
        let found = finder.find_blob(image.repository(), digest);
        Ok(self.runtime.block_on(found)?.is_some())
    }

    /// Returns our own client for the registry of `image`.
    fn finder(&self, image: &ImageReference) -> Result<registry::Client, Error> {
        // Where a well-known registry is dialled is another name than people write.
        let address = reference(image).resolve_registry().to_owned();
        let mut finders = self.finders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(finder) = finders.get(&address) {
            return Ok(finder.clone());
        }
        let finder = registry::Client::new(self.access.registry(&address))?;
        finders.insert(address, finder.clone());
        Ok(finder)
    }

    /// Reads the manifest that a reference points to now. Its digest is for the caller to check.
    pub(super) fn resolve(&self, image: &ImageReference) -> Result<Vec<u8>, Error> {
        let bytes = self.pull_manifest(image, &reference(image))?;
        Ok(bytes.to_vec())
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

    /// Returns who we are at the registry of an image.
    fn login(&self, reference: &Reference) -> Result<RegistryAuth, Error> {
        let address = reference.resolve_registry();
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(login) = logins.get(address) {
            return Ok(login.clone());
        }
        let options = self.access.registry(address);
        let credentials = match (&options.credentials, &options.docker_config) {
            (Some(credentials), _) => Some(credentials.clone()),
            (None, Some(config)) => self.runtime.block_on(config.find_password(&options))?,
            (None, None) => None,
        };
        let login = credentials.map_or(RegistryAuth::Anonymous, |credentials| {
            let password = credentials.password.expose().to_owned();
            RegistryAuth::Basic(credentials.username, password)
        });
        logins.insert(address.to_owned(), login.clone());
        Ok(login)
    }

    fn pull_manifest(&self, image: &ImageReference, reference: &Reference) -> Result<Bytes, Error> {
        let login = self.login(reference)?;
        let pulled = self
            .runtime
            .block_on(self.client.pull_manifest_raw(reference, &login, &ACCEPTED));
        let (bytes, _) = pulled.map_err(|source| Error::Pull {
            image: Box::new(image.clone()),
            source: Box::new(source),
        })?;
        Ok(bytes)
    }

    /// Opens a blob of the repository of `image`. Its digest is for the caller to check.
    pub(super) fn open_blob(&self, image: &ImageReference, blob: &Descriptor) -> Pull<'_> {
        Pull {
            remote: self,
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

/// Looks for the referrers of one manifest.
async fn look_up(
    finder: &registry::Client,
    image: &ImageReference,
    subject: Digest,
) -> Result<Linked, Error> {
    let find = async |tag: Tag| -> Result<Option<(Tag, Digest)>, Error> {
        let reference = ManifestReference::Tag(tag.clone());
        let found = finder.find_manifest(image.repository(), &reference).await?;
        Ok(found.map(|descriptor| (tag, descriptor.digest)))
    };
    let listed = async {
        let listed = finder.list_referrers(image.repository(), &subject).await?;
        Ok(listed.unwrap_or_default())
    };
    let tagged = futures_util::future::try_join_all(cosign_tags(&subject).map(find));
    let fallback = find(fallback_tag(&subject));
    let (tagged, fallback, listed) =
        futures_util::future::try_join3(tagged, fallback, listed).await?;
    Ok(Linked {
        subject,
        tagged: tagged.into_iter().flatten().collect(),
        fallback,
        listed: listed.into_iter().map(|entry| entry.digest).collect(),
    })
}

/// A blob on its way. A broken transfer is continued where it broke.
pub(super) struct Pull<'a> {
    remote: &'a Remote,
    reference: Reference,
    descriptor: OciDescriptor,
    stream: Option<BoxStream<'static, io::Result<Bytes>>>,
    chunk: Bytes,
    offset_bytes: u64,
    resumes: u32,
    is_ended: bool,
}

impl Pull<'_> {
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

impl Read for Pull<'_> {
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
