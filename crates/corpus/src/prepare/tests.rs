//! Kills at every instant, and what must not matter: threads, unit size, number of starts.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{Format, Split, TrainTokenizer, train_tokenizer};

/// A directory with a tokenizer and sources of every kind.
struct Corpus {
    home: tempfile::TempDir,
    settings: Prepare,
}

impl Corpus {
    fn new() -> Corpus {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let lines: Vec<String> =
            (0..60).map(|i| format!("{{\"text\": \"record {i} says {}\\nagain\"}}", i * i)).collect();
        // One malformed record and one without text among the others.
        let jsonl =
            format!("{}\nnot json\n{{\"text\":\"\"}}\n{}\n", lines[..30].join("\n"), lines[30..].join("\n"));
        fs::write(at("a.jsonl"), &jsonl).unwrap();
        fs::create_dir(at("texts")).unwrap();
        fs::write(at("texts/1.txt"), "first paragraph\nof two lines\n\n\n  \nsecond paragraph\n").unwrap();
        fs::write(at("texts/2.txt"), "third paragraph, without an end").unwrap();
        // One document of several pieces.
        fs::write(at("long.txt"), "the long document goes on\n".repeat(100_000)).unwrap();
        // A table of several row groups, with a null.
        let rows: Vec<String> = (0..50).map(|i| format!("row {i}")).collect();
        let mut rows: Vec<Option<&[u8]>> = rows.iter().map(|row| Some(row.as_bytes())).collect();
        rows[20] = None;
        crate::read::parquet::tests::write(&at("rows.parquet"), &rows, 15);
        let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut gz = gz;
        // One record of several pieces.
        let packed = jsonl.replace("record", "packed")
            + &format!("{{\"text\":\"{}\"}}\n", "packed and long\\n".repeat(150_000));
        std::io::Write::write_all(&mut gz, packed.as_bytes()).unwrap();
        fs::write(at("b.jsonl.gz"), gz.finish().unwrap()).unwrap();
        let ids: Vec<u8> = (0..500u16).flat_map(|i| (i * 7 % 256 % (1 + i % 40)).to_le_bytes()).collect();
        fs::write(at("ids.bin"), ids).unwrap();

        let mut paragraphs = Source::new("paragraphs", at("texts"));
        paragraphs.split = Split::BlankLine;
        let sources = vec![
            Source::new("json", at("a.jsonl")),
            paragraphs,
            Source::new("long", at("long.txt")),
            Source::new("packed", at("b.jsonl.gz")),
            Source::new("ids", at("ids.bin")),
            Source::new("rows", at("rows.parquet")),
        ];
        let mut train = TrainTokenizer::new(sources[..2].to_vec(), 300);
        train.skip_bad_records = true;
        train_tokenizer(&train, &()).unwrap().write(&at("tokenizer.json")).unwrap();
        let mut settings = Prepare::new(at("tokenizer.json"), sources);
        settings.skip_bad_records = true;
        Corpus { settings, home }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn prepare(&self, out: &str) -> Summary {
        prepare(&self.settings, &self.at(out), &()).unwrap()
    }
}

/// Ends the work on the spot, without the noise of a panic: no code of ours cleans up when this passes through it.
fn kill() {
    std::panic::resume_unwind(Box::new("killed"));
}

fn kill_at(last: Instant) -> impl Fn(Instant) + Sync {
    move |instant| {
        if instant == last {
            kill();
        }
    }
}

/// All files below a directory with their bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                all.insert(path.strip_prefix(directory).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn a_kill_at_any_instant_changes_no_byte() {
    let mut corpus = Corpus::new();
    corpus.settings.holdout = 0.3;
    corpus.prepare("whole");
    let whole = contents(&corpus.at("whole"));
    assert_eq!(
        whole.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
        [
            "documents.bin",
            "heldout/documents.bin",
            "heldout/manifest.json",
            "heldout/tokenizer.json",
            "heldout/tokenizer_config.json",
            "heldout/tokens.bin",
            "inputs.json",
            "manifest.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "tokens.bin"
        ]
    );

    // Starts die by turns after a unit is in the state and after the next one is in the files only, so that each
    // makes headway; the last dies when all is written but the name.
    let out = corpus.at("killed");
    let partial = sibling(&out, "partial");
    let mut num_kills = 0;
    loop {
        let seen = AtomicUsize::new(0);
        let at = |instant| {
            let count = seen.fetch_add(1, Ordering::Relaxed);
            if count > num_kills % 2 || instant == Instant::Complete {
                kill();
            }
        };
        catch_unwind(AssertUnwindSafe(|| run(&corpus.settings, &out, &(), 500, &at))).unwrap_err();
        num_kills += 1;
        assert!(num_kills < 10_000, "every start makes headway");
        if partial.join("manifest.json").exists() {
            break;
        }
        // What a kill in the middle of a write leaves behind.
        for name in ["tokens.bin", "documents.bin", "heldout/tokens.bin", "state.json.partial"] {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(partial.join(name)).unwrap();
            std::io::Write::write_all(&mut file, b"torn").unwrap();
        }
    }
    let at = |instant| assert_eq!(instant, Instant::Complete, "nothing is written any more");
    run(&corpus.settings, &out, &(), 500, &at).unwrap();
    assert!(num_kills > 20, "{num_kills} kills");
    assert!(contents(&out) == whole, "byte for byte");
    assert!(!sibling(&out, "partial").exists());
    TokenStore::open(&out).unwrap().verify().unwrap();
    TokenStore::open(&out.join("heldout")).unwrap().verify().unwrap();
}

