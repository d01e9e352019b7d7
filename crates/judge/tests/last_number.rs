//! The last-number verifier on answers as GSM8K and SVAMP have them, and on what models make of them.
//!
//! Every answer of the table is rewritten in ways that are right and in ways that are wrong; not one wrong pair may be
//! accepted. With `REMIT_DATA` set to a folder that has `gsm8k` and `svamp`, the ignored test does the same to theirs.

use std::path::{Path, PathBuf};

use remit_judge::Verifier;
use remit_judge::verify::{LastNumber, last_number};

/// Answers as they stand in the data: whole numbers, thousands with commas, decimals, negatives, fractions.
const ANSWERS: [&str; 36] = [
    "18",
    "3",
    "70000",
    "540",
    "20",
    "64",
    "260",
    "160",
    "45",
    "460",
    "366",
    "694",
    "13",
    "1",
    "0",
    "5",
    "2",
    "10",
    "12",
    "104",
    "1,080",
    "2,125",
    "15,400",
    "1,000,000",
    "57,500",
    "0.4",
    "2.75",
    "10.05",
    "8.0",
    "1234.5",
    "-5",
    "-120",
    "-0.25",
    "1/2",
    "7/3",
    "-3/4",
];

fn verifier() -> LastNumber {
    LastNumber::new(&last_number::Settings::default()).expect("good settings")
}

fn sign_and_size(answer: &str) -> (&str, &str) {
    answer.strip_prefix('-').map_or(("", answer), |size| ("-", size))
}

/// `1234567` as `1,234,567`.
fn with_commas(digits: &str) -> String {
    let chars: Vec<char> = digits.chars().collect();
    let place = |i: usize| chars.len() - i;
    let mut text = String::new();
    for (i, c) in chars.iter().enumerate() {
        if i > 0 && place(i) % 3 == 0 {
            text.push(',');
        }
        text.push(*c);
    }
    text
}

/// Ways to say the same number.
fn right(answer: &str) -> Vec<String> {
    let (sign, size) = sign_and_size(answer);
    let mut all = vec![
        answer.to_owned(),
        format!(" {answer}\n"),
        format!("#### {answer}"),
        format!("{answer}."),
        format!("The answer is {answer}."),
        format!("4 + 5 = 9 and 9 - 2 = 7, so the answer is {answer} apples"),
        format!("**{answer}**"),
        format!("**Answer:** {answer}"),
        format!("\\boxed{{{answer}}}"),
        format!("x = {answer}"),
        format!("x={answer}"),
        format!("so {sign}${size}"),
        format!("so ${answer} in all!"),
        format!("({answer})"),
        format!("it is {answer} km"),
        format!("it is {answer}%"),
        format!("it is {answer} dollars, and that is all."),
        format!("First 12:30, then 3*4, then {answer}"),
        format!("3 + 4\n{answer}"),
        answer.replace('-', "\u{2212}"),
    ];
    if !answer.contains('/') {
        let (whole, rest) = size.split_once('.').map_or((size, ""), |(whole, rest)| (whole, rest));
        let digits = whole.replace(',', "");
        let point = if rest.is_empty() { ".0".to_owned() } else { format!(".{rest}0") };
        all.push(format!("{sign}{digits}{point}"));
        all.push(format!("{sign}{}{point}", with_commas(&digits)));
        if rest.is_empty() {
            all.push(format!(
                "{sign}{}/2 of them",
                with_commas(&(2 * digits.parse::<u64>().expect("digits")).to_string())
            ));
        }
        if whole == "0" && !rest.is_empty() {
            all.push(format!("it is {sign}.{rest}"));
        }
    }
    all
}

