//! Every refusal with its kind and its sentence: what clients see of the engine's decisions.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bireme_core::id::InvalidId;
use bireme_core::{ErrorKind, ExecError};
use bireme_net::NetError;
use bireme_net::addresses::AddressError;

use super::*;
use crate::EngineError;

fn s(text: &str) -> String {
    text.to_owned()
}

fn denied() -> io::Error {
    io::Error::from(io::ErrorKind::PermissionDenied)
}

fn table(all: impl IntoIterator<Item = EngineError>) -> String {
    let line = |error: EngineError| format!("{:<12} {}", format!("{:?}", error.kind()), error);
    all.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn workloads() {
    use ContainerRefusal::*;
    let id = || s("4f3c");
    let states = [
        Because::RemovalBegan,
        Because::BeingRemoved,
        Because::Dead,
        Because::NotRunning,
        Because::AlreadyPaused,
        Because::NotPaused,
        Because::StartWhilePaused,
        Because::UseWhilePaused,
        Because::UseWhileRestarting,
    ];
    let removals = [Because::RemovalWhilePaused, Because::RemovalWhileRestarting, Because::RemovalWhileRunning];
    let updates = [
        UpdateConflict::BeingRemoved,
        UpdateConflict::RemovesItself,
        UpdateConflict::PeriodIsSet,
        UpdateConflict::QuotaIsSet,
        UpdateConflict::PeriodAfterNanoCpus,
        UpdateConflict::QuotaAfterNanoCpus,
        UpdateConflict::AboveMemorySwap,
        UpdateConflict::Executor(ExecError::new(ErrorKind::Conflict, "the kernel refuses 4 MiB: 9 are in use")),
    ];
    let others = [
        NameTaken { name: s("web"), by: id() },
        NameInvalid { name: s("-web") },
        NameUnchanged,
        KillOfNone { asked: s("web"), id: id() },
        ExecWhilePaused { asked: s("web") },
        AttachWhilePaused { id: id() },
        AttachWhileRemoved { id: id() },
        CopyWhileRemoved { id: id() },
        CommitWhileRemoved { id: id() },
        Hurried { id: id() },
        Changing { id: id() },
        CopiedInto { id: id(), after: Duration::from_secs(30) },
        CopiesHang { id: id(), copies: 8 },
        Hangs { id: id(), after: Duration::from_secs(30), then: Then::Stop },
        Hangs { id: id(), after: Duration::from_secs(30), then: Then::Remove },
        ClientLeft { name: s("web") },
        Unreadable { name: s("web"), why: s("missing field `spec`") },
        ExecHasRun { exec: s("77aa") },
        NoLog { name: s("web") },
        RouteTaken { route: s("/..."), port: 8080, taken: s("/..."), name: s("other") },
        StoresInUse { name: s("app-shop") },
        NoLink,
        LinkToNone { name: s("db"), source: Box::new(EngineError::no_container("db")) },
        LinkToStopped { other: s("db"), name: s("web"), alias: s("store") },
        JoinOfStopped { id: id() },
        JoinOfHost { id: id() },
    ];
    let states = states.map(|because| State { id: id(), because });
    let removals = removals.map(|because| Removal { name: s("web"), because });
    let updates = updates.map(|why| Update { id: id(), why });
    let all = states.into_iter().chain(removals).chain(updates).chain(others);
    insta::assert_snapshot!(table(all.map(EngineError::from)));
}

#[test]
fn files() {
    use FilesRefusal::*;
    let all = [
        MountReadOnly,
        RootReadOnly,
        NotAFolder,
        NotFound { path: s("/x"), container: s("web") },
        Archive { path: s("/x"), container: s("web"), source: io::ErrorKind::UnexpectedEof.into() },
        Subpath { volume: "/v/_data".into(), subpath: "a/b".into(), source: denied() },
        Silent { what: s("the source /mnt of a bind mount"), asked: true, seconds: 20 },
        Silent { what: s("the source /mnt of a bind mount"), asked: false, seconds: 20 },
    ];
    insta::assert_snapshot!(table(all.map(EngineError::from)));
}

#[test]
fn networks() {
    use NetworkRefusal::*;
    let net = || s("front");
    let address = IpAddr::V4(Ipv4Addr::new(10, 5, 0, 9));
    let host = SocketAddr::new(address, 80);
    let subnet = "10.6.0.0/24".parse().unwrap();
    let exhausted = || AddressError::Exhausted { subnet };
    let all = [
        NotFound { network: net() },
        NameTaken { network: net() },
        NameEmpty,
        NamePredefined { network: net() },
        Predefined { network: net() },
        NoDriver { driver: s("overlay") },
        GatewayMode { mode: s("routed"), key: "com.docker.network.bridge.gateway_mode_ipv4" },
        UnknownGatewayMode { mode: s("x") },
        NoSubnet,
        Subnets(AddressError::NoSubnet),
        Overlap { subnet },
        InUse { network: net(), id: s("77aa") },
        LeftOut { network: net(), why: s("its bridge is another program's") },
        StillLeftOut { network: net(), source: Box::new(NetError::ShutDown) },
        Mac { text: s("02:42") },
        NotCombinable { network: s("host") },
        AddressOutside { network: net(), address, subnets: vec![subnet] },
        NotLinkLocal { network: net(), address },
        Address { network: net(), source: exhausted() },
        NoneMode,
        SharedNamespace,
        ModeOnly { network: s("host") },
        AlreadyConnected { name: s("web"), network: net() },
        NotConnected { id: s("4f3c"), network: net() },
        Id(InvalidId(s("xyz"))),
        Bind { name: s("web"), host, why: BindFailure::InUse },
        Bind { name: s("web"), host, why: BindFailure::OfAnotherApp },
        Bind { name: s("web"), host, why: BindFailure::Io(denied()) },
        NoPorts,
        NoAddress { name: s("web") },
        ServedBy { name: s("web"), network: net() },
    ];
    let key = "com.docker.network.driver.mtu";
    let faults = [
        NetworkFault::Range { text: s("10.5") },
        NetworkFault::PoolWithoutSubnet,
        NetworkFault::HostBits { subnet: "10.6.0.7/24".parse().unwrap() },
        NetworkFault::Gateway { text: s("x") },
        NetworkFault::GatewayOutside { gateway: address },
        NetworkFault::Auxiliary { text: s("x") },
        NetworkFault::Addresses(exhausted()),
        NetworkFault::TwoOfOneFamily,
        NetworkFault::NoIpv4,
        NetworkFault::Number { key, text: s("x") },
        NetworkFault::Switch { key, text: s("x") },
        NetworkFault::HostAddress { key, text: s("x") },
        NetworkFault::Id(InvalidId(s("xyz"))),
    ];
    let faults = faults.map(|fault| Fault { network: net(), fault });
    insta::assert_snapshot!(table(all.into_iter().chain(faults).map(EngineError::from)));
}

#[test]
fn volumes() {
    use VolumeRefusal::*;
    let name = || s("data");
    let all = [
        NotFound { name: name() },
        NameInvalid { name: s("/data") },
        NoDriver { driver: s("nfs") },
        Option { name: name(), fault: OptionFault::Unknown(s("x")) },
        Option { name: name(), fault: OptionFault::Missing("device") },
        SizeOption,
        Mount { at: "/v/_data".into(), device: s(":/export"), source: denied() },
        InUse { name: name(), users: vec![s("4f3c"), s("77aa")] },
        MountedBelow { name: name(), at: "/v/_data/x".into() },
        Unreadable { name: name() },
    ];
    insta::assert_snapshot!(table(all.map(EngineError::from)));
}

#[test]
fn requests() {
    use RequestRefusal::*;
    let platform = || "linux/amd64".parse::<bireme_image::Platform>().unwrap();
    let all = [
        Reference(Box::new(EngineError::no_container("db"))),
        Platform("wasm/x/y/z".parse::<bireme_image::Platform>().unwrap_err()),
        NoExecutor { platform: platform() },
        CommandInComponent,
        ComponentInLinuxImage { program: s("/app.wasm"), platform: platform() },
        NoCommand,
        NoExecCommand,
        WorkingDir { folder: s("x") },
        StopSignal { text: s("SIGNONE") },
        NoHostGateway { host: s("machine") },
        ExtraHost { text: s("x") },
        PublishWithoutNetwork,
        MountAtRoot,
        MountTwice { target: s("/data") },
        BindRelative { path: "data".into() },
        BindMissing { path: "/none".into() },
        Subpath,
        TargetRelative { target: s("data") },
        TargetAbove { target: s("/../data") },
        NameFilter { text: s("("), source: regex::Regex::new(&s("(")).unwrap_err() },
        NoLogDriver { driver: s("syslog") },
    ];
    let faults = [
        LogFault::Size(s("x")),
        LogFault::MaxFile,
        LogFault::Mode(s("x")),
        LogFault::Unknown { key: s("x"), driver: s("json-file") },
        LogFault::Expression { option: s("env-regex"), text: s("(") },
        LogFault::TagUnclosed { text: s("{{.Name") },
        LogFault::TagField { field: s(".Odd") },
    ];
    let counts = [
        (Countable::Variables, Some("big")),
        (Countable::Labels, None),
        (Countable::Exposed, None),
        (Countable::Published, None),
        (Countable::Volumes, Some("big")),
        (Countable::Mounts, None),
        (Countable::Inherited, None),
        (Countable::AllMounts, None),
        (Countable::AllExposed, None),
        (Countable::AllPublished, None),
    ];
    let counts =
        counts.map(|(what, image)| TooMany { what, image: image.map(str::to_owned), count: 1025, limit: 1024 });
    let all = all.into_iter().chain(faults.map(LogOption)).chain(counts);
    insta::assert_snapshot!(table(all.map(EngineError::from)));
}

#[test]
fn whole_requests() {
    let all = [
        EngineError::no_container("web"),
        EngineError::Ambiguous { what: "container", name: s("4f") },
        EngineError::NotModified { name: s("web"), running: true },
        EngineError::NotModified { name: s("web"), running: false },
        EngineError::Staying { what: "volumes", removed: 2, staying: vec![EngineError::Stopping] },
        EngineError::NewerSchema { path: "/var/lib/bireme/engine.db".into(), version: 9, known: 3 },
    ];
    insta::assert_snapshot!(table(all));
}
