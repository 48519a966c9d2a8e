//! Standard output of the programs.

use std::io::{ErrorKind, Write};

/// Writes text to standard output. A closed pipe (`program | head`) ends the program with success;
/// any other error is printed and ends it with status 1.
pub fn write_stdout(text: &str) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    let _ = writeln!(std::io::stderr(), "error: standard output: {error}");
    std::process::exit(1);
}

/// `println!` by [`write_stdout`], which does not panic.
#[macro_export]
macro_rules! outln {
    () => {
        $crate::write_stdout("\n")
    };
    ($($argument:tt)*) => {
        $crate::write_stdout(&format!("{}\n", format_args!($($argument)*)))
    };
}
