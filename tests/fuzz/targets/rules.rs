//! Rule files of any kind: they are understood or refused with words, and always alike.

#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dotlockfs::config::{FILE_NAME, Rules};
use libfuzzer_sys::{Corpus, fuzz_target};

/// Paths that a program may ask for, apart from those that the input holds itself.
const PATHS: &[&[u8]] = &[
    b"",
    b"a",
    b"log",
    b"x/y/z.log",
    b"/",
    b"//a//b",
    b"..",
    b"line\nbreak",
    b"\xff\xfe/\x80",
    b"a{b,c}[d]*?\\",
    b"results.csv.lock",
    FILE_NAME.as_bytes(),
];

fuzz_target!(|data: &[u8]| -> Corpus {
    // What is not UTF-8 is refused before it comes here.
    let Ok(text) = std::str::from_utf8(data) else {
        return Corpus::Reject;
    };
    let name = Path::new("rules.toml");
    let rules = match Rules::parse(text, name) {
        Ok(rules) => rules,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty());
            let again = Rules::parse(text, name).expect_err("it was refused before");
            assert_eq!(again.to_string(), said);
            return Corpus::Keep;
        }
    };
    let again = Rules::parse(text, name).expect("it was accepted before");
    assert_eq!(rules.rules(), again.rules());
    assert_eq!(rules.describe("rules.toml"), again.describe("rules.toml"));
    assert_eq!(rules.warnings(), again.warnings());
    assert_eq!(rules.lock_all_updates(), again.lock_all_updates());
    let of_the_input = data.split(|byte| *byte == b'"').take(16);
    for path in PATHS.iter().copied().chain(of_the_input) {
        let path = Path::new(OsStr::from_bytes(path));
        let rule = rules.rule_for(path);
        assert_eq!(rule, again.rule_for(path));
        if let Some(rule) = rule {
            assert!(rules.rules().contains(rule));
            assert!(!rule.files.is_empty());
            let ends = rule.record.as_ref().map_or(1, Vec::len);
            assert!((1..=16).contains(&ends));
        }
    }
    Corpus::Keep
});
