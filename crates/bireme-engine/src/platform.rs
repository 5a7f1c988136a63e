//! Which image a create means where one name has several platforms: the one that is asked for by platform, else by
//! `bireme.class`, of the request or of the image. The kind of the workload follows from it.

use std::collections::BTreeMap;

use bireme_core::WorkloadKind;
use bireme_core::labels::Class;
use bireme_image::{Image, ImageError, Platform};

use crate::refusal::RequestRefusal;
use crate::services::Services;
use crate::{EngineError, programs};

/// What is to be looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// That platform, or nothing.
    Platform(Platform),
    /// Linux on this machine, else whatever there is; and then the component of the same name if the class says so.
    Any(Option<Class>),
}

/// What the request alone says. Pure.
///
/// # Errors
/// For a platform or a class that is none.
fn wanted(asked: Option<&str>, labels: &BTreeMap<String, String>) -> Result<Wanted, EngineError> {
    if let Some(asked) = asked.filter(|platform| !platform.is_empty()) {
        return Ok(Wanted::Platform(asked.parse().map_err(RequestRefusal::Platform)?));
    }
    Ok(match Class::of(labels)? {
        Some(Class::Wasm) => Wanted::Platform(Platform::wasm()),
        Some(Class::Linux) => Wanted::Platform(Platform::host()),
        class => Wanted::Any(class),
    })
}

/// The image that a create with this name, platform and labels means.
///
/// # Errors
/// `NotFound` where there is none, or none of that platform; `Invalid` for a platform or class that is none.
pub(crate) async fn image_for(
    services: &Services,
    name: &str,
    asked: Option<&str>,
    labels: &BTreeMap<String, String>,
) -> Result<Image, EngineError> {
    let class = match wanted(asked, labels)? {
        Wanted::Platform(platform) => return Ok(services.images().resolve(name, Some(&platform)).await?),
        Wanted::Any(class) => class,
    };
    let image = services.images().resolve(name, None).await?;
    if image.kind() == WorkloadKind::Component {
        return Ok(image);
    }
    let lighter = match class.map_or_else(|| Class::of(&image.config.labels), |class| Ok(Some(class)))? {
        Some(Class::Auto) => match component_of(services, name).await? {
            Some(component) if runs_here(services, &component).await => Some(component),
            _ => None,
        },
        Some(Class::Wasm) => component_of(services, name).await?,
        Some(Class::Linux) | None => None,
    };
    Ok(lighter.unwrap_or(image))
}

/// The component that the name stands for beside another platform; `None` where it does not.
async fn component_of(services: &Services, name: &str) -> Result<Option<Image>, EngineError> {
    match services.images().resolve(name, Some(&Platform::wasm())).await {
        Ok(image) => Ok(Some(image)),
        Err(ImageError::NoPlatform { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether this engine runs components, and has what this one imports.
async fn runs_here(services: &Services, image: &Image) -> bool {
    let why = match programs::interface(services, image).await {
        Ok(Some(interface)) => interface.refused,
        Ok(None) => Some("nothing here runs it".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = &why {
        tracing::info!(image = %image.id, why, "bireme.class=auto takes the container and not the component");
    }
    why.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_outweighs_a_class() {
        let labels = |class: &str| match class {
            "" => BTreeMap::new(),
            class => BTreeMap::from([("bireme.class".to_owned(), class.to_owned())]),
        };
        let arm = Wanted::Platform("linux/arm64".parse().unwrap());
        let (wasm, host) = (Wanted::Platform(Platform::wasm()), Wanted::Platform(Platform::host()));
        for (asked, class, expected) in [
            (None, "", Wanted::Any(None)),
            (None, "auto", Wanted::Any(Some(Class::Auto))),
            (None, "wasm", wasm.clone()),
            (None, " linux ", host),
            (Some(""), "wasm", wasm.clone()),
            (Some("linux/arm64"), "wasm", arm.clone()),
            (Some("linux/arm64"), "auto", arm),
            (Some("wasi/wasm"), "linux", wasm),
        ] {
            assert_eq!(wanted(asked, &labels(class)).unwrap(), expected, "{asked:?} {class}");
        }
        assert!(wanted(None, &labels("wasi")).unwrap_err().to_string().contains("not one of wasm, linux, auto"));
        assert!(wanted(Some("toaster"), &labels("wasm")).is_err());
    }
}
