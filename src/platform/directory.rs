//! A folder in place of a platform: resources become files for somebody else to apply, by hand or from a Git repository.
//!
//! # Layout
//!
//! ```text
//! <path>/
//! └── <cluster>/
//!     ├── cpaas-system/           artifact-<name>.yaml, artifactversion-<name>.yaml
//!     └── _cluster/               moduleplugin-<name>.yaml: what has no namespace
//! ```
//!
//! One object per file, keys in alphabetical order: the same resource gives the same bytes. A file that holds these bytes
//! already is not touched, so that its modification time tells when something changed. Files are never deleted here.
//!
//! # Failure
//!
//! The `uid` of an owner is known to a cluster only, so `ownerReferences` are left out. The platform fails an
//! `ArtifactVersion` without an owner: whoever applies these files must add the reference to the live `Artifact`.
//!
//! # Durability
//!
//! A file is replaced whole and survives power loss once `apply` has returned.

use std::io;
use std::path::{Path, PathBuf};

use super::{Applied, Error, Observed, Resource};
use crate::sys::fs::{self, Context as _};

/// Whoever may read the folder may read the files; there are no secrets in them.
const MODE: u32 = 0o644;
/// The folder of what has no namespace. No namespace can have this name.
const CLUSTER_SCOPED: &str = "_cluster";

/// Where to write, and what to say to who asks for the registry.
#[derive(Clone, Debug)]
pub struct DirectoryOptions {
    /// The folder. It must exist.
    pub path: PathBuf,
    /// `host` or `host:port` from which the clusters pull.
    pub pull_registry: String,
}

/// A folder of resources. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory {
    options: DirectoryOptions,
}

impl Directory {
    /// Returns the platform of `options`. The folder is looked at when it is used.
    pub const fn new(options: DirectoryOptions) -> Self {
        Self { options }
    }

    pub(super) fn pull_registry(&self) -> String {
        self.options.pull_registry.clone()
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let path = self.options.path.clone();
        blocking(move || {
            let metadata = std::fs::metadata(&path).context("inspect", &path)?;
            if metadata.is_dir() {
                return Ok(());
            }
            Err(io::Error::from(io::ErrorKind::NotADirectory)).context("list", &path)?
        })
        .await
    }

    pub(super) async fn observe(&self, resource: &Resource) -> Result<Observed, Error> {
        let (path, wanted) = (self.path_of(resource), encode(resource)?);
        blocking(move || observe(&path, &wanted)).await
    }

    pub(super) async fn apply(&self, resource: &Resource) -> Result<Applied, Error> {
        let (path, wanted) = (self.path_of(resource), encode(resource)?);
        blocking(move || {
            let applied = match observe(&path, &wanted)? {
                Observed::Same => return Ok(Applied::Unchanged),
                Observed::Absent => Applied::Created,
                Observed::Different => Applied::Updated,
            };
            // The root is the operator's to make: creating it could hide a mount that is missing.
            let namespace = path.parent().expect("a file is in a folder");
            let cluster = namespace.parent().expect("that folder is in another");
            fs::ensure_dir(cluster)?;
            fs::ensure_dir(namespace)?;
            fs::replace_file(&path, wanted.as_bytes(), MODE)?;
            Ok(applied)
        })
        .await
    }

    fn path_of(&self, resource: &Resource) -> PathBuf {
        let kind = resource.kind;
        self.options
            .path
            .join(resource.cluster.as_str())
            .join(kind.namespace().unwrap_or(CLUSTER_SCOPED))
            .join(format!(
                "{}-{}.yaml",
                kind.name().to_ascii_lowercase(),
                resource.name
            ))
    }
}

fn observe(path: &Path, wanted: &str) -> Result<Observed, Error> {
    match std::fs::read(path) {
        Ok(found) if found == wanted.as_bytes() => Ok(Observed::Same),
        Ok(_) => Ok(Observed::Different),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Observed::Absent),
        Err(error) => Err(error).context("read", path)?,
    }
}

