//! Names that cannot be guessed.

/// 32 hexadecimal digits from the system's generator, or `None` if it fails.
pub(crate) fn random_name() -> Option<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
