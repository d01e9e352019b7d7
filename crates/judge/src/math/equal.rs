//! Two values to a verdict.

use super::Equality::{self, Different, Equal, Undecided};
use super::parse::Answer;
use super::polynomial::Quotient;
use super::rational::Rational;

pub(super) fn compare(left: &Answer, right: &Answer) -> Equality {
    match (left, right) {
        (Answer::Value(a, unit_a), Answer::Value(b, unit_b)) => {
            quantities((a, unit_a.as_deref()), (b, unit_b.as_deref()))
        }
        (Answer::Named(name_a, a), Answer::Named(name_b, b)) => match compare(a, b) {
            Equal if name_a != name_b => undecided("the names on the left differ"),
            verdict => verdict,
        },
        (Answer::Named(_, a), b) | (b, Answer::Named(_, a)) => compare(a, b),
        (Answer::List(a), Answer::List(b)) => match in_order(a, b) {
            Different if in_any_order(a, b) == Equal => undecided("the order of the list may matter"),
            verdict => verdict,
        },
        (Answer::Set(a), Answer::Set(b)) | (Answer::Union(a), Answer::Union(b)) => in_any_order(a, b),
        (Answer::Brackets(open_a, a, close_a), Answer::Brackets(open_b, b, close_b)) => {
            match in_order(a, b) {
                Equal if (open_a, close_a) != (open_b, close_b) => {
                    match is_pair(open_a, a, close_a) && is_pair(open_b, b, close_b) {
                        true => Different,
                        false => undecided("the brackets differ"),
                    }
                }
                verdict => verdict,
            }
        }
        (Answer::Matrix(a), Answer::Matrix(b)) => match a.len() == b.len() {
            true => all(a.iter().zip(b).map(|(a, b)| in_order(a, b))),
            false => Different,
        },
        (Answer::Infinity(a), Answer::Infinity(b)) => {
            if a == b {
                Equal
            } else {
                Different
            }
        }
        (Answer::Based(a, base_a), Answer::Based(b, base_b)) => match base_a == base_b {
            true => {
                if a.trim_start_matches('0') == b.trim_start_matches('0') {
                    Equal
                } else {
                    Different
                }
            }
            false => undecided("the bases differ"),
        },
        (Answer::Words(a), Answer::Words(b)) => {
            if a == b {
                Equal
            } else {
                undecided("the words differ")
            }
        }
        (Answer::Value(..), Answer::Infinity(_) | Answer::Brackets(..))
        | (Answer::Infinity(_) | Answer::Brackets(..), Answer::Value(..)) => Different,
        _ => undecided("they are of different kinds"),
    }
}

/// Whether it can only be an interval of two numbers: a square bracket beside a round one.
fn is_pair(open: &char, items: &[Answer], close: &char) -> bool {
    items.len() == 2 && (*open == '[') != (*close == ']')
}

fn undecided(why: &str) -> Equality {
    Undecided(why.to_owned())
}

fn all(verdicts: impl Iterator<Item = Equality>) -> Equality {
    let mut all = Equal;
    for verdict in verdicts {
        match (&all, verdict) {
            (_, Different) => return Different,
            (Equal, verdict) => all = verdict,
            _ => {}
        }
    }
    all
}

fn in_order(left: &[Answer], right: &[Answer]) -> Equality {
    if left.len() != right.len() {
        return Different;
    }
    all(left.iter().zip(right).map(|(a, b)| compare(a, b)))
}

/// Every element has one that is equal, and each is used once.
fn in_any_order(left: &[Answer], right: &[Answer]) -> Equality {
    let verdicts: Vec<Vec<Equality>> =
        left.iter().map(|a| right.iter().map(|b| compare(a, b)).collect()).collect();
    let mut is_used = vec![false; right.len()];
    let is_matched = |row: &Vec<Equality>| {
        let at = (0..row.len()).find(|&at| !is_used[at] && row[at] == Equal);
        at.inspect(|&at| is_used[at] = true).is_some()
    };
    let num_matched = verdicts.iter().map(is_matched).filter(|is_matched| *is_matched).count();
    if num_matched == left.len() && num_matched == right.len() {
        return Equal;
    }
    // Twice the same element, or intervals that join, may make the same set of other parts.
    let is_plain = |items: &[Answer]| items.iter().all(|item| matches!(item, Answer::Value(..)));
    let is_certain = verdicts.iter().flatten().all(|verdict| !matches!(verdict, Undecided(_)));
    if is_plain(left) && is_plain(right) && is_certain && left.len() == right.len() {
        Different
    } else {
        undecided("the parts do not match one by one")
    }
}

fn quantities((a, unit_a): (&Quotient, Option<&str>), (b, unit_b): (&Quotient, Option<&str>)) -> Equality {
    let percent = Quotient::constant(Rational { numerator: 1, denominator: 100 });
    match (unit_a, unit_b) {
        (Some("%"), None) | (None, Some("%")) => {
            let (share, bare) = if unit_a.is_some() { (a, b) } else { (b, a) };
            match share.mul(&percent).map_or(undecided("too large"), |share| values(&share, bare)) {
                Different if values(a, b) == Equal => undecided("a percent sign is missing"),
                verdict => verdict,
            }
        }
        (Some(unit_a), Some(unit_b)) if unit_a != unit_b => undecided("the units differ"),
        _ => values(a, b),
    }
}

fn values(a: &Quotient, b: &Quotient) -> Equality {
    let letters: Vec<&str> = a.letters().into_iter().chain(b.letters()).collect();
    let has = |letter| letters.contains(&letter);
    match a.equals(b) {
        None => undecided("its numbers are too large"),
        Some(true) => Equal,
        // i * i is -1, and what e and pi have to do with each other nobody knows.
        Some(false) if has("i") || has("e") && has("pi") => undecided("`i` or `e` may be numbers"),
        Some(false) => Different,
    }
}
