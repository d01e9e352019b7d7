//! Every kind of wrong input, and the message it meets.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use remit_corpus::{
    Error, Format, Prepare, Source, Split, Summary, TokenDtype, TokenStore, Tokenizer, TrainTokenizer,
    prepare, train_tokenizer,
};

/// A directory with a tokenizer that knows the bytes only.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        let home = Home { directory: tempfile::tempdir().unwrap() };
        home.write("seed.txt", b"ab ab ab");
        let settings = TrainTokenizer::new(vec![Source::new("seed", home.at("seed.txt"))], 257);
        train_tokenizer(&settings, &()).unwrap().write(&home.at("tokenizer.json")).unwrap();
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at(name), bytes).unwrap();
    }

    /// What of a file `data.*` comes, read as one source.
    fn prepare(&self, name: &str, change: impl FnOnce(&mut Prepare)) -> Result<Summary, Error> {
        let mut settings = Prepare::new(self.at("tokenizer.json"), vec![Source::new("data", self.at(name))]);
        change(&mut settings);
        let out = tempfile::tempdir_in(self.directory.path()).unwrap();
        prepare(&settings, &out.path().join("out"), &())
    }

    /// Checks message and hint; `@` stands for the directory.
    fn check(&self, result: Result<Summary, Error>, message: &str, hint: Option<&str>) {
        let error = result.unwrap_err();
        let directory = self.directory.path().display().to_string();
        assert_eq!(error.to_string().replace(&directory, "@"), message);
        assert_eq!(error.hint().as_deref(), hint, "hint of: {error}");
    }
}

const SKIP: Option<&str> =
    Some("repair the record, or count and skip such records with `--skip-bad-records`");
const UNKNOWN: Option<&str> = Some(
    "set the source's `format` to text, jsonl, parquet, tokens or raw; of compressed files, `.gz`, `.zst` and `.br` are read",
);
const DAMAGED: Option<&str> = Some("the file is damaged, cut off, or not what its name says: fetch it again");

#[test]
fn missing_files_and_unknown_formats() {
    let home = Home::new();
    home.check(
        home.prepare("none.jsonl", |_| {}),
        "source `data`: no file at `@/none.jsonl`",
        Some("check the path; it may be a file, a directory or a pattern with `*`"),
    );
    home.check(
        home.prepare("none*.jsonl", |_| {}),
        "source `data`: no file at `@/none*.jsonl`",
        Some("check the path; it may be a file, a directory or a pattern with `*`"),
    );
    home.write("data.csv", b"a,b");
    home.check(
        home.prepare("data.csv", |_| {}),
        "source `data`: cannot tell the format of `@/data.csv` from its name",
        UNKNOWN,
    );
    home.check(
        home.prepare("data.c*", |_| {}),
        "source `data`: cannot tell the format of `@/data.csv` from its name",
        UNKNOWN,
    );
    // Beside what can be read, it is left out of a pattern as of a directory.
    home.write("data.txt", b"ab");
    assert_eq!(home.prepare("data.*", |_| {}).unwrap().num_documents, 1);
}

#[test]
fn what_links_lead_to_is_read_once_or_missed() {
    let home = Home::new();
    fs::create_dir_all(home.at("d/sub")).unwrap();
    for name in ["d/a.jsonl", "d/sub/b.jsonl", "d/._a.jsonl"] {
        home.write(name, b"{\"text\":\"ab\"}\n");
    }
    std::os::unix::fs::symlink("..", home.at("d/sub/up")).unwrap();
    for path in ["d", "d/**/*.jsonl"] {
        assert_eq!(home.prepare(path, |_| {}).unwrap().num_documents, 2, "{path}");
    }
    std::os::unix::fs::symlink("gone.jsonl", home.at("d/c.jsonl")).unwrap();
    for path in ["d", "d/**/*.jsonl", "d/c.jsonl"] {
        home.check(
            home.prepare(path, |_| {}),
            "`@/d/c.jsonl` links to `gone.jsonl`, which does not exist",
            Some("bring back what it links to, or remove the link"),
        );
    }
}

