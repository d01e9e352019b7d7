//! `It is 14:35. What time is it 95 minutes later?` worked as `35+95=130; 130-120=10; 14+2=16; time 16:10`.

use super::{Dice, Draft, Level};

pub(super) fn draw(dice: &mut Dice, level: Level) -> Draft {
    match level {
        Level::One => within_the_hour(dice),
        Level::Two => over_the_hour(dice),
        Level::Three => hours_and_minutes(dice),
    }
}

/// Whole minutes later, in the same hour.
fn within_the_hour(dice: &mut Dice) -> Draft {
    let (hour, minute) = (dice.between(0, 23), dice.between(0, 49));
    let span = dice.between(1, 59 - minute);
    let working = vec![format!("{minute}+{span}={}", minute + span)];
    finish(dice, Time { hour, minute }, Span { minutes: span, in_hours: false }, working)
}

/// Up to three hours later, on the same day.
fn over_the_hour(dice: &mut Dice) -> Draft {
    let (hour, minute) = (dice.between(0, 20), dice.between(0, 59));
    let span = dice.between(15, 180);
    let sum = minute + span;
    let mut working = vec![format!("{minute}+{span}={sum}")];
    let hours = sum / 60;
    if hours > 0 {
        working.push(format!("{sum}-{}={}", 60 * hours, sum % 60));
        working.push(format!("{hour}+{hours}={}", hour + hours));
    }
    finish(dice, Time { hour, minute }, Span { minutes: span, in_hours: false }, working)
}

/// Hours and minutes later or earlier, past midnight too.
fn hours_and_minutes(dice: &mut Dice) -> Draft {
    let start = Time { hour: dice.between(0, 23), minute: dice.between(0, 59) };
    let (hours, minutes) = (dice.between(1, 11), dice.between(1, 59));
    let is_later = dice.between(0, 1) == 0;
    let working = if is_later { later(start, hours, minutes) } else { earlier(start, hours, minutes) };
    let total = 60 * hours + minutes;
    finish(dice, start, Span { minutes: if is_later { total } else { -total }, in_hours: true }, working)
}

fn later(Time { hour, minute }: Time, hours: i64, minutes: i64) -> Vec<String> {
    let sum = minute + minutes;
    let mut working = vec![format!("{minute}+{minutes}={sum}")];
    let mut end = hour + hours;
    if sum >= 60 {
        working.push(format!("{sum}-60={}", sum - 60));
        end += 1;
        working.push(format!("{hour}+{hours}+1={end}"));
    } else {
        working.push(format!("{hour}+{hours}={end}"));
    }
    if end >= 24 {
        working.push(format!("{end}-24={}", end - 24));
    }
    working
}

fn earlier(Time { hour, minute }: Time, hours: i64, minutes: i64) -> Vec<String> {
    let borrows = minute < minutes;
    let (borrowed, taken) = if borrows { ("+60", "-1") } else { ("", "") };
    let rest = (minute - minutes).rem_euclid(60);
    let end = hour - hours - i64::from(borrows);
    let day = if end < 0 { "+24" } else { "" };
    vec![
        format!("{minute}{borrowed}-{minutes}={rest}"),
        format!("{hour}{day}-{hours}{taken}={}", end.rem_euclid(24)),
    ]
}

#[derive(Clone, Copy)]
struct Time {
    hour: i64,
    minute: i64,
}

/// How much later, or earlier if negative.
struct Span {
    minutes: i64,
    in_hours: bool,
}

fn finish(dice: &mut Dice, start: Time, span: Span, mut working: Vec<String>) -> Draft {
    let end = (60 * start.hour + start.minute + span.minutes).rem_euclid(24 * 60);
    let show = |hour: i64, minute: i64| format!("{hour}:{minute:02}");
    let (from, answer) = (show(start.hour, start.minute), show(end / 60, end % 60));
    working.push(format!("time {answer}"));
    let size = span.minutes.abs();
    let long =
        if span.in_hours { format!("{} h {} min", size / 60, size % 60) } else { format!("{size} minutes") };
    let question = match (span.minutes > 0, dice.between(0, 2)) {
        (true, 0) => format!("It is {from}. What time is it {long} later?"),
        (true, 1) => format!("{from} plus {long} is what time?"),
        (true, _) => format!("A train leaves at {from} and takes {long}. When does it arrive?"),
        (false, 0) => format!("It is {from}. What time was it {long} earlier?"),
        (false, 1) => format!("{from} minus {long} is what time?"),
        (false, _) => format!("A train took {long} and came at {from}. When did it leave?"),
    };
    Draft::new(format!("{from} {:+}", span.minutes), question, working, answer)
}