#[test]
fn threads_and_unit_size_change_no_byte() {
    let mut corpus = Corpus::new();
    corpus.settings.holdout = 0.2;
    corpus.settings.threads = 1;
    corpus.prepare("one");
    corpus.settings.threads = 3;
    run(&corpus.settings, &corpus.at("three"), &(), 1 << 10, &|_| {}).unwrap();
    assert!(contents(&corpus.at("one")) == contents(&corpus.at("three")));
}

#[test]
fn counts_and_documents_are_those_of_the_input() {
    let corpus = Corpus::new();
    let summary = corpus.prepare("out");
    assert_eq!(summary.skipped.count, 3);
    assert_eq!(
        summary.skipped.examples[0],
        format!("{}:31: malformed JSON: expected ident at column 2", corpus.at("a.jsonl").display())
    );
    assert_eq!(summary.num_empty, 2);
    let documents: Vec<_> = summary.sources.iter().map(|source| source.num_documents).collect();
    assert_eq!((&documents[..4], documents[5]), (&[60, 3, 1, 61][..], 49));

    let store = TokenStore::open(&corpus.at("out")).unwrap();
    store.verify().unwrap();
    let tokenizer = store.tokenizer().unwrap().unwrap();
    let text = |index: u64| tokenizer.decode(&store.tokens(store.document(index))).unwrap();
    assert_eq!(text(2), "record 2 says 4\nagain<|endoftext|>");
    assert_eq!(text(60), "first paragraph\nof two lines<|endoftext|>");
    assert_eq!(text(61), "second paragraph<|endoftext|>");
    assert_eq!(text(62), "third paragraph, without an end<|endoftext|>");
    assert_eq!(text(63), "the long document goes on\n".repeat(100_000) + "<|endoftext|>");
    assert_eq!(text(64), "packed 0 says 0\nagain<|endoftext|>");

    assert_eq!(text(124), "packed and long\n".repeat(150_000) + "<|endoftext|>");
    assert_eq!(text(store.num_documents() - 1), "row 49<|endoftext|>");

    // Raw ids come through as they are, with documents after every end-of-document token (id 0).
    let ids = &summary.sources[4];
    let tokens = store.tokens(ids.first_token..ids.first_token + ids.num_tokens);
    let expected: Vec<u32> = (0..500u32).map(|i| i * 7 % 256 % (1 + i % 40)).collect();
    assert_eq!(tokens, expected);
    let num_ends = expected.iter().filter(|&&id| id == 0).count() as u64;
    assert_eq!(ids.num_documents, num_ends + u64::from(expected[499] != 0));
    assert_eq!(store.document_of(ids.first_token), ids.first_document);
    assert_eq!(store.document_of(store.num_tokens() - 1), store.num_documents() - 1);
}

#[test]
fn the_same_inputs_are_not_prepared_twice_and_others_are_an_error() {
    let mut corpus = Corpus::new();
    let first = corpus.prepare("out");
    let again = corpus.prepare("out");
    assert!(!first.already_prepared && again.already_prepared);
    assert_eq!(first.content_hash, again.content_hash);

    corpus.settings.holdout = 0.25;
    let error = prepare(&corpus.settings, &corpus.at("out"), &()).unwrap_err();
    let message = "holds a token store made of other inputs: its `holdout` is 0.0, not 0.25";
    assert!(error.to_string().ends_with(message), "{error}");
    assert_eq!(error.hint().unwrap(), "choose another output, or replace this one with `--overwrite`");
    corpus.settings.overwrite = true;
    let replaced = corpus.prepare("out");
    assert!(replaced.num_heldout_documents > 0);
    assert!(replaced.num_documents + replaced.num_heldout_documents == first.num_documents);
    assert!(!sibling(&corpus.at("out"), "replaced").exists());

    // The same length, other content.
    corpus.settings.overwrite = false;
    let text = fs::read_to_string(corpus.at("texts/2.txt")).unwrap().replace("third", "fifth");
    fs::write(corpus.at("texts/2.txt"), text).unwrap();
    let error = prepare(&corpus.settings, &corpus.at("out"), &()).unwrap_err();
    let message = "source `paragraphs`: the file `2.txt` has changed";
    assert!(error.to_string().ends_with(message), "{error}");

    fs::create_dir(corpus.at("other")).unwrap();
    let error = prepare(&corpus.settings, &corpus.at("other"), &()).unwrap_err();
    assert!(error.to_string().ends_with("exists and is not a token store"), "{error}");
}

