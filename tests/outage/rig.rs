//! What the tests of outages share: a pipeline run by the binary and watched from outside, servers
//! that a test may kill, and what was written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// For what should take seconds, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A variable that `ops/test` sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by ops/test"))
}

/// Looks again and again until there is something to see.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(100));
    }
}

/// The first of `count` ports in a row that are free, TCP and UDP, below those that the system
/// hands out to clients.
pub fn free_ports(count: u16) -> u16 {
    let free = |port| {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    let mut tries = std::iter::repeat_with(|| rand::random_range(20_000..32_000));
    tries
        .find(|port| (0..count).all(|next| free(port + next)))
        .expect("some ports are free")
}

/// A folder that goes with the test.
pub fn folder() -> TempDir {
    let place = variable("OPUSFLOW_TEST_DIR");
    tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(place)
        .expect("the tests' folder is writable")
}

/// A server of the test's own, by `ops/service`. It goes with the test.
pub struct Service {
    name: &'static str,
    dir: PathBuf,
    options: Vec<String>,
}

impl Service {
    /// Not started yet.
    pub fn new(name: &'static str, dir: &Path, options: &[&str]) -> Self {
        Self {
            name,
            dir: dir.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        }
    }

    pub fn start(&self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        assert!(
            self.ask("start", &options),
            "{} did not start: see {}",
            self.name,
            self.dir.display()
        );
    }

    pub fn started(self) -> Self {
        self.start();
        self
    }

    /// Kills it, without a chance to say goodbye.
    pub fn kill(&self) {
        assert!(self.ask("kill", &[]), "{} cannot be killed", self.name);
    }

    fn ask(&self, action: &str, options: &[&str]) -> bool {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("service.out"))
            .expect("the folder is writable");
        let mut command = Command::new("ops/service");
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([self.name, action, "--dir"])
            .arg(&self.dir)
            .args(options);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log);
        command.status().expect("ops/service runs").success()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.ask("kill", &[]);
    }
}

/// The binary at work on a pipeline, in a folder of its own: `out` takes what it writes. It is
/// killed with the test.
pub struct Run {
    child: Child,
    pub dir: TempDir,
    peak: u64,
}

/// How a run ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Most resident memory, in bytes.
    pub peak: u64,
}

impl Run {
    /// Starts the pipeline `text`, in which `${OUT}` is the run's `out` folder; `variables` are set
    /// as well.
    pub fn start(text: &str, variables: &[(&str, &str)]) -> Self {
        let dir = folder();
        let file = dir.path().join("pipeline.yaml");
        fs::write(&file, text).expect("the folder is writable");
        Self::start_in(dir, &file, variables)
    }

    /// Starts a pipeline file as it is, in `dir`.
    pub fn start_in(dir: TempDir, file: &Path, variables: &[(&str, &str)]) -> Self {
        let file_of = |name| File::create(dir.path().join(name)).expect("the folder is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_opusflow"));
        command
            .current_dir(dir.path())
            .args(["run", "--quiet"])
            .arg(file)
            .env("OUT", dir.path().join("out"));
        command
            .env("RUST_BACKTRACE", "1")
            .envs(variables.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(file_of("stdout"))
            .stderr(file_of("stderr"));
        Self {
            child: command.spawn().expect("the binary starts"),
            dir,
            peak: 0,
        }
    }

    /// Tells it to stop.
    pub fn term(&self) {
        let told = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(
            told.expect("kill runs").success(),
            "it has ended already:\n{}",
            self.stderr()
        );
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.peak = self
            .peak
            .max(status(self.child.id(), "VmHWM:").unwrap_or(0));
        self.child.try_wait().expect("it is ours").is_none()
    }

