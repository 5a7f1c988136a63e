//! The grammar: one struct per subcommand, nothing resolved.

#![expect(
    missing_docs,
    reason = "a comment on a command or a flag is its help, and users see it; the names are the commands' own"
)]

mod apps;
mod containers;
mod images;
mod objects;
mod options;
mod system;

pub use apps::*;
pub use containers::*;
pub use images::*;
pub use objects::*;
pub use options::*;
pub use system::*;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// Run WebAssembly components and Linux containers side by side.
#[derive(Debug, Parser)]
#[command(name = "bireme", version, disable_help_subcommand = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Before the command, as with `docker compose`.
    #[command(flatten)]
    pub app: AppArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Engine to talk to: unix:///path or tcp://host:port [env: BIREME_HOST, DOCKER_HOST]
    #[arg(short = 'H', long, global = true, value_name = "HOST", help_heading = "Global options")]
    pub host: Option<String>,
    /// Colours on a terminal
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    #[default]
    Auto,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    // Workloads
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    Stop(StopArgs),
    Restart(RestartArgs),
    Kill(KillArgs),
    Rm(RmArgs),
    Ps(PsArgs),
    Logs(LogsArgs),
    Exec(ExecArgs),
    Attach(AttachArgs),
    Inspect(InspectWorldArgs),
    Stats(StatsArgs),
    Top(TopArgs),
    Profile(ProfileArgs),
    Core(CoreArgs),
    Wait(WaitArgs),
    Port(PortArgs),
    Rename(RenameArgs),
    Pause(PauseArgs),
    Unpause(UnpauseArgs),
    Cp(CpArgs),
    Diff(DiffArgs),
    Commit(CommitArgs),
    Export(ExportArgs),
    Update(UpdateArgs),
    // Apps
    Up(Box<UpArgs>),
    Down(DownArgs),
    Config(ConfigArgs),
    // Images
    Images(ImagesArgs),
    Pull(PullArgs),
    Push(PushArgs),
    Build(BuildArgs),
    Tag(TagArgs),
    Rmi(RmiArgs),
    History(HistoryArgs),
    Save(SaveArgs),
    Load(LoadArgs),
    Import(ImportArgs),
    Search(SearchArgs),
    Login(LoginArgs),
    Logout(LogoutArgs),
    // Groups
    #[command(subcommand)]
    Container(ContainerCommand),
    #[command(subcommand)]
    Image(ImageCommand),
    #[command(subcommand)]
    Manifest(ManifestCommand),
    #[command(subcommand)]
    Network(NetworkCommand),
    #[command(subcommand)]
    Volume(VolumeCommand),
    #[command(subcommand)]
    Store(StoreCommand),
    #[command(subcommand)]
    Builder(BuilderCommand),
    #[command(subcommand)]
    System(SystemCommand),
    // Engine
    Daemon(DaemonArgs),
    Events(EventsArgs),
    Info(InfoArgs),
    Version(VersionArgs),
    Completion(CompletionArgs),
}

/// Work with one or many workloads
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    Run(Box<RunArgs>),
    Create(Box<CreateArgs>),
    Start(StartArgs),
    Stop(StopArgs),
    Restart(RestartArgs),
    Kill(KillArgs),
    Rm(RmArgs),
    #[command(visible_aliases = ["list", "ps"])]
    Ls(PsArgs),
    Logs(LogsArgs),
    Exec(ExecArgs),
    Attach(AttachArgs),
    Inspect(InspectArgs),
    Stats(StatsArgs),
    Top(TopArgs),
    Wait(WaitArgs),
    Port(PortArgs),
    Rename(RenameArgs),
    Pause(PauseArgs),
    Unpause(UnpauseArgs),
    Cp(CpArgs),
    Diff(DiffArgs),
    Commit(CommitArgs),
    Export(ExportArgs),
    Update(UpdateArgs),
    /// Remove every stopped container
    Prune(PruneArgs),
}

/// Work with images
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    #[command(visible_alias = "list")]
    Ls(ImagesArgs),
    Pull(PullArgs),
    Push(PushArgs),
    Build(BuildArgs),
    Tag(TagArgs),
    #[command(visible_alias = "remove")]
    Rm(RmiArgs),
    History(HistoryArgs),
    Save(SaveArgs),
    Load(LoadArgs),
    Import(ImportArgs),
    Inspect(InspectWorldArgs),
    /// Remove unused images
    Prune(ImagePruneArgs),
}

/// The commands of the top level under their headings, as `bireme --help` shows them.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("Apps", &["up", "down", "config", "top"]),
    (
        "Workloads",
        &[
            "run", "create", "start", "stop", "restart", "kill", "rm", "ps", "logs", "exec", "attach", "inspect",
            "stats", "profile", "core", "wait", "port", "rename", "pause", "unpause", "cp", "diff", "commit", "export",
            "update",
        ],
    ),
    (
        "Images",
        &[
            "images", "pull", "push", "build", "tag", "rmi", "history", "save", "load", "import", "search", "login",
            "logout",
        ],
    ),
    ("Groups", &["container", "image", "manifest", "network", "volume", "store", "builder", "system"]),
    ("Engine", &["daemon", "events", "info", "version", "completion"]),
];

/// The grammar with its grouped help.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let mut listed = String::new();
    for (heading, names) in GROUPS {
        listed.push_str(&format!("\n{heading}:\n"));
        for name in *names {
            let about = command
                .find_subcommand(name)
                .and_then(clap::Command::get_about)
                .map(ToString::to_string)
                .unwrap_or_default();
            listed.push_str(&format!("  {name:<11} {about}\n"));
        }
    }
    let example = "\nRun a command with --help to see its options.\n";
    command.help_template(format!("{{about}}\n\n{{usage-heading}} {{usage}}\n{listed}\n{{options}}{example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn every_command_stands_under_one_heading() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let command = command();
        let mut known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        known.sort_unstable();
        assert_eq!(grouped, known);
    }

    fn check_run(line: &str, image: &str, args: &[&str]) {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(run) = cli.command else { panic!("{line} is run") };
        assert_eq!(run.options.image_and_args[0], image, "{line}");
        assert_eq!(run.options.image_and_args[1..], *args, "{line}");
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_command() {
        check_run("bireme run alpine", "alpine", &[]);
        check_run("bireme run --rm -it alpine -m http -h --rm", "alpine", &["-m", "http", "-h", "--rm"]);
        check_run("bireme run -h me -e A=b alpine sh -c true", "alpine", &["sh", "-c", "true"]);
        check_run("bireme run --memory-swap -1 alpine -- x", "alpine", &["--", "x"]);
    }
}
