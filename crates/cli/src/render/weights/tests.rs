use super::*;
use crate::render::style::Colours;

fn view() -> WeightsView {
    let tokens = ["<s>", "So", " <script>alert('x')</script>", "\n", "\"q\" & a", "\x1b[2J"];
    WeightsView {
        sequences: vec![
            SequenceView {
                ids: vec![1, 20, 30, 40, 50, 60],
                tokens: Some(tokens.map(String::from).to_vec()),
                logp_learner: vec![-2.0, -1.5, -0.25, -3.0, -0.1],
                logp_reference: vec![-1.0, -1.5, -1.25, -2.9, -0.1],
                delta: vec![1.0, 0.0, -1.0, 0.1, 0.0],
                weights: vec![1.2, 1.0, 0.8, 1.1, 0.999],
            },
            SequenceView {
                ids: vec![7, 8, 8],
                tokens: None,
                logp_learner: vec![-1.0, -2.0],
                logp_reference: vec![-1.0, -2.0],
                delta: vec![0.0, 0.5],
                weights: vec![0.1 + 0.2 + 0.6, 1.2],
            },
            SequenceView {
                ids: vec![9],
                tokens: None,
                logp_learner: vec![],
                logp_reference: vec![],
                delta: vec![],
                weights: vec![],
            },
        ],
        summary: Overall {
            num_tokens: 7,
            weights: WeightFigures {
                mean_weight: 1.0284285,
                std_weight: 0.143,
                clipped_low: 1.0 / 7.0,
                clipped_high: 2.0 / 7.0,
                weighted_up: 3.0 / 7.0,
                effective_sample_share: 0.9812,
                mean_delta: Some(0.6 / 7.0),
            },
            ntp_loss: 1.375,
            remit_loss: 1.5,
        },
        about: About {
            learner: "runs/<a>".to_string(),
            reference: "runs/b".to_string(),
            lowest_weight: 0.8,
            highest_weight: 1.2,
        },
    }
}

#[test]
fn json_has_the_agreed_keys_and_reads_back_bit_for_bit() {
    let json = view().to_json();
    assert!(
        json.starts_with(
            r#"{"sequences":[{"ids":[1,20,30,40,50,60],"logp_learner":[-2.0,-1.5,-0.25,-3.0,-0.1],"logp_reference":[-1.0,-1.5,-1.25,-2.9,-0.1],"delta":[1.0,0.0,-1.0,0.1,0.0],"weights":[1.2,1.0,0.8,1.1,0.999]},{"#
        ),
        "{json}"
    );
    assert!(
        json.ends_with(
            r#""summary":{"num_tokens":7,"mean_weight":1.0284285,"std_weight":0.143,"clipped_low":0.14285714285714285,"clipped_high":0.2857142857142857,"weighted_up":0.42857142857142855,"effective_sample_share":0.9812,"mean_delta":0.08571428571428572,"ntp_loss":1.375,"remit_loss":1.5}}
"#
        ),
        "{json}"
    );
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    let weight = read["sequences"][1]["weights"][0].as_f64().unwrap() as f32;
    assert_eq!(weight.to_bits(), view().sequences[1].weights[0].to_bits());
}

#[test]
#[should_panic(expected = "a list has one entry a prediction")]
fn a_list_out_of_step_is_never_shown() {
    let mut view = view();
    view.sequences[0].weights.push(1.0);
    view.to_json();
}

#[test]
fn without_colours_the_weights_at_a_bound_are_written_out() {
    let expected = "\
Sequence 1 of 3, 5 predictions
<s>So[1.20] <script>alert('x')</script>⏎[0.80]
\"q\" & a␛[2J

Sequence 2 of 3, 2 predictions
7 8 8[1.20]

Sequence 3 of 3, 0 predictions
9

Marked are the tokens whose weight is at a bound: token[0.80] or token[1.20]

Highest weights
weight    delta  log p learner  log p reference  place  token      in front of it
------  -------  -------------  ---------------  -----  ---------  -----------------------------------
1.2000  +1.0000        -2.0000          -1.0000    1:1  `So`       `<s>`
1.2000  +0.5000        -2.0000          -2.0000    2:2  `8`        `7 8`
1.1000  +0.1000        -3.0000          -2.9000    1:4  `\"q\" & a`  `…>So <script>alert('x')</script>⏎`

Lowest weights
weight    delta  log p learner  log p reference  place  token   in front of it
------  -------  -------------  ---------------  -----  ------  -----------------------------------
0.8000  -1.0000        -0.2500          -1.2500    1:3  `⏎`     `…s>So <script>alert('x')</script>`
0.9000  +0.0000        -1.0000          -1.0000    2:1  `8`     `7`
0.9990  +0.0000        -0.1000          -0.1000    1:5  `␛[2J`  `…ript>alert('x')</script>⏎\"q\" & a`

summary
---------------------  -------
predictions                  7
mean weight             1.0284
standard deviation      0.1430
clipped low              14.3%
clipped high             28.6%
weighted up              42.9%
effective sample size    98.1%
mean delta             +0.0857
NTP loss                1.3750
ReMiT loss              1.5000
";
    assert_eq!(view().to_text(Colours::None), expected);
}

