//! Plans: what is done, in which order, and that doing it leaves nothing to do.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails fails the test")]

mod text;

use std::collections::{BTreeMap, BTreeSet};

use bireme_compose::plan::{
    ContainerState, DownOptions, Observed, ObservedContainer, ObservedNetwork, ObservedVolume, Plan, PlanError,
    Planned, RemoveImages, Step, UpOptions, down, images, up,
};
use bireme_compose::{Project, config_hash};
use proptest::prelude::*;
use text::{SHARED, project};

const SHOP: &str = "
services:
  web:
    image: web
    platform: wasi/wasm
    ports: ['8080:80']
    networks: [front, back]
    depends_on: {redis: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}
  migrate: {image: migrate, depends_on: [redis], networks: [back]}
  redis:
    image: redis
    volumes: ['data:/data']
    networks: [back]
    healthcheck: {test: [CMD, ping]}
    stop_grace_period: 3s
networks: {front: , back: }
volumes: {data: }
";

fn line(planned: &Planned) -> String {
    let what = match &planned.step {
        Step::Pull { image, .. } => format!("pull {image}"),
        Step::Load { image, file, .. } => format!("load {} as {image}", file.display()),
        Step::Build { image, .. } => format!("build {image}"),
        Step::CreateNetwork { request, .. } => format!("create network {}", request.name),
        Step::CreateVolume { request, .. } => format!("create volume {}", request.name.as_deref().unwrap_or_default()),
        Step::CreateContainer { request, .. } => format!("create {}", request.name),
        Step::RecreateContainer { old, request, .. } => format!("recreate {} as {}", old.name, request.name),
        Step::StartContainer { container, .. } => format!("start {}", container.name),
        Step::RestartContainer { container, .. } => format!("restart {}", container.name),
        Step::WaitFor { service, condition, by, .. } => format!("wait for {service} {} by {by}", condition.as_str()),
        Step::StopContainer { container, timeout, .. } => format!("stop {} {timeout:?}", container.name),
        Step::RemoveContainer { container, reason, .. } => format!("remove {} {reason:?}", container.name),
        Step::RemoveNetwork { name, .. } => format!("remove network {name}"),
        Step::RemoveVolume { name } => format!("remove volume {name}"),
        Step::RemoveImage { image } => format!("remove image {image}"),
    };
    if planned.after.is_empty() { what } else { format!("{what} after {:?}", planned.after) }
}

fn lines(plan: &Plan) -> String {
    plan.steps.iter().enumerate().map(|(at, planned)| format!("{at}: {}\n", line(planned))).collect()
}

fn with_images(project: &Project) -> Observed {
    let images = project.services.values().map(|service| service.image_name(&project.name));
    Observed { images: images.map(|image| (image.clone(), format!("sha256:{image}"))).collect(), ..Observed::default() }
}

/// What the engine has once `plan` is carried out.
fn carried_out(project: &Project, mut observed: Observed, plan: &Plan) -> Observed {
    for (at, Planned { step, after }) in plan.steps.iter().enumerate() {
        assert!(after.iter().all(|before| *before < at), "{}", lines(plan));
        match step {
            Step::CreateNetwork { request, .. } => observed.networks.push(ObservedNetwork {
                id: request.name.clone(),
                name: request.name.clone(),
                labels: request.labels.clone().unwrap().into_iter().collect(),
            }),
            Step::CreateVolume { request, .. } => observed.volumes.push(ObservedVolume {
                name: request.name.clone().unwrap(),
                labels: request.labels.clone().unwrap().into_iter().collect(),
            }),
            Step::CreateContainer { request, .. } | Step::RecreateContainer { request, .. } => {
                if let Step::RecreateContainer { old, .. } = step {
                    let before = observed.containers.len();
                    observed.containers.retain(|container| Some(&container.id) != old.id.as_ref());
                    assert_eq!(observed.containers.len() + 1, before);
                }
                assert!(observed.containers.iter().all(|container| container.name != request.name), "{}", lines(plan));
                let found = request.body.labels.clone().unwrap().into_iter().collect();
                let mut container =
                    ObservedContainer::from_labels(&format!("id{at}-{}", request.name), &request.name, &found).unwrap();
                let endpoints = request.body.networking_config.clone().and_then(|config| config.endpoints_config);
                container.networks = endpoints.into_iter().flatten().map(|(name, _)| name).collect();
                observed.containers.push(container);
            }
            Step::StartContainer { container, .. } => {
                let found = observed.containers.iter_mut().find(|there| there.name == container.name).unwrap();
                found.state = ContainerState::Running;
            }
            Step::RemoveContainer { container, .. } => {
                observed.containers.retain(|there| Some(&there.id) != container.id.as_ref())
            }
            Step::StopContainer { container, .. } => {
                let found =
                    observed.containers.iter_mut().find(|there| Some(&there.id) == container.id.as_ref()).unwrap();
                found.state = ContainerState::Exited;
            }
            Step::RemoveNetwork { name, .. } => observed.networks.retain(|there| there.name != *name),
            Step::RemoveVolume { name } => observed.volumes.retain(|there| there.name != *name),
            Step::RemoveImage { image } => {
                observed.images.remove(image);
            }
            Step::Pull { image, .. } | Step::Load { image, .. } | Step::Build { image, .. } => {
                observed.images.insert(image.clone(), format!("sha256:{image}"));
            }
            Step::RestartContainer { .. } | Step::WaitFor { .. } => {}
        }
    }
    let _ = project;
    observed
}

