//! Numbers with their units: durations, sizes, frame rates and picture sizes, read and written.

use std::time::Duration;

use super::shape::Fps;

const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `500ms`, `1.5s`, `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest, mut last) = (0u64, text.trim(), u64::MAX);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_end = rest[number_end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| number_end + at);
        let unit = TIMES
            .iter()
            .find(|(name, _)| *name == &rest[number_end..unit_end])?
            .1;
        if unit >= last {
            return None;
        }
        last = unit;
        total = total.checked_add(scaled(&rest[..number_end], unit)?)?;
        rest = &rest[unit_end..];
    }
    (last != u64::MAX).then(|| Duration::from_nanos(total))
}

/// Reads `512B`, `64KiB`, `1.5GiB`, `10MB`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let unit = SIZES
        .iter()
        .find(|(name, _)| *name == text[number_end..].trim_start())?
        .1;
    scaled(&text[..number_end], unit)
}

/// A decimal number times a unit, exactly; none for what is no number, or no whole multiple of one.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 9
        || (number.contains('.') && fraction.is_empty())
    {
        return None;
    }
    let part = if fraction.is_empty() {
        0
    } else {
        let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
        u64::try_from(
            u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / u128::from(scale),
        )
        .ok()?
    };
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)?
        .checked_add(part)
}

/// Reads `2`, `0.5`, `30000/1001`, `native`.
pub fn fps(text: &str) -> Option<Fps> {
    let text = text.trim();
    if text == "native" {
        return Some(None);
    }
    let (num, den): (u64, u64) = match text.split_once('/') {
        Some((num, den)) => (whole(num)?, whole(den)?),
        None => (scaled(text, 1_000_000)?, 1_000_000),
    };
    if num == 0 || den == 0 || num / den > 1000 {
        return None;
    }
    let common = gcd(num, den);
    Some(Some((
        u32::try_from(num / common).ok()?,
        u32::try_from(den / common).ok()?,
    )))
}

/// Reads `640x360`, `native`.
pub fn size(text: &str) -> Option<Option<(u32, u32)>> {
    let text = text.trim();
    if text == "native" {
        return Some(None);
    }
    let (width, height) = text.split_once('x')?;
    let side = |text: &str| {
        whole(text)
            .and_then(|side| u32::try_from(side).ok())
            .filter(|side| (1..=16_384).contains(side))
    };
    Some(Some((side(width)?, side(height)?)))
}

fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Writes a duration as [`duration`] reads it: `1h30m`, `500ms`, `0s`.
pub fn write_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, nanos) in TIMES.iter().skip(1) {
        if rest >= *nanos {
            out.push_str(&format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    out
}

/// Writes a size as [`bytes()`] reads it, in the largest unit that divides it.
pub fn write_bytes(bytes: u64) -> String {
    let (unit, size) = SIZES
        .iter()
        .find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

/// Writes a frame rate as [`fps`] reads it.
pub fn write_fps(fps: Fps) -> String {
    match fps {
        None => "native".to_owned(),
        Some((num, 1)) => num.to_string(),
        Some((num, den)) => format!("{num}/{den}"),
    }
}

/// Writes a size as [`size`] reads it.
pub fn write_size(size: Option<(u32, u32)>) -> String {
    size.map_or("native".to_owned(), |(width, height)| {
        format!("{width}x{height}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "5 sec",
            "s",
            "-5s",
            "1m1h",
            "5s5s",
            "1e3s",
            "99999999999999h",
            "1.s",
            ".5s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_carry_their_unit() {
        for (text, expected) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("1.5MiB", 1_572_864),
            ("10MB", 10_000_000),
            ("2 GiB", 2 << 30),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["64", "64kb", "MiB", "-1B", "1e3B", "99999999TiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn rates_and_picture_sizes() {
        assert_eq!(fps("2"), Some(Some((2, 1))));
        assert_eq!(fps("29.97"), Some(Some((2997, 100))));
        assert_eq!(fps("30000/1001"), Some(Some((30_000, 1001))));
        assert_eq!(fps("native"), Some(None));
        for text in ["0", "-1", "1/0", "fast", "2000", "1/2/3"] {
            assert_eq!(fps(text), None, "{text}");
        }
        assert_eq!(size("640x360"), Some(Some((640, 360))));
        for text in ["640", "0x360", "640X360", "99999x1"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for nanos in [
            0,
            1,
            999,
            1_500_000_000,
            5_400_000_000_000,
            90_061_001_001_001,
        ] {
            let value = Duration::from_nanos(nanos);
            assert_eq!(duration(&write_duration(value)), Some(value));
        }
        for value in [0, 1, 1000, 1024, 131_072, 10_000_000, 3 << 30] {
            assert_eq!(bytes(&write_bytes(value)), Some(value));
        }
        assert_eq!(
            (write_bytes(131_072), write_bytes(10_000_000)),
            ("128KiB".to_owned(), "10MB".to_owned())
        );
        for value in [None, Some((1, 2)), Some((25, 1))] {
            assert_eq!(fps(&write_fps(value)), Some(value));
        }
        assert_eq!(size(&write_size(Some((48, 27)))), Some(Some((48, 27))));
    }
}
