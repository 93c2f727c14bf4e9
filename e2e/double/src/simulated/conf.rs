//! Configuration files of redis: a key and its words on each line.

use std::fmt::Write as _;

/// The lines of a file, without comments.
#[derive(Debug, Clone, Default)]
pub(super) struct Conf(pub(super) Vec<Vec<String>>);

impl Conf {
    /// Reads a file.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        Self(lines.map(words).filter(|line| !line.is_empty()).collect())
    }

    /// The file, with words in quotes where they need some.
    pub(super) fn render(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, line| {
            let quoted: Vec<_> = line.iter().map(|word| quote(word)).collect();
            let _ = writeln!(text, "{}", quoted.join(" "));
            text
        })
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '\'');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The words of a line; those in double quotes know escapes, those in single ones only that of their end.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(first) = rest.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut word = String::new();
        if first == '"' || first == '\'' {
            while let Some(c) = rest.next() {
                match c {
                    '\\' => word.extend(rest.next()),
                    c if c == first => break,
                    c => word.push(c),
                }
            }
        } else {
            word.push(first);
            while let Some(c) = rest.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
        }
        words.push(word);
    }
    words
}

/// A number of bytes as redis writes it: `100mb`, `1g`, `512`.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let text = text.to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_with_their_quotes() {
        let text = "port 6379\nrequirepass \"a b\\\"c\"\nlogfile \"\"\nsave 900 1\n";
        let conf = Conf::parse(&format!("# nothing\n{text}\n"));
        assert_eq!(conf.0[1], ["requirepass", "a b\"c"]);
        assert_eq!(conf.render(), text);
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("32mb"), Some(32 << 20));
        assert_eq!(bytes("1k"), Some(1000));
        assert_eq!(bytes("7"), Some(7));
        assert_eq!(bytes("x"), None);
    }
}
