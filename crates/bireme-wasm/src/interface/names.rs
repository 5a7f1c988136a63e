//! Reads what a component or core module imports and exports, from the file alone.
//!
//! A binary is eight bytes of preamble and then sections: one byte of kind, the length, the content. Those of imports and
//! exports are read, each of a bounded size; all others are passed over unread, so that a component of any size costs its
//! names alone. What stands in the file is a stranger's: nothing of it is validated here but the form of those sections.
//!
//! Source: WebAssembly core specification, "Modules" of its binary format; component model, `design/mvp/Binary.md`.

use std::io::{self, Read, Seek, SeekFrom};

use wasmparser::{
    BinaryReader, ComponentExportSectionReader, ComponentImportSectionReader, ExportSectionReader, ImportSectionReader,
};

/// Most bytes of all sections that are read: four times the names that the compiler takes, and their types.
const MOST_READ: u64 = 1 << 20;
/// Most imports and exports together: some hundred times what a component has.
const MOST_NAMES: usize = 16 << 10;
/// What begins the names of the sections in which tool chains leave the world that a core module was made for. Source:
/// wit-component, `metadata`.
pub const WORLD: &str = "component-type";
/// The module of WASI preview 1, whose functions an adapter brings.
const PREVIEW1: &str = "wasi_snapshot_preview1";
/// Most sections: each costs a read. A component of a language with a runtime has some hundred.
const MOST_SECTIONS: usize = 64 << 10;

/// What stands in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// A core module, not a component, nor what is made into one when it is compiled.
    pub(super) is_module: bool,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
    /// Of a module: what it imports from, each once.
    modules: Vec<String>,
}

/// Why a file gives no names.
#[derive(Debug, thiserror::Error)]
pub(super) enum NamesError {
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
    #[error("this is not a valid WebAssembly component: {0}")]
    Malformed(String),
}

fn malformed(reason: impl Into<String>) -> NamesError {
    NamesError::Malformed(reason.into())
}

/// Reads the names from `file`, which holds nothing else, from its start. Blocking.
///
/// # Errors
/// Those of `file`; `Malformed` for anything that is no binary of this form, or is larger in names than any component.
pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Names, NamesError> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut preamble = [0; 8];
    file.read_exact(&mut preamble).map_err(|_| malformed("it has no eight bytes"))?;
    // Bytes 4 to 7 are the version and the layer.
    let is_module = match &preamble {
        b"\0asm\x01\0\0\0" => true,
        b"\0asm\x0d\0\x01\0" => false,
        [b'\0', b'a', b's', b'm', ..] => return Err(malformed("its version is none that is known")),
        _ => return Err(malformed("it does not begin with \\0asm")),
    };
    let mut names = Names { is_module, ..Names::default() };
    let mut has_world = false;
    let (mut at, mut left) = (8, MOST_READ);
    for _ in 0..MOST_SECTIONS {
        let Some(section) = header(file, at)? else {
            return Ok(if has_world && is_made_for_a_world(&names.exports) { names.of_world() } else { names });
        };
        let end = section.start + section.size;
        if end > length {
            return Err(malformed(format!("its section at byte {at} is longer than the file")));
        }
        if names.wants(section.kind) {
            left = left.checked_sub(section.size).ok_or_else(too_many)?;
            let mut content = Vec::new();
            file.take(section.size).read_to_end(&mut content)?;
            names.add(section.kind, &content, section.start)?;
        }
        if is_module && section.kind == 0 && !has_world {
            // Its name is behind its length, of five bytes at most.
            let mut begins = Vec::new();
            file.take(section.size.min(5 + WORLD.len() as u64)).read_to_end(&mut begins)?;
            let length = begins.iter().take(5).position(|byte| byte & 0x80 == 0).map_or(begins.len(), |last| last + 1);
            has_world = begins[length..].starts_with(WORLD.as_bytes());
        }
        at = end;
        file.seek(SeekFrom::Start(at))?;
    }
    Err(malformed(format!("it has more than {MOST_SECTIONS} sections")))
}

/// Whether a core module with a world is to be made into a component: those that Spin's first tool chain made are not.
///
/// Source: Spin, `crates/componentize`.
pub fn is_made_for_a_world<T: AsRef<str>>(exports: &[T]) -> bool {
    !exports.iter().any(|name| matches!(name.as_ref(), "handle-http-request" | "handle-redis-message"))
}

fn too_many() -> NamesError {
    malformed(format!("it has more than {MOST_NAMES} imports and exports, or more than {MOST_READ} bytes of them"))
}

struct Section {
    kind: u8,
    /// Where its content starts.
    start: u64,
    size: u64,
}

