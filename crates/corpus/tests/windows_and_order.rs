//! Windows by hand, and the promises of the order.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use remit_batch::Window;
use remit_corpus::{Mixture, Order, Prepare, Share, Source, TokenStore, Windows, prepare};

/// A source's name, tokens, weight and repeat.
type Given<'a> = (&'a str, Vec<u16>, Option<f64>, Option<f64>);

/// A store of raw tokens; 0 ends documents.
fn store(home: &Path, sources: &[Given<'_>]) -> TokenStore {
    let sources = sources
        .iter()
        .map(|(name, tokens, weight, repeat)| {
            let path = home.join(format!("{name}.bin"));
            let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            std::fs::write(&path, bytes).unwrap();
            Source { weight: *weight, repeat: *repeat, ..Source::new(*name, path) }
        })
        .collect();
    let mut settings = Prepare::new("", sources);
    (settings.tokenizer, settings.vocab_size, settings.eos) = (None, Some(1000), Some(0));
    prepare(&settings, &home.join("store"), &()).unwrap();
    TokenStore::open(&home.join("store")).unwrap()
}

fn plain(home: &Path, lens: &[(&str, usize)]) -> TokenStore {
    let tokens = |len: usize| (0..len).map(|i| 1 + i as u16 % 900).collect::<Vec<u16>>();
    store(home, &lens.iter().map(|&(name, len)| (name, tokens(len), None, None)).collect::<Vec<_>>())
}

fn window(index: u64, tokens: &[u32], mask: &[bool], documents: &[u32]) -> Window {
    Window { index, tokens: tokens.to_vec(), mask: mask.to_vec(), documents: documents.to_vec() }
}

#[test]
fn windows_overlap_by_one_token_and_end_with_their_source() {
    let home = tempfile::tempdir().unwrap();
    let a = vec![1, 2, 0, 3, 0, 4, 5, 6, 0];
    let store = store(
        home.path(),
        &[("a", a, None, None), ("short", vec![7], None, None), ("b", vec![8, 9, 10], None, None)],
    );
    let windows = Windows::cut(&store, 3).unwrap();
    let all: Vec<_> = (0..windows.len()).map(|index| windows.window(index)).collect();
    const YES: bool = true;
    const NO: bool = false;
    assert_eq!(
        all,
        [
            // The target of the third prediction begins the second document.
            window(0, &[1, 2, 0, 3], &[YES, YES, YES], &[0, 0, 1]),
            // The target `0` still belongs to the document it ends.
            window(1, &[3, 0, 4, 5], &[YES, YES, YES], &[0, 1, 1]),
            window(2, &[5, 6, 0, 0], &[YES, YES, NO], &[0, 0, 0]),
            window(3, &[8, 9, 10, 0], &[YES, YES, NO], &[0, 0, 0]),
        ]
    );
    assert_eq!((0..4).map(|index| windows.source_of(index)).collect::<Vec<_>>(), [0, 0, 0, 2]);
    assert_eq!(windows.num_predictions(), 8 + 2);
    let num_unmasked: usize = all.iter().flat_map(|window| &window.mask).filter(|&&counts| counts).count();
    assert_eq!(num_unmasked as u64, windows.num_predictions());
    assert_eq!((windows.of_source(1), windows.of_source(2)), (3..3, 3..4));

    // An exact fit has no padding.
    let exact = Windows::cut(&store, 8).unwrap();
    assert!(exact.window(0).mask.iter().all(|&counts| counts));
    assert_eq!(exact.len(), 2);
    assert_eq!(exact.window(1).tokens, [8, 9, 10, 0, 0, 0, 0, 0, 0]);

    assert_eq!(
        Windows::cut(&store, 0).unwrap_err().to_string(),
        "the window length must be at least 1, not 0"
    );
}

#[test]
fn the_layout_hash_names_the_length_and_the_content_hash_the_rest() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = plain(one.path(), &[("a", 100)]);
    let same = plain(two.path(), &[("a", 100)]);
    let hash = |store: &TokenStore, length| Windows::cut(store, length).unwrap().layout_hash();
    assert_eq!(hash(&first, 8), hash(&same, 8));
    assert_ne!(hash(&first, 8), hash(&first, 9));
    assert_eq!(first.content_hash(), same.content_hash());
    for (name, tokens) in [("a", 101), ("b", 100)] {
        let home = tempfile::tempdir().unwrap();
        let other = plain(home.path(), &[(name, tokens)]);
        assert_eq!(hash(&first, 8), hash(&other, 8));
        assert_ne!(first.content_hash(), other.content_hash());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_token_but_the_first_is_predicted_once(
        tokens in prop::collection::vec(0u16..5, 1..60),
        length in 1usize..20,
    ) {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path(), &[("a", tokens.clone(), None, None)]);
        let windows = Windows::cut(&store, length).unwrap();
        let mut targets = Vec::new();
        let mut ends = Vec::new();
        for index in 0..windows.len() {
            let window = windows.window(index);
            prop_assert_eq!((window.tokens.len(), window.mask.len()), (length + 1, length));
            for t in (0..length).filter(|&t| window.mask[t]) {
                targets.push(window.tokens[t + 1] as u16);
                // Within a window the document changes exactly after an end-of-document target.
                if t > 0 {
                    let changes = window.documents[t] - window.documents[t - 1];
                    ends.push((changes, u32::from(window.tokens[t] == 0)));
                }
            }
        }
        prop_assert_eq!(&targets, &tokens[1..]);
        prop_assert!(ends.iter().all(|(changes, ended)| changes == ended));
    }
}

