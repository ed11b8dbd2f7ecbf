//! Values of flags that several commands take, and names of boards.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use wasmbed_api::{GpioGrant, I2cGrant, SpiGrant, UartGrant};
use wasmbed_board_data::Board;
use wasmbed_emulator::Kind;

/// A board by its name; the names are in the help and in the answer to a wrong one.
pub(crate) fn board() -> impl TypedValueParser<Value = &'static Board> {
    let names = PossibleValuesParser::new(wasmbed_board_data::ALL.map(|board| board.name));
    names.try_map(|name| wasmbed_board_data::find(&name).ok_or("there is no such board"))
}

/// The same for boards that QEMU has a machine for.
pub(crate) fn emulated_board() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::all().map(Kind::name)).try_map(|name| name.parse::<Kind>())
}

use wasmbed_scan::Capability;

const GATEWAY: &str = "use host:port, for example gateway.example:8080";

/// Configuration: a flag's value that can't be used. The text says what it should look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("not a number of bytes: use for example 65536, 64Ki or 1Mi")]
    Bytes,
    #[error("more than can be had")]
    TooLarge,
    #[error("{0}:// does not belong here: {GATEWAY}")]
    Scheme(String),
    #[error("the port is missing: {GATEWAY}")]
    NoPort,
    #[error("an IPv6 address is written in brackets, for example [2001:db8::1]:8080")]
    Brackets,
    #[error("{0:?} is not a host name or address: {GATEWAY}")]
    Host(String),
    #[error("{0:?} is not a port from 1 to 65535: {GATEWAY}")]
    Port(String),
    #[error("not NAME=VALUE, for example MODE=fast")]
    Variable,
    #[error("expected KEY=VALUE, for example server.port=9000")]
    Setting,
    #[error("expected a number with s, m or h, from 1m to 8760h")]
    Validity,
    #[error("expected gpio, sensor, key-value, i2c, spi, uart or none")]
    Grant,
    #[error("expected a bus and addresses from 0x08 to 0x77, for example i2c0:0x48,0x76 or i2c0:0x48:2000")]
    I2c,
    #[error("expected a UART and its bits per second, for example uart0:9600 or uart0:115200:2000")]
    Uart,
    #[error(
        "expected a chip select and a clock in kHz, for example spi0.0:1000 or spi0.0:1000:3:2000 with mode 3 and 2000 bytes each second"
    )]
    Spi,
    #[error("expected a pin, for example gpio2 or gpio2:100")]
    Gpio,
}

/// A number of bytes, plain or with `k`, `M`, `G`, `Ki`, `Mi` or `Gi`, as Kubernetes writes quantities.
///
/// # Errors
/// What it should look like.
pub(crate) fn bytes(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| ValueError::Bytes)?;
    let factor = match &text[digits..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        _ => return Err(ValueError::Bytes),
    };
    number.checked_mul(factor).ok_or(ValueError::Bytes)
}

/// The same for a type that holds fewer.
///
/// # Errors
/// What it should look like, or that it is too large.
pub(crate) fn bytes_of<N: TryFrom<u64>>(text: &str) -> Result<N, ValueError> {
    N::try_from(bytes(text)?).map_err(|_| ValueError::TooLarge)
}

/// A gateway as `host:port`, the host in brackets if it is an IPv6 address.
///
/// # Errors
/// What it should look like.
pub(crate) fn gateway(text: &str) -> Result<String, ValueError> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(ValueError::Scheme(scheme.to_owned()));
    }
    let (host, port) = text.rsplit_once(':').ok_or(ValueError::NoPort)?;
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(ValueError::Brackets);
    }
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    if plain.is_empty() || plain.contains(|c: char| c.is_whitespace() || "/@?#".contains(c)) {
        return Err(ValueError::Host(host.to_owned()));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        Ok(0) | Err(_) => Err(ValueError::Port(port.to_owned())),
    }
}

