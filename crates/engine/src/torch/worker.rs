//! The worker's process: how it is found, started, asked and given up.
//!
//! A thread reads its answers and another writes its requests, so that a worker that stops reading or answering is
//! given up in time. A third keeps the end of what it writes to standard error, to be quoted when it dies.

use super::error::{Error, Kind};
use super::protocol::{self, Array, Frame, FrameError, Header, Values};
use crate::settings::TorchSettings;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The worker's program.
const SOURCE: &str = include_str!("worker.py");
const PROTOCOL: u64 = 1;
const NEEDED: [(&str, [u64; 2], &str); 2] = [("torch", [2, 8], "2.8"), ("transformers", [5, 0], "5.0")];
/// What is kept of standard error: the last lines of the last bytes.
const LINES: usize = 40;
const BYTES: usize = 16 << 10;
/// How long a worker may take to end once its standard input has.
const GRACE: Duration = Duration::from_secs(3);
/// How much later than the first of several processes an answer is given up.
const LATER: Duration = Duration::from_secs(15);

/// What a worker says of itself when it is ready.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct Hello {
    /// Version of PyTorch.
    pub torch: String,
    /// Version of transformers.
    pub transformers: String,
    /// Version of Python.
    pub python: String,
    /// The device that `auto` means.
    pub device: String,
    /// The accelerators that there are.
    pub devices: Vec<Device>,
    /// The kernel that attends to packed documents.
    pub attention: String,
    /// Version of NCCL.
    pub nccl: Option<String>,
    /// Processes that work together.
    pub world_size: u64,
    /// Whether the device computes in bfloat16.
    pub bf16: bool,
}

/// An accelerator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its compute capability.
    pub capability: String,
}

/// A worker that is asked one thing after another.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` once it is given up.
    requests: Option<Sender<Vec<u8>>>,
    answers: Receiver<Result<Option<Frame>, FrameError>>,
    /// `None` where it is at the other end of pipes that a test has made.
    process: Option<Process>,
    limit: Duration,
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The end of its standard error.
    words: Arc<Mutex<VecDeque<u8>>>,
    /// Closed when standard error ends.
    silence: Receiver<()>,
}

