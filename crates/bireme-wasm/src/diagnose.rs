//! Looking into a component that runs: what its instances compute, and the state in which one trapped.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use bireme_core::error::one_line;
use bireme_core::{BoxFuture, CoreDump, Diagnose, ErrorKind, ExecError, Profile};

use crate::protocol::{self, Request};
use crate::state::StateFolder;
use crate::workload::ComponentWorkload;

/// How often is asked whether an instance trapped.
const ASKED: Duration = Duration::from_millis(200);
/// Bytes of one stack that are taken of a host.
const MOST_STACK: usize = 32 << 10;

impl Diagnose for ComponentWorkload {
    fn profile(&self, time: Duration) -> BoxFuture<'_, Result<Profile, ExecError>> {
        Box::pin(async move {
            self.host.ask::<()>(&Request::BeginProfile { id: self.id.clone() }, &[]).await?;
            tokio::time::sleep(time).await;
            let mut profile: Profile = self.host.ask(&Request::EndProfile { id: self.id.clone() }, &[]).await?;
            // Names are the guest's, and are shown in terminals.
            for (stack, _) in &mut profile.stacks {
                *stack = one_line(stack, MOST_STACK);
            }
            Ok(profile)
        })
    }

    fn core_dump(&self, time: Duration) -> BoxFuture<'_, Result<Option<(CoreDump, File)>, ExecError>> {
        Box::pin(async move {
            let file = StateFolder::open(&self.state_dir).and_then(|folder| folder.nameless()).map_err(|error| {
                ExecError::new(ErrorKind::Internal, "cannot make a file for the core dump").caused_by(error)
            })?;
            self.host.ask::<()>(&Request::AwaitTrap { id: self.id.clone() }, &[file.as_fd()]).await?;
            let until = Instant::now() + time;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                tokio::time::sleep(ASKED.min(left)).await;
                let asked = Request::Trapped { id: self.id.clone(), is_last: left <= ASKED };
                let dump: Option<CoreDump> = self.host.ask(&asked, &[]).await?;
                if let Some(dump) = dump {
                    return self.read(dump, file).map(Some);
                }
                if left <= ASKED {
                    return Ok(None);
                }
            }
        })
    }
}

impl ComponentWorkload {
    /// The dump with its file at the beginning, which is as long as it is: the host may have written anything.
    fn read(&self, dump: CoreDump, mut file: File) -> Result<(CoreDump, File), ExecError> {
        let there = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size));
        let there = there.map_err(|error| {
            ExecError::new(ErrorKind::Internal, "cannot read the core dump of a component").caused_by(error)
        })?;
        let size = if dump.size == 0 { 0 } else { there };
        Ok((CoreDump { reason: protocol::sentence(&dump.reason), size }, file))
    }
}