    /// Looks again and again, as long as it runs.
    pub fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let began = Instant::now();
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(
                self.runs(),
                "{what}: it has ended\n{}\n{}",
                self.stdout(),
                self.stderr()
            );
            assert!(
                began.elapsed() < limit,
                "{what}: not within {limit:?}\n{}",
                self.stderr()
            );
            sleep(Duration::from_millis(100));
        }
    }

    /// Waits for its end.
    pub fn ended(&mut self, limit: Duration) -> Ended {
        let began = Instant::now();
        while self.runs() {
            assert!(
                began.elapsed() < limit,
                "it has not ended within {limit:?}:\n{}\n{}",
                self.stdout(),
                self.stderr()
            );
            sleep(Duration::from_millis(50));
        }
        let code = self.child.wait().expect("it is ours").code();
        let ended = Ended {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
            peak: self.peak,
        };
        assert!(
            !ended.stderr.contains("panicked"),
            "a panic:\n{}",
            ended.stderr
        );
        assert!(
            !ended.stderr.contains("without an outcome"),
            "a leaked receipt:\n{}",
            ended.stderr
        );
        ended
    }

    /// Tells it to stop and waits for its end, which must be a good one.
    pub fn stopped(&mut self, limit: Duration) -> Ended {
        self.term();
        let ended = self.ended(limit);
        assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
        ended
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// The id of the stream that the `file` sink has written of, where there is only one.
    pub fn stream(&self) -> Option<String> {
        let streams = fs::read_dir(self.dir.path().join("out"))
            .ok()?
            .flatten()
            .filter(|entry| entry.path().join("events.jsonl").exists());
        streams
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .next()
    }

    /// The records of one kind that the `file` sink has written so far.
    pub fn records(&self, stream: &str, kind: &str) -> Vec<Value> {
        self.records_in("out", stream, kind)
    }

    fn records_in(&self, folder: &str, stream: &str, kind: &str) -> Vec<Value> {
        lines(
            &self
                .dir
                .path()
                .join(folder)
                .join(stream)
                .join(format!("{kind}.jsonl")),
        )
    }

    /// The events of one kind.
    pub fn events(&self, stream: &str, kind: &str) -> Vec<Value> {
        self.events_in("out", stream, kind)
    }

    fn events_in(&self, folder: &str, stream: &str, kind: &str) -> Vec<Value> {
        let events = self.records_in(folder, stream, "events");
        events
            .iter()
            .filter(|event| event["kind"] == kind)
            .map(|event| event[kind].clone())
            .collect()
    }

    /// The ledger at the end of a stream, by view; it must be closed.
    pub fn ledger(&self, stream: &str) -> BTreeMap<String, Terms> {
        self.ledger_in("out", stream)
    }

    /// The same, from the `ended` event in another folder than `out`.
    pub fn ledger_in(&self, folder: &str, stream: &str) -> BTreeMap<String, Terms> {
        let ended = self.events_in(folder, stream, "ended");
        assert_eq!(
            ended.len(),
            1,
            "one end of {stream}:\n{}\n{}",
            self.stdout(),
            self.stderr()
        );
        let ledger = ended[0]["ledger"].as_object().expect("a ledger");
        ledger
            .iter()
            .map(|(view, terms)| (view.clone(), Terms::of(terms)))
            .collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!(
                "--- stdout\n{}\n--- stderr\n{}",
                self.stdout(),
                self.stderr()
            );
        }
    }
}

/// What became of the frames of a view.
#[derive(Debug, Default)]
pub struct Terms {
    pub ingested: u64,
    pub delivered: u64,
    pub absorbed: u64,
    pub dropped: BTreeMap<String, u64>,
    pub dead_lettered: u64,
}

impl Terms {
    /// From an `ended` event. Every frame is accounted for, none is under way, none has leaked.
    pub fn of(terms: &Value) -> Self {
        let number = |name: &str| {
            terms[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name} in {terms}"))
        };
        let dropped = terms["dropped"].as_object().expect("reasons");
        let dropped = dropped
            .iter()
            .map(|(reason, count)| (reason.clone(), count.as_u64().expect("a count")))
            .collect();
        let (ingested, delivered, absorbed) =
            (number("ingested"), number("delivered"), number("absorbed"));
        let terms_ = Self {
            ingested,
            delivered,
            absorbed,
            dropped,
            dead_lettered: number("dead_lettered"),
        };
        assert_eq!((number("leaked"), number("in_flight")), (0, 0), "{terms}");
        assert_eq!(
            ingested,
            delivered + absorbed + terms_.lost() + terms_.dead_lettered,
            "{terms}"
        );
        terms_
    }

    /// Frames dropped for whatever reason.
    pub fn lost(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// The records in a file of JSON lines; a last line that is still being written is left out.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()))
        })
        .collect()
}

/// The field `name` of `/proc/PID/status`, in bytes.
fn status(pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// Reads topics with Python's confluent-kafka, see `consume.py`.
pub struct Consumer {
    child: Child,
    dir: TempDir,
}

impl Consumer {
    /// Reads what comes from now on as well.
    pub fn follow(brokers: &str, topics: &[&str], registry: &str) -> Self {
        Self::start(brokers, topics, &["--registry", registry, "--follow"])
    }

    /// Everything that lies in `topics`, which hold JSON.
    pub fn all(brokers: &str, topics: &[&str]) -> Vec<Value> {
        let mut consumer = Self::start(brokers, topics, &[]);
        let ended = until("the topics are read", PATIENCE, || {
            consumer.child.try_wait().expect("it is ours")
        });
        assert!(ended.success(), "{}", consumer.stderr());
        consumer.seen()
    }

    /// What it has read so far.
    pub fn seen(&self) -> Vec<Value> {
        lines(&self.dir.path().join("stdout"))
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    fn start(brokers: &str, topics: &[&str], options: &[&str]) -> Self {
        let dir = folder();
        let file_of = |name| File::create(dir.path().join(name)).expect("the folder is writable");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outage/consume.py");
        let mut command = Command::new(variable("OPUSFLOW_PYTHON"));
        command.arg(script).arg(brokers).args(topics).args(options);
        command
            .stdin(Stdio::null())
            .stdout(file_of("stdout"))
            .stderr(file_of("stderr"));
        Self {
            child: command.spawn().expect("Python starts"),
            dir,
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- consume.py\n{}", self.stderr());
        }
    }
}
