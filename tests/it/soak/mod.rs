//! What holds under load, and for how long: packages of many sizes of overlap come in, go out, and are removed, while the
//! daemon is killed or left alone.
//!
//! # Environment
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VIOLETD_KILLS` | how often the daemon is killed | 6 |
//! | `VIOLETD_PUSH_KILLS` | how often a push is killed, for each registry | 3 |
//! | `VIOLETD_PUSH_LAYER_MIB` | size of the layer that is pushed | 96 |
//! | `VIOLETD_SOAK_SECONDS` | how long the load lasts | 10 |
//! | `VIOLETD_CRASH_SEED` | seed of what is random | 1 |
//!
//! By the command line, for hours or for the record:
//!
//! ```text
//! VIOLETD_KILLS=200 cargo test --test it -- soak::kills --nocapture
//! VIOLETD_PUSH_KILLS=20 VIOLETD_PUSH_LAYER_MIB=1024 cargo test --test it -- soak::push_kills --nocapture
//! VIOLETD_SOAK_SECONDS=3600 cargo test --test it -- soak::load --nocapture
//! ```

mod kills;
mod load;
mod push_kills;

pub(crate) use self::kills::ready_in;
use violetd::base::Digest;

use crate::crash::{Random, from_environment};
use crate::support::{Images, Package, noise};

/// Bytes of a layer. Chosen so that an hour's packages fit on a disk.
const LAYER_BYTES: usize = 96 << 10;
/// Layers that packages share: some of these are in each of them.
const SHARED_LAYERS: u64 = 12;

/// Bytes after which a large layer repeats. More than the window of DEFLATE, so that it cannot be compressed away.
const PERIOD_BYTES: usize = 64 << 10;

/// Packs one image with one layer of so many bytes.
pub(crate) fn package_with_layer(name: &'static str, bytes: u64) -> Package {
    let bytes = usize::try_from(bytes).unwrap();
    let layer = noise(1, PERIOD_BYTES).repeat(bytes / PERIOD_BYTES);
    let mut images = Images::default();
    images.add(name, "v1", &[layer]);
    Package::operator(name, images)
}

/// Returns the size of the layer that tests of pushing use, in bytes.
pub(crate) fn layer_bytes() -> u64 {
    from_environment::<u64>("VIOLETD_PUSH_LAYER_MIB", 96) << 20
}

/// Makes packages that share layers with those before them, of few names and many versions.
#[derive(Debug, Default)]
pub(crate) struct Works {
    made: u64,
}

impl Works {
    /// Makes the next package. Names take turns among `names`, versions go up.
    pub(crate) fn make(&mut self, names: u64, random: &mut Random) -> Package {
        let (name, version) = (self.made % names, self.made / names);
        let seeds = [
            random.below(SHARED_LAYERS),
            random.below(SHARED_LAYERS),
            1_000 + self.made,
        ];
        self.made += 1;
        let layers = seeds.map(|seed| noise(seed + 1, LAYER_BYTES));
        // Whatever runs so long that these matter ends with the process.
        let repository: &'static str = format!("soak/app-{name}").leak();
        let tag: &'static str = format!("v1.{version}.0").leak();
        let mut images = Images::default();
        images.add(repository, tag, &layers);
        let file_stem = format!("soak-{name}.v1.{version}.0");
        Package::release(&format!("soak-{name}"), &file_stem, images)
    }
}

fn name_of(package: &Package) -> &str {
    package.path.file_name().unwrap().to_str().unwrap()
}

/// Returns the digests of packages in a status.
pub(crate) fn listed(status: &serde_json::Value) -> Vec<Digest> {
    let packages = status["packages"].as_array().unwrap().iter();
    packages
        .map(|package| package["digest"].as_str().unwrap().parse().unwrap())
        .collect()
}
