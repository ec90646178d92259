//! Images that a package needs by what its main image says, and does not bring.

use crate::base::{Description, ImageReference};
use crate::package::Contents;

impl Contents {
    /// Returns the images that the main image names and that are not in the package, in its order. No fault of the package:
    /// they may be on the target already, or come with another package.
    pub fn list_missing_images(&self) -> Vec<&str> {
        let named = match &self.description {
            Some(Description::Operator(operator)) => &operator.related_images,
            Some(Description::Chart(chart)) => &chart.images,
            None => return Vec::new(),
        };
        let named = named.iter().map(String::as_str);
        named.filter(|name| !self.has_image(name)).collect()
    }

    /// Returns whether the package has an image. The host plays no part: it is replaced on the way to a target.
    fn has_image(&self, name: &str) -> bool {
        // The images of a chart have no host, and a leading slash says so.
        let parsed: Result<ImageReference, _> = match &self.description {
            Some(Description::Chart(_)) => format!("/{name}").parse(),
            Some(Description::Operator(_)) | None => name.parse(),
        };
        let Ok(wanted) = parsed else {
            return false;
        };
        match wanted.digest() {
            // The digest of one platform's manifest is as good as that of the index.
            Some(digest) => self.blobs.contains_key(digest),
            None => self.images.iter().any(|image| {
                image.reference.repository() == wanted.repository()
                    && image.reference.tag() == wanted.tag()
            }),
        }
    }
}
