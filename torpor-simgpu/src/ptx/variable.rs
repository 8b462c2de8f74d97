//! Declarations: `.global .align 4 .f32 x[4] = {...};`, `.reg .b32 %r<10>;`, `.param .u64 p`.

use super::cursor::Parser;
use super::error::PtxError;
use super::lexer::Token;
use super::syntax::{Initial, Kind, Linkage, Number, Type, Variable, VariableSpace};

/// More bytes than any variable may have: a bound on what text can make us allocate.
const MAX_VARIABLE_BYTES: usize = 1 << 31;

impl<'a> Parser<'a> {
    /// One declaration statement, which may declare several names.
    pub(super) fn variables(
        &mut self,
        linkage: Linkage,
        add: &mut dyn FnMut(Variable<'a>),
    ) -> Result<(), PtxError> {
        let first = self.declaration(linkage)?;
        let template = first.clone();
        add(first);
        while self.accept(',') {
            let mut variable = template.clone();
            self.declarator(&mut variable)?;
            add(variable);
        }
        self.expect(';')
    }

    /// A declaration up to its initialiser.
    pub(super) fn declaration(&mut self, linkage: Linkage) -> Result<Variable<'a>, PtxError> {
        let line = self.line();
        let space = match self.word()? {
            ".reg" => VariableSpace::Register,
            ".global" => VariableSpace::Global,
            ".const" => VariableSpace::Constant,
            ".shared" | ".shared::cta" => VariableSpace::Shared,
            ".local" => VariableSpace::Local,
            ".param" => VariableSpace::Parameter,
            what => return Err(PtxError::Unsupported { line, what: what.to_owned() }),
        };
        let (mut align, mut vector, mut managed) = (None, 1, false);
        let kind = loop {
            match self.word()? {
                ".align" => align = Some(self.integer()?),
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".attribute" if space == VariableSpace::Global => managed |= self.is_managed(line)?,
                name => match name.strip_prefix('.').and_then(Type::named) {
                    Some(kind) => break kind,
                    None => return Err(PtxError::Unsupported { line, what: name.to_owned() }),
                },
            }
        };
        // `.ptr .global .align 16` describes what a pointer parameter points to, not the parameter.
        if self.accept_word(".ptr") {
            while let Some(Token::Word(word)) = self.peek() {
                match word {
                    ".align" => {
                        self.word()?;
                        self.integer()?;
                    }
                    ".global" | ".const" | ".shared" | ".local" => {
                        self.word()?;
                    }
                    _ => break,
                }
            }
        }
        let natural = kind.bytes() * vector;
        let align = match align {
            None => natural.next_power_of_two(),
            Some(align) => usize::try_from(align)
                .ok()
                .filter(|align| align.is_power_of_two() && *align <= 1 << 20)
                .ok_or_else(|| self.error("an alignment must be a power of two"))?,
        };
        let mut variable = Variable {
            line,
            space,
            name: "",
            kind,
            align,
            element_bytes: natural,
            bytes: natural,
            names: None,
            initial: Vec::new(),
            linkage,
            managed,
        };
        self.declarator(&mut variable)?;
        Ok(variable)
    }

    /// Whether a list of attributes, of which others are not known, says that the variable is managed.
    fn is_managed(&mut self, line: u32) -> Result<bool, PtxError> {
        self.expect('(')?;
        match self.word()? {
            ".managed" => self.expect(')').map(|()| true),
            what => Err(PtxError::Unsupported { line, what: format!(".attribute({what})") }),
        }
    }

