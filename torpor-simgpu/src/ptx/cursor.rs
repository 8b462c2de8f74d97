//! A place in the tokens of a module, and what is common there: names, marks and numbers.

use super::error::PtxError;
use super::lexer::{Located, Token};
use super::syntax::Number;

/// A cursor over the tokens.
pub(super) struct Parser<'a> {
    tokens: Vec<Located<'a>>,
    pub(super) at: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn of(tokens: Vec<Located<'a>>) -> Self {
        Self { tokens, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|located| located.token)
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |located| located.line)
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, PtxError> {
        let token = self.peek().ok_or_else(|| self.error("unexpected end of the text"))?;
        self.at += 1;
        Ok(token)
    }

    pub(super) fn error(&self, message: &str) -> PtxError {
        PtxError::Syntax { line: self.line(), message: message.to_owned() }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> PtxError {
        self.error(&format!("expected {wanted}, found {:?}", self.peek()))
    }

    pub(super) fn accept(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Token::Word(word));
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.accept(mark) { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    pub(super) fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn integer(&mut self) -> Result<u64, PtxError> {
        match self.peek() {
            Some(Token::Integer(value)) => {
                self.at += 1;
                Ok(value)
            }
            _ => Err(self.unexpected("an integer")),
        }
    }

    /// An optional `+ n` or `- n` (or `+-n`, as compilers print it).
    pub(super) fn offset(&mut self) -> Result<i64, PtxError> {
        let plus = self.accept('+');
        let minus = self.accept('-');
        if !plus && !minus {
            return Ok(0);
        }
        let value = self.integer()?.cast_signed();
        Ok(if minus { value.wrapping_neg() } else { value })
    }

    /// A literal if one is next, with its sign.
    pub(super) fn number(&mut self) -> Result<Option<Number>, PtxError> {
        let negative = self.accept('-');
        let number = match self.peek() {
            Some(Token::Integer(value)) => {
                Number::Integer(if negative { value.wrapping_neg() } else { value })
            }
            Some(Token::Single(bits)) => Number::Single(bits ^ (u32::from(negative) << 31)),
            Some(Token::Double(bits)) => Number::Double(bits ^ (u64::from(negative) << 63)),
            Some(Token::Word("WARP_SZ")) => Number::Integer(32),
            _ if negative => return Err(self.unexpected("a number")),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(number))
    }

    /// Skips a directive that ends with its line.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.tokens.get(self.at).is_some_and(|located| located.line == line) {
            self.at += 1;
        }
    }
}
