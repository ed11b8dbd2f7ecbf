//! Names of buses and the like: a kind and a number.

/// The number in a name that begins with a kind: `i2c0` is 0 of `i2c`. A number is written one way.
pub(crate) fn number_of(kind: &str, name: &str) -> Option<u32> {
    let number = name.strip_prefix(kind)?;
    let is_canonical = number == "0" || !number.starts_with(['0', '+']);
    number.parse().ok().filter(|_| is_canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_written_one_way() {
        let bus_of = |name| number_of("i2c", name);
        assert_eq!([bus_of("i2c0"), bus_of("i2c9"), bus_of("i2c12")], [Some(0), Some(9), Some(12)]);
        for name in ["", "i2c", "i2c+1", "i2c01", "i2c00", "i2c4294967296", "i2c-1", "spi0", "I2C0", "i2c0 "]
        {
            assert_eq!(bus_of(name), None, "{name}");
        }
        assert_eq!(number_of("uart", "uart1"), Some(1));
        assert_eq!(number_of("gpio", "gpio1023"), Some(1_023));
    }
}
