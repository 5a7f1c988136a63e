//! What to do so that the engine has what the project wants. Pure: desired project + what was observed → steps.
//!
//! `up` goes in two strides, because whether a container is out of date depends on an image that may have to be pulled
//! first: carry out [`images()`], look again, carry out [`up()`]. Every [`Planned`] step names the steps it must come after;
//! whatever is not so ordered may run at the same time.
//!
//! ```text
//! networks, volumes ─┐
//! stop/remove old ───┴─> create ─> (wait for what it depends on) ─> start
//! ```

mod down;
mod error;
mod images;
mod observed;
mod one_off;
mod options;
mod platform;
mod step;
mod up;
mod variables;

pub use down::down;
pub use error::PlanError;
pub use images::images;
pub use observed::{ContainerState, Observed, ObservedContainer, ObservedNetwork, ObservedVolume};
pub use one_off::one_off;
pub use options::{BuildPolicy, DownOptions, PullPolicy, RemoveImages, UpOptions};
pub use platform::platforms;
pub use step::{ContainerRef, Plan, Planned, Removal, Step};
pub use up::up;

use crate::model::{Project, Service};
use crate::request::container_name;

/// The name that `up` gives the `number`th container of a service.
pub fn name_of(project: &Project, service: &Service, number: u32) -> String {
    container_name(project, service, number)
}
