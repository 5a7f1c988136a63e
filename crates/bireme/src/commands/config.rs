//! `bireme config`.

use crate::app;
use crate::cli::ConfigArgs;
use crate::context::Context;
use crate::error::Outcome;

pub(super) fn config(context: &Context, args: &ConfigArgs) -> Outcome {
    let project = app::load(&args.app.over(&context.app))?;
    let lines: Vec<String> = if args.quiet {
        Vec::new()
    } else if args.services {
        project.service_order()?.into_iter().flatten().collect()
    } else if args.images {
        project.services.values().map(|service| service.image_name(&project.name)).collect()
    } else if args.volumes {
        project.volumes.keys().cloned().collect()
    } else if args.networks {
        project.networks.keys().cloned().collect()
    } else if args.profiles {
        project.profiles.iter().cloned().collect()
    } else if let Some(wanted) = &args.hash {
        let wanted: Vec<&str> = wanted.split(',').collect();
        for name in wanted.iter().filter(|name| **name != "*") {
            project.service(name)?;
        }
        let chosen = project
            .services
            .values()
            .filter(|service| wanted.contains(&"*") || wanted.contains(&service.name.as_str()));
        chosen.map(|service| format!("{} {}", service.name, bireme_compose::config_hash(&project, service))).collect()
    } else if args.format == "json" {
        vec![project.to_json()]
    } else {
        vec![project.to_yaml().trim_end().to_owned()]
    };
    for line in lines {
        context.printer.line(line)?;
    }
    Ok(0)
}
