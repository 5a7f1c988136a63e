//! ONBUILD: instructions that an image leaves to those built from it.

use super::dockerfile::{Instruction, instruction};
use crate::error::ImageError;

/// Reads a trigger as an instruction that stands where `at` does.
pub(super) fn read(at: &Instruction, trigger: &str) -> Result<Instruction, ImageError> {
    let read = instruction(at.line, trigger)?;
    match read.keyword.as_str() {
        "ONBUILD" => Err(at.fault("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        keyword @ ("MAINTAINER" | "FROM") => Err(at.fault(format!("{keyword} isn't allowed as an ONBUILD trigger"))),
        _ => Ok(read),
    }
}
