//! Windows of scripted speech: their places, times and which pieces are let go.

use bytes::Bytes;

use super::*;
use crate::packet::{Outcome, Packet, Payload};
use crate::stage::testing::{head, root};
use crate::stage::{Account, DropPolicy, PendingInput};

const SECOND: u64 = 16_000;
const MS: Nanos = 1_000_000;

fn limits(speech: bool) -> Limits {
    let speech = speech.then(|| SpansSettings {
        longest: Some(10 * SECOND),
        ..SpansSettings::default()
    });
    Limits {
        longest: 10 * SECOND,
        pause: 2 * SECOND,
        gap: 100 * MS,
        speech,
    }
}

struct Stream {
    gathered: Gathered,
    account: Arc<Account>,
    index: u64,
    /// When somebody speaks, in milliseconds of the samples taken in.
    speech: Vec<Range<u64>>,
}

impl Stream {
    fn new(limits: Limits, speech: &[Range<u64>]) -> Self {
        Self {
            gathered: Gathered::new(limits),
            account: root(),
            index: 0,
            speech: speech.to_vec(),
        }
    }

    /// A piece from one millisecond to another, and what comes of it.
    fn take(&mut self, from: u64, to: u64) -> Vec<Window> {
        let before = self.gathered.earliest(from * MS);
        self.give(from, to);
        let windows = self.answer();
        assert!(
            windows.iter().all(|window| window.time(0.) >= before),
            "nothing comes before what was promised"
        );
        windows
    }

    /// Samples hold their number, in 1/65536.
    fn give(&mut self, from: u64, to: u64) {
        let span = Span::new(from * MS, to * MS);
        let numbers =
            (0..(to - from) * 16).map(|n| ((self.gathered.taken + n) % 65_536) as f32 / 65_536.);
        let samples: Bytes = numbers.flat_map(f32::to_le_bytes).collect();
        let audio = Arc::new(Audio {
            view: "sound".into(),
            index: self.index,
            samples,
        });
        self.index += 1;
        let packet = Packet {
            head: Arc::new(head(span)),
            payload: Payload::Audio(Arc::clone(&audio)),
            receipt: self.account.open(0, span.end),
        };
        let PendingInput { in_flight, data } = PendingInput::new(packet, Vec::new(), false);
        let drop_policy = DropPolicy::default();
        let input = data.into_input(&in_flight, &drop_policy);
        self.gathered.take(audio, span, input.id(), input.hold());
        in_flight.settle(Outcome::Absorbed);
    }

    fn end(&mut self) -> Vec<Window> {
        self.gathered.end();
        self.answer()
    }

    /// As `listen` in the stage, with a detector that knows when somebody speaks.
    fn answer(&mut self) -> Vec<Window> {
        let mut windows = self.gathered.ready();
        while let Some(question) = self.gathered.question() {
            assert_eq!(question.samples.len() % CHUNK, 0);
            let heard = self.gathered.heard;
            let speaks = |chunk: usize| {
                let at = (heard + (chunk * CHUNK) as u64) / 16;
                if self.speech.iter().any(|speech| speech.contains(&at)) {
                    0.9
                } else {
                    0.
                }
            };
            let probabilities = (0..question.samples.len() / CHUNK).map(speaks).collect();
            let memory = question.memory.clone();
            windows.extend(
                self.gathered
                    .answer(&question, Some((probabilities, memory))),
            );
        }
        windows
    }

    /// Roots that are settled.
    fn settled(&self) -> u64 {
        let balance = self.account.balance();
        balance.absorbed
    }
}

/// Start and length in milliseconds, the first sample checked.
fn places(windows: &[Window]) -> Vec<(u64, u64)> {
    windows
        .iter()
        .map(|window| (window.time(0.) / MS, window.samples.len() as u64 / 16))
        .collect()
}