fn running(project: &Project) -> Observed {
    let plan = up(project, &with_images(project), &UpOptions::default()).unwrap();
    carried_out(project, with_images(project), &plan)
}

#[test]
fn a_first_up_goes_from_the_ground_to_the_top() {
    let project = project(SHOP);
    let first = images(&project, &Observed::default(), &UpOptions::default()).unwrap();
    insta::assert_snapshot!(lines(&first), @"
    0: pull migrate
    1: pull redis
    2: pull web
    ");
    let plan = up(&project, &with_images(&project), &UpOptions::default()).unwrap();
    insta::assert_snapshot!(lines(&plan));
    insta::assert_debug_snapshot!(plan.levels());
}

#[test]
fn what_one_service_builds_no_other_pulls() {
    let project =
        project("services:\n  one: {image: mix/one, build: .}\n  two: {image: mix/one}\n  zero: {image: mix/one}\n");
    let first = images(&project, &Observed::default(), &UpOptions::default()).unwrap();
    assert_eq!(lines(&first).trim(), "0: build mix/one");
}

#[test]
fn nothing_is_left_to_do_after_up() {
    let project = project(SHOP);
    let plan = up(&project, &running(&project), &UpOptions::default()).unwrap();
    assert_eq!(lines(&plan), "");
}

#[test]
fn a_change_renews_only_what_changed() {
    let before = project(SHOP);
    let after = project(&SHOP.replace("image: migrate", "image: migrate, tty: true"));
    let mut observed = running(&before);
    observed.images.extend(with_images(&after).images);
    let plan = up(&after, &observed, &UpOptions::default()).unwrap();
    insta::assert_snapshot!(lines(&plan));
    let kept = up(&after, &observed, &UpOptions { no_recreate: true, ..UpOptions::default() }).unwrap();
    assert!(!lines(&kept).contains("recreate"));
    observed.images.insert("redis".to_owned(), "sha256:newer".to_owned());
    let plan =
        up(&before, &observed, &UpOptions { services: vec!["redis".to_owned()], ..UpOptions::default() }).unwrap();
    assert!(lines(&plan).contains("recreate shop-redis-1 as shop-redis-1"), "{}", lines(&plan));
}

#[test]
fn scaling_and_orphans() {
    let project_now = project(SHOP);
    let mut observed = running(&project_now);
    let options = UpOptions { scale: BTreeMap::from([("web".to_owned(), 3)]), ..UpOptions::default() };
    let plan = up(&project_now, &observed, &options).unwrap();
    assert!(
        lines(&plan).contains("create shop-web-2") && lines(&plan).contains("create shop-web-3"),
        "{}",
        lines(&plan)
    );
    observed = carried_out(&project_now, observed, &plan);
    let plan = up(&project_now, &observed, &UpOptions::default()).unwrap();
    insta::assert_snapshot!(lines(&plan));
    let smaller = project("services: {redis: {image: redis}}");
    let plan = up(&smaller, &observed, &UpOptions::default()).unwrap();
    assert_eq!(plan.orphans.iter().map(String::as_str).collect::<BTreeSet<_>>().len(), 4);
    let plan = up(&smaller, &observed, &UpOptions { remove_orphans: true, ..UpOptions::default() }).unwrap();
    assert!(lines(&plan).contains("remove shop-web-1 Orphan") && plan.orphans.is_empty());
}

#[test]
fn a_changed_network_is_made_anew_with_its_containers() {
    let before = project(SHOP);
    let after = project(&SHOP.replace("front: ,", "front: {internal: true},"));
    let plan = up(&after, &running(&before), &UpOptions::default()).unwrap();
    insta::assert_snapshot!(lines(&plan));
    let observed = carried_out(&after, running(&before), &plan);
    assert_eq!(lines(&up(&after, &observed, &UpOptions::default()).unwrap()), "");
    let options = UpOptions { services: vec!["web".to_owned()], no_deps: true, ..UpOptions::default() };
    assert!(up(&after, &running(&before), &options).is_ok());
    let options = UpOptions { services: vec!["redis".to_owned()], ..UpOptions::default() };
    let back = project(&SHOP.replace("back: }", "back: {internal: true}}"));
    let error = up(&back, &running(&before), &options).unwrap_err();
    assert!(matches!(error, PlanError::NetworkInUse { .. }), "{error}");
}

#[test]
fn down_takes_everything_in_reverse() {
    let project = project(SHOP);
    let observed = running(&project);
    let all = DownOptions { volumes: true, rmi: RemoveImages::All, ..DownOptions::default() };
    let plan = down(&project, &observed, &all).unwrap();
    insta::assert_snapshot!(lines(&plan));
    let left = carried_out(&project, observed, &plan);
    assert_eq!(left, Observed::default());
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let check = |text: &str, observed: &Observed, options: &UpOptions, expected: &str| {
        let error = up(&project(text), observed, options).map(|plan| lines(&plan)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let none = Observed::default();
    let plain = UpOptions::default();
    check(
        "services: {a: {image: x, networks: [n]}}\nnetworks: {n: {external: true, name: real}}",
        &none,
        &plain,
        "network real is declared external and does not exist; create it with `bireme network create real`",
    );
    check(
        "services: {a: {image: x, container_name: only, scale: 2}}",
        &none,
        &plain,
        "service a has container_name only and cannot have 2 containers; remove container_name or scale to 1",
    );
    let options = UpOptions { services: vec!["reddis".to_owned()], ..UpOptions::default() };
    check(SHOP, &none, &options, "no such service: reddis (did you mean redis?)");
    let theirs = Observed {
        networks: vec![ObservedNetwork { id: "1".into(), name: "shop_default".into(), labels: BTreeMap::new() }],
        ..Observed::default()
    };
    check(
        "services: {a: {image: x}}",
        &theirs,
        &plain,
        "network shop_default exists and belongs to no project; declare it `external: true` to use it, or give it another name",
    );
    check(
        "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {environment: NOT_SET}}",
        &none,
        &plain,
        "service a needs secret s from variable NOT_SET, which is not set; set it in the environment or in .env",
    );
    let error = images(&project("services: {a: {image: x, pull_policy: never}}"), &none, &plain).unwrap_err();
    assert!(matches!(error, PlanError::NoImage { .. }));
}

/// A project of services `s0`, `s1`, …, each depending on some of those before it, with a number of containers each.
fn any_project() -> impl Strategy<Value = String> {
    proptest::collection::vec((proptest::collection::vec(any::<bool>(), 0..6), 1u32..4, 0u8..3), 1..6).prop_map(
        |services| {
            let mut text = "services:\n".to_owned();
            for (at, (needs, scale, condition)) in services.iter().enumerate() {
                text.push_str(&format!(
                    "  s{at}:\n    image: i{at}\n    scale: {scale}\n    volumes: ['v{}:/v']\n",
                    at % 2
                ));
                let needed: Vec<usize> = needs
                    .iter()
                    .enumerate()
                    .filter(|(need, wanted)| **wanted && *need < at)
                    .map(|(need, _)| need)
                    .collect();
                if !needed.is_empty() {
                    text.push_str("    depends_on:\n");
                    let condition = ["service_started", "service_healthy", "service_completed_successfully"]
                        [usize::from(*condition)];
                    for need in needed {
                        text.push_str(&format!("      s{need}: {{condition: {condition}}}\n"));
                    }
                }
            }
            text.push_str("volumes: {v0: , v1: }\n");
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn up_reaches_its_goal_in_one_go_and_down_clears_it(before in any_project(), after in any_project()) {
        let (before, after) = (project(&before), project(&after));
        let mut observed = running(&before);
        observed.images.extend(with_images(&after).images);
        let options = UpOptions { remove_orphans: true, ..UpOptions::default() };
        let plan = up(&after, &observed, &options).unwrap();
        let observed = carried_out(&after, observed, &plan);
        for (name, service) in &after.services {
            let there = observed.containers.iter().filter(|container| container.service == *name);
            prop_assert_eq!(there.clone().count(), service.replicas() as usize);
            prop_assert!(there.clone().all(|container| container.state == ContainerState::Running));
        }
        let again = up(&after, &observed, &options).unwrap();
        prop_assert!(again.steps.is_empty(), "{}", lines(&again));
        let plan = down(&after, &observed, &DownOptions { volumes: true, ..DownOptions::default() }).unwrap();
        let left = carried_out(&after, observed, &plan);
        prop_assert!(left.containers.is_empty() && left.networks.is_empty() && left.volumes.is_empty());
    }

    #[test]
    fn a_start_comes_after_the_start_of_what_it_depends_on(text in any_project()) {
        let project = project(&text);
        let plan = up(&project, &with_images(&project), &UpOptions::default()).unwrap();
        let mut done_before: Vec<BTreeSet<usize>> = Vec::new();
        for planned in &plan.steps {
            let mut all: BTreeSet<usize> = planned.after.iter().copied().collect();
            for before in &planned.after {
                all.extend(done_before[*before].iter().copied());
            }
            if let Step::StartContainer { service, .. } = &planned.step {
                for need in project.services[service].depends_on.keys() {
                    for (at, other) in plan.steps.iter().enumerate() {
                        if matches!(&other.step, Step::StartContainer { service, .. } if service == need) {
                            prop_assert!(all.contains(&at), "{}", lines(&plan));
                        }
                    }
                }
            }
            done_before.push(all);
        }
    }
}

#[test]
fn what_restarts_with_another_comes_after_it() {
    let project = project(SHARED);
    let after = |name: &str| project.restart_after(&BTreeSet::from([name.to_owned()])).unwrap();
    assert_eq!(after("p"), ["q", "r", "t"]);
    assert!(after("s").is_empty() && after("q").is_empty());
}

/// Two running containers that share a network, started in this order.
fn sharing(owner_started: i64, joined: &str) -> Observed {
    let project = project(SHARED);
    let container = |name: &str, started: i64, joined: &[&str]| ObservedContainer {
        id: format!("id-{name}"),
        name: format!("shop-{name}-1"),
        service: name.to_owned(),
        number: 1,
        config_hash: config_hash(&project, project.service(name).unwrap()),
        state: ContainerState::Running,
        started_at: Some(started),
        joined: joined.iter().map(|id| (*id).to_owned()).collect(),
        ..ObservedContainer::default()
    };
    let containers = vec![container("p", owner_started, &[]), container("q", 20, &[joined])];
    Observed { containers, ..Observed::default() }
}

fn done_to_q(observed: &Observed) -> Vec<&'static str> {
    let options = UpOptions { services: vec!["q".to_owned()], ..UpOptions::default() };
    let plan = up(&project(SHARED), observed, &options).unwrap();
    let about = |step: &Planned| match &step.step {
        Step::RestartContainer { service, .. } if service == "q" => Some("restart"),
        Step::RecreateContainer { service, .. } if service == "q" => Some("recreate"),
        _ => None,
    };
    plan.steps.iter().filter_map(about).collect()
}

#[test]
fn a_container_on_a_network_that_is_gone_is_healed() {
    assert!(done_to_q(&sharing(10, "id-p")).is_empty());
    assert!(done_to_q(&sharing(10, "shop-p-1")).is_empty());
    assert_eq!(done_to_q(&sharing(30, "id-p")), ["restart"], "its owner was started anew");
    assert_eq!(done_to_q(&sharing(30, "shop-p-1")), ["restart"]);
    assert_eq!(done_to_q(&sharing(10, "id-of-one-that-is-gone")), ["recreate"]);
    let mut stopped = sharing(10, "id-p");
    stopped.containers[0].state = ContainerState::Exited;
    assert_eq!(done_to_q(&stopped), ["restart"], "its owner is started by this very plan");
    stopped.containers.remove(0);
    assert_eq!(done_to_q(&stopped), ["recreate"]);
}