/// The Python to start: the setting, the environment that is active, or the first on the path.
pub(super) fn find_python(setting: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(python) = setting {
        return Ok(python.to_owned());
    }
    let (folder, names) = if cfg!(windows) {
        ("Scripts", ["python.exe", "python3.exe"])
    } else {
        ("bin", ["python3", "python"])
    };
    let environment = std::env::var_os("VIRTUAL_ENV").filter(|path| !path.is_empty());
    let environment = environment.map(|path| Path::new(&path).join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = environment.into_iter().chain(std::env::split_paths(&path));
    let mut programs = folders.flat_map(|folder| names.map(|name| folder.join(name)));
    programs.find(|program| program.is_file()).ok_or(Error::NoPython)
}

/// What starts the worker, with its program in `directory`.
pub(super) fn command(python: &Path, directory: &Path, settings: &TorchSettings) -> Result<Command, Error> {
    let program = directory.join("worker.py");
    std::fs::write(&program, SOURCE)
        .map_err(|cause| Error::Temporary { directory: directory.to_owned(), cause })?;
    let mut command = Command::new(python);
    command.arg("-u").arg(program).env("PYTHONUTF8", "1");
    command.args(["--limit", &settings.timeout_seconds.to_string()]);
    match settings.launcher {
        Some(launcher) => command.args(["--launcher", launcher.name()]),
        None => command.args(["--processes", &settings.processes.to_string()]),
    };
    // On the CPU: threads that wait by spinning make steps many times slower where others want the cores.
    if std::env::var_os("OMP_WAIT_POLICY").is_none() {
        command.env("OMP_WAIT_POLICY", "PASSIVE");
    }
    Ok(command)
}

impl Worker {
    /// Starts the worker in `directory`, where its program is written to.
    pub fn start(
        python: &Path,
        directory: &Path,
        settings: &TorchSettings,
    ) -> Result<(Worker, Hello), Error> {
        let mut limit = Duration::from_secs_f64(settings.timeout_seconds);
        if settings.processes > 1 || settings.launcher.is_some() {
            // The first process says which of the others is late.
            limit += LATER;
        }
        Worker::spawn(command(python, directory, settings)?, limit)
    }

    /// Starts a program that speaks the protocol.
    pub fn spawn(mut command: Command, limit: Duration) -> Result<(Worker, Hello), Error> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|cause| Error::Start { python: command.get_program().into(), cause })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else { unreachable!("they were asked for") };
        let words = Arc::new(Mutex::new(VecDeque::new()));
        let (end, silence) = sync_channel(0);
        let kept = words.clone();
        thread::spawn(move || keep_words(errors, &kept, end));
        let process = Process { child, words, silence };
        Worker::meet::<ChildStdout>(output, input, Some(process), limit)
    }

    /// Waits for the worker's greeting, and checks it.
    pub fn meet<R: Read + Send + 'static>(
        output: R,
        input: impl Write + Send + 'static,
        process: Option<Process>,
        limit: Duration,
    ) -> Result<(Worker, Hello), Error> {
        let (requests, to_write) = channel();
        let (has_read, answers) = sync_channel(1);
        thread::spawn(move || write_requests(input, &to_write));
        thread::spawn(move || read_answers(output, &has_read));
        let mut worker = Worker { requests: Some(requests), answers, process, limit };
        let hello = worker.greeting()?;
        Ok((worker, hello))
    }

    fn greeting(&mut self) -> Result<Hello, Error> {
        const START: &str = "start";
        let Frame { header, .. } = self.receive(START)?;
        if header.get("protocol").and_then(Value::as_u64) != Some(PROTOCOL) {
            let found = header.get("protocol").map_or("none".into(), Value::to_string);
            return Err(self.nonsense(START, format!("it speaks protocol {found}, not {PROTOCOL}")));
        }
        if let Some(error) = header.get("error") {
            return Err(self.refused(START, error));
        }
        let hello: Hello = match serde_json::from_value(Value::Object(header)) {
            Ok(hello) => hello,
            Err(error) => return Err(self.nonsense(START, error.to_string())),
        };
        for (package, needed, words) in NEEDED {
            let found = if package == "torch" { &hello.torch } else { &hello.transformers };
            if version(found) < needed {
                return Err(Error::Version { package, found: found.clone(), needed: words });
            }
        }
        Ok(hello)
    }

    /// Asks, and waits for the answer.
    pub fn call(
        &mut self,
        operation: &'static str,
        header: Value,
        arrays: &[Array],
    ) -> Result<Answer, Error> {
        self.send(operation, header, arrays)?;
        self.answer(operation)
    }

    /// Sends a request.
    pub fn send(&mut self, operation: &'static str, header: Value, arrays: &[Array]) -> Result<(), Error> {
        let Value::Object(mut header) = header else { panic!("a header is an object") };
        header.insert("op".into(), operation.into());
        let frame = match protocol::encode(header, arrays) {
            Ok(frame) => frame,
            Err(error) => return Err(self.nonsense(operation, error.to_string())),
        };
        let requests = self.requests.as_ref().ok_or(Error::Gone)?;
        // Where the writer has ended, the worker has too; there will be no answer, and that says why.
        let _ = requests.send(frame);
        Ok(())
    }

    /// The next frame, if it is an answer that all is well or an event.
    pub fn answer(&mut self, operation: &'static str) -> Result<Answer, Error> {
        let Frame { header, arrays } = self.receive(operation)?;
        if let Some(error) = header.get("error").filter(|error| !error.is_null()) {
            return Err(self.refused(operation, error));
        }
        if header.get("ok") != Some(&Value::Bool(true)) && !header.contains_key("event") {
            return Err(self.nonsense(operation, "a frame is neither an answer nor an event".into()));
        }
        Ok(Answer { header, arrays })
    }

    fn receive(&mut self, operation: &'static str) -> Result<Frame, Error> {
        if self.requests.is_none() {
            return Err(Error::Gone);
        }
        match self.answers.recv_timeout(self.limit) {
            Ok(Ok(Some(frame))) => Ok(frame),
            Ok(Err(error)) if !is_end(&error) => Err(self.nonsense(operation, error.to_string())),
            Ok(Ok(None) | Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                let (status, words) = self.give_up(GRACE);
                Err(Error::Ended { operation, status, words })
            }
            Err(RecvTimeoutError::Timeout) => {
                let (_, words) = self.give_up(Duration::ZERO);
                Err(Error::Silent { operation, seconds: self.limit.as_secs_f64(), words })
            }
        }
    }

    /// What is right in an answer, or the error of a worker that is given up for it.
    pub fn checked<T>(&mut self, operation: &'static str, part: Result<T, String>) -> Result<T, Error> {
        part.map_err(|problem| self.nonsense(operation, problem))
    }

    /// Gives a worker up whose answer cannot be used.
    pub fn nonsense(&mut self, operation: &'static str, problem: String) -> Error {
        let (_, words) = self.give_up(Duration::ZERO);
        Error::Nonsense { operation, problem, words }
    }

    /// The error that the worker reports.
    fn refused(&mut self, operation: &'static str, error: &Value) -> Error {
        #[derive(Deserialize)]
        struct Report {
            kind: Kind,
            message: String,
            hint: Option<String>,
            traceback: Option<String>,
        }
        match Report::deserialize(error) {
            Ok(Report { kind: Kind::Ended, message, traceback, .. }) => {
                self.give_up(GRACE);
                Error::Ended { operation, status: message, words: traceback.unwrap_or_default() }
            }
            Ok(Report { kind, message, hint, traceback }) => {
                let traceback = traceback.filter(|_| kind == Kind::Internal);
                Error::Answer { operation, kind, message, hint, traceback }
            }
            Err(error) => self.nonsense(operation, format!("an error that is not described: {error}")),
        }
    }

    /// Ends the worker. Returns its exit status in words and the end of its standard error.
    fn give_up(&mut self, grace: Duration) -> (String, String) {
        self.requests = None;
        match &mut self.process {
            Some(process) => process.end(grace),
            None => ("no process".into(), String::new()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.requests.is_some() {
            // Its standard input ends with that, and so does the worker.
            self.give_up(GRACE);
        }
    }
}

impl Process {
    /// Waits for the end, kills where that takes too long.
    fn end(&mut self, grace: Duration) -> (String, String) {
        let deadline = Instant::now() + grace;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status.to_string(),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                _ => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break "it was killed".into();
                }
            }
        };
        // What it started may hold standard error open.
        let _ = self.silence.recv_timeout(Duration::from_millis(200));
        (status, self.last_words())
    }

    fn last_words(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = words.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// Keeps the end of standard error.
fn keep_words(mut errors: impl Read, words: &Mutex<VecDeque<u8>>, _end: SyncSender<()>) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = errors.read(&mut chunk) {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend(&chunk[..count]);
        let surplus = words.len().saturating_sub(BYTES);
        words.drain(..surplus);
    }
}