/// Ways to say another number, or none.
fn wrong(answer: &str) -> Vec<String> {
    let (sign, size) = sign_and_size(answer);
    let digits = size.replace(',', "");
    let mut all = vec![
        String::new(),
        "I do not know".to_owned(),
        format!("{sign}1{digits}"),
        format!("{answer}1"),
        format!("{answer}.5.5"),
        format!("{answer} and 7919"),
        format!("{answer} or 7919"),
        format!("7919 or {answer}"),
        format!("not {answer}"),
        format!("more than {answer}"),
        format!("10-{size}"),
        format!("10 - {size}"),
        format!("10 + {size}"),
        format!("2*{size}"),
        format!("2 * {size}"),
        format!("2**{size}"),
        format!("2^{size}"),
        format!("{answer}^2"),
        format!("{answer}²"),
        format!("{answer}½"),
        format!("{answer}k"),
        format!("{answer}M"),
        format!("{answer}x"),
        format!("{answer} thousand"),
        format!("{answer} million"),
        format!("{answer}e5"),
        format!("{answer}:30"),
        format!("12:{size}"),
        format!("{answer}-7919"),
        format!("7919,{size}"),
        format!("x{size}"),
        format!("v2.{size}"),
        format!(">{answer}"),
        format!("!= {answer}"),
        format!("{answer} + x"),
        format!("{answer} and a half"),
        format!("minus {size}"),
        format!("#### 7919\n{answer}"),
    ];
    let is_zero = digits == "0";
    if !is_zero {
        all.push(if sign.is_empty() { format!("-{size}") } else { size.to_owned() });
        all.push(format!("{answer}0/7"));
        all.push(format!("{answer}/7919"));
    }
    if !answer.contains(['/', '.']) {
        all.push(format!("{sign}{digits}.01"));
        all.push(format!("{sign}0.{digits}1"));
        all.push(format!("{answer},5"));
        if !is_zero {
            all.push(format!("{sign}{digits}0"));
            all.push(format!("{sign}.{digits}"));
        }
        if digits.len() == 3 {
            all.push(format!("1 {digits}"));
            all.push(format!("1\u{202f}{digits}"));
        }
    }
    all
}

#[test]
fn right_rewritings_are_accepted_and_no_wrong_one_is() {
    let verifier = verifier();
    let (mut num_right, mut num_wrong) = (0, 0);
    for answer in ANSWERS {
        for completion in right(answer) {
            assert_eq!(verifier.reward(&completion, answer), 1.0, "{completion:?} for {answer}");
            num_right += 1;
        }
        for completion in wrong(answer) {
            assert_eq!(verifier.reward(&completion, answer), 0.0, "{completion:?} for {answer}");
            num_wrong += 1;
        }
        for other in ANSWERS.into_iter().filter(|other| other != &answer) {
            assert_eq!(verifier.reward(other, answer), 0.0, "{other} for {answer}");
            num_wrong += 1;
        }
    }
    assert!(num_right > 700 && num_wrong > 2500, "{num_right} right and {num_wrong} wrong pairs");
}

