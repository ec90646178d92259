//! What must hold between sections: nothing that must be apart is the same.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::Config;
use super::address::Endpoint;
use super::error::{Flaw, Problem};
use super::sections::Policy;
use super::target::{Platform, Role, Target, Transport, Verification};
use crate::base::TargetName;

/// Finds the first contradiction between sections.
pub(super) fn check(config: &Config) -> Result<(), Flaw> {
    if config.drops.is_empty() {
        return Err(Flaw::new("drop", Problem::NoDropFolder));
    }
    if config.targets.is_empty() {
        return Err(Flaw::new("target", Problem::NoTarget));
    }
    check_names(&config.targets)?;
    check_folders(config)?;
    check_registries(&config.targets)?;
    check_platforms(&config.targets)
}

fn check_names(targets: &[Target]) -> Result<(), Flaw> {
    for (index, target) in targets.iter().enumerate() {
        if targets[..index]
            .iter()
            .any(|other| other.name == target.name)
        {
            let problem = Problem::DuplicateName(target.name.clone());
            return Err(Flaw::new(format!("target[{index}].name"), problem));
        }
    }
    Ok(())
}

/// A folder and how far it must keep from others.
struct Folder<'a> {
    key: String,
    path: &'a Path,
    apart: Apart,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// Others may be neither equal, nor inside, nor around.
    Nested,
    /// Files are put here: it may be inside of a drop folder, but not be one. Such folders may be shared.
    Equal,
}

fn check_folders(config: &Config) -> Result<(), Flaw> {
    let folders = folders(config);
    for (index, folder) in folders.iter().enumerate() {
        for other in &folders[..index] {
            let is_nested =
                folder.path.starts_with(other.path) || other.path.starts_with(folder.path);
            let is_wrong = match (folder.apart, other.apart) {
                (Apart::Nested, Apart::Nested) => is_nested,
                (Apart::Equal, Apart::Nested) if other.key == "state_dir" => is_nested,
                (Apart::Equal, Apart::Nested) | (Apart::Nested, Apart::Equal) => {
                    folder.path == other.path
                }
                (Apart::Equal, Apart::Equal) => false,
            };
            if is_wrong {
                return Err(overlap(folder, other));
            }
        }
    }
    for (index, drop) in config.drops.iter().enumerate() {
        let key = |name: &str| format!("drop[{index}].{name}");
        let done = ("done_dir", &drop.done_dir);
        let rejected = ("rejected_dir", &drop.rejected_dir);
        let requests = ("requests_dir", &drop.requests_dir);
        for (one, other) in [(rejected, done), (requests, done), (requests, rejected)] {
            if one.1 == other.1 {
                let problem = Problem::Overlap {
                    path: one.1.clone(),
                    other: other.1.clone(),
                    other_key: key(other.0),
                };
                return Err(Flaw::new(key(one.0), problem));
            }
        }
    }
    Ok(())
}

/// Lists every folder that is written to, `state_dir` and the drop folders first.
fn folders(config: &Config) -> Vec<Folder<'_>> {
    let mut folders = vec![Folder {
        key: "state_dir".to_owned(),
        path: &config.state_dir,
        apart: Apart::Nested,
    }];
    let mut add = |key: String, path, apart| folders.push(Folder { key, path, apart });
    for (index, drop) in config.drops.iter().enumerate() {
        add(format!("drop[{index}].path"), &drop.path, Apart::Nested);
    }
    for (index, target) in config.targets.iter().enumerate() {
        if let Platform::Directory(directory) = &target.platform {
            let key = format!("target[{index}].platform.path");
            add(key, &directory.path, Apart::Nested);
        }
    }
    for (index, drop) in config.drops.iter().enumerate() {
        let key = |name: &str| format!("drop[{index}].{name}");
        add(key("done_dir"), &drop.done_dir, Apart::Equal);
        add(key("rejected_dir"), &drop.rejected_dir, Apart::Equal);
        add(key("requests_dir"), &drop.requests_dir, Apart::Equal);
    }
    folders
}

fn overlap(folder: &Folder<'_>, other: &Folder<'_>) -> Flaw {
    let problem = Problem::Overlap {
        path: folder.path.to_owned(),
        other: other.path.to_owned(),
        other_key: other.key.clone(),
    };
    Flaw::new(folder.key.as_str(), problem)
}

fn check_registries(targets: &[Target]) -> Result<(), Flaw> {
    // One name may lead to one server here and to another one beyond a proxy.
    let dialled = targets
        .iter()
        .map(|target| {
            let registry = &target.registry;
            Some((registry.resolver(), registry.effective_address()))
        })
        .collect::<Vec<_>>();
    let Some(shared) = find_shared(targets, &dialled) else {
        return Ok(());
    };
    let key = match targets[shared.index].registry.connect_to {
        Some(_) => "connect_to",
        None => "address",
    };
    let problem = Problem::SharedRegistry {
        other: shared.other.name.clone(),
        endpoint: shared.endpoint.clone(),
        role: targets[shared.index].role,
    };
    let index = shared.index;
    Err(Flaw::new(
        format!("target[{index}].registry.{key}"),
        problem,
    ))
}

