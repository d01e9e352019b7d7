//! Numbers as people read them.

/// A count in at most four characters and a suffix: `950`, `12.3k`, `4.56M`, `7.89B`, `1.20T`.
pub fn count(count: u64) -> String {
    if count < 1000 {
        return count.to_string();
    }
    scaled(count as f64, 1000.0, &["", "k", "M", "B", "T"])
}

/// Bytes in powers of 1024: `950 B`, `12.3 KiB`, `4.56 GiB`.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    scaled(bytes as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

/// A rate of things a second, without a unit: `0.52`, `17.4`, `5.20k`.
pub fn rate(per_second: f64) -> String {
    scaled(per_second, 1000.0, &["", "k", "M", "B", "T"])
}

/// A time: `0.4 s`, `42 s`, `3 m 12 s`, `2 h 05 m`, `1 d 03 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if seconds < 60 => format!("{seconds} s"),
        () if seconds < 3600 => format!("{minutes} m {:02} s", seconds % 60),
        () if seconds < 86400 => format!("{hours} h {:02} m", minutes % 60),
        () => format!("{days} d {:02} h", hours % 24),
    }
}

/// Three significant digits and a suffix; 999.6 thousand is a million.
fn scaled(mut value: f64, base: f64, suffixes: &[&str]) -> String {
    let mut index = 0;
    while value >= base - 0.5 && index + 1 < suffixes.len() {
        value /= base;
        index += 1;
    }
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", suffixes[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let shown = [0, 999, 1000, 12_345, 99_960, 999_600, 4_560_000, 7_890_000_000].map(count);
        assert_eq!(shown, ["0", "999", "1.00k", "12.3k", "100k", "1.00M", "4.56M", "7.89B"]);
    }

    #[test]
    fn byte_sizes() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) * 5 / 2].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "1.00 MiB", "2.50 GiB"]);
    }

    #[test]
    fn rates() {
        assert_eq!([0.0, 0.517, 17.42, 5200.0].map(rate), ["0.00", "0.52", "17.4", "5.20k"]);
    }

    #[test]
    fn durations() {
        let shown = [0.0, 0.44, 9.94, 9.96, 59.4, 59.6, 192.0, 3599.6, 7510.0, 97_300.0].map(duration);
        let expected = [
            "0.0 s", "0.4 s", "9.9 s", "10 s", "59 s", "1 m 00 s", "3 m 12 s", "1 h 00 m", "2 h 05 m",
            "1 d 03 h",
        ];
        assert_eq!(shown, expected);
    }
}