#[test]
fn colours_are_by_distance_from_one_and_never_from_the_text() {
    let text = view().to_text(Colours::True);
    assert!(text.contains("\x1b[97;48;2;188;80;0mSo\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[97;48;2;0;95;200m⏎\x1b[0m\n"), "{text:?}");
    assert!(text.contains("\x1b[97;48;2;145;97;58m\"q\" & a\x1b[0m"), "{text:?}");
    assert!(text.contains("weight 0.80 "));
    // The escape sequence in the text is a picture, its weight is even.
    assert!(text.contains("␛[2J") && !text.contains("\x1b[2J"), "{text:?}");
    assert!(view().to_text(Colours::Indexed).contains("\x1b[97;48;5;166mSo\x1b[0m"));
}

#[test]
fn shades_are_symmetric_and_end_at_the_bounds() {
    use shade::Shade::{Above, Below, Even};
    let about = About { lowest_weight: 0.5, highest_weight: 2.0, ..view().about };
    let shades = [0.0, 0.5, 0.51, 0.7, 0.8, 0.98, 1.0, 1.05, 1.2, 1.3, 1.6, 2.0, 9.0].map(|w| about.shade(w));
    assert_eq!(
        shades,
        [
            Below(4),
            Below(4),
            Below(4),
            Below(3),
            Below(2),
            Even,
            Even,
            Even,
            Above(1),
            Above(2),
            Above(3),
            Above(4),
            Above(4)
        ]
    );
    let no_room = About { lowest_weight: 1.0, highest_weight: 1.0, ..view().about };
    assert_eq!((no_room.shade(1.0), no_room.bound(1.0)), (Even, None));
}

#[test]
fn the_page_escapes_what_it_shows() {
    let page = view().to_html();
    assert!(
        page.contains("<i class=\"h4 high\" title=\"“So” (id 20)\nweight 1.2000, at the upper bound\n"),
        "{page}"
    );
    assert!(page.contains(">So</i>"));
    assert!(page.contains("> &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</i>"));
    assert!(page.contains(">⏎\n</i>"));
    assert!(page.contains(">&quot;q&quot; &amp; a</i>"));
    assert!(page.contains("title=\"“&quot;q&quot; &amp; a” (id 50)"));
    assert!(page.contains("Learner <code>runs/&lt;a&gt;</code>"));
    assert!(!page.contains("<script>alert") && !page.contains('\x1b'));
    assert_eq!(page.matches("<script").count(), 1);
}

#[test]
fn the_page_asks_nothing_of_a_network() {
    let page = view().to_html();
    for word in ["http", "src=", "href", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn histograms_count_every_token_once() {
    let page = view().to_html();
    let counts: Vec<u64> = page
        .split("<title>")
        .filter_map(|part| {
            part.split("</title>").next()?.split_once(" to ")?.1.split_once(": ")?.1.parse().ok()
        })
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 14); // seven weights and seven deltas
}

#[test]
fn tokens_are_ranked_by_weight_then_delta() {
    let view = view();
    let names = |predictions: Vec<Prediction>| predictions.iter().map(|p| p.name()).collect::<Vec<_>>();
    assert_eq!(names(ranking::highest(&view, 3)), ["So", "8", "\"q\" & a"]);
    assert_eq!(names(ranking::lowest(&view, 2)), ["⏎", "8"]);
    let means = ranking::token_means(&view, 2);
    assert_eq!(means.len(), 1);
    assert_eq!((means[0].name.as_str(), means[0].count, means[0].mean_delta), ("8", 2, 0.25));
    assert!((means[0].mean_weight - 1.05).abs() < 1e-6);
}
