//! Rules about FROM.

use std::collections::BTreeMap;

use super::rules::*;
use super::{Found, LintContext, reference};
use crate::dockerfile::{Dockerfile, From};
use crate::scope::{Globals, globals};
use crate::suggest;
use crate::words::Expander;

/// Base images must have names when the build gives no arguments, too.
pub(super) fn defaults(file: &Dockerfile, context: &LintContext<'_>, found: &mut Found) {
    let Ok(globals) = globals(file, context.predefined, &BTreeMap::new()) else { return };
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    for stage in &file.stages {
        let From { image, instruction, .. } = &stage.from;
        let Ok(name) = Expander::new(instruction.escape, &value).word(image) else { return };
        if !reference::is_valid(&name) {
            let detail = format!("Default value for ARG {image} results in empty or invalid base image name");
            found.warn(&INVALID_DEFAULT_ARG_IN_FROM, instruction.lines, detail);
        }
    }
}

/// The words of each FROM.
pub(super) fn stages(file: &Dockerfile, globals: &Globals, found: &mut Found) {
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    for stage in &file.stages {
        let From { image, platform, instruction: at, .. } = &stage.from;
        let mut expander = Expander::new(at.escape, &value);
        if expander.word(image).is_err() {
            return;
        }
        undeclared(&stage.from, &expander, globals, found);
        let Some(platform) = platform else { continue };
        let mut expander = Expander::new(at.escape, &value);
        let Ok(read) = expander.word(platform) else { return };
        undeclared(&stage.from, &expander, globals, found);
        if expander.unset().is_empty()
            && expander.used().iter().map(String::as_str).eq(["TARGETPLATFORM"])
            && globals.values.get("TARGETPLATFORM") == Some(&read)
        {
            let detail = format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            );
            found.warn(&REDUNDANT_TARGET_PLATFORM, at.lines, detail);
        }
        if expander.unset().is_empty()
            && expander.used().is_empty()
            && let Some((os, arch)) = reference::platform(&read)
        {
            let name = stage.name.as_deref().unwrap_or_default();
            if !name.contains(&os) && !name.contains(&arch) {
                let detail = format!("FROM --platform flag should not use constant value {read:?}");
                found.warn(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, at.lines, detail);
            }
        }
    }
}

fn undeclared(from: &From, expander: &Expander<'_>, globals: &Globals, found: &mut Found) {
    let known: Vec<&str> = globals.values.names().chain(globals.declared.keys().map(String::as_str)).collect();
    for name in expander.unset().iter().filter(|name| !known.contains(&name.as_str())) {
        let message = format!("FROM argument '{name}' is not declared");
        let detail = suggest::with_nearest(message, name, known.iter().copied(), true);
        found.warn(&UNDEFINED_ARG_IN_FROM, from.instruction.lines, detail);
    }
}
