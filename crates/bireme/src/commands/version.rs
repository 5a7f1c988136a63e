//! `bireme version`.

use bireme_api::answers::system::Version;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::cli::VersionArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing;

pub(super) async fn version(context: &Context, args: &VersionArgs) -> Outcome {
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Os": std::env::consts::OS,
        "Arch": match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
    });
    let server = context.client.get("/version").read::<Value>().await;
    let capabilities = context.client.capabilities().await.ok();
    let value = json!({"Client": client, "Server": server.as_ref().ok()});
    match args.format.as_deref() {
        Some("json") => context.printer.line(value.to_string())?,
        Some(format) => context.printer.line(listing::parse(format)?.render(&value)?)?,
        None => {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
            let of = |value: &Value| Version::deserialize(value).unwrap_or_default();
            let client = of(&client);
            context.printer.line(format!(
                "Client:\n Version:    {}\n OS/Arch:    {}/{}\n Host:       {}",
                text(&client.version),
                text(&client.os),
                text(&client.arch),
                context.client.host(),
            ))?;
            if let Ok(server) = &server {
                let server = of(server);
                let name = Some(server.platform.name.as_str()).filter(|name| !name.is_empty()).unwrap_or("Engine");
                context.printer.line(format!(
                    "\nServer: {name}\n Version:    {}\n API:        {} (minimum {})\n OS/Arch:    {}/{}\n Kernel:     {}",
                    text(&server.version),
                    text(&server.api_version),
                    text(&server.min_api_version),
                    text(&server.os),
                    text(&server.arch),
                    text(&server.kernel_version),
                ))?;
                if let Some(capabilities) = capabilities {
                    context.printer.line(format!(" Runs:       {}", capabilities.kinds.join(", ")))?;
                }
            }
        }
    }
    match server {
        Ok(_) => Ok(0),
        Err(error @ bireme_api::ClientError::Connect { .. }) => Err(error.into()),
        Err(error) => Err(Failure::new(error.to_string()).into()),
    }
}
