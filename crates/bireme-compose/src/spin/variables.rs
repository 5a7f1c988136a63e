//! What the variables of an app stand for.

use std::collections::BTreeMap;

use super::manifest::{App, Variable};
use crate::error::ComposeError;
use crate::yaml::Node;

/// The variables of an app, looked up when they are used.
pub(super) struct Variables<'a> {
    declared: &'a BTreeMap<String, Variable<'a>>,
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn of(app: &'a App<'a>, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { declared: &app.variables, lookup }
    }

    /// The text that a template is, with the values of its variables. `{{ name }}` stands for a variable.
    ///
    /// # Errors
    /// Braces that do not close, a variable that is not declared, and one that must be set and is not.
    pub(super) fn fill(&self, template: &str, node: &Node, place: &str) -> Result<String, ComposeError> {
        let mut rest = template;
        let mut text = String::new();
        while let Some(begin) = rest.find("{{") {
            text.push_str(&rest[..begin]);
            let after = &rest[begin + 2..];
            let end = after.find("}}").ok_or_else(|| {
                node.invalid(place, "has a {{ without its }}: a variable is written {{ name }}".to_owned())
            })?;
            text.push_str(&self.value(after[..end].trim(), node, place)?);
            rest = &after[end + 2..];
        }
        text.push_str(rest);
        Ok(text)
    }

    fn value(&self, name: &str, node: &Node, place: &str) -> Result<String, ComposeError> {
        let Some(variable) = self.declared.get(name) else {
            return Err(node.invalid(place, format!("uses the variable {name:?}, which [variables] does not have")));
        };
        let outside = format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase());
        (self.lookup)(&outside).or_else(|| variable.default.clone()).ok_or_else(|| ComposeError::Required {
            place: variable.node.place(format!("variables.{name}")),
            variable: outside,
            message: format!("the app's variable {name} has no default"),
        })
    }
}
