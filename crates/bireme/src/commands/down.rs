//! `bireme down`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bireme_compose::Project;
use bireme_compose::plan::{self, DownOptions, RemoveImages};

use crate::app::execute::Executor;
use crate::app::{self, observe};
use crate::cli::DownArgs;
use crate::context::Context;
use crate::error::Outcome;

pub(super) async fn down(context: &Context, args: &DownArgs) -> Outcome {
    let mut remove_orphans = args.remove_orphans;
    let named = args.app.over(&context.app);
    let project = match (app::try_load(&named)?, &named.project_name) {
        (Some(project), _) => project,
        // Its file is gone, its name is known: everything of that name goes.
        (None, Some(name)) => {
            remove_orphans = true;
            nameless(name)
        }
        (None, None) => app::load(&named)?,
    };
    let options = DownOptions {
        services: args.services.clone(),
        volumes: args.volumes,
        rmi: match args.rmi.as_deref() {
            Some("all") => RemoveImages::All,
            Some(_) => RemoveImages::Local,
            None => RemoveImages::None,
        },
        remove_orphans,
        stop_timeout: args.timeout.map(Duration::from_secs),
    };
    let observed = observe::observe(context, &project).await?;
    let plan = plan::down(&project, &observed, &options)?;
    if !plan.orphans.is_empty() {
        context.printer.note(format!(
            "WARNING: found orphan containers ({}) for this project; --remove-orphans removes them",
            plan.orphans.join(", ")
        ))?;
    }
    if plan.steps.is_empty() {
        context.printer.note(format!("Nothing of {} is there to remove", project.name))?;
        return Ok(0);
    }
    Executor::new(context, &project).run(&plan).await?;
    Ok(0)
}

fn nameless(name: &str) -> Project {
    Project {
        name: name.to_owned(),
        working_dir: std::path::PathBuf::new(),
        files: Vec::new(),
        services: BTreeMap::new(),
        components: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        secrets: BTreeMap::new(),
        configs: BTreeMap::new(),
        disabled: BTreeMap::new(),
        profiles: BTreeSet::new(),
        extensions: BTreeMap::new(),
        warnings: Vec::new(),
    }
}
