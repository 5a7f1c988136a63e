//! One file per command. Each takes the context and its own arguments and answers the exit code.

mod attach;
pub(crate) mod build;
mod commit;
mod config;
mod cp;
mod diagnose;
mod down;
mod each;
mod exec;
mod history;
mod images;
mod inspect;
mod load;
mod login;
mod logs;
mod manifest;
mod network;
mod port;
mod prune;
mod ps;
pub(crate) mod pull;
mod push;
mod rm;
pub(crate) mod run;
mod search;
mod start;
mod stats;
mod stop;
mod store;
mod system;
mod top;
mod up;
mod update;
mod usage;
mod version;
mod volume;
mod world;

pub(crate) use top::only_here;

use crate::cli::{
    BuilderCommand, Command, ContainerCommand, ImageCommand, InspectArgs, InspectWorldArgs, SystemCommand,
};
use crate::context::Context;
use crate::error::Outcome;

/// Runs one command. The engine is started first where the command needs one and nobody named another.
pub async fn run(context: &Context, command: Command) -> Outcome {
    match &command {
        Command::Daemon(args) => return system::daemon(args),
        Command::Completion(args) => return system::completion(context, args),
        Command::Config(args) => return config::config(context, args),
        // Asking which version is here starts nothing.
        Command::Version(_) => {}
        // Nor does forgetting a password.
        Command::Logout(args) => return login::logout(context, args),
        _ => context.ensure_engine().await?,
    }
    match command {
        Command::Run(args) => run::run(context, &args).await,
        Command::Create(args) => run::create(context, &args).await,
        Command::Start(args) => start::start(context, &args).await,
        Command::Stop(args) => stop::stop(context, &args).await,
        Command::Restart(args) => stop::restart(context, &args).await,
        Command::Kill(args) => stop::kill(context, &args).await,
        Command::Rm(args) => rm::rm(context, &args).await,
        Command::Ps(args) => ps::ps(context, &args).await,
        Command::Logs(args) => logs::logs(context, &args).await,
        Command::Exec(args) => exec::exec(context, &args).await,
        Command::Attach(args) => attach::attach(context, &args).await,
        Command::Inspect(args) => inspect::inspect(context, &args).await,
        Command::Stats(args) => stats::stats(context, &args).await,
        Command::Top(args) => top::top(context, &args).await,
        Command::Profile(args) => diagnose::profile(context, &args).await,
        Command::Core(args) => diagnose::core(context, &args).await,
        Command::Wait(args) => stop::wait(context, &args).await,
        Command::Port(args) => port::port(context, &args).await,
        Command::Rename(args) => stop::rename(context, &args).await,
        Command::Pause(args) => stop::pause(context, &args).await,
        Command::Unpause(args) => stop::unpause(context, &args).await,
        Command::Cp(args) => cp::cp(context, &args).await,
        Command::Diff(args) => commit::diff(context, &args).await,
        Command::Commit(args) => commit::commit(context, &args).await,
        Command::Export(args) => load::export(context, &args).await,
        Command::Update(args) => update::update(context, &args).await,
        Command::Up(args) => up::up(context, &args).await,
        Command::Down(args) => down::down(context, &args).await,
        Command::Images(args) => images::images(context, &args).await,
        Command::Pull(args) => pull::pull(context, &args).await,
        Command::Push(args) => push::push(context, &args).await,
        Command::History(args) => history::history(context, &args).await,
        Command::Import(args) => commit::import(context, &args).await,
        Command::Search(args) => search::search(context, &args).await,
        Command::Login(args) => login::login(context, &args).await,
        Command::Build(args) => build::build(context, &args).await,
        Command::Tag(args) => images::tag(context, &args).await,
        Command::Rmi(args) => images::rmi(context, &args).await,
        Command::Save(args) => load::save(context, &args).await,
        Command::Load(args) => load::load(context, &args).await,
        Command::Container(command) => container(context, command).await,
        Command::Image(command) => image(context, command).await,
        Command::Manifest(command) => manifest::manifest(context, command).await,
        Command::Network(command) => network::network(context, command).await,
        Command::Volume(command) => volume::volume(context, command).await,
        Command::Store(command) => store::store(context, command).await,
        Command::Builder(BuilderCommand::Build(args)) => build::build(context, &args).await,
        Command::Builder(BuilderCommand::Prune(args)) => prune::builder(context, &args).await,
        Command::System(SystemCommand::Df(args)) => usage::df(context, &args).await,
        Command::System(SystemCommand::Events(args)) => system::events(context, &args).await,
        Command::System(SystemCommand::Info(args)) => system::info(context, &args).await,
        Command::System(SystemCommand::Prune(args)) => prune::system(context, &args).await,
        Command::System(SystemCommand::Verify(args)) => system::verify(context, &args).await,
        Command::Events(args) => system::events(context, &args).await,
        Command::Info(args) => system::info(context, &args).await,
        Command::Version(args) => version::version(context, &args).await,
        Command::Daemon(_) | Command::Completion(_) | Command::Config(_) | Command::Logout(_) => {
            unreachable!("answered above")
        }
    }
}

