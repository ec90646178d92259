//! Where an image is taken from.

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::base::{ImageReference, ParseImageError};

/// How the command line writes a source in an OCI image layout.
const LAYOUT_PREFIX: &str = "oci:";

/// Where an image is taken from, as written on the command line.
///
/// | text | meaning |
/// |---|---|
/// | `registry.example/a/b:v1` | from that registry |
/// | `oci:DIR` | every image of the layout in `DIR`, under the names that the layout gives |
/// | `registry.example/a/b:v1=oci:DIR` | the only image of that layout, under this name |
/// | `registry.example/a/b:v1=oci:DIR:NAME` | the image that the layout calls `NAME`, under this name |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// A registry.
    Registry(ImageReference),
    /// One image of a layout.
    Layout {
        /// The name under which it is packaged.
        reference: ImageReference,
        /// The folder of the layout.
        path: PathBuf,
        /// What the layout calls it.
        name: Option<String>,
    },
    /// All images of a layout.
    WholeLayout {
        /// The folder of the layout.
        path: PathBuf,
    },
}

/// Why a text is no source.
#[derive(Debug, Error)]
pub enum ParseSourceError {
    /// The image reference is malformed.
    #[error(transparent)]
    Reference(#[from] ParseImageError),
    /// Something else than a layout after the equals sign.
    #[error("expected `REFERENCE=oci:DIR[:NAME]`, found `{0}` after the equals sign")]
    NotALayout(String),
    /// A layout without a folder.
    #[error("expected a folder after `oci:`")]
    NoFolder,
}

impl FromStr for ImageSource {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(LAYOUT_PREFIX) {
            return match path {
                "" => Err(ParseSourceError::NoFolder),
                path => Ok(Self::WholeLayout { path: path.into() }),
            };
        }
        let Some((reference, source)) = text.split_once('=') else {
            return Ok(Self::Registry(text.parse()?));
        };
        let layout = source
            .strip_prefix(LAYOUT_PREFIX)
            .ok_or_else(|| ParseSourceError::NotALayout(source.to_owned()))?;
        let (path, name) = match layout.split_once(':') {
            Some((path, name)) => (path, Some(name.to_owned())),
            None => (layout, None),
        };
        if path.is_empty() {
            return Err(ParseSourceError::NoFolder);
        }
        Ok(Self::Layout {
            reference: reference.parse()?,
            path: path.into(),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let reference: ImageReference = "registry.example/a/b:v1".parse().unwrap();
        for (text, expected) in [
            (
                "registry.example/a/b:v1",
                ImageSource::Registry(reference.clone()),
            ),
            (
                "oci:some/dir",
                ImageSource::WholeLayout {
                    path: "some/dir".into(),
                },
            ),
            (
                "registry.example/a/b:v1=oci:dir",
                ImageSource::Layout {
                    reference: reference.clone(),
                    path: "dir".into(),
                    name: None,
                },
            ),
            (
                "registry.example/a/b:v1=oci:dir:v9",
                ImageSource::Layout {
                    reference: reference.clone(),
                    path: "dir".into(),
                    name: Some("v9".to_owned()),
                },
            ),
        ] {
            assert_eq!(text.parse::<ImageSource>().unwrap(), expected);
        }
        for bad in ["oci:", "a=b", "a=oci:", "", "A B"] {
            assert!(bad.parse::<ImageSource>().is_err(), "input: {bad:?}");
        }
    }
}