fn mixture(shares: &[(&str, Option<f64>, Option<f64>)]) -> Mixture {
    let share = |&(name, weight, repeat): &(&str, Option<f64>, Option<f64>)| {
        (name.to_owned(), Share { weight, repeat })
    };
    Mixture { sources: shares.iter().map(share).collect() }
}

fn counts(indices: impl Iterator<Item = u64>) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    indices.for_each(|index| *counts.entry(index).or_default() += 1);
    counts
}

#[test]
fn an_epoch_holds_every_window_as_often_as_wanted() {
    let home = tempfile::tempdir().unwrap();
    // 50, 30 and 20 windows.
    let windows = Windows::cut(&plain(home.path(), &[("a", 101), ("b", 61), ("c", 41)]), 2).unwrap();
    assert_eq!(windows.len(), 100);
    let order = Order::new(&windows, &Mixture::default(), 5, None).unwrap();
    assert_eq!(order.epoch_len(), 100);
    for epoch in 0..3 {
        let counts = counts((epoch * 100..(epoch + 1) * 100).map(|p| order.window_index(p)));
        assert!(counts.len() == 100 && counts.values().all(|&count| count == 1));
    }
    let taken =
        |order: &Order, range: std::ops::Range<u64>| range.map(|p| order.window_index(p)).collect::<Vec<_>>();
    assert_ne!(taken(&order, 0..100), taken(&order, 100..200), "each epoch has its own shuffle");
    let again = Order::new(&windows, &Mixture::default(), 5, Some(7)).unwrap();
    assert_eq!(taken(&order, 0..300), taken(&again, 0..300));
    let other = Order::new(&windows, &Mixture::default(), 6, None).unwrap();
    assert_ne!(taken(&order, 0..100), taken(&other, 0..100));

    let repeats = mixture(&[("b", None, Some(2.5)), ("c", None, Some(0.25))]);
    let order = Order::new(&windows, &repeats, 5, None).unwrap();
    assert_eq!(order.epoch_len(), 50 + 75 + 5);
    let epochs: Vec<_> =
        (0..2).map(|epoch| counts((epoch * 130..(epoch + 1) * 130).map(|p| order.window_index(p)))).collect();
    assert_eq!(epochs[0], epochs[1], "the fraction is always the same windows");
    let of = |from: u64, to: u64, count: u64| {
        epochs[0].range(from..to).filter(|(_, found)| **found == count).count()
    };
    assert_eq!((of(0, 50, 1), of(50, 80, 2), of(50, 80, 3), of(80, 100, 1)), (50, 15, 15, 5));
    let summary = order.summary(200);
    assert_eq!(summary.iter().map(|source| source.num_taken).sum::<u64>(), 200);
    let found = counts((0..200).map(|p| windows.source_of(order.window_index(p)) as u64));
    assert_eq!(
        found.values().copied().collect::<Vec<_>>(),
        summary.iter().map(|s| s.num_taken).collect::<Vec<_>>()
    );
}