/// The section that begins at `at`, where `file` stands; `None` at the end of the file. Its content is next in `file`.
fn header(file: &mut impl Read, at: u64) -> Result<Option<Section>, NamesError> {
    let mut byte = [0];
    if file.read(&mut byte)? == 0 {
        return Ok(None);
    }
    let kind = byte[0];
    // LEB128 of 32 bits: five bytes at most.
    let mut size = 0_u64;
    for index in 0..5 {
        file.read_exact(&mut byte).map_err(|_| malformed(format!("it ends within the section at byte {at}")))?;
        size |= u64::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] & 0x80 == 0 {
            return Ok(Some(Section { kind, start: at + 2 + index, size }));
        }
    }
    Err(malformed(format!("the length of its section at byte {at} is malformed")))
}

impl Names {
    /// Whether a section of this kind names something: 2 and 7 of a module, 10 and 11 of a component.
    fn wants(&self, kind: u8) -> bool {
        matches!((self.is_module, kind), (true, 2 | 7) | (false, 10 | 11))
    }

    fn add(&mut self, kind: u8, content: &[u8], start: u64) -> Result<(), NamesError> {
        let fault = |error: wasmparser::Error| malformed(error.to_string());
        let reader = BinaryReader::new(content, usize::try_from(start).unwrap_or(usize::MAX - content.len()));
        match kind {
            2 => {
                for import in ImportSectionReader::new(reader).map_err(fault)?.into_imports() {
                    let import = import.map_err(fault)?;
                    if !self.modules.iter().any(|known| known == import.module) {
                        self.modules.push(import.module.to_owned());
                    }
                    self.push(true, format!("{}.{}", import.module, import.name))?;
                }
            }
            7 => {
                for export in ExportSectionReader::new(reader).map_err(fault)? {
                    self.push(false, export.map_err(fault)?.name.to_owned())?;
                }
            }
            10 => {
                for import in ComponentImportSectionReader::new(reader).map_err(fault)? {
                    self.push(true, import.map_err(fault)?.name.name.to_owned())?;
                }
            }
            _ => {
                for export in ComponentExportSectionReader::new(reader).map_err(fault)? {
                    self.push(false, export.map_err(fault)?.name.name.to_owned())?;
                }
            }
        }
        Ok(())
    }

    /// The names as the component has them that this module is made into: of functions those of their interfaces.
    fn of_world(self) -> Self {
        let imports = self.modules.into_iter().filter(|module| module != PREVIEW1).collect();
        let mut names = Self { imports, ..Self::default() };
        for export in &self.exports {
            let plain = export.strip_prefix("cabi_post_").unwrap_or(export);
            let interface = match plain.split_once('#') {
                Some((interface, _)) => interface,
                None if plain == "_start" => "wasi:cli/run@0.2.0",
                None => continue,
            };
            if !names.exports.iter().any(|known| known == interface) {
                names.exports.push(interface.to_owned());
            }
        }
        names
    }

