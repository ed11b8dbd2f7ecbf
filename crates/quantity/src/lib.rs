//! Quantities of Kubernetes (`500m`, `1Mi`, `2e3`): parsed, compared, and written in the form in which kube-apiserver writes
//! them (apimachinery's `pkg/api/resource`). It knows no resource and no unit but those suffixes.

/// Characters of a quantity at most.
const TEXT_MAX: usize = 64;
/// Digits of a quantity at most, so that they fit 128 bits.
const DIGITS_MAX: usize = 30;
/// The largest quantity, in either direction (2^63 - 1).
const VALUE_MAX: i128 = i64::MAX as i128;
/// What the smallest part of a quantity is of one.
const NANOS: i128 = 1_000_000_000;
/// What a thousandth is.
const NANOS_OF_MILLI: i128 = 1_000_000;
/// The exponent of a billionth.
const NANO_EXPONENT: i32 = -9;
/// Digits for which kube-apiserver keeps the text as it was written.
const KEPT_DIGITS_MAX: usize = 18;
/// The same for binary suffixes: digits and those of the factor.
const KEPT_BINARY_DIGITS_MAX: usize = 14;

/// Suffixes of powers of ten.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Suffixes of powers of 1,024, from the first power on.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a number and a suffix.
    #[error(
        "a quantity is a number with one of the suffixes n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or an exponent like e3"
    )]
    Shape,
    /// Beyond 2^63 - 1.
    #[error("a quantity is at most 9223372036854775807")]
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// A quantity, in billionths, with its canonical text. Those of the same value are not equal if they are written in other
/// units; compare [`Quantity::nanos`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    text: String,
}

impl Quantity {
    /// A whole number.
    #[must_use]
    pub fn of(count: u64) -> Quantity {
        let nanos = i128::from(count) * NANOS;
        Quantity { nanos, text: decimal(nanos, Format::Decimal) }
    }

    /// Reads a quantity. What is more precise than a billionth is rounded away from zero.
    ///
    /// # Errors
    /// When it isn't one, or is too large.
    pub fn parse(text: &str) -> Result<Quantity, Malformed> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(Malformed::Shape);
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = unsigned.split_at(digits(unsigned));
        let (part, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && part.is_empty() {
            return Err(Malformed::Shape);
        }
        let (format, exponent) = interpret(suffix).ok_or(Malformed::Shape)?;
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let number = format!("{whole}{part}");
        if number.bytes().all(|digit| digit == b'0') {
            return Ok(Quantity { nanos: 0, text: "0".into() });
        }
        if number.len() > DIGITS_MAX {
            return Err(Malformed::TooLarge);
        }
        let value: i128 = number.parse().map_err(|_| Malformed::Shape)?;
        let nanos = scale(value, part.len(), format, exponent)?;
        if nanos > VALUE_MAX * NANOS {
            return Err(Malformed::TooLarge);
        }
        let nanos = if negative { -nanos } else { nanos };
        let text = if is_kept(&number, part.len(), format, exponent) {
            text.to_owned()
        } else {
            canonical(nanos, format)
        };
        Ok(Quantity { nanos, text })
    }

    /// In billionths.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Rounded up to thousandths, away from zero, which is as precise as a bound of a ResourceQuota is.
    #[must_use]
    pub fn rounded_to_millis(self) -> Quantity {
        let part = self.nanos % NANOS_OF_MILLI;
        if part == 0 {
            return self;
        }
        let nanos = self.nanos - part + part.signum() * NANOS_OF_MILLI;
        Quantity { nanos, text: decimal(nanos, Format::Decimal) }
    }

    /// The number if it is whole and not negative.
    #[must_use]
    pub fn whole(&self) -> Option<u64> {
        (self.nanos % NANOS == 0).then(|| u64::try_from(self.nanos / NANOS).ok()).flatten()
    }

    /// Whether it is whole once it is rounded up to thousandths, which is how Kubernetes decides.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let millis =
            self.nanos.div_euclid(NANOS_OF_MILLI) + i128::from(self.nanos.rem_euclid(NANOS_OF_MILLI) > 0);
        millis % 1_000 == 0
    }

    /// The text that kube-apiserver stores and shows.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The format of a suffix, and its exponent: of ten, or of 1,024 for the binary ones.
fn interpret(suffix: &str) -> Option<(Format, i32)> {
    if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Format::Binary, i32::try_from(power).ok()? + 1));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((Format::Decimal, *exponent));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((Format::Exponent, exponent.parse().ok()?))
}

/// The number with a part of `places` digits, in billionths.
fn scale(value: i128, places: usize, format: Format, exponent: i32) -> Result<i128, Malformed> {
    let places = i32::try_from(places).map_err(|_| Malformed::TooLarge)?;
    let (value, exponent) = match format {
        Format::Binary => {
            let factor = 1_i128 << (10 * exponent);
            (value.checked_mul(factor).ok_or(Malformed::TooLarge)?, 0)
        }
        Format::Decimal | Format::Exponent => (value, exponent),
    };
    let shift = i64::from(exponent) - i64::from(places) - i64::from(NANO_EXPONENT);
    let power = u32::try_from(shift.unsigned_abs()).map_err(|_| Malformed::TooLarge)?;
    let power = 10_i128.checked_pow(power);
    match (shift < 0, power) {
        (false, Some(power)) => value.checked_mul(power).ok_or(Malformed::TooLarge),
        (false, None) => Err(Malformed::TooLarge),
        (true, Some(power)) => Ok(value / power + i128::from(value % power != 0)),
        // Next to nothing.
        (true, None) => Ok(1),
    }
}