#[test]
fn weighted_sources_keep_their_shares_and_pass_through_all_they_have() {
    let home = tempfile::tempdir().unwrap();
    let windows = Windows::cut(&plain(home.path(), &[("a", 101), ("b", 61), ("c", 41)]), 2).unwrap();
    let weights = mixture(&[("a", Some(1.0), None), ("b", Some(6.0), None), ("c", Some(3.0), None)]);
    let order = Order::new(&windows, &weights, 1, None).unwrap();
    let indices: Vec<_> = (0..5120).map(|p| order.window_index(p)).collect();
    for (block, positions) in indices.chunks(256).enumerate() {
        let found = counts(positions.iter().map(|&index| windows.source_of(index) as u64));
        for (source, share) in [(0, 0.1), (1, 0.6), (2, 0.3)] {
            let off = found[&source] as f64 - share * 256.0;
            assert!(off.abs() < 2.5, "block {block}, source {source}: off by {off}");
        }
    }
    // Each pass through a source is a permutation of it, and passes differ.
    let of_b: Vec<u64> = order_of_occurrence(&indices, &windows, 1);
    let first: Vec<_> = of_b[..30].to_vec();
    let second: Vec<_> = of_b[30..60].to_vec();
    for pass in [&first, &second] {
        // Shuffling within blocks may move a window across the border of two passes, so look at all of them.
        assert!(pass.iter().all(|index| windows.of_source(1).contains(index)));
    }
    let total: BTreeMap<u64, u64> = counts(of_b.iter().copied());
    let (low, high) = (total.values().min().unwrap(), total.values().max().unwrap());
    assert!(total.len() == 30 && high - low <= 2, "{low} to {high}");
    assert_ne!(first, second);

    for total in [1, 255, 256, 1000] {
        let summary = order.summary(total);
        let found = counts(indices[..total as usize].iter().map(|&index| windows.source_of(index) as u64));
        for (i, source) in summary.iter().enumerate() {
            assert_eq!(source.num_taken, found.get(&(i as u64)).copied().unwrap_or(0));
        }
    }
    let b = &order.summary(1000)[1];
    assert_eq!((b.name.as_str(), b.num_windows), ("b", 30));
    assert!((b.passes - 20.0).abs() < 0.1);
}

fn order_of_occurrence(indices: &[u64], windows: &Windows, source: usize) -> Vec<u64> {
    indices.iter().copied().filter(|&index| windows.source_of(index) == source).collect()
}

#[test]
fn a_weight_of_zero_leaves_a_source_out_and_the_mixture_overrides_the_store() {
    let home = tempfile::tempdir().unwrap();
    let tokens = |len: u16| (0..len).map(|i| 1 + i % 900).collect::<Vec<u16>>();
    let store =
        store(home.path(), &[("a", tokens(101), Some(1.0), None), ("b", tokens(61), Some(1.0), Some(2.0))]);
    let windows = Windows::cut(&store, 2).unwrap();
    let order = Order::new(&windows, &mixture(&[("b", Some(0.0), None)]), 1, None).unwrap();
    assert!((0..500).all(|p| order.window_index(p) < 50));
    assert_eq!(order.epoch_len(), 50);

    let error = |mixture: &Mixture, total| Order::new(&windows, mixture, 1, total).unwrap_err();
    let capped = error(&Mixture::default(), Some(256));
    assert_eq!(
        capped.to_string(),
        "source `b` would be passed through 4.27 times to give its share of 256 windows; its repeat allows 2"
    );
    assert_eq!(capped.hint().unwrap(), "lower its weight, raise its repeat, or train on fewer windows");
    assert!(
        error(&Mixture::default(), None)
            .to_string()
            .starts_with("source `b` has a weight and a repeat, which")
    );
    Order::new(&windows, &mixture(&[("b", None, Some(5.0))]), 1, Some(256)).unwrap();
    // Exactly as often as allowed is allowed.
    Order::new(&windows, &mixture(&[("a", Some(0.0), None)]), 1, Some(60)).unwrap();
    assert!(Order::new(&windows, &mixture(&[("a", Some(0.0), None)]), 1, Some(61)).is_err());
}

#[test]
fn mixtures_that_make_no_sense() {
    let home = tempfile::tempdir().unwrap();
    let windows = Windows::cut(&plain(home.path(), &[("prose", 101), ("tasks", 61), ("dot", 1)]), 2).unwrap();
    let check = |shares: &[_], message: &str, hint: Option<&str>| {
        let error = Order::new(&windows, &mixture(shares), 1, Some(10)).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint().as_deref(), hint);
    };
    check(
        &[("task", Some(1.0), None)],
        "the mixture names a source `task`; the token store has `prose`, `tasks`, `dot`",
        Some("did you mean `tasks`?"),
    );
    check(
        &[("tasks", Some(1.0), None)],
        "source `prose` has no weight, but `tasks` has one",
        Some("give every source a weight, or none"),
    );
    check(
        &[("tasks", Some(f64::NAN), None)],
        "source `tasks`: weight must be a number not below 0, not NaN",
        None,
    );
    check(
        &[("prose", Some(1.0), None), ("tasks", Some(1.0), None), ("dot", Some(1.0), None)],
        "there are no windows of length 2: source `dot` has a weight, but fewer than two tokens",
        Some("choose a shorter window or a larger corpus"),
    );
    let none = [("prose", Some(0.0), None), ("tasks", Some(0.0), None), ("dot", Some(0.0), None)];
    check(
        &none,
        "there are no windows of length 2: every source has a weight of 0",
        Some("choose a shorter window or a larger corpus"),
    );
    let mixture: Result<Mixture, _> = toml::from_str("[sources.a]\nwieght = 1.0");
    assert!(mixture.unwrap_err().to_string().contains("unknown field `wieght`"));
}
