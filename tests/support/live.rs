//! A running binary: its lines as they come, signals, and how it ended.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A run that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(150);

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Stdout,
    Stderr,
}

type Lines = Arc<(Mutex<Vec<(From, String)>>, Condvar)>;

/// A process that is killed when the test gives it up.
pub struct Live {
    child: Child,
    lines: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Live {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::default();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = vec![
            read(stdout, From::Stdout, &lines),
            read(stderr, From::Stderr, &lines),
        ];
        Self {
            child,
            lines,
            readers,
        }
    }

    /// Waits for the first line that satisfies `wanted`.
    pub fn line(&self, from: From, wanted: impl Fn(&str) -> bool) -> String {
        let (lines, changed) = &*self.lines;
        let mut lines = lines.lock().unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some((_, line)) = lines
                .iter()
                .find(|(source, line)| *source == from && wanted(line))
            {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = lines.iter().filter(|(_, line)| line == END).count() == 2;
            assert!(
                !left.is_zero() && !ended,
                "the line did not come:\n{}",
                lines
                    .iter()
                    .map(|(_, line)| format!("{line}\n"))
                    .collect::<String>()
            );
            lines = changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// What the system says of it: `environ` as it was begun with, `comm` as `top` shows it.
    pub fn of_system(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &self.child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until it hears SIGTERM instead of dying of it.
    pub fn listens(&self) {
        let deadline = Instant::now() + LIMIT;
        let mask = |status: &str| {
            status
                .lines()
                .find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok())
        };
        let heard = |status: String| mask(&status).is_some_and(|caught| caught & (1 << 14) != 0);
        while !std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).is_ok_and(heard)
        {
            assert!(Instant::now() < deadline, "it never listens");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Run {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    panic!("it does not end:\n{}", self.text(None))
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        self.readers
            .drain(..)
            .for_each(|reader| reader.join().unwrap());
        Run {
            code: status.code(),
            stdout: self.text(Some(From::Stdout)),
            stderr: self.text(Some(From::Stderr)),
        }
    }

    fn text(&self, from: Option<From>) -> String {
        let lines = self.lines.0.lock().unwrap();
        let chosen = lines
            .iter()
            .filter(|(source, line)| from.is_none_or(|from| from == *source) && line != END);
        chosen.map(|(_, line)| format!("{line}\n")).collect()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stands for the end of a stream of lines.
const END: &str = "\u{4}";

fn read(stream: impl Read + Send + 'static, from: From, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        let texts = BufReader::new(stream).split(b'\n').map_while(Result::ok);
        let texts = texts.map(|line| String::from_utf8_lossy(&line).into_owned());
        for line in texts.chain([END.to_owned()]) {
            lines.0.lock().unwrap().push((from, line));
            lines.1.notify_all();
        }
    })
}

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The account of one view, as the summary prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub ingested: u64,
    pub delivered: u64,
    pub absorbed: u64,
    pub dropped: u64,
    pub dead_lettered: u64,
    pub in_flight: u64,
}

impl Run {
    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// The summary's accounts by view; those of several streams one after the other. Each closes:
    /// what came in is what went out.
    pub fn ledger(&self) -> Vec<(String, Balance)> {
        let mut accounts = Vec::new();
        for line in self
            .stdout
            .lines()
            .filter(|line| line.contains(" ingested = "))
        {
            assert!(!line.contains("LEAKED"), "{line}");
            // Reasons in brackets say a number a second time.
            let bare = match (line.find('('), line.find(')')) {
                (Some(open), Some(close)) => format!("{}{}", &line[..open], &line[close + 1..]),
                _ => line.to_owned(),
            };
            let words: Vec<&str> = bare.split_whitespace().collect();
            let numbers: Vec<u64> = words[1..]
                .iter()
                .filter_map(|word| word.parse().ok())
                .collect();
            let [
                ingested,
                delivered,
                absorbed,
                dropped,
                dead_lettered,
                in_flight,
            ] = numbers[..]
            else {
                panic!("{line}")
            };
            assert_eq!(
                ingested,
                delivered + absorbed + dropped + dead_lettered + in_flight,
                "{line}"
            );
            assert_eq!(in_flight, 0, "{line}");
            accounts.push((
                words[0].to_owned(),
                Balance {
                    ingested,
                    delivered,
                    absorbed,
                    dropped,
                    dead_lettered,
                    in_flight,
                },
            ));
        }
        assert!(!accounts.is_empty(), "no ledger:\n{}", self.stdout);
        accounts
    }

    /// The account of a view.
    pub fn balance(&self, view: &str) -> Balance {
        self.ledger()
            .into_iter()
            .find(|(name, _)| name == view)
            .unwrap_or_else(|| panic!("no view {view}:\n{}", self.stdout))
            .1
    }

    /// Records delivered, by destination.
    pub fn delivered(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for line in self.stdout.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ([count, destination], true) = (&words[..], line.starts_with("  "))
                && let Ok(count) = count.parse::<u64>()
            {
                *found.entry((*destination).to_owned()).or_default() += count;
            }
        }
        found
    }

    /// From memory, from Redis, computed.
    pub fn cache(&self, op: &str) -> (u64, u64, u64) {
        let prefix = format!("cache {op}: ");
        let line = self
            .stdout
            .lines()
            .find(|line| line.starts_with(&prefix))
            .unwrap_or_else(|| panic!("no {prefix}:\n{}", self.stdout));
        let numbers: Vec<u64> = line[prefix.len()..]
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        (numbers[0], numbers[1], numbers[2])
    }
}
