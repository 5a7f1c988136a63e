//! Volumes.

use bireme_api::models::VolumeCreateRequest;
use bireme_engine::request::CreateVolume;
use bireme_engine::view::Volume;
use serde_json::{Value, json};

use super::{Refusal, mounts, time};

/// A volume to be created.
pub fn create(wire: VolumeCreateRequest) -> Result<CreateVolume, Refusal> {
    if wire.cluster_volume_spec.is_some() {
        return Err(Refusal::unsupported("cluster volumes are not offered: this engine is not part of a swarm"));
    }
    let name = wire.name.unwrap_or_default();
    if !name.is_empty() {
        mounts::check_volume_name(&name)?;
    }
    Ok(CreateVolume {
        name,
        driver: wire.driver.unwrap_or_default(),
        options: wire.driver_opts.unwrap_or_default().into_iter().collect(),
        labels: wire.labels.unwrap_or_default().into_iter().collect(),
    })
}

/// A volume as every answer shows it.
pub fn show(volume: &Volume) -> Value {
    json!({
        // Docker gives whole seconds here.
        "CreatedAt": time::rfc3339(time::seconds(volume.created) * 1_000_000_000),
        "Driver": volume.driver,
        "Labels": (!volume.labels.is_empty()).then_some(&volume.labels),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": (!volume.options.is_empty()).then_some(&volume.options),
        "Scope": "local",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_shown_as_docker_shows_it() {
        let volume = Volume {
            name: "data".to_owned(),
            driver: "local".to_owned(),
            mountpoint: "/v/data/_data".into(),
            created: 1_700_000_000_500_000_000,
            options: Default::default(),
            labels: Default::default(),
            anonymous: false,
        };
        insta::assert_snapshot!(show(&volume), @r#"{"CreatedAt":"2023-11-14T22:13:20Z","Driver":"local","Labels":null,"Mountpoint":"/v/data/_data","Name":"data","Options":null,"Scope":"local"}"#);
    }

    #[test]
    fn names_are_checked() {
        let asked = VolumeCreateRequest { name: Some("../x".to_owned()), ..Default::default() };
        assert!(create(asked).unwrap_err().message.contains("includes invalid characters"));
    }
}
