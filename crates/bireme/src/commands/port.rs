//! `bireme port`.

use bireme_api::answers::container::{Container, PortBinding};

use crate::cli::PortArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn port(context: &Context, args: &PortArgs) -> Outcome {
    let name = crate::app::resolve(context, &args.name).await?;
    let container: Container = context.client.get(format!("/containers/{name}/json")).read().await?;
    let ports = container.network_settings.ports;
    let address = |binding: &PortBinding| {
        let (ip, port) = (&binding.host_ip, &binding.host_port);
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    if let Some(wanted) = &args.port {
        let key = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
        let bindings = ports.get(&key).and_then(Option::as_ref).filter(|bindings| !bindings.is_empty());
        let Some(bindings) = bindings else {
            return Err(Failure::new(format!("no public port '{key}' published for {name}")).into());
        };
        for binding in bindings {
            context.printer.line(address(binding))?;
        }
        return Ok(0);
    }
    for (port, bindings) in &ports {
        for binding in bindings.iter().flatten() {
            context.printer.line(format!("{port} -> {}", address(binding)))?;
        }
    }
    Ok(0)
}
