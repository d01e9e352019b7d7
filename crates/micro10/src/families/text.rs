//! `s='bead';s=s[::-1];s=s[1:];print(s)` worked as `daeb; aeb`.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    let (num_statements, shortest, longest) = level.pick((1, 3, 5), (2, 3, 5), (4, 5, 7));
    let mut s: String = (0..dice.between(shortest, longest)).map(|_| letter(dice, 'a', 'j')).collect();
    let mut program = format!("s='{s}'");
    let mut working = Vec::new();
    for _ in 0..num_statements {
        let (statement, next) = match dice.between(0, 3) {
            0 => ("s=s[::-1]".to_owned(), s.chars().rev().collect()),
            1 => ("s=s[1:]".to_owned(), s[1..].to_owned()),
            2 => ("s=s[:-1]".to_owned(), s[..s.len() - 1].to_owned()),
            _ => {
                let c = letter(dice, 'x', 'z');
                (format!("s+='{c}'"), format!("{s}{c}"))
            }
        };
        program = format!("{program};{statement}");
        s = next;
        working.push(s.clone());
    }
    let question = match dice.between(0, 2) {
        0 => format!("{program};print(s)"),
        1 => format!("{program}. What is s?"),
        _ => format!("After {program} what is s?"),
    };
    Draft::new(program, question, working, s)
}

fn letter(dice: &mut Dice, first: char, last: char) -> char {
    char::from(dice.between(first as i64, last as i64) as u8)
}
