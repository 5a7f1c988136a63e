//! What a component takes and offers, by name, without compiling it.
//!
//! Source: WebAssembly component model, `Binary.md`.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of a section of imports or exports that are read.
const MOST_BYTES: u64 = 1 << 20;

/// Sections that are looked at.
const MOST_SECTIONS: usize = 100_000;

/// What stands at the outside of a piece of WebAssembly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// A component rather than a core module, of which no names are told.
    pub component: bool,
    /// What it needs, such as `wasi:cli/environment@0.2.0`, in the order of the file.
    pub imports: Vec<String>,
    /// What it offers, such as `wasi:http/incoming-handler@0.2.0`.
    pub exports: Vec<String>,
}

/// Reads the names of imports and exports, as far as they are understood; `None` for what is no WebAssembly.
///
/// # Errors
/// Those of reading.
pub fn world(file: &mut (impl Read + Seek)) -> io::Result<Option<World>> {
    let mut head = [0; 8];
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if head[..4] != *b"\0asm" {
        return Ok(None);
    }
    let mut world = World { component: head[6..] == [1, 0], ..World::default() };
    if !world.component {
        return Ok(Some(world));
    }
    for _ in 0..MOST_SECTIONS {
        let Some((id, size)) = section(file)? else { break };
        if !matches!(id, IMPORTS | EXPORTS) || u64::from(size) > MOST_BYTES {
            file.seek(SeekFrom::Current(i64::from(size)))?;
            continue;
        }
        let mut content = Vec::new();
        file.take(u64::from(size)).read_to_end(&mut content)?;
        let names = if id == IMPORTS { &mut world.imports } else { &mut world.exports };
        // What is newer than this is left out.
        let _ = read_names(&mut &content[..], id == EXPORTS, names);
    }
    Ok(Some(world))
}

const IMPORTS: u8 = 10;
const EXPORTS: u8 = 11;

/// The head of a section; `None` at the end.
fn section(file: &mut impl Read) -> io::Result<Option<(u8, u32)>> {
    let mut id = [0];
    if file.read(&mut id)? == 0 {
        return Ok(None);
    }
    let (mut size, mut shift) = (0_u32, 0);
    loop {
        let mut byte = [0];
        if shift > 28 || file.read(&mut byte)? == 0 {
            return Ok(None);
        }
        size |= u32::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(Some((id[0], size)));
        }
        shift += 7;
    }
}

fn byte(from: &mut &[u8]) -> Option<u8> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}

fn number(from: &mut &[u8]) -> Option<u32> {
    let (mut value, mut shift) = (0_u32, 0);
    while shift <= 28 {
        let next = byte(from)?;
        value |= u32::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
    None
}

fn name(from: &mut &[u8]) -> Option<String> {
    if byte(from)? > 1 {
        return None;
    }
    let length = usize::try_from(number(from)?).ok()?;
    let (name, rest) = from.split_at_checked(length)?;
    *from = rest;
    String::from_utf8(name.to_vec()).ok()
}

/// Passes over what says of which kind something is.
fn kind(from: &mut &[u8]) -> Option<()> {
    match byte(from)? {
        0 => (byte(from)? == 0x11).then_some(())?,
        1 | 4 | 5 => {}
        // Values and types: one like another, or one that is told.
        2 | 3 => match byte(from)? {
            0 => {}
            1 => return Some(()),
            _ => return None,
        },
        _ => return None,
    }
    number(from).map(drop)
}

fn read_names(from: &mut &[u8], exports: bool, names: &mut Vec<String>) -> Option<()> {
    for _ in 0..number(from)? {
        let name = name(from)?;
        if exports {
            if byte(from)? == 0 {
                byte(from)?;
            }
            number(from)?;
            if byte(from)? == 1 {
                kind(from)?;
            }
        } else {
            kind(from)?;
        }
        names.push(name);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn named(name: &str, after: &[u8]) -> Vec<u8> {
        [&[0, u8::try_from(name.len()).unwrap()], name.as_bytes(), after].concat()
    }

    fn part(id: u8, entries: &[Vec<u8>]) -> Vec<u8> {
        let content = [&[u8::try_from(entries.len()).unwrap()], &entries.concat()[..]].concat();
        [&[id, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    }

    #[test]
    fn names_of_imports_and_exports_are_read() {
        let parts = [
            b"\0asm\x0d\0\x01\0".to_vec(),
            // A section of types, to be passed over.
            vec![7, 3, 1, 2, 3],
            part(
                IMPORTS,
                &[named("wasi:cli/environment@0.2.0", &[5, 0]), named("m", &[0, 0x11, 4]), named("t", &[3, 1])],
            ),
            part(EXPORTS, &[named("wasi:http/incoming-handler@0.2.0", &[5, 9, 0]), named("run", &[1, 0, 1, 1, 2])]),
        ];
        let found = world(&mut Cursor::new(parts.concat())).unwrap().unwrap();
        assert!(found.component);
        assert_eq!(found.imports, ["wasi:cli/environment@0.2.0", "m", "t"]);
        assert_eq!(found.exports, ["wasi:http/incoming-handler@0.2.0", "run"]);
        let module = world(&mut Cursor::new(b"\0asm\x01\0\0\0".to_vec())).unwrap();
        assert_eq!(module, Some(World::default()));
        assert_eq!(world(&mut Cursor::new(b"\x7fELF....".to_vec())).unwrap(), None);
        assert_eq!(world(&mut Cursor::new(b"\0as".to_vec())).unwrap(), None);
    }

    proptest! {
        #[test]
        fn whatever_follows_the_head_ends(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&b"\0asm\x0d\0\x01\0"[..], &rest].concat();
            prop_assert!(world(&mut Cursor::new(bytes)).unwrap().is_some());
        }
    }
}
