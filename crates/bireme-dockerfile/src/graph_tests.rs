//! The graph of stages. What is refused is in `tests/buildkit.rs`, in BuildKit's words.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn needs(text: &str, name: Option<&str>, values: &[(&str, &str)]) -> Result<Vec<usize>, String> {
    let file = Dockerfile::parse(text).map_err(|error| error.message)?;
    let values: BTreeMap<&str, &str> = values.iter().copied().collect();
    let value = |name: &str| values.get(name).map(|value| (*value).to_owned());
    let target = target(&file, name).map_err(|error| error.message)?;
    let needed = needed(&file, target, &mut Expander::new('\\', &value)).map_err(|error| error.message)?;
    Ok(needed.into_iter().collect())
}

const FILE: &str = "FROM x AS base\nFROM base AS dev\nFROM x AS tools\nFROM ${FROM:-base}\nCOPY --from=TOOLS a b\n\
                    FROM x AS last\nCOPY --from=0 a b\nRUN --mount=type=bind,from=Dev,target=/x true\n\
                    COPY --from=alpine a b\n";

#[test]
fn a_target_needs_what_it_names_and_nothing_else() {
    assert_eq!(needs(FILE, None, &[]).unwrap(), [0, 1, 4]);
    assert_eq!(needs(FILE, Some("DEV"), &[]).unwrap(), [0, 1]);
    assert_eq!(needs(FILE, Some("3"), &[]).unwrap(), [0, 2, 3]);
    assert_eq!(needs(FILE, Some("3"), &[("FROM", "dev")]).unwrap(), [0, 1, 2, 3]);
    assert_eq!(needs(FILE, Some("3"), &[("FROM", "scratch")]).unwrap(), [2, 3]);
    assert_eq!(
        needs(FILE, Some("tool"), &[]).unwrap_err(),
        "target stage \"tool\" could not be found (did you mean tools?)"
    );
    assert_eq!(needs(FILE, Some("9"), &[]).unwrap_err(), "target stage \"9\" could not be found");
}

#[test]
fn edges_say_which_instruction_they_are_of() {
    let file = Dockerfile::parse(FILE).unwrap();
    let edges = edges(&file, 4, &mut Expander::new('\\', &|_| None)).unwrap();
    let found: Vec<_> = edges.into_iter().map(|edge| (edge.instruction, edge.to)).collect();
    assert_eq!(
        found,
        [
            (None, Source::Other("x".to_owned())),
            (Some(0), Source::Stage(0)),
            (Some(1), Source::Stage(1)),
            (Some(2), Source::Other("alpine".to_owned())),
        ]
    );
}

#[test]
fn a_long_chain_of_stages_takes_little_time() {
    let mut text = "FROM x AS s0\n".to_owned();
    for stage in 1..256 {
        text += &format!("FROM s{} AS s{stage}\n", stage - 1);
        for before in (0..stage).step_by(8) {
            text += &format!("COPY --from=s{before} a b\n");
        }
    }
    assert_eq!(needs(&text, None, &[]).unwrap().len(), 256);
}

proptest! {
    /// What is needed is the target and whatever can be reached from it, and always stands before it.
    #[test]
    fn only_what_can_be_reached_is_needed(links in proptest::collection::vec(proptest::collection::vec(0usize..6, 0..3), 1..6)) {
        let mut text = String::new();
        for (stage, links) in links.iter().enumerate() {
            text += &format!("FROM x AS s{stage}\n");
            for to in links {
                text += &format!("COPY --from=s{to} a b\n");
            }
        }
        let exists = |to: &usize| *to < links.len();
        let forward = links.iter().enumerate().any(|(stage, links)| links.iter().any(|to| exists(to) && *to >= stage));
        match needs(&text, None, &[]) {
            Err(error) => prop_assert!(forward, "{error}"),
            Ok(needed) => {
                prop_assert!(!forward);
                let mut reached = vec![links.len() - 1];
                let mut at = 0;
                while let Some(stage) = reached.get(at).copied() {
                    for to in links[stage].iter().filter(|to| exists(to)) {
                        if !reached.contains(to) {
                            reached.push(*to);
                        }
                    }
                    at += 1;
                }
                reached.sort_unstable();
                prop_assert_eq!(needed, reached);
            }
        }
    }
}
