//! `--chown`: users and groups by name or number.

use std::io::Read as _;
use std::path::Path;

use crate::view::View;

/// Reads `user[:group]`, names being those of the image `below`; answers the numbers of both.
///
/// # Errors
/// A sentence that says which name the image does not know.
pub(super) fn of(text: &str, below: &View) -> Result<(u32, u32), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let read = |path: &str| -> String {
        let mut text = String::new();
        if let Ok(file) = below.open_file(Path::new(path)) {
            // Larger than any real one; a line cut off is not found.
            let _ = file.take(4 << 20).read_to_string(&mut text);
        }
        text
    };
    let field = |file: &str, name: &str, at: usize| -> Option<u32> {
        let fields = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
        fields.filter(|fields| fields[0] == name).find_map(|fields| fields.get(at)?.parse().ok())
    };
    let number = |name: &str| name.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let unknown = |what: &str, name: &str, file: &str| {
        format!("unable to find {what} {name}: no matching entries in {file} of the image")
    };
    let (uid, primary) = match number(user) {
        Some(uid) => (uid, uid),
        None => {
            let passwd = read("/etc/passwd");
            let uid = field(&passwd, user, 2).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            (uid, field(&passwd, user, 3).unwrap_or(uid))
        }
    };
    let gid = match group {
        None | Some("") => primary,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => field(&read("/etc/group"), group, 2).ok_or_else(|| unknown("group", group, "/etc/group"))?,
        },
    };
    Ok((uid, gid))
}
