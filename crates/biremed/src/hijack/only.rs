//! What of a workload's output reaches a client, and in which form.

use bytes::BytesMut;

/// What of a workload's output a client asked for, and in which form: one that did not ask for standard output has no use
/// for it, and Docker's own command line breaks off when it comes.
pub struct Only {
    /// `None`: everything, in whatever form.
    streams: Option<[bool; 2]>,
    /// Frames go without their heads.
    bare: bool,
    /// What is raw gets frames of standard output.
    wrap: bool,
    head: Vec<u8>,
    /// Bytes of the frame that are still to come.
    left: usize,
}

impl Only {
    pub fn of(stdout: bool, stderr: bool, tty: bool) -> Self {
        Self::formed(stdout, stderr, tty, tty)
    }

    /// For a workload whose output is raw because it has a terminal (`tty`), or not, and a client that wants it raw, or in
    /// frames.
    pub fn formed(stdout: bool, stderr: bool, tty: bool, raw: bool) -> Self {
        let bare = raw && !tty;
        let wrap = tty && !raw;
        let all = tty || (stdout && stderr && !bare);
        let streams = (!all).then_some([stdout, stderr]);
        Self { streams, bare, wrap, head: Vec::with_capacity(8), left: 0 }
    }

    /// Takes out of `bytes` what is not wanted; frames may begin in one call and end in another.
    pub(super) fn keep(&mut self, bytes: &mut BytesMut) {
        if self.wrap && !bytes.is_empty() {
            *bytes = BytesMut::from(&crate::stream::frame(1, bytes)[..]);
        }
        let Some([stdout, stderr]) = self.streams else { return };
        let mut kept = BytesMut::new();
        let mut rest = bytes.split();
        while !rest.is_empty() {
            if self.left == 0 {
                let missing = 8 - self.head.len();
                self.head.extend_from_slice(&rest.split_to(missing.min(rest.len())));
                let [stream, _, _, _, a, b, c, d] = self.head[..] else { break };
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                let wanted = if stream == 2 { stderr } else { stdout };
                if wanted && !self.bare {
                    kept.extend_from_slice(&self.head);
                }
                if self.left == 0 {
                    self.head.clear();
                }
                continue;
            }
            let piece = rest.split_to(self.left.min(rest.len()));
            self.left -= piece.len();
            if if self.head[0] == 2 { stderr } else { stdout } {
                kept.extend_from_slice(&piece);
            }
            if self.left == 0 {
                self.head.clear();
            }
        }
        *bytes = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_kept() {
        let frame = |stream: u8, text: &str| {
            let mut bytes = vec![stream, 0, 0, 0];
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        let all = [frame(1, "out"), frame(2, "err"), frame(2, ""), frame(1, "more")].concat();
        for size in [1, 3, 8, 100] {
            let mut only = Only::of(false, true, false);
            let mut kept = Vec::new();
            for piece in all.chunks(size) {
                let mut piece = BytesMut::from(piece);
                only.keep(&mut piece);
                kept.extend_from_slice(&piece);
            }
            assert_eq!(kept, [frame(2, "err"), frame(2, "")].concat(), "in pieces of {size}");
        }
    }

    #[test]
    fn a_client_has_the_form_it_asked_for() {
        let keep = |mut only: Only, pieces: &[&[u8]]| {
            let mut kept = Vec::new();
            for piece in pieces {
                let mut piece = BytesMut::from(*piece);
                only.keep(&mut piece);
                kept.extend_from_slice(&piece);
            }
            kept
        };
        let framed = keep(Only::formed(true, true, true, false), &[b"raw", b"more"]);
        assert_eq!(framed, b"\x01\0\0\0\0\0\0\x03raw\x01\0\0\0\0\0\0\x04more");
        let pieces: &[&[u8]] = &[b"\x01\0\0\0\0\0\0\x03o", b"ut\x02\0\0\0\0", b"\0\0\x03err"];
        assert_eq!(keep(Only::formed(true, true, false, true), pieces), b"outerr");
        assert_eq!(keep(Only::formed(true, false, false, true), pieces), b"out");
        assert_eq!(keep(Only::formed(true, true, true, true), &[b"raw"]), b"raw");
    }
}
