//! How far the preparation of an image is, told to whoever waits for it.
//!
//! An image is prepared once at a time, by a task: whoever waits for it may leave, and it goes on; whoever comes meanwhile
//! waits for the same one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bireme_image::ImageId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// How far the preparation of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// The first digits of the program's digest, as layers are called in the progress of a pull.
    pub program: String,
    /// What is told.
    pub step: PreparationStep,
}

/// What is told of a preparation, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreparationStep {
    /// It has begun. Nothing is told of an image that was prepared before.
    Begun,
    /// It has gone on for that long; once a second.
    Going(Duration),
    /// It has ended well, and took that long.
    Ready(Duration),
    /// Nothing can be made of the image, and why: a create is refused with the same sentence.
    Refused(String),
    /// It takes longer than is waited for. It goes on, and a create waits for the rest.
    GoesOn,
}

/// Who is told of a preparation.
pub type OnPreparation<'a> = &'a (dyn Fn(Preparation) + Send + Sync);

/// How long is waited for a preparation by whoever brought the image: they hold a place that others need too.
const PATIENCE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_secs(1);

/// What the task tells.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Looking,
    Working { program: String, since: Instant },
    Ready,
    Refused { program: String, why: String },
}

/// The preparations that are under way, by image.
#[derive(Default)]
pub(crate) struct Preparing(Mutex<HashMap<ImageId, watch::Receiver<Stage>>>);

impl Preparing {
    /// The one of `id` that is under way, or a new one: its sender is given once, to whoever is to do the work.
    pub(crate) fn join(&self, id: &ImageId) -> (watch::Receiver<Stage>, Option<watch::Sender<Stage>>) {
        let mut all = self.0.lock();
        if let Some(stages) = all.get(id) {
            return (stages.clone(), None);
        }
        let (sender, stages) = watch::channel(Stage::Looking);
        all.insert(id.clone(), stages.clone());
        (stages, Some(sender))
    }

    /// Takes one off the list.
    pub(crate) fn end(&self, id: &ImageId) {
        self.0.lock().remove(id);
    }
}

/// Tells what becomes of a preparation until it ends, or takes too long.
pub(crate) async fn follow(mut stages: watch::Receiver<Stage>, tell: OnPreparation<'_>) {
    let mut begun: Option<(String, Instant)> = None;
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let stage = stages.borrow_and_update().clone();
        match stage {
            Stage::Looking => {}
            Stage::Working { program, since } => {
                let step = match &begun {
                    None => PreparationStep::Begun,
                    Some(_) if tokio::time::Instant::now() >= until => PreparationStep::GoesOn,
                    Some(_) => PreparationStep::Going(since.elapsed()),
                };
                let ends = step == PreparationStep::GoesOn;
                tell(Preparation { program: program.clone(), step });
                if ends {
                    return;
                }
                begun = Some((program, since));
            }
            Stage::Ready => {
                if let Some((program, since)) = begun {
                    tell(Preparation { program, step: PreparationStep::Ready(since.elapsed()) });
                }
                return;
            }
            Stage::Refused { program, why } => {
                tell(Preparation { program, step: PreparationStep::Refused(why) });
                return;
            }
        }
        tokio::select! {
            // Without a sender the engine is ending, or the task had an end that is not told.
            changed = stages.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK), if begun.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told where the stages follow each other with that much time between.
    async fn told(stages: &[(Stage, Duration)]) -> Vec<PreparationStep> {
        let (sender, receiver) = watch::channel(Stage::Looking);
        let said = Mutex::new(Vec::new());
        let tell = |preparation: Preparation| {
            let step = match preparation.step {
                PreparationStep::Ready(_) => PreparationStep::Ready(Duration::ZERO),
                PreparationStep::Going(_) => PreparationStep::Going(Duration::ZERO),
                step => step,
            };
            said.lock().push(step);
        };
        let send = async {
            for (stage, pause) in stages {
                sender.send_replace(stage.clone());
                tokio::time::sleep(*pause).await;
            }
            drop(sender);
        };
        tokio::join!(follow(receiver, &tell), send);
        said.into_inner()
    }

    fn working() -> Stage {
        Stage::Working { program: "abc".to_owned(), since: Instant::now() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_told_each_second_and_what_is_there_not_at_all() {
        use PreparationStep::{Begun, GoesOn, Going, Ready, Refused};
        let (none, going, ready) = (Duration::ZERO, Going(Duration::ZERO), Ready(Duration::ZERO));
        assert_eq!(told(&[(Stage::Ready, none)]).await, []);
        assert_eq!(told(&[(Stage::Looking, TICK * 3), (Stage::Ready, none)]).await, []);
        let long = [(working(), TICK * 5 / 2), (Stage::Ready, none)];
        assert_eq!(told(&long).await, [Begun, going.clone(), going.clone(), ready]);
        let refused = |why: &str| Stage::Refused { program: "abc".to_owned(), why: why.to_owned() };
        assert_eq!(told(&[(refused("no"), none)]).await, [Refused("no".to_owned())]);
        assert_eq!(told(&[(working(), none), (refused("no"), none)]).await.last(), Some(&Refused("no".to_owned())));
        // The engine ends in the middle.
        assert_eq!(told(&[(working(), TICK / 2)]).await, [Begun]);
        let endless = told(&[(working(), PATIENCE * 2)]).await;
        assert_eq!((endless.len(), endless.last()), (1 + 300, Some(&GoesOn)));
    }
}
