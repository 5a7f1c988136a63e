//! Apps: finding and reading their Compose files, seeing what is there, carrying plans out, following what they say.

pub mod execute;
pub mod follow;
pub mod observe;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bireme_compose::{ComposeError, Files, LoadOptions, Project};
use serde_json::{Value, json};

use crate::cli::{AppArgs, ProjectArgs};
use crate::context::Context;
use crate::error::Failure;

/// The files of this machine, and `-` for standard input.
struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new("-") {
            let mut content = Vec::new();
            io::Read::read_to_end(&mut io::stdin().lock(), &mut content)?;
            return Ok(content);
        }
        std::fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.is_file()
    }
}

/// Reads the app that the flags name, or the one here.
pub fn load(args: &AppArgs) -> anyhow::Result<Project> {
    try_load(args)?.ok_or_else(|| {
        Failure::new("no compose.yaml here or in a folder above")
            .hint("change into the app's folder, or name its file with --file")
            .into()
    })
}

/// The same; `None` when no file was named and none is here.
pub fn try_load(args: &AppArgs) -> anyhow::Result<Option<Project>> {
    let paths = |texts: &[String]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
    let options = LoadOptions {
        files: paths(&args.files),
        project_directory: args.project_directory.as_ref().map(PathBuf::from),
        project_name: args.project_name.clone(),
        env_files: paths(&args.env_file),
        profiles: args.profile.clone(),
        environment: std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        working_dir: std::env::current_dir().context("cannot tell the current folder")?,
    };
    match bireme_compose::load(&options, &Disk) {
        Ok(project) => Ok(Some(project)),
        Err(ComposeError::NotFound(_)) if args.files.is_empty() && args.env_file.is_empty() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One container of an app, as the commands need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash before it.
    pub name: String,
    /// The service that it belongs to.
    pub service: String,
    /// Which of that service's containers it is, from 1; 0 when its label is missing.
    pub number: u32,
    /// Or about to: it is restarting.
    pub running: bool,
}

/// The containers of an app's services, what others depend on first. `services` empty: all.
pub async fn members(context: &Context, project: &Project, services: &[String]) -> anyhow::Result<Vec<Member>> {
    for service in services {
        project.service(service)?;
    }
    let wanted: BTreeSet<&String> = services.iter().collect();
    let observed = observe::containers(context, &project.name).await?;
    let order: Vec<String> = project.service_order()?.into_iter().flatten().collect();
    let mut members: Vec<Member> = observed
        .into_iter()
        .filter(|container| !container.one_off && (wanted.is_empty() || wanted.contains(&container.service)))
        .map(|container| Member {
            id: container.id,
            name: container.name,
            service: container.service,
            number: container.number,
            running: matches!(
                container.state,
                bireme_compose::plan::ContainerState::Running | bireme_compose::plan::ContainerState::Restarting
            ),
        })
        .collect();
    members.sort_by_key(|member| {
        (order.iter().position(|name| *name == member.service).unwrap_or(usize::MAX), member.number)
    });
    Ok(members)
}

/// What `start`, `stop` and `restart` act on: the containers named; the services of the app here by their names; all
/// of the app here when nothing is named.
pub async fn targets(context: &Context, names: &[String], project: &ProjectArgs) -> anyhow::Result<Vec<String>> {
    let app = AppArgs::from(project).over(&context.app);
    if names.is_empty() {
        let project = load(&app).context("no container is named")?;
        let members = members(context, &project, &[]).await?;
        if members.is_empty() {
            return Err(Failure::new(format!("app {} has no containers", project.name))
                .hint("`bireme up` creates and starts them")
                .into());
        }
        return Ok(members.into_iter().map(|member| member.name).collect());
    }
    let mut targets = Vec::new();
    for name in names {
        match service_members(context, name, &app).await? {
            Some(members) => targets.extend(members.into_iter().map(|member| member.name)),
            None => targets.push(name.clone()),
        }
    }
    Ok(targets)
}

/// The containers that names mean: their own, or those of the services of the app here.
pub async fn resolve_all(context: &Context, names: &[String]) -> anyhow::Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    targets(context, names, &ProjectArgs::default()).await
}

/// The one container that a name means: its own, or the first running one of a service of the app here.
pub async fn resolve(context: &Context, name: &str) -> anyhow::Result<String> {
    let Some(members) = service_members(context, name, &context.app).await? else { return Ok(name.to_owned()) };
    let chosen = members.iter().find(|member| member.running).or_else(|| members.first());
    Ok(chosen.map_or_else(|| name.to_owned(), |member| member.name.clone()))
}

/// The project of the app here when it has a service of that name. A broken file must not stand in the way of a
/// container's name, unless the file was asked for.
pub fn project_of(service: &str, app: &AppArgs) -> anyhow::Result<Option<Project>> {
    match try_load(app) {
        Ok(project) => Ok(project.filter(|project| project.services.contains_key(service))),
        Err(error) if app.names_one() => Err(error),
        Err(_) => Ok(None),
    }
}

/// The containers of service `name` of the app here; `None` when there is no such app or service, or when a container
/// has that very name, which comes first.
pub async fn service_members(context: &Context, name: &str, app: &AppArgs) -> anyhow::Result<Option<Vec<Member>>> {
    let Some(project) = project_of(name, app)? else { return Ok(None) };
    // Who names the app means its service.
    if !app.names_one() {
        match context.client.get(format!("/containers/{name}/json")).done().await {
            Ok(()) => return Ok(None),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let members = members(context, &project, &[name.to_owned()]).await?;
    Ok((!members.is_empty()).then_some(members))
}

/// What `logs` reads: container and the name before its lines.
pub async fn log_targets(
    context: &Context,
    names: &[String],
    project: &ProjectArgs,
) -> anyhow::Result<Vec<(String, String)>> {
    let app = AppArgs::from(project).over(&context.app);
    let label = |member: Member| (member.id, format!("{}-{}", member.service, member.number));
    if names.is_empty() {
        let project = load(&app).context("no container is named")?;
        return Ok(members(context, &project, &[]).await?.into_iter().map(label).collect());
    }
    let mut targets = Vec::new();
    for name in names {
        match service_members(context, name, &app).await? {
            Some(members) => targets.extend(members.into_iter().map(label)),
            None => targets.push((name.clone(), name.clone())),
        }
    }
    Ok(targets)
}

/// The filter that finds everything of an app.
pub fn of_project(name: &str) -> Value {
    json!({"label": [format!("{}={name}", bireme_compose::labels::PROJECT)]})
}
