//! How much of a kind a workload may have, of its image and of its request together.
//!
//! Far beyond what anybody uses, and small enough that nobody keeps the engine busy with it: an image is a stranger's.

use std::collections::BTreeSet;

use bireme_core::spec::Port;
use bireme_image::ImageConfig;

use crate::EngineError;
use crate::refusal::{Countable, RequestRefusal};
use crate::request::CreateRequest;

/// Environment variables.
pub const VARIABLES: usize = 10_000;
/// Labels.
pub const LABELS: usize = 10_000;
/// Ports that are exposed, of all protocols. Images of telephone exchanges expose whole ranges.
pub const EXPOSED: usize = 50_000;
/// Ports of the host: each takes descriptors of the engine, and rules of the kernel.
pub const PUBLISHED: usize = 1_024;
/// Volumes that are made because an image or a request names their place alone.
pub const VOLUMES: usize = 128;
/// Mounts of all kinds.
pub const MOUNTS: usize = 1_024;

/// Refuses `count` beyond `limit`: of `image` where one is named, otherwise of the request.
pub(crate) fn within(what: Countable, image: Option<&str>, count: usize, limit: usize) -> Result<(), EngineError> {
    if count <= limit {
        return Ok(());
    }
    Err(RequestRefusal::TooMany { what, image: image.map(str::to_owned), count, limit }.into())
}

/// What is known before anything is put together. Pure.
pub(crate) fn check(request: &CreateRequest, image: &ImageConfig) -> Result<(), EngineError> {
    let of_image = Some(request.image.as_str());
    for (what, of, count, limit) in [
        (Countable::Variables, of_image, image.env.len(), VARIABLES),
        (Countable::Variables, None, request.env.len(), VARIABLES),
        (Countable::Labels, of_image, image.labels.len(), LABELS),
        (Countable::Labels, None, request.labels.len(), LABELS),
        (Countable::Exposed, of_image, image.exposed_ports.len(), EXPOSED),
        (Countable::Exposed, None, request.exposed.len(), EXPOSED),
        (Countable::Published, None, request.publish.len(), PUBLISHED),
        (Countable::Volumes, of_image, image.volumes.len(), VOLUMES),
        (Countable::Volumes, None, request.volumes.len(), VOLUMES),
        (Countable::Mounts, None, request.mounts.len(), MOUNTS),
    ] {
        within(what, of, count, limit)?;
    }
    Ok(())
}

/// The ports that are published because all exposed ones are: those that are not published by name.
///
/// # Errors
/// `Invalid` where all published ports together are too many.
pub(crate) fn all_published(exposed: &[Port], by_name: impl Iterator<Item = Port>) -> Result<Vec<Port>, EngineError> {
    let mut count = 0;
    let named: BTreeSet<Port> = by_name.inspect(|_| count += 1).collect();
    let further: Vec<Port> = exposed.iter().filter(|port| !named.contains(port)).copied().collect();
    within(Countable::AllPublished, None, count + further.len(), PUBLISHED)?;
    Ok(further)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bireme_core::spec::Protocol;

    use super::*;
    use crate::request::Publish;

    fn many(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("/v{n}")).collect()
    }

    #[test]
    fn what_there_is_too_much_of_is_refused_in_a_sentence() {
        let refused = |request: &CreateRequest, image: &ImageConfig| check(request, image).unwrap_err().to_string();
        let image = ImageConfig { env: many(VARIABLES + 1), ..ImageConfig::default() };
        let request = CreateRequest { image: "big".to_owned(), ..CreateRequest::default() };
        assert_eq!(
            refused(&request, &image),
            "the number of environment variables of the image big is too large: it has 10001, and at most 10000 are taken: use another image, or build it with fewer"
        );
        assert!(check(&request, &ImageConfig { env: many(VARIABLES), ..ImageConfig::default() }).is_ok());
        let volumes = CreateRequest { volumes: many(VOLUMES + 1), ..CreateRequest::default() };
        assert!(
            refused(&volumes, &ImageConfig::default()).contains("volumes of the container is too large: it has 129")
        );
        let labels: BTreeMap<String, String> = many(LABELS + 1).into_iter().map(|name| (name, String::new())).collect();
        assert!(check(&CreateRequest { labels, ..CreateRequest::default() }, &ImageConfig::default()).is_err());
    }

    #[test]
    fn all_ports_are_published_while_they_are_not_too_many() {
        let port = |number| Port { number, protocol: Protocol::Tcp };
        let exposed: Vec<Port> = (1..=3).map(port).collect();
        let named = [Publish { container: port(2), host_ip: None, host_ports: None }];
        let further = all_published(&exposed, named.iter().map(|one| one.container)).unwrap();
        assert_eq!(further, [port(1), port(3)]);
        let exposed: Vec<Port> = (1..=1025).map(port).collect();
        let refused = all_published(&exposed, std::iter::empty()).unwrap_err().to_string();
        assert!(refused.contains("has 1025, and at most 1024 are taken"), "{refused}");
    }
}
