//! Which platform of an image a service means, where its name stands for a container and a component: by `platform`, else by
//! the label `bireme.class`, which the engine reads too when the container is created.

use super::observed::Observed;
use crate::model::{Build, Service};

/// The label by which a service chooses.
const CLASS: &str = "bireme.class";
const WASM: &str = "wasi/wasm";

/// The platforms whose image a service takes, the first that there is. `None`: what the engine takes by itself.
pub fn platforms(service: &Service) -> Vec<Option<String>> {
    match (&service.platform, service.labels.get(CLASS).map(String::as_str)) {
        (Some(platform), _) if platform.starts_with("wasi") => vec![Some(platform.clone())],
        // Other engines look for the platform of an image in other words.
        (Some(_), _) => vec![None],
        (None, Some("wasm")) => vec![Some(WASM.to_owned())],
        (None, Some("linux")) => vec![Some("linux".to_owned())],
        (None, Some("auto")) => vec![Some(WASM.to_owned()), None],
        (None, _) => vec![None],
    }
}

/// The image that a container of the service would be made from now.
pub(super) fn image_of<'a>(observed: &'a Observed, service: &Service, image: &str) -> Option<&'a String> {
    platforms(service).into_iter().find_map(|platform| match platform {
        Some(platform) => observed.by_platform.get(&(image.to_owned(), platform)),
        None => observed.images.get(image),
    })
}

/// The platforms that the image of a service is built for, with commas between them, where its class means `chosen`. A file
/// that lists a component and a container wants one name that stands for both, whichever runs now; of those for Linux, the
/// one of this machine. A service with a platform of its own is built for that.
pub(super) fn built(service: &Service, build: &Build, chosen: Option<String>) -> Option<String> {
    let is_component = |platform: &&String| platform.starts_with("wasi");
    let machine = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        _ => "linux",
    };
    let containers: Vec<&String> = build.platforms.iter().filter(|platform| !is_component(platform)).collect();
    let container = containers.iter().find(|platform| platform.starts_with(machine)).or(containers.first());
    let components: Vec<&String> = build.platforms.iter().filter(is_component).collect();
    match container {
        Some(container) if service.platform.is_none() && !components.is_empty() => {
            let both: Vec<&str> =
                std::iter::once(container).chain(&components).map(|platform| platform.as_str()).collect();
            Some(both.join(","))
        }
        _ => chosen.or_else(|| build.platforms.first().cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_chooses_where_no_platform_does() {
        let named = |name: &str, platform: &str| ((name.to_owned(), platform.to_owned()), format!("id of {platform}"));
        let both = Observed {
            images: [("i".to_owned(), "id of the default".to_owned())].into(),
            by_platform: [named("i", WASM), named("i", "linux")].into(),
            ..Observed::default()
        };
        let linux = Observed { by_platform: Default::default(), ..both.clone() };
        for (platform, class, of_both, of_linux) in [
            (None, None, Some("id of the default"), Some("id of the default")),
            (None, Some("auto"), Some("id of wasi/wasm"), Some("id of the default")),
            (None, Some("wasm"), Some("id of wasi/wasm"), None),
            (None, Some("linux"), Some("id of linux"), None),
            (Some(WASM), None, Some("id of wasi/wasm"), None),
            (Some("linux/arm64"), Some("wasm"), Some("id of the default"), Some("id of the default")),
        ] {
            let labels = class.map(|class: &str| (CLASS.to_owned(), class.to_owned())).into_iter().collect();
            let service = Service { platform: platform.map(str::to_owned), labels, ..Service::default() };
            let found = |observed| image_of(observed, &service, "i").map(String::as_str);
            assert_eq!((found(&both), found(&linux)), (of_both, of_linux), "{platform:?} {class:?}");
        }
    }

    #[test]
    fn a_file_that_lists_both_kinds_gets_both_from_one_build_whichever_runs_now() {
        let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
        let both = format!("{own},wasi/wasm");
        for (listed, platform, chosen, expected) in [
            (&["linux/s390x", own, WASM][..], None, Some(WASM), Some(both.as_str())),
            (&[WASM, own], None, Some("linux"), Some(&both)),
            (&[WASM, own], None, None, Some(&both)),
            (&["linux/s390x", WASM], None, None, Some("linux/s390x,wasi/wasm")),
            // What somebody says of the service itself counts.
            (&[own, WASM], Some(own), Some(own), Some(own)),
            (&[own, WASM], Some(WASM), Some(WASM), Some(WASM)),
            (&[own, "linux/s390x"], None, None, Some(own)),
            (&[WASM], None, None, Some(WASM)),
            (&[], None, Some("linux"), Some("linux")),
            (&[], None, None, None),
        ] {
            let service = Service { platform: platform.map(str::to_owned), ..Service::default() };
            let build = Build { platforms: listed.iter().map(|one| (*one).to_owned()).collect(), ..Build::default() };
            let got = built(&service, &build, chosen.map(str::to_owned));
            assert_eq!(got.as_deref(), expected, "{listed:?} {platform:?} {chosen:?}");
        }
    }
}
