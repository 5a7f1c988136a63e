//! `bireme version`.

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
            let field = |value: &Value, key: &str| value[key].as_str().unwrap_or("unknown").to_owned();
            context.printer.line(format!(
                "Client:\n Version:    {}\n OS/Arch:    {}/{}\n Host:       {}",
                field(&client, "Version"),
                field(&client, "Os"),
                field(&client, "Arch"),
                context.client.host(),
            ))?;
            if let Ok(server) = &server {
                let name = server["Platform"]["Name"].as_str().filter(|name| !name.is_empty()).unwrap_or("Engine");
                context.printer.line(format!(
                    "\nServer: {name}\n Version:    {}\n API:        {} (minimum {})\n OS/Arch:    {}/{}\n Kernel:     {}",
                    field(server, "Version"),
                    field(server, "ApiVersion"),
                    field(server, "MinAPIVersion"),
                    field(server, "Os"),
                    field(server, "Arch"),
                    field(server, "KernelVersion"),
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
