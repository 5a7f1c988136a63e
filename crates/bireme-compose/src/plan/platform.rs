//! Which platform of an image a service means, where its name stands for a container and a component: by `platform`, else by
//! the label `bireme.class`, which the engine reads too when the container is created.

use super::observed::Observed;
use crate::model::Service;

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
}
