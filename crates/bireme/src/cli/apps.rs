//! Commands on apps, described by Compose files.

use clap::Args;

/// Which app, for commands whose short flags mean something else.
#[derive(Clone, Debug, Default, Args)]
pub struct ProjectArgs {
    /// Compose file of the app [default: compose.yaml here or above]
    #[arg(long = "file", value_name = "FILE", help_heading = "App")]
    pub files: Vec<String>,
    /// Name of the app
    #[arg(long = "project-name", value_name = "NAME", help_heading = "App")]
    pub project_name: Option<String>,
}

/// Which app.
#[derive(Clone, Debug, Default, Args)]
pub struct AppArgs {
    /// Compose file; several are merged [default: compose.yaml here or above]
    #[arg(short = 'f', long = "file", value_name = "FILE", help_heading = "App")]
    pub files: Vec<String>,
    /// Name of the app [default: the folder's]
    #[arg(short = 'p', long, value_name = "NAME", help_heading = "App")]
    pub project_name: Option<String>,
    /// Switch a profile on
    #[arg(long, value_name = "NAME", help_heading = "App")]
    pub profile: Vec<String>,
    /// Read variables from this file [default: .env]
    #[arg(long, value_name = "FILE", help_heading = "App")]
    pub env_file: Vec<String>,
    /// Folder that relative paths start from
    #[arg(long, value_name = "DIR", help_heading = "App")]
    pub project_directory: Option<String>,
}

impl From<&ProjectArgs> for AppArgs {
    fn from(project: &ProjectArgs) -> Self {
        Self { files: project.files.clone(), project_name: project.project_name.clone(), ..Self::default() }
    }
}

impl AppArgs {
    /// What stands after the command, and for what is not said there, what stands before it.
    #[must_use]
    pub fn over(&self, before: &Self) -> Self {
        let list = |own: &Vec<String>, other: &Vec<String>| if own.is_empty() { other.clone() } else { own.clone() };
        let one = |own: &Option<String>, other: &Option<String>| own.as_ref().or(other.as_ref()).cloned();
        Self {
            files: list(&self.files, &before.files),
            project_name: one(&self.project_name, &before.project_name),
            profile: list(&self.profile, &before.profile),
            env_file: list(&self.env_file, &before.env_file),
            project_directory: one(&self.project_directory, &before.project_directory),
        }
    }

    /// Whether an app was asked for at all.
    pub fn names_one(&self) -> bool {
        !self.files.is_empty() || self.project_name.is_some() || self.project_directory.is_some()
    }
}

/// Create and start the app here: what is missing or has changed, and no more
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub app: AppArgs,
    /// Return once everything is started
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Return once everything is running or healthy
    #[arg(long)]
    pub wait: bool,
    /// Seconds to wait for that
    #[arg(long, value_name = "SECONDS")]
    pub wait_timeout: Option<u64>,
    /// Build images first
    #[arg(long, conflicts_with = "no_build")]
    pub build: bool,
    /// Never build images
    #[arg(long)]
    pub no_build: bool,
    /// When to pull images: always, missing or never
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never"])]
    pub pull: Option<String>,
    /// Containers of a service: SERVICE=N
    #[arg(long, value_name = "SERVICE=N")]
    pub scale: Vec<String>,
    /// Replace containers that have not changed
    #[arg(long, conflicts_with = "no_recreate")]
    pub force_recreate: bool,
    /// Keep containers that have changed
    #[arg(long)]
    pub no_recreate: bool,
    /// Replace what the named services depend on too
    #[arg(long)]
    pub always_recreate_deps: bool,
    /// Create and do not start
    #[arg(long)]
    pub no_start: bool,
    /// Remove containers of services that the file no longer has
    #[arg(long)]
    pub remove_orphans: bool,
    /// Leave alone what the named services depend on
    #[arg(long)]
    pub no_deps: bool,
    /// Stop everything when one container ends
    #[arg(long, conflicts_with = "detach")]
    pub abort_on_container_exit: bool,
    /// End with the exit code of this service; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE", conflicts_with = "detach")]
    pub exit_code_from: Option<String>,
    /// Seconds from the stop signal to the kill
    #[arg(short = 't', long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Show when each line was written
    #[arg(long)]
    pub timestamps: bool,
    /// Print no prefix before the lines
    #[arg(long)]
    pub no_log_prefix: bool,
    /// Print no progress of pulls
    #[arg(long)]
    pub quiet_pull: bool,
    /// Only these services, and what they depend on
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Stop and remove the app here: containers and networks
#[derive(Clone, Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub app: AppArgs,
    /// Remove its volumes too
    #[arg(short = 'v', long)]
    pub volumes: bool,
    /// Remove images too: those built without a name, or all
    #[arg(long, value_name = "WHICH", value_parser = ["local", "all"])]
    pub rmi: Option<String>,
    /// Remove containers of services that the file no longer has
    #[arg(long)]
    pub remove_orphans: bool,
    /// Seconds from the stop signal to the kill
    #[arg(short = 't', long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Only these services
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Show the app here as it was understood
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    pub app: AppArgs,
    /// yaml or json
    #[arg(long, value_name = "FORMAT", default_value = "yaml", value_parser = ["yaml", "json"])]
    pub format: String,
    /// Check it and print nothing
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Print the names of services only
    #[arg(long)]
    pub services: bool,
    /// Print the names of images only
    #[arg(long)]
    pub images: bool,
    /// Print the names of volumes only
    #[arg(long)]
    pub volumes: bool,
    /// Print the names of networks only
    #[arg(long)]
    pub networks: bool,
    /// Print the names of profiles only
    #[arg(long)]
    pub profiles: bool,
    /// Print the hash of these services, or of * for all
    #[arg(long, value_name = "SERVICES")]
    pub hash: Option<String>,
}
