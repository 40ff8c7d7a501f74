//! Holds what is written of the keys to what the parser knows: in dotlockfs.toml(5), and in the table
//! of the README.

use std::collections::BTreeMap;
use std::path::Path;

use super::{FILE_KEYS, GUARD_KEYS, Rule, Rules, Word};
use crate::config::{Ack, Append, Fence, Replace, Update};

const PAGE: &str = include_str!("../../../packaging/man/dotlockfs.toml.5");
const README: &str = include_str!("../../../README.md");

/// Keys, each with its default as it would stand in a rule file and with what is said of it.
type Described = BTreeMap<String, (Option<String>, String)>;

/// The keys of the page: `.It Cm KEY`, or `.It Cm KEY No = Qq WORD`.
fn of_page() -> Described {
    let items = PAGE.split("\n.It Cm ").skip(1);
    let keys = items.map(|item| {
        let (head, text) = item.split_once('\n').unwrap();
        match head.split_once(" No = ") {
            None => (head.to_owned(), (None, text.to_owned())),
            Some((key, default)) => {
                let default = match default.strip_prefix("Qq ") {
                    Some(word) => format!("\"{word}\""),
                    None => default.to_owned(),
                };
                (key.to_owned(), (Some(default), text.to_owned()))
            }
        }
    });
    keys.collect()
}

/// The rows of the README's table.
fn of_readme() -> Described {
    let table = README.split("| key | default | what it does |").nth(1);
    let rows = table.unwrap().lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let rows = rows.map(|row| {
        let mut cells = row.trim_matches('|').splitn(3, '|').map(str::trim);
        let key = cells.next().unwrap().trim_matches('`').to_owned();
        let default = cells.next().unwrap();
        let default = default.starts_with('`').then(|| default.trim_matches('`'));
        let text = cells.next().unwrap().to_owned();
        (key, (default.map(str::to_owned), text))
    });
    rows.collect()
}

#[test]
fn every_key_is_described_with_its_default() {
    for (name, described, known) in [
        ("page", of_page(), [GUARD_KEYS, FILE_KEYS].concat()),
        ("README", of_readme(), GUARD_KEYS.to_vec()),
    ] {
        for key in &known {
            assert!(described.contains_key(*key), "{name}: {key} is missing");
        }
        assert_eq!(described.len(), known.len(), "{name}: {described:?}");

        // What are said to be the defaults, written into a rule, must change nothing.
        let mut file = "version = 1\n[[guard]]\nfiles = [\"a\"]\n".to_owned();
        for (key, (default, _)) in &described {
            match default {
                Some(default) => file.push_str(&format!("{key} = {default}\n")),
                None => assert!(
                    ["files", "record", "version", "guard"].contains(&key.as_str()),
                    "{name}: {key} has no default"
                ),
            }
        }
        let rules = Rules::parse(&file, Path::new(name)).unwrap();
        let defaults = Rule::with_defaults(vec!["a".to_owned()]);
        assert_eq!(*rules.rules()[0], defaults, "{name}");
    }
}

#[test]
fn every_word_of_a_key_is_described() {
    fn words<T: Word>() -> Vec<&'static str> {
        T::WORDS.iter().map(|(word, _)| *word).collect()
    }
    let (page, readme) = (of_page(), of_readme());
    for (key, words) in [
        ("append", words::<Append>()),
        ("ack", words::<Ack>()),
        ("update", words::<Update>()),
        ("replace", words::<Replace>()),
        ("fence", words::<Fence>()),
    ] {
        for word in words {
            let item = format!("\n.It Qq {word}\n");
            assert!(page[key].1.contains(&item), "page: {key} = {word}");
            let quoted = format!("\"{word}\"");
            assert!(readme[key].1.contains(&quoted), "README: {key} = {word}");
        }
    }
}
