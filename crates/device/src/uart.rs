//! Serial devices of the host as UARTs: whatever is a terminal for Linux, `/dev/ttyUSB0` or a pseudoterminal.
//!
//! Linux keeps 4,095 bytes that come, and does not say when it dropped more.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::{
    fs::{Mode, OFlags},
    termios::{ControlModes, OptionalActions, QueueSelector},
};
use wasmbed_supervisor::platform::uart::{Error, Port};

/// Where what comes in wakes the loop.
#[derive(Clone, Debug)]
pub(crate) struct Wakes {
    pub(crate) registry: Rc<Registry>,
    pub(crate) token: Token,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Tty {
    path: PathBuf,
    wakes: Option<Wakes>,
    /// While an application has it.
    baud: Option<u32>,
    /// None while it is not there: it may have been pulled out.
    file: Option<File>,
}

/// Whether there is only a program at the other end.
pub(crate) fn is_pseudoterminal(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|path| path.starts_with("/dev/pts"))
}

impl Tty {
    /// The device at a path; nothing happens before it is opened.
    pub(crate) fn new(path: PathBuf, wakes: Option<Wakes>) -> Self {
        Self { path, wakes, baud: None, file: None }
    }

    /// The device, opened anew if it was gone.
    fn file(&mut self) -> Result<&File, Error> {
        let baud = self.baud.ok_or(Error::Failed)?;
        if self.file.is_none() {
            match self.start(baud) {
                Ok(file) => self.file = Some(file),
                Err(error) => {
                    tracing::debug!(path = %self.path.display(), %error, "serial device not opened");
                    return Err(Error::Failed);
                }
            }
        }
        self.file.as_ref().ok_or(Error::Failed)
    }

    fn start(&self, baud: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        let mut modes = rustix::termios::tcgetattr(&file)?;
        modes.make_raw();
        modes.control_modes -= ControlModes::CSTOPB | ControlModes::CRTSCTS;
        modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        modes.set_speed(baud)?;
        rustix::termios::tcsetattr(&file, OptionalActions::Now, &modes)?;
        rustix::termios::tcflush(&file, QueueSelector::IOFlush)?;
        if let Some(Wakes { registry, token }) = &self.wakes {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut SourceFd(&file.as_raw_fd()), *token, interest)?;
        }
        Ok(file)
    }

    fn end(&mut self) {
        if let Some((file, wakes)) = self.file.take().zip(self.wakes.as_ref()) {
            // Closing it takes it out as well.
            let _ = wakes.registry.deregister(&mut SourceFd(&file.as_raw_fd()));
        }
    }

    /// What became of a call; after any failure the device is opened anew by the next one.
    fn moved(&mut self, result: io::Result<usize>) -> Result<usize, Error> {
        match result {
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            Err(_) => {
                self.end();
                Err(Error::Failed)
            }
        }
    }
}

impl Port for Tty {
    fn open(&mut self, baud: u32) -> Result<(), Error> {
        self.close();
        self.baud = Some(baud);
        self.file().map(drop)
    }

    fn close(&mut self) {
        self.end();
        self.baud = None;
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let read = match self.file()?.read(buffer) {
            // The end of what can be read is the end of the device.
            Ok(0) if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        self.moved(read)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let written = self.file()?.write(bytes);
        self.moved(written)
    }

    /// What was taken is Linux's business.
    fn is_sent(&mut self) -> Result<bool, Error> {
        self.file().map(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, time::Duration};

    /// The other end and the device's path.
    fn pseudoterminal() -> (File, PathBuf) {
        let other = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&other).unwrap();
        unlockpt(&other).unwrap();
        let name = ptsname(&other, Vec::new()).unwrap();
        (File::from(other), OsString::from_vec(name.into_bytes()).into())
    }

    /// What comes within some seconds.
    fn receive(tty: &mut Tty, expected: &[u8]) {
        let mut came: Vec<u8> = Vec::new();
        let mut buffer = [0; 64];
        for _ in 0..5_000 {
            let count = tty.receive(&mut buffer).unwrap();
            came.extend(&buffer[..count]);
            if came.len() >= expected.len() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(came, expected);
    }

    #[test]
    fn bytes_go_both_ways_as_they_are() {
        let (mut other, path) = pseudoterminal();
        assert!(is_pseudoterminal(&path) && !is_pseudoterminal(Path::new("/dev/null")));
        let mut tty = Tty::new(path, None);
        assert_eq!((tty.receive(&mut [0; 4]), tty.send(b"x")), (Err(Error::Failed), Err(Error::Failed)));
        tty.open(115_200).unwrap();
        assert_eq!(tty.receive(&mut [0; 4]), Ok(0));
        // Whatever means something to a terminal.
        let bytes = b"a\r\n\x03\x04\x11\x13\x1a\0\xff";
        other.write_all(bytes).unwrap();
        receive(&mut tty, bytes);
        assert_eq!((tty.send(bytes), tty.is_sent()), (Ok(bytes.len()), Ok(true)));
        let mut read = [0; 64];
        let count = other.read(&mut read).unwrap();
        assert_eq!(&read[..count], bytes);
        tty.close();
        assert_eq!(tty.send(b"x"), Err(Error::Failed));
    }

    #[test]
    fn a_line_that_takes_nothing_more_says_so_at_once() {
        let (_other, path) = pseudoterminal();
        let mut tty = Tty::new(path, None);
        tty.open(9_600).unwrap();
        let taken: usize =
            (0..10_000).map_while(|_| tty.send(&[b'x'; 256]).ok().filter(|count| *count > 0)).sum();
        assert!((256..1 << 20).contains(&taken), "{taken}");
        assert_eq!(tty.send(b"x"), Ok(0));
    }

    #[test]
    fn a_device_that_is_pulled_out_fails_and_is_there_again_when_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ttyUSB0");
        let mut tty = Tty::new(path.clone(), None);
        assert_eq!(tty.open(9_600), Err(Error::Failed));
        let (other, terminal) = pseudoterminal();
        std::os::unix::fs::symlink(terminal, &path).unwrap();
        assert_eq!(tty.receive(&mut [0; 4]), Ok(0));
        drop(other);
        assert_eq!(tty.receive(&mut [0; 4]), Err(Error::Failed));
        assert_eq!(tty.send(b"x"), Err(Error::Failed));
        let (mut other, terminal) = pseudoterminal();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(terminal, &path).unwrap();
        assert_eq!(tty.receive(&mut [0; 4]), Ok(0));
        other.write_all(b"back").unwrap();
        receive(&mut tty, b"back");
        // What is no terminal is no UART.
        assert_eq!(Tty::new("/dev/null".into(), None).open(9_600), Err(Error::Failed));
    }
}