/// Returns the file for a resource: YAML with sorted keys, without owners.
fn encode(resource: &Resource) -> Result<String, Error> {
    let mut body = resource.body.clone();
    if let Some(metadata) = body
        .get_mut("metadata")
        .and_then(|metadata| metadata.as_object_mut())
    {
        metadata.remove("ownerReferences");
    }
    serde_saphyr::to_string(&body).map_err(|source| Error::Yaml {
        name: resource.name.to_string(),
        source,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Interrupted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::base::{Class, Classified as _, ClusterName};
    use crate::platform::{OperatorInfo, ResourceKind, operator_resources};

    fn resources() -> Vec<Resource> {
        let info = OperatorInfo {
            name: "redis-operator".parse().unwrap(),
            display_name: "Redis".to_owned(),
            description: "yes".to_owned(),
            registry: "registry.example:11443".to_owned(),
            repository: "middleware/redis-operator-bundle".parse().unwrap(),
            tag: "v4.2.0".parse().unwrap(),
            catalog_source: "platform".to_owned(),
            image_pull_secrets: Vec::new(),
        };
        operator_resources(&info, &["business-1".parse().unwrap()]).unwrap()
    }

    fn directory(path: &Path) -> Directory {
        Directory::new(DirectoryOptions {
            path: path.to_owned(),
            pull_registry: "registry.example".to_owned(),
        })
    }

    #[tokio::test]
    async fn files_are_written_once_and_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let platform = directory(dir.path());
        let [artifact, version] = <[Resource; 2]>::try_from(resources()).unwrap();
        platform.check().await.unwrap();
        assert_eq!(platform.observe(&version).await.unwrap(), Observed::Absent);
        assert_eq!(platform.apply(&artifact).await.unwrap(), Applied::Created);
        assert_eq!(platform.apply(&version).await.unwrap(), Applied::Created);
        assert_eq!(platform.observe(&version).await.unwrap(), Observed::Same);

        let path = dir
            .path()
            .join("business-1/cpaas-system/artifactversion-redis-operator.v4.2.0.yaml");
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r#"
        apiVersion: app.alauda.io/v1alpha1
        kind: ArtifactVersion
        metadata:
          labels:
            cpaas.io/artifact-version: redis-operator
            cpaas.io/library: platform
            cpaas.io/managed-by: violet
            cpaas.io/operator: redis-operator
            cpaas.io/present: "true"
            cpaas.io/type: bundle
          name: redis-operator.v4.2.0
          namespace: cpaas-system
        spec:
          present: true
          tag: v4.2.0
        "#);
        let inode = |path: &Path| {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::metadata(path).unwrap().ino()
        };
        let before = inode(&path);
        assert_eq!(platform.apply(&version).await.unwrap(), Applied::Unchanged);
        assert_eq!(inode(&path), before, "an unchanged file is not replaced");

        let mut changed = version.clone();
        changed.body["spec"]["present"] = json!(false);
        assert_eq!(
            platform.observe(&changed).await.unwrap(),
            Observed::Different
        );
        assert_eq!(platform.apply(&changed).await.unwrap(), Applied::Updated);
        assert_eq!(platform.observe(&changed).await.unwrap(), Observed::Same);
    }

    #[tokio::test]
    async fn a_missing_folder_is_an_error_and_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("not mounted");
        let platform = directory(&root);
        assert_eq!(platform.check().await.unwrap_err().class(), Class::Absent);
        let resource = &resources()[0];
        assert_eq!(
            platform.apply(resource).await.unwrap_err().class(),
            Class::Absent
        );
        assert!(!root.exists());
    }

    #[test]
    fn what_has_no_namespace_has_its_own_folder() {
        let resource = Resource {
            cluster: ClusterName::global(),
            kind: ResourceKind::ModulePlugin,
            name: "test-plugin".parse().unwrap(),
            body: json!({}),
        };
        let path = directory(Path::new("/x")).path_of(&resource);
        assert_eq!(
            path,
            Path::new("/x/global/_cluster/moduleplugin-test-plugin.yaml")
        );
    }

    proptest! {
        #[test]
        fn yaml_says_what_the_body_says(texts in prop::collection::vec(
            prop_oneof![".{0,100}", "(yes|no|on|null|~|1e3|0o7|1_000|2026-11-20|- x|#|'|: |[ \\n]{1,3})"], 1..6,
        )) {
            let mut resource = resources().remove(0);
            resource.body = json!({"texts": texts, "nested": {"again": texts}});
            let yaml = encode(&resource).unwrap();
            let back: Value = serde_saphyr::from_str(&yaml).unwrap();
            prop_assert_eq!(&back, &resource.body, "{}", yaml);
            prop_assert_eq!(encode(&resource).unwrap(), yaml);
        }
    }
}
