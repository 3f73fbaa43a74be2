// SPDX-License-Identifier: GPL-2.0-only
//! Numbers and times as people read them.

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A number, its thousands set apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of milliseconds, in the two largest units that it has.
pub(super) fn time(ms: u64) -> String {
    let two = |large: u64, name: &str, small: u64, other: &str| match ms % large / small {
        0 => format!("{} {name}", ms / large),
        rest => format!("{} {name} {rest} {other}", ms / large),
    };
    match ms {
        DAY.. => two(DAY, "d", HOUR, "h"),
        HOUR.. => two(HOUR, "h", MINUTE, "min"),
        MINUTE.. => two(MINUTE, "min", SECOND, "s"),
        SECOND.. if ms < 10 * SECOND && ms % SECOND >= 100 => {
            format!("{}.{} s", ms / SECOND, ms % SECOND / 100)
        }
        SECOND.. => format!("{} s", ms / SECOND),
        _ => format!("{ms} ms"),
    }
}

/// A number of bytes, to three digits or so.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 5] = [
        (1_000_000_000_000_000, "PB"),
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => {
            let tenths = bytes / (size / 10);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// A number of bytes a second, as bits, to three digits or so.
pub(super) fn rate(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "Tb/s"),
        (1_000_000_000, "Gb/s"),
        (1_000_000, "Mb/s"),
        (1_000, "kb/s"),
    ];
    let bits = bytes.saturating_mul(8);
    match UNITS.iter().find(|(size, _)| bits >= *size) {
        Some((size, unit)) => {
            let tenths = bits / (size / 10);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bits} b/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_set_apart() {
        let texts = [0, 999, 1000, 12_300, 9_182_734_112].map(number);
        assert_eq!(texts, ["0", "999", "1,000", "12,300", "9,182,734,112"]);
    }

    #[test]
    fn bytes_have_a_unit() {
        let texts = [0, 999, 1_000, 88_149, 564_283_401, u64::MAX].map(bytes);
        assert_eq!(texts, ["0 B", "999 B", "1.0 kB", "88.1 kB", "564.2 MB", "18446.7 PB"]);
    }

    #[test]
    fn rates_are_in_bits() {
        let texts = [0, 124, 125, 117_500_000, 1 << 40].map(rate);
        assert_eq!(texts, ["0 b/s", "992 b/s", "1.0 kb/s", "940.0 Mb/s", "8.7 Tb/s"]);
    }

    #[test]
    fn times_have_two_units_at_most() {
        let times =
            [0, 41, 1_000, 1_234, 11_900, 60_000, 130_000, 3_600_000, 7_800_000, 273_600_000];
        let texts = times.map(time);
        let expected = [
            "0 ms",
            "41 ms",
            "1 s",
            "1.2 s",
            "11 s",
            "1 min",
            "2 min 10 s",
            "1 h",
            "2 h 10 min",
            "3 d 4 h",
        ];
        assert_eq!(texts, expected);
    }
}