#[test]
fn a_wrong_text_field_lists_the_fields_there_are() {
    let home = Home::new();
    home.write("data.jsonl", b"{\"question\":\"1+1?\",\"answer\":\"2\"}\n");
    let message =
        |field: &str| format!("@/data.jsonl:1: no field `{field}`; the record has `answer`, `question`");
    home.check(
        home.prepare("data.jsonl", |_| {}),
        &message("text"),
        Some(
            "set the source's `text_field` to one of them, or to a template such as \"{question}\\n{answer}\"",
        ),
    );
    home.check(
        home.prepare("data.jsonl", |settings| settings.sources[0].text_field = "qestion".into()),
        &message("qestion"),
        Some("did you mean `question`? Set the source's `text_field`"),
    );
    home.check(
        home.prepare("data.jsonl", |settings| settings.sources[0].text_field = "{question}\n{answr}".into()),
        &message("answr"),
        Some("did you mean `answer`? Set the source's `text_field`"),
    );
    let summary = home
        .prepare("data.jsonl", |settings| settings.sources[0].text_field = "{question}\n{answer}".into())
        .unwrap();
    assert_eq!((summary.num_documents, summary.num_tokens), (1, 7));
}

#[test]
fn malformed_records_are_found_by_line_or_skipped() {
    let home = Home::new();
    home.write(
        "data.jsonl",
        b"{\"text\":\"a\"}\n\n{\"text\": oh}\n{\"text\":7}\n[1]\n{\"text\":\"b\xFF\"}\n",
    );
    home.check(
        home.prepare("data.jsonl", |_| {}),
        "@/data.jsonl:3: malformed JSON: expected value at column 10",
        SKIP,
    );
    let summary = home.prepare("data.jsonl", |settings| settings.skip_bad_records = true).unwrap();
    assert_eq!((summary.num_documents, summary.skipped.count), (1, 4));
    let directory = home.directory.path().display().to_string();
    let examples: Vec<_> =
        summary.skipped.examples.iter().map(|example| example.replace(&directory, "@")).collect();
    assert_eq!(
        examples[1..],
        [
            "@/data.jsonl:4: field `text` is a number, not a string",
            "@/data.jsonl:5: the record is an array, not an object",
            "@/data.jsonl:6: invalid UTF-8",
        ]
    );
}

#[test]
fn text_that_is_not_utf_8() {
    let home = Home::new();
    home.write("data.txt", b"one\ntwo\nthr\xFFe\n\nfour\n");
    for (split, line) in [(Split::File, 3), (Split::Line, 3), (Split::BlankLine, 3)] {
        home.check(
            home.prepare("data.txt", |settings| settings.sources[0].split = split),
            &format!("@/data.txt:{line}: invalid UTF-8"),
            SKIP,
        );
    }
    let skipping = |split| {
        home.prepare("data.txt", |settings| {
            settings.skip_bad_records = true;
            settings.sources[0].split = split;
        })
    };
    let summary = skipping(Split::Line).unwrap();
    assert_eq!((summary.num_documents, summary.skipped.count), (3, 1));
    let summary = skipping(Split::BlankLine).unwrap();
    assert_eq!((summary.num_documents, summary.skipped.count), (1, 1));
    home.check(
        skipping(Split::File),
        "source `data` has no tokens: 0 documents kept apart; in all sources so far 0 records without text and 1 \
         malformed",
        Some("check its path and `text_field`, or remove the source"),
    );
}

#[test]
fn a_long_text_is_kept_up_to_where_it_is_not_utf_8() {
    let home = Home::new();
    let mut text = b"a line\n".repeat(400_000);
    text[2_000_000] = 0xFF;
    home.write("data.txt", &text);
    home.check(home.prepare("data.txt", |_| {}), "@/data.txt:285715: invalid UTF-8", SKIP);
    let summary = home.prepare("data.txt", |settings| settings.skip_bad_records = true).unwrap();
    assert_eq!((summary.num_documents, summary.skipped.count), (1, 1));
    // The first piece, cut at a line, and the end-of-document token; the bytes are the tokens.
    assert_eq!(summary.num_tokens, (1 << 20) / 7 * 7 + 1);
}

