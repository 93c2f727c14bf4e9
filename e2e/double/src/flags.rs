//! Command lines as docopt reads them (§14): `--opt=v` or `--opt v`, unambiguous prefixes, a few short options.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// What a program's options are.
#[derive(Debug)]
pub struct Spec {
    /// Options with a value.
    pub valued: &'static [&'static str],
    /// Options without one.
    pub switches: &'static [&'static str],
    /// Short forms: letter and long name.
    pub short: &'static [(char, &'static str)],
    /// Shown after a usage error.
    pub usage: &'static str,
}

/// What was given.
#[derive(Debug, Default)]
pub struct Flags {
    given: BTreeMap<&'static str, String>,
    /// Words that are no options.
    pub words: Vec<String>,
}

impl Spec {
    /// Reads a command line without the program's name.
    pub fn parse(&self, args: &[String]) -> Result<Flags> {
        let mut flags = Flags::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some((name, attached)) = self.option(arg)? else {
                flags.words.push(arg.clone());
                continue;
            };
            let value = match (self.valued.contains(&name), attached) {
                (false, None) => String::new(),
                (false, Some(_)) => bail!("option --{name} takes no argument\n{}", self.usage),
                (true, Some(value)) => value,
                (true, None) => match rest.next() {
                    Some(value) => value.clone(),
                    None => bail!("--{name} requires argument\n{}", self.usage),
                },
            };
            // Codis dies of an empty value instead of taking it for an absent one (§8.3).
            if self.valued.contains(&name) && value.is_empty() {
                bail!("option --{name} requires an argument");
            }
            flags.given.insert(name, value);
        }
        Ok(flags)
    }

    fn option(&self, arg: &str) -> Result<Option<(&'static str, Option<String>)>> {
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (long, None),
            };
            return Ok(Some((self.long(name)?, value)));
        }
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return Ok(None);
        };
        let mut letters = letters.chars();
        let letter = letters.next();
        let Some((_, name)) = self.short.iter().find(|(short, _)| Some(*short) == letter) else {
            bail!("unknown option {arg}\n{}", self.usage);
        };
        let attached = Some(letters.as_str().to_string()).filter(|value| !value.is_empty());
        Ok(Some((name, attached)))
    }

    fn long(&self, name: &str) -> Result<&'static str> {
        let all = || self.valued.iter().chain(self.switches).copied();
        if let Some(exact) = all().find(|option| *option == name) {
            return Ok(exact);
        }
        let fits: Vec<_> = all().filter(|option| option.starts_with(name)).collect();
        match fits.as_slice() {
            [one] => Ok(one),
            [] => bail!("unknown option --{name}\n{}", self.usage),
            many => bail!("--{name} is not a unique prefix: {}?\n{}", many.join(", "), self.usage),
        }
    }
}

impl Flags {
    /// An option's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value of an option that must be given.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.get(name)
            .ok_or_else(|| anyhow::anyhow!("option --{name} is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        valued: &["config", "assets-dir", "product_name", "product_auth"],
        switches: &["remove-lock", "version"],
        short: &[('c', "config")],
        usage: "usage",
    };

    fn parse(line: &str) -> Result<Flags> {
        SPEC.parse(&line.split(' ').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn both_forms_prefixes_and_short_options_are_read() {
        let flags = parse("-c a.toml --assets=b --product_name demo --remove-lock word").unwrap();
        assert_eq!(flags.get("config"), Some("a.toml"));
        assert_eq!(flags.get("assets-dir"), Some("b"));
        assert_eq!(flags.get("product_name"), Some("demo"));
        assert!(flags.has("remove-lock") && !flags.has("version"));
        assert_eq!(flags.words, ["word"]);
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(
            parse("--product=x")
                .unwrap_err()
                .to_string()
                .contains("not a unique prefix")
        );
        assert!(parse("--nonsense").is_err() && parse("-x").is_err() && parse("--config").is_err());
        assert!(parse("--version=1").is_err());
        let empty = SPEC.parse(&["--product_auth".into(), String::new()]).unwrap_err();
        assert_eq!(empty.to_string(), "option --product_auth requires an argument");
    }
}
