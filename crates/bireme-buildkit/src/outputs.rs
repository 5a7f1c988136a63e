//! Handles of outputs: what clients hold of a result, and hand to other builds as a definition.
//!
//! Clients take a definition apart and put it together again, so that ours is one of LLB: a source whose identifier is the
//! handle, and the vertex that closes a definition (`client/llb`, `NewDefinitionOp`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::ErrorKind;
use bollard_buildkit_proto::pb;
use parking_lot::Mutex;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::builder::Output;
use crate::error::BuildError;

/// How long a result can be built upon after its build has ended.
const LINGER: Duration = Duration::from_secs(60);
/// How many results are kept.
const MAX_OUTPUTS: usize = 4096;
/// How many operations a definition may have that comes in.
const MAX_OPS: usize = 1024;
/// Begins the identifier of our source.
const SCHEME: &str = "bireme-output://";

/// Outputs of builds by their handles. Clones are the same table.
#[derive(Clone, Default)]
pub struct Results {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<String, Output>,
    /// Of builds that have ended, the oldest first.
    lingering: VecDeque<String>,
}

impl Results {
    /// Forgets those whose builds have ended before their time is over, and with them what they keep from being deleted.
    pub fn forget_ended(&self) {
        let gone: Vec<Output> = {
            let mut kept = self.kept.lock();
            let ended = std::mem::take(&mut kept.lingering);
            ended.iter().filter_map(|id| kept.by_id.remove(id)).collect()
        };
        // Not under the lock: what goes with them may take its time.
        drop(gone);
    }

    /// Keeps an output and answers with its handle.
    pub(crate) fn keep(&self, output: Output) -> Result<String, BuildError> {
        let id = random_id();
        // Dropped when the lock is not held any more.
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        while kept.by_id.len() >= MAX_OUTPUTS {
            let Some(oldest) = kept.lingering.pop_front() else {
                return Err(BuildError::new(
                    ErrorKind::Unavailable,
                    format!("more than {MAX_OUTPUTS} results of builds are held by clients; wait for builds to end"),
                ));
            };
            gone.extend(kept.by_id.remove(&oldest));
        }
        kept.by_id.insert(id.clone(), output);
        drop(kept);
        Ok(id)
    }

    pub(crate) fn get(&self, id: &str) -> Result<Output, BuildError> {
        self.kept.lock().by_id.get(id).cloned().ok_or_else(|| {
            let shown: String = id.chars().take(64).collect();
            BuildError::new(ErrorKind::NotFound, format!("no result {shown:?}: its build has ended"))
        })
    }

    /// The build of these has ended: they go a minute later.
    pub(crate) fn release(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        self.kept.lock().lingering.extend(ids.iter().cloned());
        let kept = Arc::downgrade(&self.kept);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            if let Some(kept) = kept.upgrade() {
                let mut kept = kept.lock();
                kept.lingering.retain(|id| !ids.contains(id));
                let gone: Vec<Option<Output>> = ids.iter().map(|id| kept.by_id.remove(id)).collect();
                drop(kept);
                drop(gone);
            }
        });
    }

    /// The output that a definition from a client stands for.
    ///
    /// # Errors
    /// When it is not one of ours, or its result is no longer kept.
    pub(crate) fn of_definition(&self, definition: &pb::Definition) -> Result<Output, BuildError> {
        self.get(&handle_in(definition).ok_or_else(|| {
            BuildError::new(
                ErrorKind::Unsupported,
                "this engine builds from Dockerfiles and does not run LLB definitions; build with the frontend \
                 dockerfile.v0",
            )
        })?)
    }
}

fn random_id() -> String {
    rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The definition that stands for an output.
pub(crate) fn definition_of(id: &str) -> pb::Definition {
    let source = pb::SourceOp { identifier: format!("{SCHEME}{id}"), attrs: Default::default() };
    let source = pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }.encode_to_vec();
    let digest = digest_of(&source);
    let input = pb::Input { digest: digest.clone(), index: 0 };
    let end = pb::Op { inputs: vec![input], ..Default::default() }.encode_to_vec();
    // Without any metadata, clients take a definition for none.
    let metadata = [digest, digest_of(&end)].map(|digest| (digest, pb::OpMetadata::default()));
    pb::Definition { def: vec![source, end], metadata: metadata.into(), source: None }
}

fn digest_of(op: &[u8]) -> String {
    let hash = Sha256::digest(op);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn handle_in(definition: &pb::Definition) -> Option<String> {
    let mut handles =
        definition.def.iter().take(MAX_OPS).filter_map(|op| match pb::Op::decode(op.as_slice()).ok()?.op? {
            pb::op::Op::Source(source) => source.identifier.strip_prefix(SCHEME).map(str::to_owned),
            _ => None,
        });
    let handle = handles.next()?;
    // With anything else in it, it stands for more than the output.
    (definition.def.len() <= 2 && handles.next().is_none()).then_some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_of_ours_leads_back_to_its_output() {
        let table = Results::default();
        let id = table.keep(Arc::new(7_u8)).unwrap();
        let output = table.of_definition(&definition_of(&id)).unwrap();
        assert_eq!(output.downcast_ref::<u8>(), Some(&7));
        assert!(table.of_definition(&definition_of("0")).unwrap_err().message().contains("no result"));
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name() {
        let table = Results::default();
        let id = table.keep(Arc::new(())).unwrap();
        let mut more = definition_of(&id);
        more.def.push(more.def[1].clone());
        let other = pb::SourceOp { identifier: "docker-image://busybox".to_owned(), attrs: Default::default() };
        let other = pb::Op { op: Some(pb::op::Op::Source(other)), ..Default::default() }.encode_to_vec();
        for definition in [
            pb::Definition::default(),
            pb::Definition { def: vec![b"\xff\xff".to_vec()], ..Default::default() },
            pb::Definition { def: vec![other], ..Default::default() },
            more,
        ] {
            assert!(table.of_definition(&definition).unwrap_err().message().contains("does not run LLB"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn results_outlive_their_build_by_a_minute() {
        let table = Results::default();
        let id = table.keep(Arc::new(())).unwrap();
        table.release(vec![id.clone()]);
        tokio::time::sleep(LINGER / 2).await;
        assert!(table.get(&id).is_ok());
        tokio::time::sleep(LINGER).await;
        assert!(table.get(&id).is_err());
    }

    #[tokio::test]
    async fn the_number_of_results_is_bounded_and_ended_builds_give_way() {
        let table = Results::default();
        let first = table.keep(Arc::new(())).unwrap();
        for _ in 1..MAX_OUTPUTS {
            table.keep(Arc::new(())).unwrap();
        }
        assert_eq!(table.keep(Arc::new(())).unwrap_err().kind(), ErrorKind::Unavailable);
        table.release(vec![first.clone()]);
        assert!(table.keep(Arc::new(())).is_ok());
        assert!(table.get(&first).is_err());
    }
}
