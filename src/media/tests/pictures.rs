//! What a view shows is upright, whole, and of the shape asked for.

use super::{Film, drain, options};
use crate::media::*;
use crate::packet::Frame;

async fn first(film: &Film, view: View) -> (Frame, VideoInfo) {
    let mut opened = open(&film.uri(), &options(vec![view]))
        .await
        .expect("opens");
    let frames = drain(opened.views.remove(0)).await;
    (frames[0].frame.clone(), opened.info)
}

fn pixel(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
    let at = (y * frame.stride + x * 3) as usize;
    frame.pixels[at..at + 3].try_into().expect("three bytes")
}

fn is_red(pixel: [u8; 3]) -> bool {
    pixel[0] > 180 && pixel[1] < 70 && pixel[2] < 70
}

fn is_black(pixel: [u8; 3]) -> bool {
    pixel.iter().all(|part| *part < 30)
}

/// Frames whose left third is red and the rest blue; the muxer is `m`.
fn left_is_red(caps: &str) -> String {
    format!(
        "compositor name=c sink_1::width=60 sink_1::height=120 ! video/x-raw,format=I420,width=180,height=120{caps} ! \
         x264enc bframes=0 speed-preset=ultrafast ! h264parse ! mp4mux name=m \
         videotestsrc num-buffers=10 pattern=blue ! video/x-raw,width=180,height=120,framerate=10/1 ! c.sink_0 \
         videotestsrc num-buffers=10 pattern=red ! video/x-raw,width=60,height=120,framerate=10/1 ! c.sink_1"
    )
}

#[tokio::test]
async fn a_film_of_a_camera_on_its_side_stands_upright() {
    // As a phone held upright writes it: stored as its sensor sees, with a turn beside it.
    let film = Film::make("phone.mp4", &left_is_red(""));
    film.change(|data| {
        let tkhd = data
            .windows(4)
            .position(|word| word == b"tkhd")
            .expect("a track");
        let matrix: [u32; 9] = [0, 0x10000, 0, 0xffff_0000, 0, 0, 120 << 16, 0, 0x4000_0000];
        let bytes: Vec<u8> = matrix.into_iter().flat_map(u32::to_be_bytes).collect();
        data[tkhd + 44..tkhd + 80].copy_from_slice(&bytes);
    });
    let (native, info) = first(&film, View::native("all")).await;
    assert_eq!((info.width, info.height), (120, 180));
    assert_eq!((native.width, native.height), (120, 180));
    assert!(
        is_red(pixel(&native, 60, 5)),
        "left is above: {:?}",
        pixel(&native, 60, 5)
    );
    assert!(!is_red(pixel(&native, 60, 170)));
    let (sized, _) = first(&film, View::native("all").sized(40, 60)).await;
    assert_eq!((sized.width, sized.height), (40, 60));
    assert!(is_red(pixel(&sized, 20, 3)) && !is_red(pixel(&sized, 20, 55)));
}

#[tokio::test]
async fn a_view_fits_as_it_says() {
    let film = Film::make("wide.mp4", &left_is_red(""));
    let view = |fit| View {
        fit,
        ..View::native("all").sized(90, 90)
    };
    let (stretched, _) = first(&film, view(Fit::Stretch)).await;
    assert!(is_red(pixel(&stretched, 15, 2)) && is_red(pixel(&stretched, 15, 87)));
    assert!(!is_red(pixel(&stretched, 45, 45)));
    let (contained, _) = first(&film, view(Fit::Contain)).await;
    assert!(
        is_black(pixel(&contained, 15, 5)) && is_black(pixel(&contained, 15, 84)),
        "bars"
    );
    assert!(is_red(pixel(&contained, 15, 45)));
    let (covered, _) = first(&film, view(Fit::Cover)).await;
    // The middle 120 of 180 columns: red reaches to column 30 of those, 22 of 90.
    assert!(is_red(pixel(&covered, 10, 2)) && is_red(pixel(&covered, 10, 87)));
    assert!(!is_red(pixel(&covered, 30, 45)));
}

#[tokio::test]
async fn pixels_that_are_not_square_become_square() {
    let film = Film::make("dv.mp4", &left_is_red(",pixel-aspect-ratio=2/1"));
    let (native, _) = first(&film, View::native("all")).await;
    assert_eq!(
        native.width,
        native.height * 3,
        "{}x{}",
        native.width,
        native.height
    );
}

#[tokio::test]
async fn fields_become_frames() {
    // Woven fields of a moving bar: every second line is of another time.
    let film = Film::make(
        "fields.mkv",
        "videotestsrc num-buffers=40 pattern=bar horizontal-speed=24 foreground-color=0xffffffff ! \
         video/x-raw,format=I420,width=320,height=240,framerate=50/1 ! interlace field-pattern=1:1 ! \
         x264enc interlaced=true tune=zerolatency bitrate=20000 ! h264parse ! matroskamux name=m",
    );
    let combing = |frame: &Frame| {
        let line = |y: u32, x: u32| i32::from(pixel(frame, x, y)[1]);
        (100..140u32)
            .flat_map(|y| (0..320).map(move |x| (y, x)))
            .filter(|&(y, x)| {
                let (above, here, below) = (line(y - 1, x), line(y, x), line(y + 1, x));
                (here - above).abs() > 100 && (here - below).abs() > 100
            })
            .count()
    };
    let frames = |deinterlace| {
        let (uri, wanted) = (
            film.uri(),
            Options {
                deinterlace,
                ..options(vec![View::native("all")])
            },
        );
        async move {
            let mut opened = open(&uri, &wanted).await.expect("opens");
            drain(opened.views.remove(0)).await
        }
    };
    let (woven, whole) = (frames(false).await, frames(true).await);
    let times =
        |frames: &[CapturedFrame]| frames.iter().map(|frame| frame.span).collect::<Vec<_>>();
    assert_eq!(times(&woven), times(&whole), "one frame for two fields");
    let at = woven.len() / 2;
    assert!(
        combing(&woven[at].frame) > 100,
        "{}",
        combing(&woven[at].frame)
    );
    assert!(
        combing(&whole[at].frame) < 10,
        "{}",
        combing(&whole[at].frame)
    );
}