#[test]
fn without_a_detector_windows_follow_one_another() {
    let mut stream = Stream::new(limits(false), &[]);
    let mut windows: Vec<Window> = (0..25)
        .flat_map(|second| stream.take(500 + second * 1000, 1500 + second * 1000))
        .collect();
    assert_eq!(places(&windows), [(500, 10_000), (10_500, 10_000)]);
    windows.extend(stream.end());
    assert_eq!(places(&windows[2..]), [(20_500, 5000)]);
    assert_eq!(windows[1].samples[0], (160_000 % 65_536) as f32 / 65_536.);
    assert_eq!(windows[2].time(1.25), 21_750 * MS);
    assert_eq!(
        windows[2].time(99.),
        25_500 * MS,
        "at most the window's end"
    );
}

#[test]
fn phrases_are_gathered_until_a_pause() {
    let mut stream = Stream::new(limits(true), &[1000..2000, 2500..3500, 8000..9000]);
    let mut windows = Vec::new();
    for second in 0..20 {
        windows.extend(stream.take(second * 1000, second * 1000 + 1000));
        if second == 5 {
            assert_eq!(
                windows.len(),
                1,
                "it comes out when the pause is long enough"
            );
        }
    }
    // Chunks of 32 ms, padded by 30 ms.
    assert_eq!(places(&windows), [(994, 2556), (7970, 1084)]);
    let parents =
        |at: usize, from: u64, to: u64| windows[at].behind(Span::new(from * MS, to * MS)).0.len();
    assert_eq!(
        (
            parents(0, 1000, 2000),
            parents(0, 1500, 2600),
            parents(0, 900, 900)
        ),
        (1, 2, 1)
    );
    drop(windows);
    assert_eq!(
        stream.settled(),
        19,
        "silence is let go of, but for what may be padding"
    );
    assert!(stream.end().is_empty());
    assert_eq!(stream.settled(), 20);
}

#[test]
fn silence_makes_no_windows() {
    let mut stream = Stream::new(limits(true), &[]);
    assert!((0..10).all(|second| stream.take(second * 1000, second * 1000 + 1000).is_empty()));
    assert!(stream.end().is_empty());
    assert_eq!(stream.settled(), 10);
}

#[test]
fn windows_are_no_longer_than_they_may_be() {
    let mut stream = Stream::new(
        limits(true),
        &[0..4000, 4500..9000, 9500..14_000, 14_300..40_000],
    );
    let mut windows: Vec<Window> = (0..40)
        .flat_map(|second| stream.take(second * 1000, second * 1000 + 1000))
        .collect();
    windows.extend(stream.end());
    assert!(
        windows
            .iter()
            .all(|window| window.samples.len() as u64 <= 10 * SECOND),
        "{:?}",
        places(&windows)
    );
    let cuts: Vec<u64> = places(&windows)[1..]
        .iter()
        .map(|(start, _)| start / 1000)
        .collect();
    assert_eq!(cuts[..2], [9, 14], "cut in the silences");
    let ends = windows.iter().map(|window| window.time(60.));
    assert!(
        ends.zip(&windows[1..])
            .all(|(end, next)| end <= next.time(0.)),
        "and without overlap: {:?}",
        places(&windows)
    );
}

#[test]
fn missing_sound_ends_a_window() {
    for detects in [false, true] {
        let mut stream = Stream::new(limits(detects), &[300..1700, 2000..3000]);
        assert!(stream.take(0, 1000).is_empty());
        assert!(stream.take(1050, 2050).is_empty(), "a little is bridged");
        let windows = stream.take(7000, 8000);
        let expected = if detects { (290, 1468) } else { (0, 2000) };
        assert_eq!(places(&windows), [expected]);
        assert_eq!(
            windows[0].time(1.5),
            if detects { 1808 } else { 1550 } * MS,
            "times follow the pieces"
        );
        let rest = stream.end();
        assert_eq!(rest[0].time(0.), 7000 * MS);
    }
}

#[test]
fn a_detector_that_fails_hears_silence() {
    let mut stream = Stream::new(limits(true), &[]);
    stream.give(0, 1000);
    let question = stream.gathered.question().unwrap();
    assert!(stream.gathered.answer(&question, None).is_empty());
    assert!(
        stream.gathered.question().is_none(),
        "it is not asked about the same again"
    );
}
