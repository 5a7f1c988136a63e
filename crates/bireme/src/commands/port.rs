//! `bireme port`.

use serde_json::Value;

use crate::cli::PortArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn port(context: &Context, args: &PortArgs) -> Outcome {
    let name = crate::app::resolve(context, &args.name).await?;
    let container: Value = context.client.get(format!("/containers/{name}/json")).read().await?;
    let ports = container["NetworkSettings"]["Ports"].as_object().cloned().unwrap_or_default();
    let address = |binding: &Value| {
        let (ip, port) =
            (binding["HostIp"].as_str().unwrap_or_default(), binding["HostPort"].as_str().unwrap_or_default());
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    if let Some(wanted) = &args.port {
        let key = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
        let bindings = ports.get(&key).and_then(Value::as_array).filter(|bindings| !bindings.is_empty());
        let Some(bindings) = bindings else {
            return Err(Failure::new(format!("no public port '{key}' published for {name}")).into());
        };
        for binding in bindings {
            context.printer.line(address(binding))?;
        }
        return Ok(0);
    }
    for (port, bindings) in &ports {
        for binding in bindings.as_array().into_iter().flatten() {
            context.printer.line(format!("{port} -> {}", address(binding)))?;
        }
    }
    Ok(0)
}