/// An environment variable as `NAME=VALUE`.
///
/// # Errors
/// What it should look like.
pub(crate) fn variable(text: &str) -> Result<(String, String), ValueError> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(ValueError::Variable)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A share of an I2C bus as `BUS:ADDRESSES[:RATE]`; addresses are decimal, or hexadecimal after `0x`. The API checks the bus.
///
/// # Errors
/// What it should look like.
pub(crate) fn i2c(text: &str) -> Result<I2cGrant, ValueError> {
    let mut parts = text.split(':');
    let (Some(name), Some(addresses), rate, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ValueError::I2c);
    };
    let address = |text: &str| {
        let number = match text.strip_prefix("0x") {
            Some(digits) => i32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.ok().filter(|number| (0x08..=0x77).contains(number))
    };
    let addresses: Option<Vec<i32>> = addresses.split(',').map(address).collect();
    let rate = rate.map_or(Ok(I2cGrant::default().bytes_per_second), str::parse);
    match (addresses, rate) {
        (Some(addresses), Ok(bytes_per_second)) => {
            Ok(I2cGrant { name: name.to_owned(), addresses, bytes_per_second })
        }
        _ => Err(ValueError::I2c),
    }
}

/// A UART as `UART:BAUD[:RATE]`. The API checks its name and both numbers' bounds.
///
/// # Errors
/// What it should look like.
pub(crate) fn uart(text: &str) -> Result<UartGrant, ValueError> {
    let mut parts = text.split(':');
    let (Some(name), Some(baud), rate, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ValueError::Uart);
    };
    let rate = rate.map_or(Ok(UartGrant::default().bytes_per_second), str::parse);
    match (baud.parse(), rate) {
        (Ok(baud), Ok(bytes_per_second)) => Ok(UartGrant { name: name.to_owned(), baud, bytes_per_second }),
        _ => Err(ValueError::Uart),
    }
}

/// A chip on an SPI bus as `CHIP:KHZ[:MODE[:RATE]]`. The API checks its name and the numbers' bounds.
///
/// # Errors
/// What it should look like.
pub(crate) fn spi(text: &str) -> Result<SpiGrant, ValueError> {
    let (name, numbers) = text.split_once(':').ok_or(ValueError::Spi)?;
    let numbers: Result<Vec<i32>, _> = numbers.split(':').map(str::parse).collect();
    let default = SpiGrant { name: name.to_owned(), ..SpiGrant::default() };
    match numbers.map_err(|_| ValueError::Spi)?.as_slice() {
        [clock_khz] => Ok(SpiGrant { clock_khz: *clock_khz, ..default }),
        [clock_khz, mode] => Ok(SpiGrant { clock_khz: *clock_khz, mode: *mode, ..default }),
        [clock_khz, mode, bytes_per_second] => Ok(SpiGrant {
            clock_khz: *clock_khz,
            mode: *mode,
            bytes_per_second: *bytes_per_second,
            ..default
        }),
        _ => Err(ValueError::Spi),
    }
}

/// A pin as `PIN[:RATE]`. The API checks its name and the rate's bounds.
///
/// # Errors
/// What it should look like.
pub(crate) fn gpio(text: &str) -> Result<GpioGrant, ValueError> {
    let (name, rate) = text.split_once(':').map_or((text, None), |(name, rate)| (name, Some(rate)));
    let rate = rate.map_or(Ok(GpioGrant::default().edges_per_second), str::parse);
    let edges_per_second = rate.map_err(|_| ValueError::Gpio)?;
    Ok(GpioGrant { name: name.to_owned(), edges_per_second })
}

