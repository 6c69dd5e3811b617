//! GPT-2's alphabet: every byte as a printable character, so that any text can be written in tokens.

use std::sync::LazyLock;

/// One more than the last character of the alphabet.
const END: usize = 0x144;

/// The character of each byte: itself where it prints in Latin-1, else the next one from U+0100 on.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100u32;
    std::array::from_fn(|byte| match byte as u8 {
        b @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => char::from(b),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
});

static BYTES: LazyLock<[Option<u8>; END]> = LazyLock::new(|| {
    let mut bytes = [None; END];
    for (byte, c) in (0..=u8::MAX).zip(*CHARS) {
        bytes[c as usize] = Some(byte);
    }
    bytes
});

/// Appends the bytes of `text`, written in the alphabet.
pub(super) fn write(text: &str, out: &mut String) {
    out.extend(text.bytes().map(|byte| CHARS[usize::from(byte)]));
}

/// Bytes, written in the alphabet.
pub(super) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| CHARS[usize::from(byte)]).collect()
}

/// Appends the bytes that a token stands for; a token with a character outside the alphabet stands for itself.
pub(super) fn read(token: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in token.chars() {
        match BYTES.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_and_back() {
        let text: String = (0..=char::MAX as u32).step_by(97).filter_map(char::from_u32).collect();
        let (mut written, mut back) = (String::new(), Vec::new());
        write(&text, &mut written);
        read(&written, &mut back);
        assert_eq!(back, text.as_bytes());
        assert_eq!(CHARS[usize::from(b' ')], 'Ġ');
        assert_eq!(CHARS[0xad], '\u{143}');
    }

    #[test]
    fn a_token_outside_the_alphabet_is_itself() {
        let mut bytes = b"x".to_vec();
        read("Ġ▁", &mut bytes);
        assert_eq!(bytes, "xĠ▁".as_bytes());
    }
}