#[test]
fn a_kill_while_replacing_leaves_one_of_both_and_is_made_good() {
    let mut corpus = Corpus::new();
    let out = corpus.at("out");
    corpus.prepare("out");
    corpus.settings.holdout = 0.25;
    corpus.settings.overwrite = true;
    let at = kill_at(Instant::MovedAway);
    catch_unwind(AssertUnwindSafe(|| run(&corpus.settings, &out, &(), UNIT_BYTES, &at))).unwrap_err();
    assert!(!out.exists());
    assert!(corpus.prepare("out").num_heldout_documents > 0);
}

#[test]
fn unfinished_work_on_other_inputs_is_discarded() {
    let mut corpus = Corpus::new();
    let out = corpus.at("out");
    let at = kill_at(Instant::Committed);
    catch_unwind(AssertUnwindSafe(|| run(&corpus.settings, &out, &(), 1000, &at))).unwrap_err();
    corpus.settings.append_eos = false;
    struct Messages(std::sync::Mutex<Vec<String>>);
    impl Progress for Messages {
        fn advance(&self, done: u64, total: u64, _tokens: u64) {
            assert!(done <= total);
        }
        fn message(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
    let messages = Messages(std::sync::Mutex::default());
    prepare(&corpus.settings, &out, &messages).unwrap();
    assert_eq!(
        messages.0.lock().unwrap()[0],
        "discarding unfinished work on other inputs: its `append_eos` is true, not false"
    );
    let fresh = prepare(&corpus.settings, &corpus.at("fresh"), &()).unwrap();
    assert!(contents(&out) == contents(&corpus.at("fresh")), "{fresh:?}");
}

#[test]
fn two_at_once_are_an_error() {
    let corpus = Corpus::new();
    let out = corpus.at("out");
    let second = std::sync::Mutex::new(None);
    let at = |instant| {
        if instant == Instant::Committed {
            *second.lock().unwrap() = Some(prepare(&corpus.settings, &out, &()).unwrap_err().to_string());
        }
    };
    run(&corpus.settings, &out, &(), UNIT_BYTES, &at).unwrap();
    let expected = format!("another process is preparing `{}`", out.display());
    assert_eq!(second.into_inner().unwrap(), Some(expected));
}

#[test]
fn copies_of_a_document_are_on_one_side() {
    let home = tempfile::tempdir().unwrap();
    let corpus = Corpus::new();
    let line = |i: usize| format!("{{\"text\":\"problem {}\"}}\n", i % 400);
    let path = home.path().join("twice.jsonl");
    fs::write(&path, (0..800).map(line).collect::<String>()).unwrap();
    let mut settings = Prepare::new(corpus.at("tokenizer.json"), vec![Source::new("twice", &path)]);
    settings.holdout = 0.25;
    let out = home.path().join("out");
    let summary = prepare(&settings, &out, &()).unwrap();
    assert!((140..260).contains(&summary.num_heldout_documents), "{summary:?}");
    let documents = |directory: &Path| {
        let store = TokenStore::open(directory).unwrap();
        let all: Vec<_> = store.documents().map(|document| store.tokens(document)).collect();
        all
    };
    let (train, heldout) = (documents(&out), documents(&out.join("heldout")));
    assert_eq!(train.len() + heldout.len(), 800);
    assert!(train.iter().all(|document| !heldout.contains(document)));
}

#[test]
fn arrays_alone_need_no_tokenizer() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ids.npy");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    let dictionary = "{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }\n";
    header.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
    header.extend_from_slice(dictionary.as_bytes());
    for id in [3i32, 70_000, 9, 4, 70_000] {
        header.extend_from_slice(&id.to_le_bytes());
    }
    fs::write(&path, header).unwrap();
    let mut source = Source::new("ids", &path);
    source.format = Format::Tokens;
    let mut settings = Prepare::new("unused", vec![source]);
    settings.tokenizer = None;
    let error = prepare(&settings, &home.path().join("out"), &()).unwrap_err();
    assert_eq!(error.to_string(), "vocab_size must be given where there is no tokenizer, not left out");
    (settings.vocab_size, settings.eos) = (Some(70_001), Some(70_000));
    let summary = prepare(&settings, &home.path().join("out"), &()).unwrap();
    assert_eq!((summary.dtype, summary.num_tokens, summary.num_documents), (Dtype::U32, 5, 2));
    let store = TokenStore::open(&home.path().join("out")).unwrap();
    store.verify().unwrap();
    assert_eq!(store.tokens(0..5), [3, 70_000, 9, 4, 70_000]);
    assert_eq!(store.manifest().tokenizer, None);
}
