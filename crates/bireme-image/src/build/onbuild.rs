//! ONBUILD: instructions that an image leaves to those built from it.

use bireme_dockerfile::{Instruction, Keyword};

use super::stage::fault;
use crate::error::ImageError;

/// Reads the triggers of an image as instructions that stand where its FROM does.
pub(super) fn triggers(from: &Instruction, texts: &[String]) -> Result<Vec<Instruction>, ImageError> {
    texts.iter().map(|text| read(from, text)).collect()
}

fn read(from: &Instruction, text: &str) -> Result<Instruction, ImageError> {
    let mut read = Instruction::parse(text, from.escape).map_err(|error| fault(from, error.message))?;
    read.lines = from.lines;
    match read.keyword {
        Keyword::Onbuild => Err(fault(from, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        keyword @ (Keyword::Maintainer | Keyword::From) => {
            Err(fault(from, format!("{keyword} isn't allowed as an ONBUILD trigger")))
        }
        _ => Ok(read),
    }
}
