//! Holds what is written of the mount options to what is understood: in mount.dotlockfs(8), and in
//! the table of the README.

use std::collections::BTreeSet;

use super::words::{KERNEL_FLAGS, LABELS, OF_MOUNT, OURS, REFUSED, SHOWN_BY_KERNEL, TAKES_BACK};

const PAGE: &str = include_str!("../../../packaging/man/mount.dotlockfs.8");
const README: &str = include_str!("../../../README.md");

/// Each word that can stand behind `-o`, those that are refused too.
fn known() -> BTreeSet<&'static str> {
    let others = ["log-level", "x-", "X-"];
    let lists = [OURS, KERNEL_FLAGS, OF_MOUNT, LABELS, SHOWN_BY_KERNEL];
    let lists = lists.into_iter().chain([others.as_slice()]).flatten();
    let taking_back = TAKES_BACK.iter().map(|(word, _)| word);
    let refused = REFUSED.iter().map(|(word, _)| word);
    lists.chain(taking_back).chain(refused).copied().collect()
}

/// The words in the heads of the lists below MOUNT OPTIONS: those that stand behind `Cm`, up to
/// another macro.
fn of_page() -> BTreeSet<&'static str> {
    let options = PAGE.split("\n.Sh MOUNT OPTIONS\n").nth(1).unwrap();
    let options = options.split("\n.Sh ").next().unwrap();
    let heads = options
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "));
    let mut found = BTreeSet::new();
    for head in heads {
        let mut names = true;
        for word in head.split_whitespace() {
            match word {
                "Cm" => names = true,
                "Ns" | "Ar" | "Op" | "Oo" | "Oc" => names = false,
                "," | "=" | ":" => {}
                word if names => {
                    found.insert(word);
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_page_has_every_option_and_no_other() {
    assert_eq!(of_page(), known());
}

#[test]
fn the_table_of_the_readme_has_every_option_or_its_opposite() {
    let table = README.split("| option | what it does |").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells: Vec<&str> = rows.map(|row| row.split('|').nth(1).unwrap()).collect();
    let has = |word: &str| {
        // "x-" begins names.
        let ends: &[&str] = match word.ends_with('-') {
            true => &[""],
            false => &["`", "=", "["],
        };
        let mut written = ends.iter().map(|end| format!("`{word}{end}"));
        written.any(|written| cells.iter().any(|cell| cell.contains(&written)))
    };
    for word in known() {
        let opposite = match word {
            "rw" => "ro".to_owned(),
            "async" => "sync".to_owned(),
            _ => match word.strip_prefix("no") {
                Some(rest) => rest.to_owned(),
                None => format!("no{word}"),
            },
        };
        // Of these one stands for all.
        let shown_by_kernel = SHOWN_BY_KERNEL.contains(&word) && has("user_id");
        assert!(has(word) || has(&opposite) || shown_by_kernel, "{word}");
    }
}
