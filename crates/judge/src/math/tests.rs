use super::{Equality, compare};
use proptest::prelude::*;

fn verdict(a: &str, b: &str) -> &'static str {
    let one = |a, b| match compare(a, b) {
        Equality::Equal => "=",
        Equality::Different => "!",
        Equality::Undecided(_) => "?",
    };
    let forth = one(a, b);
    assert_eq!(forth, one(b, a), "{a} and {b}, and back");
    forth
}

#[test]
fn what_is_equal_is_found_equal() {
    for (a, b) in [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac12", r"\dfrac{1}{2}"),
        (r"\frac{3}{6}", "1/2"),
        (r"-\frac{2}{3}", r"\frac{-2}{3}"),
        (r"-\frac{2}{3}", r"\frac{2}{-3}"),
        (".5", "0.50"),
        ("1{,}000", "1000"),
        (r"12\,500", "12,500"),
        (r"1,\!000,\!000", "1000000"),
        (r"\$1,234.50", "1234.5"),
        (r"50\%", "50 %"),
        (r"50\%", r"\frac{1}{2}"),
        (r"50\text{ percent}", r"0.5"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"\sqrt{\frac{1}{3}}", r"\frac{\sqrt{3}}{3}"),
        (r"\sqrt2\cdot\sqrt3", r"\sqrt{6}"),
        (r"\frac{1}{2-\sqrt{3}}", r"2+\sqrt{3}"),
        (r"\sqrt{16}", "4"),
        (r"\sqrt[3]{27}", "3"),
        ("2^{10}", "1024"),
        ("2^{-1}", "0.5"),
        ("4^{1/2}", "2"),
        (r"8^{\frac{1}{2}}", r"2\sqrt2"),
        ("x^2+2x", "x(x+2)"),
        ("x^2+1", "1+x^2"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        (r"2\pi r", r"r \cdot 2\pi"),
        (r"\frac{\pi}{4}", r"\frac14\pi"),
        ("x=5", "5"),
        ("x=5", "x = 5.0"),
        (r"x \in [2,5)", "[2,5)"),
        ("(1,2)", r"\left( 1, \frac{4}{2} \right)"),
        ("[2,5)", r"\left[2,5\right)"),
        (r"(-\infty,2]", r"(-\infty, 2.0]"),
        (r"\{1,2,3\}", r"\{3, 1, 2\}"),
        (r"(1,2]\cup(3,4)", r"(3,4) \cup (1,2]"),
        (r"\emptyset", r"\varnothing"),
        ("1, 2", r"1,\frac{4}{2}"),
        ("1, 2 and 3", "1,2,3"),
        (r"1 \text{ and } 2", "1,2"),
        (r"5\text{ cm}", "5"),
        (r"5\text{ cm}", r"5 \mbox{ centimeters}"),
        (r"5\text{ cm}^2", r"5 \mathrm{cm}^{2}"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90°"),
        (r"\$5", r"5 \text{ dollars}"),
        (r"\text{(A)}", "A"),
        ("(B)", "B"),
        (r"\text{Evelyn}", "evelyn"),
        (
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
            r"\begin{pmatrix}1&\frac{4}{2}\\3&4\\\end{pmatrix}",
        ),
        ("101_2", "101_{2}"),
        ("$18$", "18."),
        (r"\(18\)", "18"),
        ("−5", "-5"),
        (r"3\frac{1}{2}", r"3\frac{1}{2}"),
        (r"\sin x", r"\sin  x"),
        (r"x_1+x_2", "x_2+x_1"),
    ] {
        assert_eq!(verdict(a, b), "=", "{a} and {b}");
    }
}

#[test]
fn what_differs_is_found_different() {
    for (a, b) in [
        ("1", "2"),
        (r"\frac{1}{3}", "0.333"),
        (r"\frac12", "2"),
        ("2^{10}", "10"),
        (r"\sqrt{16}", "16"),
        (r"\sqrt{2}", "1.414"),
        (r"\sqrt{2}", r"\sqrt{3}"),
        (r"\pi", "3.14"),
        ("x+1", "x-1"),
        ("x", "y"),
        ("(1,2)", "(2,1)"),
        ("[1,2)", "(1,2]"),
        ("(1,2)", "3"),
        (r"\{1,2\}", r"\{1,3\}"),
        (r"5\text{ cm}", "6"),
        (r"50\%", "51"),
        ("1,000", "100"),
        (r"\infty", r"-\infty"),
        ("A", "B"),
        ("101_2", "110_2"),
        ("x=5", "6"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    ] {
        assert_eq!(verdict(a, b), "!", "{a} and {b}");
    }
}

#[test]
fn what_cannot_be_decided_is_not() {
    for (a, b) in [
        (r"3\frac{1}{2}", "3.5"),
        (r"3\frac{1}{2}", r"\frac{3}{2}"),
        ("50", r"50\%"),
        ("0.5", r"0.5\%"),
        (r"5\text{ cm}", r"5\text{ m}"),
        (r"5\text{ cm}", r"5\text{ cm}^2"),
        ("1,2", "2,1"),
        ("1,2", r"\{1,2\}"),
        ("x=5", "y=5"),
        ("1/2x", r"\frac{1}{2x}"),
        ("f(x)", "xf"),
        ("AB", "BA"),
        ("east", "seat"),
        ("on", "no"),
        (r"\sin x", r"x \sin"),
        ("2 3", "23"),
        ("2 3", "6"),
        ("x^10", "x^{10}"),
        ("i^2", "-1"),
        (r"e+\pi", r"2"),
        (r"5\text{ or }6", "5"),
        (r"5\text{ million}", "5"),
        ("101_2", "101"),
        ("101_2", "101_3"),
        (r"\{1,1\}", r"\{1\}"),
        (r"(1,2]\cup(2,3)", "(1,3)"),
        (r"\frac{1}{0}", "1"),
        ("0^0", "1"),
        (r"5 \pm 2", "5"),
        ("5!", "120"),
        ("|-5|", "5"),
        ("y=2x+3", "2x-y+3=0"),
        (r"\sqrt{x^2}", "x"),
        (r"\sqrt{-4}", "2"),
        (r"\sqrt[3]{2}", "2"),
        ("", "1"),
        ("", ""),
        ("$$", "$$"),
        (r"\frac{1}{2", r"\frac{1}{2}"),
        ("(1,2", "(1,2)"),
        ("99999999999999999999999999999999999999999", "9"),
        (r"\begin{vmatrix} 1 \\ 2 \end{vmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ] {
        assert_eq!(verdict(a, b), "?", "{a} and {b}");
    }
    assert_eq!(verdict(&"1".repeat(501), &"1".repeat(501)), "?");
    let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    assert_eq!(verdict(&deep, "1"), "?");
    assert_eq!(verdict("(a+b+c+d+x+y)^{32}", "1"), "?");
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in r"[-+*/^_.,:$%()=<> a-e0-9\\{}&|\[\]π½\n]{0,40}", other in r"(\\frac|\\sqrt|\\text|[-{}0-9x ]){0,12}") {
        let _ = compare(&text, &other);
    }

    #[test]
    fn fractions_are_what_they_say(a in -999i64..1000, b in 1i64..1000, k in 1i64..50, other in -999i64..1000) {
        let left = format!(r"\frac{{{}}}{{{}}}", a * k, b * k);
        prop_assert_eq!(verdict(&left, &format!("{a}/{b}")), "=");
        prop_assert_eq!(verdict(&left, &format!("{other}/{b}")) == "=", other == a);
    }

    #[test]
    fn roots_are_what_they_say(a in 1i64..60, b in 1i64..60) {
        let left = format!(r"{a}\sqrt{{{b}}}");
        prop_assert_eq!(verdict(&left, &format!(r"\sqrt{{{}}}", a * a * b)), "=");
        prop_assert_eq!(verdict(&left, &format!(r"\sqrt{{{}}}", a * a * b + 1)), "!");
    }
}
