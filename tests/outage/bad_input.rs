//! Inputs that are no films, damaged films and hostile addresses: a clear error or the frames that
//! could be decoded, with the loss counted, and always an end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::{fs, thread};

use super::rig::{Ended, PATIENCE, Run, variable};

const PIPELINE: &str = r#"
version: 1
name: bad-input
stages:
  - id: films
    kind: file
    with:
      paths: [FILMS]
      views: { frames: { fps: 5, size: 64x36 } }
      stall: 5s
      connect: 5s
  - { id: files, kind: file, inputs: [films.frames], with: { path: "${OUT}", formats: [jsonl] } }
"#;

/// Whatever is given to it, a run takes less memory than this: the binary with its libraries takes
/// most of it.
const MEMORY: u64 = 700 << 20;

struct Reading {
    ended: Ended,
    run: Run,
}

/// Reads `films` as the one source's paths.
fn read(films: &[&str]) -> Reading {
    let films: Vec<_> = films.iter().map(|film| format!("{film:?}")).collect();
    let mut run = Run::start(&PIPELINE.replace("FILMS", &films.join(", ")), &[]);
    let ended = run.ended(PATIENCE);
    assert!(
        ended.peak < MEMORY,
        "{films:?} took {} MiB",
        ended.peak >> 20
    );
    Reading { ended, run }
}

impl Reading {
    /// It failed with exit code 1 and `words` in the error, for people and nothing for decoders.
    fn failed(self, words: &str) -> Self {
        assert_eq!(
            self.ended.code,
            Some(1),
            "{}\n{}",
            self.ended.stdout,
            self.ended.stderr
        );
        let told = self
            .ended
            .stdout
            .lines()
            .any(|line| line.starts_with("error: ") && line.contains(words));
        assert!(told, "no `error: ... {words}` in\n{}", self.ended.stdout);
        self
    }

    /// The check refused it, with exit code 2 and `words`.
    fn refused(self, words: &str) {
        assert_eq!(self.ended.code, Some(2), "{}", self.ended.stderr);
        assert!(self.ended.stderr.contains(words), "{}", self.ended.stderr);
    }

    /// Frames delivered of the one stream whose id holds `name`.
    fn frames(&self, name: &str) -> u64 {
        let out = self.run.dir.path().join("out");
        let folders = fs::read_dir(&out).into_iter().flatten().flatten();
        let streams = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let Some(stream) = streams.into_iter().find(|stream| stream.contains(name)) else {
            return 0;
        };
        let terms = &self.run.ledger(&stream)["frames"];
        assert_eq!(
            (terms.delivered, terms.lost()),
            (self.run.records(&stream, "frames").len() as u64, 0),
            "{terms:?}"
        );
        terms.delivered
    }
}

fn film() -> Vec<u8> {
    fs::read(variable("OPUSFLOW_TEST_FILM")).unwrap()
}

/// `data` as a file called `name`, which is read.
fn read_data(name: &str, data: &[u8]) -> Reading {
    let dir = super::rig::folder();
    let path = dir.path().join(name);
    fs::write(&path, data).unwrap();
    read(&[path.to_str().unwrap()])
}

#[test]
fn what_is_no_film_is_told() {
    let dir = super::rig::folder();
    read(&["/no/such/film.mp4"]).refused("there is no file `/no/such/film.mp4`");
    read(&["/no/such/*.mp4"]).failed("nothing matches `/no/such/*.mp4`");
    read(&[dir.path().to_str().unwrap()]).failed("is a directory");
    read_data("empty.mp4", b"").failed("is empty");
    read_data(
        "notes.mp4",
        "These are notes about a film.\n".repeat(2000).as_bytes(),
    )
    .failed("is no video");
    read_data("noise.mp4", &noise(200_000)).failed("noise.mp4");
    read_data("sound.wav", &sound()).failed("audio only");
}

