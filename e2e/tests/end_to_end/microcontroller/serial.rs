//! A board's UART with this test at the other end.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use wasmbed_api::{Application, ApplicationConfig, PeripheralGrants, UartGrant};
use wasmbed_e2e::{
    ControlPlane, Machine, TIMEOUT, application,
    board::{NAME, prepare, read_to},
};
use wasmbed_emulator::{Emulator, Options};

/// `guests/serial`: answers each line with its length.
const SERIAL: &[u8] = include_bytes!("../../../../guests/prebuilt/serial.wasm");

/// `guests/c/serial`: asks once a second.
const SERIAL_C: &[u8] = include_bytes!("../../../../guests/prebuilt/serial-c.wasm");

/// The board's `uart0` is its third UART after the console's.
const LINE: usize = 3;

fn at_uart(name: &str, module: &[u8], bytes_per_second: i32) -> Application {
    let mut wanted = application(name, module, &[NAME]);
    let uart = vec![UartGrant { name: "uart0".to_owned(), bytes_per_second, ..UartGrant::default() }];
    wanted.spec.config = ApplicationConfig {
        capabilities: vec!["uart".to_owned()],
        peripherals: PeripheralGrants { uart, ..PeripheralGrants::default() },
        ..ApplicationConfig::default()
    };
    wanted
}

/// Sends a line now and then until this comes: what is sent before the application listens is not kept.
fn until_answer(line: &mut UnixStream, sent: &[u8], answer: &[u8]) -> Result<()> {
    line.set_read_timeout(Some(Duration::from_millis(300)))?;
    let deadline = Instant::now() + TIMEOUT;
    let mut came = Vec::new();
    while !came.windows(answer.len()).any(|part| part == answer) {
        ensure!(Instant::now() < deadline, "no answer but {:?}", came.escape_ascii().to_string());
        line.write_all(sent)?;
        let mut buffer = [0; 256];
        match line.read(&mut buffer) {
            Ok(0) => anyhow::bail!("QEMU is gone"),
            Ok(count) => came.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Answers each time that this is asked, until the other end is gone.
fn answer_each(mut line: &UnixStream, asked: &[u8], answer: &[u8]) -> Result<()> {
    line.set_read_timeout(None)?;
    let mut came = Vec::<u8>::new();
    let mut buffer = [0; 256];
    loop {
        let count = match line.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        came.extend(&buffer[..count]);
        while let Some(at) = came.windows(asked.len()).position(|part| part == asked) {
            came.drain(..at + asked.len());
            line.write_all(answer)?;
        }
    }
}

#[test]
fn a_dialogue_over_a_uart_of_mps2_an385_and_a_flood() -> Result<()> {
    wasmbed_e2e::run(async {
        let machine = Machine::start(ControlPlane::Embedded).await?;
        machine.create_device(NAME).await?;
        let options = prepare("mps2-an385".parse()?, &machine, &machine.gateway_address().to_string())?;
        let path = machine.dir().join("uart0");
        let listener = UnixListener::bind(&path)?;
        let board = Emulator::start(&Options { serial_lines: vec![(LINE, path)], ..options })?;
        let (mut line, _) = listener.accept().context("QEMU did not connect")?;

        machine.create(&at_uart("serial", SERIAL, 300)).await?;
        until_answer(&mut line, b"hello\r\n", b"5\r\n")?;
        read_to(&board, "APP default/serial: hello")?;

        // Far more than it may read, and than there is room for. Its neighbour starts and runs meanwhile.
        line.write_all(&[b'x'; 4_096])?;
        machine.create(&application("neighbour", &wasmbed_e2e::fixtures::hello(), &[NAME])).await?;
        // Whichever is printed first.
        let told = "APP default/serial: uart: bytes lost";
        if !read_to(&board, "uart0: bytes lost")?.iter().any(|line| line.contains(told)) {
            read_to(&board, told)?;
        }
        read_to(&board, "APP default/neighbour: ")?;

        machine.delete::<Application>("serial").await?;
        machine.create(&at_uart("in-c", SERIAL_C, 1_000)).await?;
        let modem = thread::spawn(move || answer_each(&line, b"AT\r\n", b"OK\r\n"));
        read_to(&board, "APP default/in-c: OK")?;
        drop(board);
        modem.join().map_err(|_| anyhow!("the modem panicked"))?
    })
}