#[test]
fn damaged_compression() {
    let home = Home::new();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all("{\"text\":\"words and words\"}\n".repeat(100).as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    home.write("whole.jsonl.gz", &gz);
    assert_eq!(home.prepare("whole.jsonl.gz", |_| {}).unwrap().num_documents, 100);
    home.write("cut.jsonl.gz", &gz[..gz.len() - 12]);
    home.check(
        home.prepare("cut.jsonl.gz", |_| {}),
        "cannot decompress `@/cut.jsonl.gz`: incomplete deflate stream",
        DAMAGED,
    );
    home.write("no.jsonl.gz", b"{\"text\":\"not packed\"}\n");
    home.check(
        home.prepare("no.jsonl.gz", |_| {}),
        "cannot decompress `@/no.jsonl.gz`: invalid gzip header",
        DAMAGED,
    );
    let zst = zstd::encode_all("{\"text\":\"words\"}\n".repeat(100).as_bytes(), 3).unwrap();
    home.write("whole.jsonl.zst", &zst);
    assert_eq!(home.prepare("whole.jsonl.zst", |_| {}).unwrap().num_documents, 100);
    home.write("cut.jsonl.zst", &zst[..zst.len() - 4]);
    home.check(
        home.prepare("cut.jsonl.zst", |_| {}),
        "cannot decompress `@/cut.jsonl.zst`: incomplete frame",
        DAMAGED,
    );
}

#[test]
fn brotli() {
    let home = Home::new();
    let mut packed = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    packed.write_all("{\"text\":\"words and words\"}\n".repeat(100).as_bytes()).unwrap();
    let packed = packed.into_inner();
    home.write("whole.jsonl.br", &packed);
    assert_eq!(home.prepare("whole.jsonl.br", |_| {}).unwrap().num_documents, 100);
    home.write("cut.jsonl.br", &packed[..packed.len() - 4]);
    let error = home.prepare("cut.jsonl.br", |_| {}).unwrap_err();
    assert!(error.to_string().contains("cut.jsonl.br`"), "{error}");
    assert_eq!(error.hint().as_deref(), DAMAGED);
}

#[test]
fn windows_of_zstd() {
    let home = Home::new();
    // A frame of one stored block whose header asks for a window of 2 to the power of `log`.
    let frame = |log: u8| {
        let text = b"{\"text\":\"far back\"}\n";
        let mut bytes = vec![0x28, 0xB5, 0x2F, 0xFD, 0, (log - 10) << 3];
        bytes.extend_from_slice(&((text.len() as u32) << 3 | 1).to_le_bytes()[..3]);
        bytes.extend_from_slice(text);
        bytes
    };
    for log in [10, 27, 28, 31] {
        home.write("long.jsonl.zst", &frame(log));
        assert_eq!(home.prepare("long.jsonl.zst", |_| {}).unwrap().num_documents, 1, "2^{log}");
    }
    home.write("long.jsonl.zst", &frame(32));
    home.check(
        home.prepare("long.jsonl.zst", |_| {}),
        "cannot decompress `@/long.jsonl.zst`: Frame requires too much memory for decoding",
        Some("its window is larger than 2 GiB: compress it again with `zstd --long=31` or less"),
    );
}

#[test]
fn arrays_without_a_header() {
    let home = Home::new();
    let numbers: Vec<u8> = [3_u32, 1, 0, 4, 0].iter().flat_map(|id| id.to_le_bytes()).collect();
    home.write("part.npy", &numbers);
    home.check(
        home.prepare("part.npy", |_| {}),
        "`@/part.npy`: not a NumPy file",
        Some(
            "where it is raw numbers, as OLMo's `.npy` files are, set the source's `format` to \"raw\" and `token_dtype` to \
             their width: \"u16\", \"u32\", \"i32\" or \"i64\"",
        ),
    );
    for dtype in [TokenDtype::U32, TokenDtype::I32] {
        let raw = |settings: &mut Prepare| {
            (settings.sources[0].format, settings.sources[0].token_dtype) = (Format::Raw, dtype);
        };
        let summary = home.prepare("part.npy", raw).unwrap();
        assert_eq!((summary.num_tokens, summary.num_documents), (5, 2));
    }
    // As 16-bit numbers every other one is 0, and the store would be another.
    let narrow = home.prepare("part.npy", |settings| settings.sources[0].format = Format::Raw).unwrap();
    assert_eq!(narrow.num_tokens, 10);
    home.write("wide.npy", &[0xFF; 8]);
    home.check(
        home.prepare("wide.npy", |settings| settings.sources[0].format = Format::Raw),
        "`@/wide.npy`: token 0 is 65535, outside the vocabulary of 257 tokens",
        Some("check the source's `token_dtype`, and that the tokenizer is the one that made it"),
    );
}

fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

#[test]
fn arrays_of_the_wrong_kind() {
    let home = Home::new();
    for (bytes, message) in [
        (npy("<f4", "1,", &[0; 4]), "its dtype is `<f4`; token arrays are `<u2`, `<u4`, `<i4` or `<i8`"),
        (npy("<u2", "1, 2", &[0; 4]), "its shape is (1, 2); token arrays have one dimension"),
        (npy("<u2", "3,", &[0; 4]), "cut off: it promises 3 tokens and has 2"),
        (npy("<u2", "2,", &[1, 0, 1, 1]), "token 1 is 257, outside the vocabulary of 257 tokens"),
        (npy("<i4", "1,", &[255; 4]), "token 0 is -1, outside the vocabulary of 257 tokens"),
    ] {
        home.write("data.npy", &bytes);
        home.check(home.prepare("data.npy", |_| {}), &format!("`@/data.npy`: {message}"), None);
    }
    home.write("data.bin", &[0; 3]);
    home.check(
        home.prepare("data.bin", |_| {}),
        "`@/data.bin`: its size is no multiple of 2 bytes, the width of its tokens; is `token_dtype` right?",
        None,
    );
    home.write("data.npy", &npy("<i8", "2,", &[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(home.prepare("data.npy", |_| {}).unwrap().num_tokens, 2);
}

#[test]
fn sources_that_come_to_nothing() {
    let home = Home::new();
    home.write("data.txt", b"");
    let message = "source `data` has no tokens: 0 documents kept apart; in all sources so far 0 records without \
                   text and 0 malformed";
    let hint = Some("check its path and `text_field`, or remove the source");
    home.check(home.prepare("data.txt", |_| {}), message, hint);
    home.check(
        home.prepare("data.txt", |settings| settings.sources.clear()),
        "no source is given",
        Some("add a `[[sources]]` table with `name` and `path`"),
    );
    home.check(
        home.prepare("data.txt", |settings| settings.sources.push(settings.sources[0].clone())),
        "two sources are named `data`",
        Some("give each source a name of its own"),
    );
    home.check(
        home.prepare("data.txt", |settings| settings.sources[0].weight = Some(-1.0)),
        "source `data`: weight must be a number not below 0, not -1",
        None,
    );
    home.check(
        home.prepare("data.txt", |settings| settings.holdout = 1.0),
        "holdout must be at least 0 and below 1, not 1",
        None,
    );
}

#[test]
fn tokenizers_that_cannot_be_used() {
    let home = Home::new();
    home.write("data.txt", b"text");
    let hint = Some("give a Hugging Face `tokenizer.json`, or make one with `remit train-tokenizer`");
    let with = |name: &str| home.prepare("data.txt", |settings| settings.tokenizer = Some(home.at(name)));
    home.check(with("none.json"), "cannot read `@/none.json`: No such file or directory (os error 2)", None);
    home.write("bad.json", b"{\"version\":");
    home.check(
        with("bad.json"),
        "`@/bad.json` is not a usable tokenizer: EOF while parsing a value at line 1 column 11",
        hint,
    );

    // A tokenizer without special tokens has nothing to end documents with.
    fs::create_dir(home.at("bare")).unwrap();
    let mut settings = TrainTokenizer::new(vec![Source::new("seed", home.at("seed.txt"))], 256);
    settings.special_tokens.clear();
    train_tokenizer(&settings, &()).unwrap().write(&home.at("bare/tokenizer.json")).unwrap();
    home.check(
        with("bare"),
        "the tokenizer `@/bare/tokenizer.json` names no eos token",
        Some(
            "name it as `eos_token` in the `tokenizer_config.json` beside the tokenizer, or set `append_eos` to \
             false",
        ),
    );
    home.write("bare/tokenizer_config.json", b"{\"eos_token\": {\"content\": \"<end>\"}}");
    home.check(
        with("bare"),
        "`@/bare/tokenizer_config.json` is not a usable tokenizer: its eos_token `<end>` is not in the vocabulary",
        hint,
    );
}

#[test]
fn token_stores_that_are_damaged() {
    let home = Home::new();
    home.write("data.txt", b"a few words");
    let out = home.at("out");
    let settings = Prepare::new(home.at("tokenizer.json"), vec![Source::new("data", home.at("data.txt"))]);
    prepare(&settings, &out, &()).unwrap();
    let store = TokenStore::open(&out).unwrap();
    store.verify().unwrap();
    assert_eq!((store.num_tokens(), store.token(11), store.eos()), (12, 0, Some(0)));
    drop(store);

    let check = |open: &dyn Fn(&Path) -> Result<(), Error>, message: &str| {
        let error = open(&out).unwrap_err();
        assert_eq!(error.to_string(), format!("token store `{}`: {message}", out.display()));
        assert_eq!(error.hint().unwrap(), "make it again with `remit prepare --overwrite`");
    };
    let open = |path: &Path| TokenStore::open(path).map(|_| ());
    let verify = |path: &Path| TokenStore::open(path).and_then(|store| store.verify());

    let tokens = fs::read(out.join("tokens.bin")).unwrap();
    fs::write(out.join("tokens.bin"), &tokens[..20]).unwrap();
    check(&open, "`tokens.bin` has 20 bytes; the manifest asks for 24");
    let mut changed = tokens.clone();
    changed[4] ^= 1;
    fs::write(out.join("tokens.bin"), &changed).unwrap();
    open(&out).unwrap();
    let error = verify(&out).unwrap_err().to_string();
    assert!(error.contains("its content hash is "), "{error}");
    fs::write(out.join("tokens.bin"), &tokens).unwrap();
    verify(&out).unwrap();

    fs::rename(out.join("documents.bin"), out.join("moved")).unwrap();
    check(&open, "`documents.bin` is missing");
    fs::rename(out.join("moved"), out.join("documents.bin")).unwrap();

    let manifest = fs::read_to_string(out.join("manifest.json")).unwrap();
    fs::write(out.join("manifest.json"), manifest.replace("\"version\": 1", "\"version\": 7")).unwrap();
    check(&open, "its format version is 7; this program reads 1");
    fs::write(out.join("manifest.json"), &manifest[..30]).unwrap();
    assert!(open(&out).unwrap_err().to_string().contains("`manifest.json`: EOF while parsing"));
    fs::remove_file(out.join("manifest.json")).unwrap();
    check(&open, "`manifest.json` is missing");
}

#[test]
fn unknown_settings_name_themselves() {
    let error = toml::from_str::<Prepare>("tokenizer = 'a'\nhold_out = 0.1\nsources = []").unwrap_err();
    assert!(error.to_string().contains("unknown field `hold_out`"), "{error}");
    let source = "name = 'a'\npath = 'b'\nformat = 'jsonl'\ntext_field = '{q}'\nsplit = 'blank-line'";
    let source: Source = toml::from_str(source).unwrap();
    assert_eq!((source.format, source.split), (Format::Jsonl, Split::BlankLine));
}

#[test]
fn a_tokenizer_is_not_trained_on_ids() {
    let home = Home::new();
    home.write("data.bin", &[0, 0]);
    let settings = TrainTokenizer::new(vec![Source::new("data", home.at("data.bin"))], 300);
    let error = train_tokenizer(&settings, &()).unwrap_err();
    assert!(error.to_string().ends_with("a tokenizer learns from text, and this is an array of tokens"));
    let settings = TrainTokenizer::new(vec![Source::new("seed", home.at("seed.txt"))], 256);
    let error = train_tokenizer(&settings, &()).unwrap_err();
    assert_eq!(error.to_string(), "vocab_size must be at least 256 bytes and the special tokens, not 256");
    assert!(Tokenizer::open(&home.at("nowhere")).is_err());
}
