//! What a host printed, as a person may see it in a terminal: foreign text that commands nothing.

/// Letters, line ends and tabs. Control sequences (ECMA-48) go with all that belongs to them; so do
/// characters that turn the writing direction round or can't be seen.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next_if(|c| ('\u{20}'..'\u{7f}').contains(c)) {
                Some('[') => control(&mut chars),
                Some(']' | 'P' | 'X' | '^' | '_') => string(&mut chars),
                // Intermediates, then one final.
                Some('\u{20}'..='\u{2f}') => {
                    while chars.next_if(|c| ('\u{20}'..='\u{2f}').contains(c)).is_some() {}
                    chars.next_if(|c| ('\u{30}'..'\u{7f}').contains(c));
                }
                _ => {}
            },
            '\u{9b}' => control(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => string(&mut chars),
            '\r' => {
                while chars.next_if_eq(&'\r').is_some() {}
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() || is_unseen(c) => {}
            c => out.push(c),
        }
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Parameters and intermediates, then one final. One that is cut short ends where its bytes do.
fn control(chars: &mut Chars<'_>) {
    while chars.next_if(|c| ('\u{20}'..'\u{40}').contains(c)).is_some() {}
    chars.next_if(|c| ('\u{40}'..'\u{7f}').contains(c));
}

/// Up to its terminator, but never over a line's end: a host that was cut off must not take away what the
/// next one said.
fn string(chars: &mut Chars<'_>) {
    while let Some(c) = chars.next_if(|c| !matches!(c, '\n' | '\r')) {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                chars.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_gone() {
        for (given, shown) in [
            ("a\x1b[2J\x1b[1;31mred\x1b[0m\r\n", "ared\n"),
            ("\x1b]0;title\x07GRUB", "GRUB"),
            ("\x1b]52;c;cm0gLXJm\x1b\\x", "x"),
            ("\x1b(B\x1b=\x1bcboot\x08\x08", "boot"),
            ("10 %\r20 %\r\r\nend", "10 %\n20 %\nend"),
            ("\u{9b}31mx\u{9d}52;c;eA==\u{9c}y", "xy"),
            ("\x1b]0;never ended\nnext", "\nnext"),
            ("\x1b[31", ""),
            ("user\u{202e}txt.exe\u{200b}", "usertxt.exe"),
            ("grün\tja", "grün\tja"),
        ] {
            assert_eq!(plain(given.as_bytes()), shown, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_commands_comes_through(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let shown = plain(&bytes);
            prop_assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{shown:?}");
        }
    }
}