fn check_platforms(targets: &[Target]) -> Result<(), Flaw> {
    let acp = |target: &Target| match &target.platform {
        Platform::Acp(acp) => {
            let dialled = (None, acp.effective_address());
            Some((dialled, acp.connect_to.is_some()))
        }
        Platform::None | Platform::Directory(_) => None,
    };
    let (dialled, redirected): (Vec<_>, Vec<_>) =
        targets.iter().map(acp).map(Option::unzip).unzip();
    let Some(shared) = find_shared(targets, &dialled) else {
        return Ok(());
    };
    let key = match redirected[shared.index] {
        Some(true) => "connect_to",
        Some(false) | None => "address",
    };
    let problem = Problem::SharedPlatform {
        other: shared.other.name.clone(),
        endpoint: shared.endpoint.clone(),
        role: targets[shared.index].role,
    };
    let index = shared.index;
    Err(Flaw::new(
        format!("target[{index}].platform.{key}"),
        problem,
    ))
}

/// Two targets that dial the same.
struct Shared<'a> {
    /// The one to change: a standby if there is one, because it is the one that is reached by mistake for the other.
    index: usize,
    other: &'a Target,
    endpoint: &'a Endpoint,
}

/// Where names are resolved, and what is dialled.
type Dialled<'a> = (Option<&'a Url>, Endpoint);

/// Finds the first two targets that dial the same. `dialled` has one element for each target.
fn find_shared<'a>(
    targets: &'a [Target],
    dialled: &'a [Option<Dialled<'_>>],
) -> Option<Shared<'a>> {
    let mut seen = BTreeMap::new();
    for (index, dialled) in dialled.iter().enumerate() {
        let Some(dialled @ (_, endpoint)) = dialled else {
            continue;
        };
        let Some(earlier) = seen.insert(dialled, index) else {
            continue;
        };
        let (index, other) = match (targets[earlier].role, targets[index].role) {
            (Role::Standby, Role::Primary) => (earlier, index),
            (Role::Primary | Role::Standby, _) => (index, earlier),
        };
        return Some(Shared {
            index,
            other: &targets[other],
            endpoint,
        });
    }
    None
}

/// Something that is allowed, but that the operator should have decided knowingly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Packages are stored without proof of where they come from.
    Unsigned {
        /// The drop folder.
        path: PathBuf,
    },
    /// Anybody between us and the server can pretend to be it.
    Unverified {
        /// The target.
        target: TargetName,
        /// `registry` or `platform`.
        server: &'static str,
    },
    /// A password or token crosses the network without encryption.
    SecretInClear {
        /// The target.
        target: TargetName,
        /// `registry` or `platform`.
        server: &'static str,
    },
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned { path } => {
                let path = path.display();
                write!(
                    f,
                    "packages in `{path}` are not verified: `policy` is `none`"
                )
            }
            Self::Unverified { target, server } => write!(
                f,
                "the certificate of the {server} of target `{target}` is not verified: `insecure_skip_verify` is set"
            ),
            Self::SecretInClear { target, server } => write!(
                f,
                "the credentials of target `{target}` are sent to its {server} without encryption"
            ),
        }
    }
}

/// Lists what is allowed but risky, in the order of the file.
pub(super) fn check_risks(config: &Config) -> Vec<Risk> {
    let mut risks = Vec::new();
    for drop in &config.drops {
        if drop.policy == Policy::None {
            let path = drop.path.clone();
            risks.push(Risk::Unsigned { path });
        }
    }
    for target in &config.targets {
        let registry = &target.registry;
        let has_secret = registry.credentials.is_some() || registry.docker_config.is_some();
        risks.extend(transport_risk(
            target,
            "registry",
            &registry.transport,
            has_secret,
        ));
        if let Platform::Acp(acp) = &target.platform {
            // Every platform has a login.
            risks.extend(transport_risk(target, "platform", &acp.transport, true));
        }
    }
    risks
}

fn transport_risk(
    target: &Target,
    server: &'static str,
    transport: &Transport,
    has_secret: bool,
) -> Option<Risk> {
    let target = target.name.clone();
    match transport {
        Transport::Plain if has_secret => Some(Risk::SecretInClear { target, server }),
        Transport::Tls {
            verification: Verification::Skip,
            ..
        } => Some(Risk::Unverified { target, server }),
        Transport::Plain
        | Transport::Tls {
            verification: Verification::Full,
            ..
        } => None,
    }
}
