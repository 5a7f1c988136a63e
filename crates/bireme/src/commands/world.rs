//! `bireme inspect --world`: what the component in an image offers and asks for, for people.

use std::fmt::Write as _;

use bireme_api::answers::image::Image;
use bireme_api::v1::{Component, Permission};
use bireme_core::error::one_line;

use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn worlds(context: &Context, kind: Option<&str>, names: &[String]) -> Outcome {
    if kind.is_some_and(|kind| kind != "image") {
        return Err(Failure::new("--world looks only among images: leave out --type").into());
    }
    let mut failures = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match look_up(context, name).await {
            Ok(component) => {
                if at > 0 {
                    context.printer.line("")?;
                }
                context.printer.line(shown(name, &component).trim_end())?;
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n")).into()) }
}

async fn look_up(context: &Context, name: &str) -> anyhow::Result<Component> {
    let path = format!("/images/{name}/json");
    // Where a name has both platforms, the engine answers with the container's.
    let of_component = context.client.get(&path).query("platform", "wasi/wasm").read::<Image>().await;
    let image = match of_component {
        Err(error) if error.is_not_found() => context.client.get(&path).read::<Image>().await?,
        answer => answer?,
    };
    image.bireme.ok_or_else(|| {
        Failure::new(format!("{name} is no image of a component: only those have a world; look at it without --world"))
            .into()
    })
}

/// The whole text. Whatever comes from the image is printed as plain text.
fn shown(name: &str, component: &Component) -> String {
    let mut text = String::new();
    let mut list = |title: &str, items: &[String]| {
        for (at, item) in items.iter().enumerate() {
            let _ = writeln!(text, "{:<10}{}", if at == 0 { title } else { "" }, one_line(item, usize::MAX));
        }
    };
    list("Image", &[name.to_owned()]);
    list("Trigger", &[component.trigger.clone().unwrap_or_else(|| "none".to_owned())]);
    list("Exports", &component.exports);
    list("Imports", &component.imports);
    let asks: Vec<String> = component.permissions.iter().map(ask).collect();
    let nothing = ["nothing outside itself".to_owned()];
    list("May use", if asks.is_empty() { &nothing } else { &asks });
    if let Some(why) = &component.refused {
        let _ = writeln!(text, "Refused   {}", one_line(why, usize::MAX));
    }
    text
}

/// What one permission is, and by what it is given.
fn ask(permission: &Permission) -> String {
    let Permission { name, label, requested, .. } = permission;
    let given = match (label.as_deref(), requested) {
        (None, _) => "where a mount gives it some (-v)".to_owned(),
        // Embedded stores reach nothing and need no grant.
        (Some("bireme.kv"), None) => "stores of its own; another server by bireme.kv".to_owned(),
        (Some(label), None) => format!("what {label} allows"),
        // Others may hold passwords.
        (Some("bireme.allow"), Some(requested)) => {
            format!("what bireme.allow allows; the image requests {requested} (--allow-requested)")
        }
        (Some(label), Some(_)) => format!("what {label} says; the image requests it (--allow-requested)"),
    };
    format!("{name:<11}{given}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_told_with_what_grants_what_it_asks_for() {
        let permission = |name: &str, label: Option<&str>, requested: Option<&str>| Permission {
            name: name.to_owned(),
            interfaces: Vec::new(),
            label: label.map(str::to_owned),
            requested: requested.map(str::to_owned),
        };
        let component = Component {
            trigger: Some("http".to_owned()),
            exports: vec!["wasi:http/incoming-handler@0.2.6".to_owned()],
            imports: vec!["wasi:http/outgoing-handler@0.2.6".to_owned(), "acme:odd/\u{1b}[31m".to_owned()],
            permissions: vec![
                permission("http", Some("bireme.allow"), Some("https://example.com")),
                permission("sockets", Some("bireme.allow"), None),
                permission("key-value", Some("bireme.kv"), None),
                permission("key-value", Some("bireme.kv"), Some("a=redis://:secret@r")),
                permission("files", None, None),
            ],
            refused: Some("it imports acme:odd".to_owned()),
        };
        insta::assert_snapshot!(shown("me/app", &component), @r"
        Image     me/app
        Trigger   http
        Exports   wasi:http/incoming-handler@0.2.6
        Imports   wasi:http/outgoing-handler@0.2.6
                  acme:odd/ [31m
        May use   http       what bireme.allow allows; the image requests https://example.com (--allow-requested)
                  sockets    what bireme.allow allows
                  key-value  stores of its own; another server by bireme.kv
                  key-value  what bireme.kv says; the image requests it (--allow-requested)
                  files      where a mount gives it some (-v)
        Refused   it imports acme:odd
        ");
        let quiet = Component { trigger: None, ..Component::default() };
        insta::assert_snapshot!(shown("me/app", &quiet), @r"
        Image     me/app
        Trigger   none
        May use   nothing outside itself
        ");
    }
}
