//! Projects that are one text: no file is read.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bireme_compose::{Files, LoadOptions, Project, load};

struct Text(String);

impl Files for Text {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.ends_with("compose.yaml") {
            Ok(self.0.clone().into_bytes())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path.ends_with("compose.yaml")
    }
}

pub(crate) fn project(text: &str) -> Project {
    let options = LoadOptions {
        files: vec!["/shop/compose.yaml".into()],
        working_dir: "/shop".into(),
        environment: BTreeMap::from([("TOKEN".to_owned(), "secret".to_owned())]),
        ..LoadOptions::default()
    };
    load(&options, &Text(text.to_owned())).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Services that share namespaces, volumes and names, or restart together.
pub(crate) const SHARED: &str = "
services:
  p: {image: p}
  q: {image: q, network_mode: 'service:p'}
  r: {image: r, depends_on: {p: {condition: service_started, restart: true}}}
  s: {image: s, depends_on: [p]}
  t: {image: t, links: ['p:proxy'], volumes_from: ['s:ro']}
";
