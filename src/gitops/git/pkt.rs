//! pkt-lines, the frames of Git's protocol (gitprotocol-common(5), gitprotocol-v2(5)).

/// A frame: four hexadecimal digits with its length, themselves included, and that many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section.
    Delimiter,
    /// A line, with its end if it has one.
    Line(&'a [u8]),
}

/// These bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The frame at the beginning of the bytes and its length; none as long as it isn't complete.
pub(super) fn first(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some(digits) = bytes.get(..4) else {
        // What is there must be digits, so that an HTML page is found out at its first byte.
        return bytes.iter().all(u8::is_ascii_hexdigit).then_some(None).ok_or(Malformed);
    };
    let length = digits.iter().try_fold(0_usize, |sum, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(Malformed)?;
        Ok(sum * 16 + digit as usize)
    })?;
    match length {
        0 => Ok(Some((Packet::Flush, 4))),
        1 => Ok(Some((Packet::Delimiter, 4))),
        // 0002 ends a response over other transports than HTTP; 0003 means nothing.
        2 | 3 => Err(Malformed),
        _ => Ok(bytes.get(4..length).map(|line| (Packet::Line(line), length))),
    }
}

/// A line as a frame. Lines here are short.
pub(super) fn line(text: &str) -> String {
    format!("{:04x}{text}\n", text.len() + 5)
}

/// A line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// A ref and its object.
    Ref { id: &'a str, name: &'a str },
    /// The server's reason why not.
    Refusal(&'a str),
    /// Anything else: capabilities, `# service=...`, `shallow ...`.
    Other,
}

/// What a line of a list of refs says, of version 0 or 2.
pub(super) fn answer(line: &[u8]) -> Answer<'_> {
    // In version 0 the first line has the capabilities behind a NUL.
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let Ok(line) = str::from_utf8(line) else {
        return Answer::Other;
    };
    let line = line.trim_end_matches('\n');
    if let Some(reason) = line.strip_prefix("ERR ") {
        return Answer::Refusal(reason);
    }
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some(id), Some(name)) if is_id(id) && name != "capabilities^{}" => Answer::Ref { id, name },
        _ => Answer::Other,
    }
}

/// An object's name, SHA-1's or SHA-256's.
fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn frames_are_found_complete_or_not_or_wrong() {
        for (bytes, expected) in [
            ("", Ok(None)),
            ("00", Ok(None)),
            ("0000", Ok(Some((Packet::Flush, 4)))),
            ("0001x", Ok(Some((Packet::Delimiter, 4)))),
            ("0004", Ok(Some((Packet::Line(b""), 4)))),
            ("0006a\nrest", Ok(Some((Packet::Line(b"a\n"), 6)))),
            ("0006a", Ok(None)),
            ("FFFFx", Ok(None)),
            ("0002", Err(Malformed)),
            ("0003", Err(Malformed)),
            ("<", Err(Malformed)),
            ("<!DOCTYPE html>", Err(Malformed)),
            ("+123", Err(Malformed)),
        ] {
            assert_eq!(first(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn lines_say_refs_of_both_versions() {
        let name = "refs/heads/main";
        let main = Answer::Ref { id: ID, name };
        for (line, expected) in [
            (format!("{ID} refs/heads/main\n"), main),
            (format!("{ID} refs/heads/main"), main),
            (format!("{ID} refs/heads/main symref-target:refs/heads/x\n"), main),
            (format!("{ID} refs/heads/main\0side-band-64k agent=git/2\n"), main),
            (format!("{ID} capabilities^{{}}\0agent=git/2"), Answer::Other),
            ("unborn HEAD symref-target:refs/heads/main\n".to_owned(), Answer::Other),
            ("# service=git-upload-pack\n".to_owned(), Answer::Other),
            ("ERR access denied\n".to_owned(), Answer::Refusal("access denied")),
            ("0123 refs/heads/main".to_owned(), Answer::Other),
            (String::new(), Answer::Other),
        ] {
            assert_eq!(answer(line.as_bytes()), expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((packet, length))) = first(&bytes) {
                prop_assert!(length >= 4 && length <= bytes.len());
                if let Packet::Line(line) = packet {
                    let _ = answer(line);
                }
            }
            let _ = answer(&bytes);
        }

        #[test]
        fn a_line_comes_back(text in "[ -~]{0,300}") {
            let framed = line(&text);
            let expected = format!("{text}\n");
            prop_assert_eq!(first(framed.as_bytes()), Ok(Some((Packet::Line(expected.as_bytes()), framed.len()))));
            prop_assert_eq!(first(&framed.as_bytes()[..framed.len() - 1]), Ok(None));
        }
    }
}
