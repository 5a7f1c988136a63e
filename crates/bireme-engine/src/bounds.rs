//! How much of a kind a workload may have, of its image and of its request together.
//!
//! Far beyond what anybody uses, and small enough that nobody keeps the engine busy with it: an image is a stranger's.

use std::collections::BTreeSet;

use bireme_core::spec::Port;
use bireme_image::ImageConfig;

use crate::EngineError;
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

/// Whose it is that there is too much of.
#[derive(Clone, Copy)]
enum Whose {
    Image,
    Request,
}

/// Refuses `count` beyond `limit`.
pub(crate) fn within(what: &str, count: usize, limit: usize, next: &str) -> Result<(), EngineError> {
    if count <= limit {
        return Ok(());
    }
    Err(EngineError::invalid(format!("{what} has {count}, and at most {limit} are taken: {next}")))
}

/// What is known before anything is put together. Pure.
pub(crate) fn check(request: &CreateRequest, image: &ImageConfig) -> Result<(), EngineError> {
    let one = |of: Whose, what: &str, count: usize, limit: usize| {
        let (whose, next) = match of {
            Whose::Image => (format!("the image {}", request.image), "use another image, or build it with fewer"),
            Whose::Request => ("the container".to_owned(), "ask for fewer"),
        };
        within(&format!("the number of {what} of {whose} is too large: it"), count, limit, next)
    };
    one(Whose::Image, "environment variables", image.env.len(), VARIABLES)?;
    one(Whose::Request, "environment variables", request.env.len(), VARIABLES)?;
    one(Whose::Image, "labels", image.labels.len(), LABELS)?;
    one(Whose::Request, "labels", request.labels.len(), LABELS)?;
    one(Whose::Image, "exposed ports", image.exposed_ports.len(), EXPOSED)?;
    one(Whose::Request, "exposed ports", request.exposed.len(), EXPOSED)?;
    one(Whose::Request, "published ports", request.publish.len(), PUBLISHED)?;
    one(Whose::Image, "volumes", image.volumes.len(), VOLUMES)?;
    one(Whose::Request, "volumes", request.volumes.len(), VOLUMES)?;
    one(Whose::Request, "mounts", request.mounts.len(), MOUNTS)
}

/// The ports that are published because all exposed ones are: those that are not published by name.
///
/// # Errors
/// `Invalid` where all published ports together are too many.
pub(crate) fn all_published(exposed: &[Port], by_name: impl Iterator<Item = Port>) -> Result<Vec<Port>, EngineError> {
    let mut count = 0;
    let named: BTreeSet<Port> = by_name.inspect(|_| count += 1).collect();
    let further: Vec<Port> = exposed.iter().filter(|port| !named.contains(port)).copied().collect();
    within(
        "the number of ports to be published is too large: the container",
        count + further.len(),
        PUBLISHED,
        "publish those that are needed by name (-p), and not all exposed ones (-P)",
    )?;
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
