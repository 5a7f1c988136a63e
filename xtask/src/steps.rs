//! Named steps, each timed; what took how long is told at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Does one step and remembers how long it took.
    ///
    /// # Errors
    /// Those of the step, under its name.
    pub(crate) fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("\n== {name}");
        let began = Instant::now();
        let done = work().with_context(|| format!("step {name:?} failed"));
        self.note(name, began.elapsed());
        done
    }

    fn note(&mut self, name: &'static str, took: Duration) {
        eprintln!("== {name}: {:.1} s", took.as_secs_f64());
        self.done.push((name, took));
    }

    /// Prints every step with its time.
    pub(crate) fn tell(&self) {
        println!("\n{:<34} seconds", "step");
        for (name, took) in &self.done {
            println!("{name:<34} {:>7.1}", took.as_secs_f64());
        }
        println!("{:<34} {:>7.1}", "all", self.done.iter().map(|(_, took)| took.as_secs_f64()).sum::<f64>());
    }
}