/// Sentences as models end them, by hand.
#[test]
fn sentences() {
    let verifier = verifier();
    for (completion, answer) in [
        ("Janet makes 9 * 2 = $18 every day at the farmer's market.", "18"),
        ("He ran 3 sprints 3 times a week, or 540 meters a week total", "540x"),
        ("So the profit is $70,000.", "70000"),
        ("She has 2 - 5 = -3 apples left", "-3"),
        ("Each gets $2.50.", "2.5"),
        ("She has 3*6=<<3*6=18>>18 eggs", "18"),
        ("= 18-year-old trees", "18"),
        ("at 60 miles/hour for 3 hours, so 180 miles", "180"),
        ("They earn $5/hour", "5"),
        ("- first 3\n- then 18", "18"),
        ("* 18 apples", "18"),
        ("1. Add them\n2. The total is 18", "18"),
        ("That leaves 18 - the rest is gone", "18"),
        (r"So it is \boxed{1{,}000}.", "1000"),
        (r"\boxed{1,\!000}", "1000"),
        (r"That makes \$9{,}500", "9500"),
        (r"That makes $9{,}500$.", "9500"),
        (r"It is 12\,500", "12500"),
        (r"\(x = 18\)", "18"),
        (r"\[x = -18\]", "-18"),
        (r"$\boxed{18}$ \text{ apples}", "18"),
        (r"\boxed{18 \text{ km}}", "18"),
        (r"\boxed{\$18.50}", "18.5"),
        (r"\boxed{18\%}", "18"),
        (r"\textbf{Answer:} 18", "18"),
        (r"\text{Answer: }18", "18"),
        (r"x \implies 18 \quad \blacksquare", "18"),
        (r"\frac{36}{2} = 18", "18"),
        (r"$2^{10} = 1024$", "1024"),
        (r"\sqrt{16} = \mathbf{4}", "4"),
        (r"90^\circ", "90"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix} \text{ has length } 5", "5"),
        (r"\begin{align*} x &= 18 \\ \end{align*}", "18"),
        ("{\"answer\": 18}", "18"),
        ("(that is 18)", "18"),
        ("It takes 3 hours, so 18", "18"),
        ("12 hours is 720 minutes", "720"),
        ("3 cats and 5 dogs", "5"),
    ] {
        let expected = if answer.ends_with('x') { 0.0 } else { 1.0 };
        assert_eq!(verifier.reward(completion, answer), expected, "{completion:?} for {answer}");
    }
    for (completion, answer) in [
        ("It takes 2 days and 5 hours", "5"),
        ("She makes 18 dollars and 50 cents", "50"),
        ("2 hours 30 minutes", "30"),
        ("5 feet, 3 inches", "3"),
        (r"\boxed{\frac{1}{2}}", "2"),
        (r"\boxed{\frac12}", "2"),
        (r"\dfrac {1} {2}", "2"),
        (r"\frac{1}{x}", "1"),
        (r"2^{10}", "10"),
        (r"2^{10}", "2"),
        (r"x_{10}", "10"),
        (r"101_{2}", "2"),
        (r"\sqrt{16}", "16"),
        (r"\sqrt 16", "16"),
        (r"\sqrt[3]{8}", "8"),
        (r"\sqrt\boxed{16}", "16"),
        ("√16", "16"),
        ("√ 16", "16"),
        ("sqrt(16)", "16"),
        ("f(16)", "16"),
        ("2(16)", "16"),
        ("(16)^2", "16"),
        (r"\boxed{16}^2", "16"),
        (r"\boxed{2}\pi", "2"),
        (r"2\pi", "2"),
        ("2π", "2"),
        (r"2 \pi", "2"),
        (r"2\sqrt{x}", "2"),
        (r"4 \times 5", "5"),
        (r"4 \cdot 5", "5"),
        ("It is 4 x 5", "5"),
        (r"5 \pm 2", "2"),
        (r"x \le 5", "5"),
        (r"x \neq 5", "5"),
        (r"\{1, 2, 5\}", "5"),
        ("{1, 2, 5}", "5"),
        ("(3, 5)", "5"),
        ("[3, 5)", "5"),
        ("$9{,}500", "500"),
        (r"12\,500", "500"),
        (r"12\,50", "50"),
        (r"\boxed{1{,}000}", "0"),
        ("0.333...", "0.333"),
        (r"0.\overline{3}", "3"),
        (r"0.3\ldots", "0.3"),
        ("|-5|", "-5"),
        (r"\lfloor 5 \rfloor", "5"),
        (r"10^{-3}", "-3"),
        (r"3\text{k}", "3"),
        (r"3\text{ million}", "3"),
        (r"x^\text{5}", "5"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "2"),
        (r"5\choose 2", "2"),
        (r"\binom{5}{2}", "2"),
        (r"\log 5", "5"),
        ("18 eggs in 7 days", "18"),
        ("about 2 thirds", "2"),
        ("3 1/2", "1/2"),
        ("3 1/2", "3"),
        ("3½", "3"),
        ("1,2,3", "3"),
        ("1.2.3", "3"),
        ("on 2024-05-18", "18"),
        ("between 17 and 18.5", "18"),
        ("-$5", "5"),
        ("$-5", "5"),
        ("6 -3", "-3"),
        ("6 - 3", "3"),
        ("(2+1)*3", "3"),
        ("3(x+1)", "3"),
        ("3 - x", "3"),
        ("3/x", "3"),
        ("at least 18", "18"),
        ("1e3", "3"),
        ("1e-3", "3"),
        ("1_000", "0"),
        ("\u{ff11}8", "8"),
        ("18 = 9 + 9", "9"),
        ("99999999999999999999999999999999999999999", "9"),
        ("5/0", "0"),
        ("5 point 3", "3"),
    ] {
        assert_eq!(verifier.reward(completion, answer), 0.0, "{completion:?} for {answer}");
    }
}

