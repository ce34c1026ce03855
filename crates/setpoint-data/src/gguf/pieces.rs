//! The pieces of a SentencePiece `tokenizer.model`: their text, score and kind.
//!
//! The file is a protocol buffer (`sentencepiece_model.proto`). Field 1 of the whole is a piece, whose fields are 1 the text, 2 the score
//! and 3 the kind; field 2 is the trainer's settings, whose field 3 is the algorithm.

use super::TokenKind;

/// A token of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: TokenKind,
}

/// The code of the algorithm BPE; 1 is Unigram, also where the file does not say.
const BPE: u64 = 2;

/// Reads the pieces of a file whose algorithm is BPE.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut algorithm = 1;
    each_field(bytes, |number, field| {
        match (number, field) {
            (1, Field::Bytes(piece)) => pieces.push(read_piece(piece)?),
            (2, Field::Bytes(settings)) => each_field(settings, |number, field| {
                if let (3, Field::Number(code)) = (number, field) {
                    algorithm = code;
                }
                Some(())
            })?,
            _ => {}
        }
        Some(())
    })
    .ok_or("is not a SentencePiece model, or a damaged one")?;
    if algorithm != BPE {
        return Err("holds a SentencePiece model of another algorithm; expected BPE".to_owned());
    }
    Ok(pieces)
}

fn read_piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: TokenKind::Normal };
    each_field(bytes, |number, field| {
        match (number, field) {
            (1, Field::Bytes(text)) => std::str::from_utf8(text).ok()?.clone_into(&mut piece.text),
            (2, Field::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (3, Field::Number(code)) => {
                piece.kind = match code {
                    1 => TokenKind::Normal,
                    2 => TokenKind::Unknown,
                    3 => TokenKind::Control,
                    4 => TokenKind::UserDefined,
                    5 => TokenKind::Unused,
                    6 => TokenKind::Byte,
                    _ => return None,
                }
            }
            _ => {}
        }
        Some(())
    })?;
    Some(piece)
}

/// The value of a field.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

/// Calls `act` with each field of a message; `None` if the message is damaged or `act` says so.
fn each_field<'a>(mut bytes: &'a [u8], mut act: impl FnMut(u64, Field<'a>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let key = number(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Number(number(&mut bytes)?),
            1 => {
                take(&mut bytes, 8)?;
                Field::Eight
            }
            2 => {
                let length = usize::try_from(number(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Four(take(&mut bytes, 4)?.try_into().ok()?),
            _ => return None,
        };
        act(key >> 3, field)?;
    }
    Some(())
}

/// Reads a number of seven bits a byte, the lowest first; the top bit says that more follow.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes shorter than 128.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn file(pieces: &[(&str, f32, u8)], algorithm: u8) -> Vec<u8> {
        let mut file = bytes(2, &[3 << 3, algorithm]);
        for (text, score, kind) in pieces {
            let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
            file.extend(bytes(1, &[bytes(1, text.as_bytes()), score, vec![3 << 3, *kind]].concat()));
        }
        // A field that is not read.
        file.extend([9 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        file
    }

    #[test]
    fn pieces_are_read() {
        let found = read(&file(&[("<unk>", 0.0, 2), ("▁t", -1.5, 1)], 2)).unwrap();
        let piece = |text: &str, score, kind| Piece { text: text.to_owned(), score, kind };
        assert_eq!(found, [piece("<unk>", 0.0, TokenKind::Unknown), piece("▁t", -1.5, TokenKind::Normal)]);
    }

    #[test]
    fn other_files_are_refused() {
        let whole = file(&[("a", 1.0, 1)], 2);
        assert!(read(&file(&[("a", 1.0, 1)], 1)).unwrap_err().contains("expected BPE"));
        assert!(read(&whole[..whole.len() - 1]).unwrap_err().contains("damaged"));
        assert!(read(&[0xff; 30]).unwrap_err().contains("damaged"));
        assert!(read(&file(&[("a", 1.0, 9)], 2)).unwrap_err().contains("damaged"));
        // A length beyond the end.
        assert!(read(&[1 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f]).unwrap_err().contains("damaged"));
    }
}
