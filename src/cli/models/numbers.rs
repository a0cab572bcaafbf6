//! Large numbers, short.

/// A number of parameters as people write it: `135M`.
pub(super) fn rounded(number: u64) -> String {
    let (value, unit) = match number {
        1_000_000_000.. => (number as f64 / 1e9, "B"),
        1_000_000.. => (number as f64 / 1e6, "M"),
        1_000.. => (number as f64 / 1e3, "K"),
        _ => return number.to_string(),
    };
    if value < 99.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0, 999, 1500, 37_760_640, 134_515_008, 7_241_732_096].map(rounded);
        assert_eq!(shown, ["0", "999", "1.5K", "37.8M", "135M", "7.2B"]);
    }
}