/// Bytes without a meaning, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A second of silence as a WAV file.
fn sound() -> Vec<u8> {
    let length = 8000u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    wav.extend([1, 0, 1, 0]);
    wav.extend(8000u32.to_le_bytes());
    wav.extend(8000u32.to_le_bytes());
    wav.extend([1, 0, 8, 0]);
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.resize(wav.len() + length as usize, 128);
    wav
}

/// A film cut off: the frames that are there come, and the rest is told.
#[test]
fn truncated_film_gives_its_frames_and_an_error() {
    let film = film();
    let part = read_data("part.mp4", &film[..film.len() * 2 / 3]).failed("is cut off");
    let frames = part.frames("part");
    assert!(frames == 0 || frames > 100, "{frames}");
    read_data("head.mp4", &film[..3000]).failed("head.mp4");
}

/// A film with flipped bits: what can be decoded comes, what cannot is counted, and the neighbour
/// is read whole.
#[test]
fn damaged_film_counts_its_loss_and_its_neighbour_is_whole() {
    let (mut damaged, dir) = (film(), super::rig::folder());
    // The tables at one end of the file are left whole: they are what finds the frames.
    let (from, length) = (damaged.len() / 4, damaged.len() / 2);
    for at in noise(4000).chunks(4) {
        let place = u32::from_le_bytes(at.try_into().unwrap()) as usize % length;
        damaged[from + place] ^= 0x55;
    }
    let path = dir.path().join("damaged.mp4");
    fs::write(&path, damaged).unwrap();
    let both = read(&[path.to_str().unwrap(), &variable("OPUSFLOW_TEST_FILM")]);
    let whole = both.frames("wannaworktogether");
    assert!(whole > 800, "{whole}");
    let some = both.frames("damaged");
    assert!(some > 100 && some <= whole, "{some} of {whole}");
    assert!(
        both.ended.stdout.contains("lost in decoding: "),
        "{}",
        both.ended.stdout
    );
}

/// Headers that announce enormous pictures are refused before memory is taken for them.
#[test]
fn enormous_pictures_are_refused() {
    for (name, data) in [
        ("huge.jpg", jpeg(20_000)),
        ("huge.avi", motion_jpeg(&jpeg(20_000))),
    ] {
        let huge = read_data(name, &data).failed("20000x20000 exceed");
        assert!(huge.ended.peak < 300 << 20, "{} MiB", huge.ended.peak >> 20);
    }
    let mut y4m = b"YUV4MPEG2 W20000 H20000 F25:1 Ip C420\nFRAME\n".to_vec();
    y4m.extend(noise(100_000));
    read_data("huge.y4m", &y4m).failed("huge.y4m");
    // A picture of a sane size passes through the same eye of the needle.
    for (name, data) in [
        ("small.jpg", jpeg(16)),
        ("small.avi", motion_jpeg(&jpeg(16))),
    ] {
        let small = read_data(name, &data);
        assert_eq!(
            (small.ended.code, small.frames("small")),
            (Some(0), 1),
            "{}",
            small.ended.stdout
        );
    }
}

/// A JPEG of 16x16 pixels whose header says `side`.
fn jpeg(side: u16) -> Vec<u8> {
    let mut data = Vec::new();
    let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([200, 100, 50]));
    image::codecs::jpeg::JpegEncoder::new(&mut data)
        .encode_image(&picture)
        .unwrap();
    let frame = data
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .expect("a baseline frame");
    data[frame + 5..frame + 7].copy_from_slice(&side.to_be_bytes());
    data[frame + 7..frame + 9].copy_from_slice(&side.to_be_bytes());
    data
}