/// Whether kube-apiserver keeps the text of a number as it is: its check for what is canonical already.
fn is_kept(number: &str, places: usize, format: Format, exponent: i32) -> bool {
    let digits = number.len();
    match format {
        Format::Binary => {
            let factor = usize::try_from(exponent).unwrap_or_default() * 3;
            let odd = number.parse::<u64>().is_ok_and(|value| value & 7 != 0);
            places == 0 && digits + factor <= KEPT_BINARY_DIGITS_MAX && odd
        }
        Format::Decimal | Format::Exponent => {
            let scale = i64::from(exponent) - i64::try_from(places).unwrap_or(i64::MAX);
            digits <= KEPT_DIGITS_MAX
                && scale >= i64::from(NANO_EXPONENT)
                && scale % 3 == 0
                && !number.ends_with("000")
                && !number.starts_with('0')
        }
    }
}

fn canonical(nanos: i128, format: Format) -> String {
    // Small ones and those with a part would be rounded otherwise.
    if format != Format::Binary || nanos % NANOS != 0 || nanos.abs() < 1_024 * NANOS {
        return decimal(nanos, if format == Format::Binary { Format::Decimal } else { format });
    }
    let (mut value, mut power) = (nanos / NANOS, 0);
    while value % 1_024 == 0 && power < BINARY.len() {
        value /= 1_024;
        power += 1;
    }
    let suffix = power.checked_sub(1).and_then(|power| BINARY.get(power)).copied().unwrap_or_default();
    format!("{value}{suffix}")
}

fn decimal(nanos: i128, format: Format) -> String {
    if nanos == 0 {
        return "0".into();
    }
    let (mut value, mut exponent) = (nanos, NANO_EXPONENT);
    while value % 10 == 0 {
        value /= 10;
        exponent += 1;
    }
    while exponent % 3 != 0 {
        value *= 10;
        exponent -= 1;
    }
    if format == Format::Exponent {
        return if exponent == 0 { value.to_string() } else { format!("{value}e{exponent}") };
    }
    let suffix = DECIMAL.iter().find(|(_, known)| *known == exponent).map_or("", |(suffix, _)| suffix);
    format!("{value}{suffix}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Malformed, NANOS, Quantity};

    #[test]
    fn texts_are_those_of_kube_apiserver() {
        for (written, shown) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("5", "5"),
            ("+5", "+5"),
            ("-5", "-5"),
            ("007", "007"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("100000", "100k"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.5", "1500m"),
            ("5.123", "5.123"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1025Ki", "1025Ki"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("2048Mi", "2Gi"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("1E", "1E"),
            ("0.1n", "1n"),
            ("9223372036854775807", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(written).map(|read| read.text), Ok(shown.to_owned()), "{written}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "+", ".", "a", "1 k", "1K", "1ki", "1e", "1.2.3", "--1", "1mm", "Ki", "0x1"] {
            assert_eq!(Quantity::parse(text), Err(Malformed::Shape), "{text}");
        }
        for text in ["9223372036854775808", "8Ei", "1e19", "1e2147483647", "99999999999999999999999999999999"]
        {
            assert_eq!(Quantity::parse(text), Err(Malformed::TooLarge), "{text}");
        }
        assert_eq!(Quantity::parse("1e-2147483648").unwrap().nanos(), 1);
    }

    #[test]
    fn whole_numbers_are_known() {
        let read = |text| Quantity::parse(text).unwrap();
        assert_eq!(read("64Ki").whole(), Some(65_536));
        assert_eq!(read("1e3").whole(), Some(1_000));
        assert_eq!((read("-1").whole(), read("1500m").whole()), (None, None));
        assert!(read("-1").is_whole() && read("2000m").is_whole() && !read("1500m").is_whole());
        assert_eq!(Quantity::of(2_000).as_str(), "2k");
        for (text, rounded) in
            [("1n", "1m"), ("-1.1234", "-1124m"), ("1.123456", "1124m"), ("5.123", "5.123")]
        {
            assert_eq!(read(text).rounded_to_millis().as_str(), rounded);
        }
    }

    proptest! {
        #[test]
        fn a_canonical_text_says_the_same(text in "[-+]?[0-9]{0,12}(\\.[0-9]{0,6})?(n|u|m|k|M|G|T|Ki|Mi|Gi|e-?[0-9])?") {
            if let Ok(read) = Quantity::parse(&text) {
                let again = Quantity::parse(read.as_str()).unwrap();
                prop_assert_eq!(again.nanos(), read.nanos());
                prop_assert_eq!(again.as_str(), read.as_str());
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,70}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn counts_are_what_they_are(count: u64) {
            prop_assert_eq!(Quantity::of(count).nanos(), i128::from(count) * NANOS);
        }
    }
}
