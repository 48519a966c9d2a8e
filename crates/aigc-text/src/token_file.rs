//! Files of tokens.

use crate::{text_file::read_lines, tokenizer::Tokenizer};
use aigc_core::{Error, Result, checkpoint::write_atomic_with};
use std::{
    fs::File,
    io::{BufWriter, Seek, Write},
    path::Path,
};

/// First bytes of a token file; they are followed by the number of tokens, in 64 bits, and the
/// tokens, in 32 bits each, little-endian.
pub(crate) const MAGIC: &[u8; 8] = b"aigctok1";
pub(crate) const HEADER: u64 = 16;

/// Tokenizes a text file line by line and writes the tokens to `to`; neither file has to fit into
/// memory. `progress` is called with the number of bytes read. Returns the number of tokens.
///
/// Lines are encoded separately: a token never crosses the end of a line, which can happen if a
/// text is encoded as a whole.
///
/// # Errors
/// [`Error::Data`] if the text is not UTF-8; errors of the tokenizer and the files.
pub fn tokenize_file(
    text: impl AsRef<Path>,
    tokenizer: &dyn Tokenizer,
    to: impl AsRef<Path>,
    mut progress: impl FnMut(u64),
) -> Result<usize> {
    let (text, to) = (text.as_ref(), to.as_ref());
    let mut lines = read_lines(text)?;
    let mut count = 0;
    write_atomic_with(to, |temporary| {
        let mut writer = BufWriter::with_capacity(
            1 << 20,
            File::create(temporary).map_err(Error::io(temporary))?,
        );
        writer
            .write_all(&[0; HEADER as usize])
            .map_err(Error::io(temporary))?;
        while let Some(line) = lines.next() {
            for token in tokenizer.encode(&line?)? {
                writer
                    .write_all(&token.to_le_bytes())
                    .map_err(Error::io(temporary))?;
                count += 1;
            }
            progress(lines.bytes_read());
        }
        let mut file = writer
            .into_inner()
            .map_err(|error| Error::io(temporary)(error.into_error()))?;
        file.rewind().map_err(Error::io(temporary))?;
        file.write_all(MAGIC).map_err(Error::io(temporary))?;
        file.write_all(&(count as u64).to_le_bytes())
            .map_err(Error::io(temporary))
    })?;
    Ok(count)
}