/// Every answer of GSM8K's test split and SVAMP, rewritten.
#[test]
#[ignore = "needs REMIT_DATA, a folder with gsm8k and svamp"]
fn answers_of_the_real_data() {
    let Some(folder) = std::env::var_os("REMIT_DATA").map(PathBuf::from) else { return };
    let verifier = verifier();
    let (mut answers, mut num_pairs) = (Vec::new(), 0);
    for file in json_files(&folder.join("gsm8k")).into_iter().chain(json_files(&folder.join("svamp"))) {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        answers.extend(records(&text).iter().filter_map(answer_of));
    }
    assert!(answers.len() > 1000, "{} answers", answers.len());
    for answer in &answers {
        let spelt = answer.strip_suffix(".0").unwrap_or(answer);
        for (completions, expected) in [(right(spelt), 1.0), (wrong(spelt), 0.0)] {
            for completion in completions {
                assert_eq!(verifier.reward(&completion, answer), expected, "{completion:?} for {answer}");
                num_pairs += 1;
            }
        }
    }
    println!("{} answers, {num_pairs} pairs", answers.len());
}

/// GSM8K's worked solutions as completions: each is right for its own answer, and for another's only if that is the
/// same number. How many are still read right without their marker is printed, and must be nearly all.
#[test]
#[ignore = "needs REMIT_DATA, a folder with gsm8k"]
fn solutions_of_the_real_data() {
    let Some(folder) = std::env::var_os("REMIT_DATA").map(PathBuf::from) else { return };
    let verifier = verifier();
    let files = json_files(&folder.join("gsm8k"));
    let texts: Vec<String> =
        files.iter().map(|file| std::fs::read_to_string(file).expect("a readable file")).collect();
    let all: Vec<_> = texts.iter().flat_map(|text| records(text)).collect();
    let solutions: Vec<&str> = all.iter().filter_map(|record| record["answer"].as_str()).collect();
    let answer = |solution: &str| solution.rsplit_once("####").expect("marked").1.trim().replace(',', "");
    let mut num_unmarked = 0;
    for (i, solution) in solutions.iter().enumerate() {
        assert_eq!(verifier.reward(solution, &answer(solution)), 1.0, "{solution}");
        for other in solutions.iter().skip(i + 1).take(20) {
            let is_same = answer(solution) == answer(other);
            assert_eq!(verifier.reward(solution, other) == 1.0, is_same, "{solution}\nfor {other}");
        }
        let unmarked = solution.rsplit_once("####").expect("marked").0;
        num_unmarked += usize::from(verifier.reward(unmarked, solution) == 1.0);
    }
    println!("{} solutions, {num_unmarked} right without their marker", solutions.len());
    assert!(num_unmarked * 10 > solutions.len() * 9);
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "json" || end == "jsonl")).collect()
}

/// The records of a JSON array or of JSON lines.
fn records(text: &str) -> Vec<serde_json::Value> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Array(records)) => records,
        _ => text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
    }
}

/// GSM8K's `answer` ends in `#### 18`; SVAMP has a number or text under `Answer`.
fn answer_of(record: &serde_json::Value) -> Option<String> {
    if let Some(solution) = record["answer"].as_str() {
        return solution.rsplit_once("####").map(|(_, answer)| answer.trim().to_owned());
    }
    match &record["Answer"] {
        serde_json::Value::String(answer) => Some(answer.clone()),
        serde_json::Value::Number(answer) => Some(answer.to_string()),
        _ => None,
    }
}
