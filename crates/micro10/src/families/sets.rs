//! `A={a,c,f}, B={c,f,h}. What is in both?` worked as `a no; c yes; f yes; both c,f`.

use super::{Dice, Draft, Level};

/// What is asked of two sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Both,
    FirstOnly,
    JustOne,
}

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (size, alphabet) = level.pick((3, 8), (4, 10), (5, 12));
    let kinds = level.pick(1, 1, 2);
    loop {
        let (first, second) = (set(dice, size, alphabet), set(dice, size, alphabet));
        let asked = match dice.between(0, kinds) {
            0 => Asked::Both,
            1 => Asked::FirstOnly,
            _ => Asked::JustOne,
        };
        let answer = solution(asked, &first, &second);
        // An empty set has no name to be answered by.
        if !answer.is_empty() {
            return draft(dice, asked, &first, &second, &answer);
        }
    }
}

fn draft(dice: &mut Dice, asked: Asked, first: &[char], second: &[char], answer: &[char]) -> Draft {
    let belongs = |set: &[char], c: char| if set.contains(&c) { "yes" } else { "no" };
    let mut working: Vec<String> = first.iter().map(|&c| format!("{c} {}", belongs(second, c))).collect();
    if asked == Asked::JustOne {
        working.extend(second.iter().map(|&c| format!("{c} {}", belongs(first, c))));
    }
    let word = match asked {
        Asked::Both => "both",
        Asked::FirstOnly => "only",
        Asked::JustOne => "one",
    };
    working.push(format!("{word} {}", listed(answer)));
    let (a, b) = (listed(first), listed(second));
    let question = phrase(dice, asked, &a, &b);
    // What both have, or just one, does not depend on the order, so neither does the split.
    let (a, b) = if asked != Asked::FirstOnly && b < a { (b, a) } else { (a, b) };
    Draft::new(format!("{word} {a} {b}"), question, working, listed(answer))
}

fn phrase(dice: &mut Dice, asked: Asked, a: &str, b: &str) -> String {
    match (dice.between(0, 2), asked) {
        (0, Asked::Both) => format!("A={{{a}}}, B={{{b}}}. What is in both?"),
        (0, Asked::FirstOnly) => format!("A={{{a}}}, B={{{b}}}. What is in A only?"),
        (0, Asked::JustOne) => format!("A={{{a}}}, B={{{b}}}. What is in just one?"),
        (1, Asked::Both) => format!("Ann likes {a}. Bob likes {b}. What do both like?"),
        (1, Asked::FirstOnly) => format!("Ann likes {a}. Bob likes {b}. What does only Ann like?"),
        (1, Asked::JustOne) => format!("Ann likes {a}. Bob likes {b}. What does just one like?"),
        (_, Asked::Both) => format!("Which letters do {a} and {b} share?"),
        (_, Asked::FirstOnly) => format!("Which letters of {a} are not in {b}?"),
        (_, Asked::JustOne) => format!("Which letters are in just one of {a} and {b}?"),
    }
}

fn solution(asked: Asked, first: &[char], second: &[char]) -> Vec<char> {
    let chosen = ('a'..='z').filter(|c| match (asked, first.contains(c), second.contains(c)) {
        (Asked::Both, in_first, in_second) => in_first && in_second,
        (Asked::FirstOnly, in_first, in_second) => in_first && !in_second,
        (Asked::JustOne, in_first, in_second) => in_first != in_second,
    });
    chosen.collect()
}

/// `size` of the first `alphabet` letters, in alphabetical order.
fn set(dice: &mut Dice, size: usize, alphabet: i64) -> Vec<char> {
    let mut letters = Vec::with_capacity(size);
    while letters.len() < size {
        let letter = char::from(b'a' + dice.between(0, alphabet - 1) as u8);
        if !letters.contains(&letter) {
            letters.push(letter);
        }
    }
    letters.sort_unstable();
    letters
}

fn listed(letters: &[char]) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(",")
}
