//! "Did you mean": the known word that a mistyped one is nearest to.

/// The known word that is at most two slips of the finger away from `word`.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Far longer than any key: nothing is near it, and the distance would be costly.
    if word.len() > 64 {
        return None;
    }
    let near = known.iter().map(|known| (distance(word, known), *known));
    near.min()
        .filter(|(slips, known)| *slips <= 2 && *slips < known.len())
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out or changed to turn one word into the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = &["append", "ack", "lock_timeout"];
        assert_eq!(nearest("apend", known), Some("append"));
        assert_eq!(nearest("lock-timeout", known), Some("lock_timeout"));
        assert_eq!(nearest("akc", known), Some("ack"));
        assert_eq!(nearest("retries", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
    }
}