/// An AVI of one Motion JPEG frame, whose header says nothing of the size.
fn motion_jpeg(frame: &[u8]) -> Vec<u8> {
    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut chunk = kind.to_vec();
        chunk.extend((data.len() as u32).to_le_bytes());
        chunk.extend(data);
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    }
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let main = words(&[40_000, 0, 0, 0x10, 1, 0, 1, 0, 16, 16, 0, 0, 0, 0]);
    let mut stream = b"vidsMJPG".to_vec();
    stream.extend(words(&[
        0,
        0,
        0,
        1,
        25,
        0,
        1,
        0,
        u32::MAX,
        0,
        0,
        16 | 16 << 16,
    ]));
    let mut format = words(&[40, 16, 16, 1 | 24 << 16]);
    format.extend(b"MJPG");
    format.extend(words(&[768, 0, 0, 0, 0]));
    let streams = [
        b"strl".to_vec(),
        chunk(b"strh", &stream),
        chunk(b"strf", &format),
    ]
    .concat();
    let headers = [
        b"hdrl".to_vec(),
        chunk(b"avih", &main),
        chunk(b"LIST", &streams),
    ]
    .concat();
    let movie = [b"movi".to_vec(), chunk(b"00dc", frame)].concat();
    chunk(
        b"RIFF",
        &[
            b"AVI ".to_vec(),
            chunk(b"LIST", &headers),
            chunk(b"LIST", &movie),
        ]
        .concat(),
    )
}

/// A server on a loopback port that treats each caller to `serve`.
fn server(serve: impl Fn(std::net::TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for caller in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(caller));
        }
    });
    format!("http://joe:hunter2@{address}/film.mp4")
}

/// A server that breaks off in the middle of a film, whether it told its length or not.
#[test]
fn film_that_breaks_off_on_the_way_gives_its_frames_and_an_error() {
    for (header, words) in [("Content-Length: 100000000\r\n", ""), ("", "is cut off")] {
        let url = server(move |mut caller| {
            let mut request = [0; 4096];
            let asked = caller.read(&mut request).unwrap_or(0);
            if String::from_utf8_lossy(&request[..asked]).contains("Range: bytes=") {
                return;
            }
            let film = film();
            // Who has enough goes.
            let _ = caller.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n{header}Connection: \
                     close\r\n\r\n"
                )
                .as_bytes(),
            );
            let _ = caller.write_all(&film[..film.len() * 2 / 3]);
        });
        let part = read(&[&url]).failed(words);
        assert!(part.frames("film") > 100, "{}", part.ended.stdout);
    }
}

/// Addresses that mean harm: each ends in an error that does not tell the password.
#[test]
fn hostile_addresses_end_in_an_error() {
    let silent = server(|mut caller| {
        let mut all = Vec::new();
        // Until the caller goes.
        let _ = caller.read_to_end(&mut all);
    });
    let endless = server(|mut caller| {
        let _ = caller.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n");
        let block = noise(1 << 16);
        while caller.write_all(&block).is_ok() {}
    });
    let babble = server(|mut caller| while caller.write_all(b"X-Nonsense: yes\r\n").is_ok() {});
    let long = format!("http://127.0.0.1:1/{}", "a/".repeat(50_000));
    for url in [
        "gopher://joe:hunter2@127.0.0.1/film.mp4",
        "http://joe:hunter2@127.0.0.1:1/film.mp4",
        "file:///etc/../proc/self/mem",
        "rtsp://[::1/film",
        "http://",
        "srt://joe:hunter2@127.0.0.1:1?passphrase=hunter2hunter2",
        &long,
        &silent,
        &endless,
        &babble,
    ] {
        let read = read(&[url]).failed("");
        let told = format!("{}{}", read.ended.stdout, read.ended.stderr);
        assert!(!told.contains("hunter2"), "{told}");
    }
}

/// A device that never ends and a pipe that nobody writes to are no films.
#[test]
fn endless_and_silent_files_end_in_an_error() {
    read(&["/dev/zero"]).failed("/dev/zero");
    let dir = super::rig::folder();
    let pipe = dir.path().join("pipe.mp4");
    make_pipe(&pipe);
    read(&[pipe.to_str().unwrap()]).failed("pipe.mp4");
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo")
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}