    fn push(&mut self, is_import: bool, name: String) -> Result<(), NamesError> {
        if self.imports.len() + self.exports.len() >= MOST_NAMES {
            return Err(too_many());
        }
        if is_import {
            self.imports.push(name)
        } else {
            self.exports.push(name)
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn leb(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            if number == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    fn string(text: &str) -> Vec<u8> {
        [leb(text.len()), text.as_bytes().to_vec()].concat()
    }

    fn section(kind: u8, items: &[Vec<u8>]) -> Vec<u8> {
        let content = [leb(items.len()), items.concat()].concat();
        [vec![kind], leb(content.len()), content].concat()
    }

    /// Imports (or exports) of a component: instances of type or index 0.
    fn named(kind: u8, names: &[&str]) -> Vec<u8> {
        let item = |name: &&str| match kind {
            10 => [vec![0], string(name), vec![5, 0]].concat(),
            _ => [vec![0], string(name), vec![5, 0, 0]].concat(),
        };
        section(kind, &names.iter().map(item).collect::<Vec<_>>())
    }

    fn of(bytes: &[u8]) -> Result<Names, String> {
        read(&mut Cursor::new(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_and_all_else_is_passed_over() {
        let code = section(1, &[vec![0; 300]]);
        let bytes = [
            COMPONENT.to_vec(),
            named(10, &["wasi:http/types@0.2.6", "wasi:io/poll@0.2.6"]),
            code,
            named(10, &["plain-name"]),
            named(11, &["wasi:http/incoming-handler@0.2.6"]),
        ];
        let names = of(&bytes.concat()).unwrap();
        assert_eq!(names.imports, ["wasi:http/types@0.2.6", "wasi:io/poll@0.2.6", "plain-name"]);
        assert_eq!(names.exports, ["wasi:http/incoming-handler@0.2.6"]);
        assert!(!names.is_module);
        // A function of type 0, and an exported one.
        let import = [string("wasi_snapshot_preview1"), string("fd_write"), vec![0, 0]].concat();
        let export = [string("_start"), vec![0, 0]].concat();
        let bytes = [MODULE.to_vec(), section(2, &[import]), section(7, &[export])].concat();
        let names = of(&bytes).unwrap();
        assert_eq!((names.is_module, names.imports), (true, vec!["wasi_snapshot_preview1.fd_write".to_owned()]));
        assert_eq!(names.exports, ["_start"]);
        assert_eq!(of(COMPONENT).unwrap(), Names::default());
    }

    #[test]
    fn a_module_made_for_a_world_is_told_as_its_component() {
        let world = |name: &str| {
            let content = [string(name), vec![0; 40]].concat();
            [vec![0], leb(content.len()), content].concat()
        };
        let import = |module: &str, name: &str| [string(module), string(name), vec![0, 0]].concat();
        let imports = section(
            2,
            &[
                import("wasi:http/types@0.2.0", "[resource-drop]incoming-request"),
                import("wasi:http/types@0.2.0", "[method]fields.get"),
                import(PREVIEW1, "fd_write"),
            ],
        );
        let exports = |names: &[&str]| {
            section(7, &names.iter().map(|name| [string(name), vec![0, 0]].concat()).collect::<Vec<_>>())
        };
        let handler = exports(&["memory", "wasi:http/incoming-handler@0.2.0#handle", "cabi_realloc", "_initialize"]);
        let module =
            [MODULE.to_vec(), imports.clone(), handler, world("component-type:wit-bindgen:0.30.0:proxy")].concat();
        let names = of(&module).unwrap();
        assert!(!names.is_module);
        assert_eq!(names.imports, ["wasi:http/types@0.2.0"]);
        assert_eq!(names.exports, ["wasi:http/incoming-handler@0.2.0"]);
        let program =
            [MODULE.to_vec(), imports.clone(), exports(&["_start"]), world("component-type:command")].concat();
        assert_eq!(of(&program).unwrap().exports, ["wasi:cli/run@0.2.0"]);
        // A length of two bytes.
        let long = format!("component-type:{}", "x".repeat(200));
        let module = [MODULE.to_vec(), imports.clone(), exports(&["a:b/c#d"]), world(&long)].concat();
        assert!(!of(&module).unwrap().is_module);
        // Another section, and what Spin's first tool chain made.
        let other = [MODULE.to_vec(), imports.clone(), exports(&["_start"]), world("producers")].concat();
        assert!(of(&other).unwrap().is_module);
        let old = [MODULE.to_vec(), exports(&["handle-http-request"]), world("component-type:spin")].concat();
        assert!(of(&old).unwrap().is_module);
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_place() {
        let long = [COMPONENT, &[10, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        let endless = [COMPONENT, &[10, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
        // A count that the content does not hold.
        let lies = [COMPONENT, &[10, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        for (bytes, told) in [
            (&b""[..], "it has no eight bytes"),
            (b"#!/bin/sh\n", "it does not begin with \\0asm"),
            (b"\0asm\x02\0\0\0", "its version is none that is known"),
            (&long, "its section at byte 8 is longer than the file"),
            (&endless, "the length of its section at byte 8 is malformed"),
            (&[COMPONENT, &[10]].concat(), "it ends within the section at byte 8"),
            (&lies, "unexpected end"),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(error.contains(told), "{error:?} should tell: {told}");
        }
    }

    #[test]
    fn names_have_a_bound_in_count_and_bytes() {
        let many = vec!["a"; MOST_NAMES + 1];
        let bytes = [COMPONENT.to_vec(), named(10, &many)].concat();
        assert!(of(&bytes).unwrap_err().contains("more than 16384 imports and exports"));
        assert!(of(&[COMPONENT.to_vec(), named(10, &many[1..])].concat()).is_ok());
        let wide = "a".repeat(300 << 10);
        let bytes = [COMPONENT.to_vec(), named(11, &[wide.as_str(); 4])].concat();
        assert!(of(&bytes).unwrap_err().contains("1048576 bytes of them"));
        let empty = [COMPONENT.to_vec(), [0, 0].repeat(MOST_SECTIONS)].concat();
        assert!(of(&empty).unwrap_err().contains("more than 65536 sections"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let preamble = if kind { COMPONENT } else { MODULE };
            let _ = of(&[preamble, &bytes].concat());
            // With a section that is looked into, so that its content is met.
            for section in [0, 2, 7, 10, 11] {
                let _ = of(&[preamble, &[section], &leb(bytes.len()), &bytes].concat());
            }
        }
    }
}
