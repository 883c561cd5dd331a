//! Passphrases of identity files: asked for on the terminal without showing them, or read from a descriptor by scripts.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longer ones are none.
const BYTES_MAX: u64 = 64 << 10;

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// The descriptor that `--passphrase-fd` names, and what was read of it: a line for each file.
static LINES: OnceLock<Mutex<VecDeque<Zeroizing<String>>>> = OnceLock::new();

/// Passphrases come from this descriptor, and nobody is asked.
pub(crate) fn read_from(descriptor: u32) -> io::Result<()> {
    let mut text = Zeroizing::new(String::new());
    File::open(format!("/proc/self/fd/{descriptor}"))?.take(BYTES_MAX).read_to_string(&mut text)?;
    let lines = text.lines().map(|line| Zeroizing::new(line.to_owned())).collect();
    LINES.set(Mutex::new(lines)).map_err(|_| io::ErrorKind::AlreadyExists.into())
}

/// The passphrase of a file.
pub(crate) fn ask(file: &Path) -> io::Result<Zeroizing<String>> {
    match next_line() {
        Some(line) => line,
        None => Terminal::open()?.ask(&format!("Passphrase of {}: ", file.display())),
    }
}

/// A passphrase for a new file, asked for twice.
pub(crate) fn ask_for_new(file: &Path) -> io::Result<Zeroizing<String>> {
    let passphrase = if let Some(line) = next_line() {
        line?
    } else {
        let mut terminal = Terminal::open()?;
        let first = terminal.ask(&format!("Passphrase for {}: ", file.display()))?;
        if terminal.ask("The same again: ")? != first {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the two passphrases differ"));
        }
        first
    };
    if passphrase.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty passphrase is none"));
    }
    Ok(passphrase)
}

/// `None` where no descriptor was named.
fn next_line() -> Option<io::Result<Zeroizing<String>>> {
    let lines = LINES.get()?;
    let line = lines.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let none = || {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "--passphrase-fd holds no line for it; write one line for each file",
        )
    };
    Some(line.ok_or_else(none))
}

/// The terminal, which shows nothing of what is typed until this is dropped.
struct Terminal {
    file: File,
    before: Termios,
}

impl Terminal {
    fn open() -> io::Result<Self> {
        let none = |error: io::Error| {
            io::Error::new(error.kind(), format!("there is no terminal to ask on ({error}); give --passphrase-fd N"))
        };
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(none)?;
        let before = tcgetattr(&file)?;
        let mut silent = before.clone();
        // An interrupt ends the line and is read, so that it cannot leave the terminal silent.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.local_modes.insert(LocalModes::ECHONL);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(&file, OptionalActions::Flush, &silent)?;
        Ok(Self { file, before })
    }

    fn ask(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
        self.file.write_all(question.as_bytes())?;
        // A terminal hands over no longer lines (N_TTY_BUF_SIZE), and the end of input as an empty one.
        let mut line = Zeroizing::new(vec![0; 4096]);
        let len = self.file.read(&mut line)?;
        let typed = line[..len].strip_suffix(b"\n").unwrap_or(&line[..len]);
        if len == 0 || typed.contains(&INTERRUPT) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let text = std::str::from_utf8(typed).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing helps where the terminal is gone.
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}