    /// Name, dimensions and initialiser.
    fn declarator(&mut self, variable: &mut Variable<'a>) -> Result<(), PtxError> {
        variable.line = self.line();
        variable.name = self.word()?;
        variable.names = None;
        variable.initial.clear();
        if self.accept('<') {
            let count = self.integer()?;
            variable.names = Some(
                u32::try_from(count)
                    .ok()
                    .filter(|count| *count <= 1 << 20)
                    .ok_or_else(|| self.error("too many registers"))?,
            );
            return self.expect('>');
        }
        let mut unsized_array = false;
        let mut bytes = variable.element_bytes;
        while self.accept('[') {
            if self.accept(']') {
                unsized_array = true;
                continue;
            }
            let count = usize::try_from(self.integer()?).unwrap_or(usize::MAX);
            bytes = bytes
                .checked_mul(count)
                .filter(|bytes| *bytes <= MAX_VARIABLE_BYTES)
                .ok_or_else(|| self.error("the variable is too large"))?;
            self.expect(']')?;
        }
        if self.accept('=') {
            self.initialiser(&mut variable.initial)?;
        }
        if unsized_array {
            bytes = variable.initial.len() * variable.kind.bytes();
        }
        variable.bytes = bytes;
        Ok(())
    }

    fn initialiser(&mut self, values: &mut Vec<Initial<'a>>) -> Result<(), PtxError> {
        if self.accept('{') {
            while !self.accept('}') {
                self.initialiser(values)?;
                if !self.accept(',') {
                    return self.expect('}');
                }
            }
            return Ok(());
        }
        if let Some(number) = self.number()? {
            values.push(Initial::Number(number));
            return Ok(());
        }
        let line = self.line();
        let mut name = self.word()?;
        if self.accept('(') {
            if name != "generic" {
                return Err(PtxError::Unsupported { line, what: format!("{name}() in an initialiser") });
            }
            name = self.word()?;
            self.expect(')')?;
        }
        let offset = self.offset()?;
        values.push(Initial::Address(name, offset));
        Ok(())
    }
}

/// Offset in a variable, symbol, and what to add to the symbol's address.
pub(super) type Relocation = (usize, String, i64);

impl Variable<'_> {
    /// The initial bytes, padded with zeroes, and the symbols whose addresses belong in them.
    pub(super) fn initial_bytes(&self) -> Result<(Vec<u8>, Vec<Relocation>), PtxError> {
        let error = |message: &str| PtxError::Syntax { line: self.line, message: message.to_owned() };
        let mut bytes = vec![0; self.bytes];
        let mut relocations = Vec::new();
        let size = self.kind.bytes();
        for (index, initial) in self.initial.iter().enumerate() {
            let offset = index * size;
            let slot = bytes
                .get_mut(offset..offset + size)
                .ok_or_else(|| error("more initial values than elements"))?;
            match *initial {
                Initial::Number(number) => {
                    let bits =
                        number.bits(self.kind).ok_or_else(|| error("initial value of another type"))?;
                    slot.copy_from_slice(&bits.to_le_bytes()[..size]);
                }
                Initial::Address(..) if size != 8 => return Err(error("an address needs eight bytes")),
                Initial::Address(name, addend) => relocations.push((offset, name.to_owned(), addend)),
            }
        }
        Ok((bytes, relocations))
    }
}

impl Number {
    /// The literal's bits as a value of a type; nothing if it cannot be one.
    pub(super) fn bits(self, kind: Type) -> Option<u64> {
        Some(match (kind.kind, kind.bits, self) {
            (Kind::Predicate, _, Self::Integer(value)) => u64::from(value != 0),
            (Kind::Float, 32, Self::Double(bits)) => u64::from((f64::from_bits(bits) as f32).to_bits()),
            (Kind::Float, 64, Self::Single(bits)) => f64::from(f32::from_bits(bits)).to_bits(),
            (Kind::Float, 32 | 64, Self::Integer(_)) => return None,
            (Kind::Float | Kind::Bits, 64, Self::Double(bits)) => bits,
            (Kind::Float | Kind::Bits, 32, Self::Single(bits)) => u64::from(bits),
            (_, 64, Self::Integer(value)) => value,
            (_, bits @ (8 | 16 | 32), Self::Integer(value)) => value & ((1 << bits) - 1),
            _ => return None,
        })
    }
}
