//! A tar archive of a few texts (POSIX ustar).
//!
//! Knows: headers. Must not know: what is in the files.

/// The size of everything in an archive is a multiple of this.
const BLOCK: usize = 512;

/// An archive of these files, each with its name and its text, which only their owner may read.
pub fn archive(files: &[(String, String)], modified: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, text) in files {
        bytes.extend(header(name, text.len(), modified));
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

fn header(name: &str, size: usize, modified: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    // Names are those of this program: short and ASCII.
    put(0, name);
    put(100, "0000600");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{modified:011o}"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_a_header_and_the_text_in_blocks() {
        let files = [("a/b".to_owned(), "x".repeat(513)), ("c".to_owned(), String::new())];
        let bytes = archive(&files, 0o17);
        assert_eq!(bytes.len(), BLOCK * (1 + 2 + 1 + 2));
        assert_eq!((&bytes[..4], &bytes[124..136]), (&b"a/b\0"[..], &b"00000001001\0"[..]));
        assert_eq!((&bytes[257..263], bytes[BLOCK], bytes[BLOCK * 2 + 1]), (&b"ustar\0"[..], b'x', 0));
        assert_eq!(&bytes[BLOCK * 3..BLOCK * 3 + 2], b"c\0");
    }
}