fn write_requests(mut input: impl Write, requests: &Receiver<Vec<u8>>) {
    while let Ok(frame) = requests.recv() {
        if protocol::write(&mut input, &frame).is_err() {
            break;
        }
    }
}

fn read_answers(output: impl Read, answers: &SyncSender<Result<Option<Frame>, FrameError>>) {
    let mut output = BufReader::with_capacity(1 << 16, output);
    loop {
        let frame = protocol::read(&mut output);
        let is_last = !matches!(frame, Ok(Some(_)));
        if answers.send(frame).is_err() || is_last {
            break;
        }
    }
}

/// Whether a stream has ended, within a frame or not.
fn is_end(error: &FrameError) -> bool {
    matches!(error, FrameError::Truncated { .. } | FrameError::Io(_))
}

/// `2.11.0+cu130` as `[2, 11]`; what is no number counts as 0.
fn version(text: &str) -> [u64; 2] {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

/// An answer, or an event before it.
#[derive(Debug)]
pub(super) struct Answer {
    pub header: Header,
    arrays: Vec<Array>,
}

impl Answer {
    /// Takes an array out. `shape` is what it must have; `None` for any of one dimension.
    fn take<T>(
        &mut self,
        name: &str,
        shape: Option<&[usize]>,
        read: fn(Values) -> Option<T>,
    ) -> Result<T, String> {
        let index = self.arrays.iter().position(|array| array.name == name);
        let Some(index) = index else { return Err(format!("there is no array `{name}`")) };
        let Array { shape: found, values, .. } = self.arrays.swap_remove(index);
        let fits = shape.map_or(found.len() == 1, |shape| found == shape);
        if !fits {
            let wanted = shape.map_or("one dimension".into(), |shape| format!("{shape:?}"));
            return Err(format!("array `{name}` has shape {found:?}, not {wanted}"));
        }
        read(values).ok_or_else(|| format!("array `{name}` has another element type than it should"))
    }

    /// float32 values of a known shape.
    pub fn f32s(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        self.take(name, Some(shape), f32_of)
    }

    /// float32 values, one dimension.
    pub fn f32_row(&mut self, name: &str) -> Result<Vec<f32>, String> {
        self.take(name, None, f32_of)
    }

    /// float64 values of a known shape.
    pub fn f64s(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>, String> {
        self.take(name, Some(shape), |values| match values {
            Values::F64(values) => Some(values),
            _ => None,
        })
    }

    /// Unsigned integers, one dimension.
    pub fn u32_row(&mut self, name: &str) -> Result<Vec<u32>, String> {
        self.take(name, None, |values| match values {
            Values::U32(values) => Some(values),
            _ => None,
        })
    }

    /// A number of the header; NaN where it is null, which is how a number that is not finite is sent.
    pub fn number(&self, key: &str) -> Result<f64, String> {
        match self.header.get(key) {
            Some(Value::Null) => Ok(f64::NAN),
            Some(value) => value.as_f64().ok_or_else(|| format!("`{key}` is {value}, no number")),
            None => Err(format!("there is no `{key}`")),
        }
    }
}

fn f32_of(values: Values) -> Option<Vec<f32>> {
    match values {
        Values::F32(values) => Some(values),
        _ => None,
    }
}