async fn container(context: &Context, command: ContainerCommand) -> Outcome {
    match command {
        ContainerCommand::Run(args) => run::run(context, &args).await,
        ContainerCommand::Create(args) => run::create(context, &args).await,
        ContainerCommand::Start(args) => start::start(context, &args).await,
        ContainerCommand::Stop(args) => stop::stop(context, &args).await,
        ContainerCommand::Restart(args) => stop::restart(context, &args).await,
        ContainerCommand::Kill(args) => stop::kill(context, &args).await,
        ContainerCommand::Rm(args) => rm::rm(context, &args).await,
        ContainerCommand::Ls(args) => ps::ps(context, &args).await,
        ContainerCommand::Logs(args) => logs::logs(context, &args).await,
        ContainerCommand::Exec(args) => exec::exec(context, &args).await,
        ContainerCommand::Attach(args) => attach::attach(context, &args).await,
        ContainerCommand::Inspect(args) => {
            inspect::of_kind(context, Some("container"), &args.names, args.format.as_deref(), args.size).await
        }
        ContainerCommand::Stats(args) => stats::stats(context, &args).await,
        ContainerCommand::Top(args) => top::top(context, &args).await,
        ContainerCommand::Wait(args) => stop::wait(context, &args).await,
        ContainerCommand::Port(args) => port::port(context, &args).await,
        ContainerCommand::Rename(args) => stop::rename(context, &args).await,
        ContainerCommand::Pause(args) => stop::pause(context, &args).await,
        ContainerCommand::Unpause(args) => stop::unpause(context, &args).await,
        ContainerCommand::Cp(args) => cp::cp(context, &args).await,
        ContainerCommand::Diff(args) => commit::diff(context, &args).await,
        ContainerCommand::Commit(args) => commit::commit(context, &args).await,
        ContainerCommand::Export(args) => load::export(context, &args).await,
        ContainerCommand::Update(args) => update::update(context, &args).await,
        ContainerCommand::Prune(args) => prune::containers(context, &args).await,
    }
}

async fn image(context: &Context, command: ImageCommand) -> Outcome {
    match command {
        ImageCommand::Ls(args) => images::images(context, &args).await,
        ImageCommand::Pull(args) => pull::pull(context, &args).await,
        ImageCommand::Push(args) => push::push(context, &args).await,
        ImageCommand::History(args) => history::history(context, &args).await,
        ImageCommand::Import(args) => commit::import(context, &args).await,
        ImageCommand::Build(args) => build::build(context, &args).await,
        ImageCommand::Tag(args) => images::tag(context, &args).await,
        ImageCommand::Rm(args) => images::rmi(context, &args).await,
        ImageCommand::Save(args) => load::save(context, &args).await,
        ImageCommand::Load(args) => load::load(context, &args).await,
        ImageCommand::Inspect(args) => {
            let inspect = InspectArgs { kind: Some("image".to_owned()), size: false, ..args.inspect };
            inspect::inspect(context, &InspectWorldArgs { inspect, world: args.world }).await
        }
        ImageCommand::Prune(args) => images::prune(context, &args).await,
    }
}