/// A setting as `KEY=VALUE`.
///
/// # Errors
/// What it should look like.
pub(crate) fn setting(text: &str) -> Result<(String, String), ValueError> {
    let (key, value) = text.split_once('=').ok_or(ValueError::Setting)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// How long something counts: `30m`, `24h`.
///
/// # Errors
/// What it should look like.
pub(crate) fn validity(text: &str) -> Result<Duration, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| ValueError::Validity)?;
    let seconds = match &text[digits..] {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        _ => None,
    };
    seconds
        .filter(|seconds| (60..=365 * 86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or(ValueError::Validity)
}

/// A capability by its name, or none for `none`.
///
/// # Errors
/// What there is.
pub(crate) fn capability(name: &str) -> Result<Option<Capability>, ValueError> {
    match (name, Capability::from_name(name)) {
        ("none", _) => Ok(None),
        (_, Some(capability)) => Ok(Some(capability)),
        (_, None) => Err(ValueError::Grant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        assert_eq!(bytes("65536"), Ok(65_536));
        assert_eq!(bytes("64Ki"), Ok(65_536));
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert_eq!(bytes("2k"), Ok(2_000));
        for text in ["", "Ki", "-1", "1.5Mi", "64kb", "99999999999999999Gi"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(bytes_of::<u32>("4Gi").is_err() && bytes_of::<u32>("4095Mi").is_ok());
    }

    #[test]
    fn a_bus_has_addresses_and_perhaps_a_rate() {
        let granted = |text| i2c(text).map(|grant| (grant.name, grant.addresses, grant.bytes_per_second));
        assert_eq!(granted("i2c0:0x48,118"), Ok(("i2c0".to_owned(), vec![0x48, 0x76], 1_000)));
        assert_eq!(granted("i2c1:72:20"), Ok(("i2c1".to_owned(), vec![72], 20)));
        for text in ["i2c0", "i2c0:", "i2c0:0x78", "i2c0:7", "i2c0:x", "i2c0:72:", "i2c0:72:1:1", "i2c0:72,"]
        {
            assert!(i2c(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_uart_has_a_speed_and_perhaps_a_rate() {
        let granted = |text| uart(text).map(|grant| (grant.name, grant.baud, grant.bytes_per_second));
        assert_eq!(granted("uart0:9600"), Ok(("uart0".to_owned(), 9_600, 1_000)));
        assert_eq!(granted("uart1:115200:20"), Ok(("uart1".to_owned(), 115_200, 20)));
        for text in ["uart0", "uart0:", "uart0:fast", "uart0:9600:", "uart0:9600:1:1"] {
            assert!(uart(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_chip_has_a_clock_and_perhaps_a_mode_and_a_rate() {
        let granted =
            |text| spi(text).map(|grant| (grant.name, grant.clock_khz, grant.mode, grant.bytes_per_second));
        assert_eq!(granted("spi0.1:500"), Ok(("spi0.1".to_owned(), 500, 0, 1_000)));
        assert_eq!(granted("spi0.1:500:3"), Ok(("spi0.1".to_owned(), 500, 3, 1_000)));
        assert_eq!(granted("spi0.1:500:0:20"), Ok(("spi0.1".to_owned(), 500, 0, 20)));
        for text in ["spi0.1", "spi0.1:", "spi0.1:x", "spi0.1:500:", "spi0.1:500:0:20:1"] {
            assert!(spi(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pin_has_perhaps_a_rate() {
        let granted = |text| gpio(text).map(|grant| (grant.name, grant.edges_per_second));
        assert_eq!(granted("gpio2"), Ok(("gpio2".to_owned(), 10)));
        assert_eq!(granted("gpio0:100"), Ok(("gpio0".to_owned(), 100)));
        assert!(gpio("gpio0:").is_err() && gpio("gpio0:x").is_err() && gpio("gpio0:1:1").is_err());
    }

    #[test]
    fn a_validity_is_a_number_with_a_unit() {
        assert_eq!(validity("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(validity("90m"), Ok(Duration::from_secs(5_400)));
        for text in
            ["", "24", "h", "59s", "8761h", "1d", "-1h", "99999999999999999999h", "9999999999999999999h"]
        {
            assert_eq!(validity(text), Err(ValueError::Validity), "{text}");
        }
    }

    #[test]
    fn a_gateway_is_a_host_and_a_port() {
        for text in ["gateway.example:8080", "127.0.0.1:1", "[::1]:65535", "localhost:8080"] {
            assert_eq!(gateway(text).as_deref(), Ok(text), "{text}");
        }
        for (text, wanted) in [
            ("https://gateway.example:8080", "https:// does not belong here"),
            ("gateway.example", "the port is missing"),
            ("2001:db8::1:8080", "is written in brackets"),
            ("gateway.example:0", "not a port"),
            ("gateway.example:http", "not a port"),
            (":8080", "not a host name"),
            ("a/b:8080", "not a host name"),
        ] {
            let error = gateway(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
