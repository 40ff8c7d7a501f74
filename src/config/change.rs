//! What may not change in the rules of a mount while it stands.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Rule, Rules};

/// Checks rules that are to take the place of others.
///
/// How long a lock must show no sign of life before it is broken is known to its holder, too, who takes
/// it for his own until then. So all hosts must have the same [`stale_after`](Rule::stale_after) for a
/// file at every moment, which they would not while one after another reads its rules again.
///
/// # Errors
/// A line that says what is wrong with it, and what to do.
pub fn check(old: &Rules, new: &Rules) -> Result<(), String> {
    let times: BTreeSet<Duration> = [old, new]
        .iter()
        .flat_map(|rules| rules.rules())
        .map(|rule| rule.stale_after)
        .collect();
    let who = |rule: &Rule| (rule.files.clone(), rule.stale_after);
    let is_same = || {
        let (old, new) = (old.rules().iter(), new.rules().iter());
        old.map(|rule| who(rule)).eq(new.map(|rule| who(rule)))
    };
    match times.len() <= 1 || is_same() {
        true => Ok(()),
        false => Err(
            "stale_after would change for some files, and all hosts must have the same at every \
             moment; unmount the directory on all hosts, and mount it anew. (While all rules have the \
             same stale_after anything else may change; else their files and stale_after must stay.)"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn rules(guards: &[(&str, &str)]) -> Rules {
        let mut text = "version = 1\n".to_owned();
        for (files, keys) in guards {
            text.push_str(&format!("[[guard]]\nfiles = [\"{files}\"]\n{keys}\n"));
        }
        Rules::parse(&text, Path::new("f")).unwrap()
    }

    #[test]
    fn anything_may_change_but_the_time_after_which_a_lock_is_broken() {
        let plain = rules(&[("a", ""), ("b", "update = \"atomic\"")]);
        assert!(check(&plain, &rules(&[("b", "record = \"\\n\"")])).is_ok());
        assert!(check(&plain, &Rules::everything()).is_ok());
        assert!(check(&Rules::everything(), &plain).is_ok());
        assert!(check(&plain, &rules(&[("a", "stale_after = \"61s\"")])).is_err());
        assert!(check(&plain, &rules(&[("c", "stale_after = \"61s\"")])).is_err());
    }

    #[test]
    fn where_there_are_several_times_each_file_keeps_its_own() {
        let one = ("a", "stale_after = \"10s\"");
        let several = rules(&[one, ("b", "")]);
        let other = ("a", "stale_after = \"10s\"\nack = \"close\"");
        assert!(check(&several, &rules(&[other, ("b", "update = \"off\"")])).is_ok());
        assert!(check(&several, &rules(&[("b", ""), one])).is_err());
        assert!(check(&several, &rules(&[one])).is_err());
        let swapped = rules(&[("a", ""), ("b", "stale_after = \"10s\"")]);
        assert!(check(&several, &swapped).is_err());
    }
}
