//! Tokens to syntax tree: directives, functions and statements.

use super::error::PtxError;
use super::lexer::{Located, Token, tokens};
use super::syntax::{
    Function, InstructionSyntax, ModuleSyntax, Number, Operand, Statement, Variable, VariableSpace,
};

/// Parses a module's text.
pub(super) fn parse(text: &str) -> Result<ModuleSyntax<'_>, PtxError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let mut module = ModuleSyntax::default();
    while parser.peek().is_some() {
        parser.module_item(&mut module)?;
    }
    Ok(module)
}

/// A cursor over the tokens.
pub(super) struct Parser<'a> {
    tokens: Vec<Located<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
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

    fn unexpected(&self, wanted: &str) -> PtxError {
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

    fn module_item(&mut self, module: &mut ModuleSyntax<'a>) -> Result<(), PtxError> {
        let line = self.line();
        match self.peek() {
            Some(Token::Word(".version")) => {
                self.at += 1;
                self.next()?;
            }
            Some(Token::Word(".target")) => {
                self.at += 1;
                self.word()?;
                while self.accept(',') {
                    self.word()?;
                }
            }
            Some(Token::Word(".address_size")) => {
                self.at += 1;
                if self.integer()? != 64 {
                    return Err(PtxError::Unsupported { line, what: ".address_size 32".to_owned() });
                }
            }
            Some(Token::Word(".file")) => self.skip_line(),
            Some(Token::Word(".section")) => {
                while self.next()? != Token::Mark('{') {}
                while self.next()? != Token::Mark('}') {}
            }
            Some(Token::Word(".pragma")) => while self.next()? != Token::Mark(';') {},
            _ => {
                let mut external = false;
                loop {
                    match self.peek() {
                        Some(Token::Word(".extern")) => external = true,
                        Some(Token::Word(".visible" | ".weak" | ".common")) => {}
                        _ => break,
                    }
                    self.at += 1;
                }
                if self.accept_word(".entry") {
                    let function = self.function(line, true)?;
                    module.functions.push(function);
                } else if self.accept_word(".func") {
                    let function = self.function(line, false)?;
                    module.functions.push(function);
                } else {
                    self.variables(external, &mut |variable| module.variables.push(variable))?;
                }
            }
        }
        Ok(())
    }

    /// Skips a directive that ends with its line.
    fn skip_line(&mut self) {
        let line = self.line();
        while self.tokens.get(self.at).is_some_and(|located| located.line == line) {
            self.at += 1;
        }
    }

    fn function(&mut self, line: u32, entry: bool) -> Result<Function<'a>, PtxError> {
        let returns = if self.accept('(') { self.formal_parameters()? } else { Vec::new() };
        let name = self.word()?;
        let parameters = if self.accept('(') { self.formal_parameters()? } else { Vec::new() };
        let mut max_threads = None;
        let body = loop {
            match self.peek() {
                Some(Token::Mark(';')) => {
                    self.at += 1;
                    break None;
                }
                Some(Token::Mark('{')) => break Some(self.body()?),
                Some(Token::Word(".maxntid" | ".reqntid")) => {
                    self.at += 1;
                    max_threads = Some(self.product()?);
                }
                Some(Token::Word(".minnctapersm" | ".maxnctapersm" | ".maxnreg" | ".maxclusterrank")) => {
                    self.at += 1;
                    self.integer()?;
                }
                Some(Token::Word(".noreturn")) => self.at += 1,
                Some(Token::Word(".pragma")) => while self.next()? != Token::Mark(';') {},
                Some(Token::Word(what)) => {
                    return Err(PtxError::Unsupported { line: self.line(), what: what.to_owned() });
                }
                _ => return Err(self.unexpected("a function body")),
            }
        };
        Ok(Function { line, name, entry, returns, parameters, max_threads, body })
    }

    fn product(&mut self) -> Result<u32, PtxError> {
        let mut product = self.integer()?;
        while self.accept(',') {
            product = product.saturating_mul(self.integer()?);
        }
        Ok(u32::try_from(product).unwrap_or(u32::MAX))
    }

    /// Statements from `{` to the `}` that closes it; both are left out.
    fn body(&mut self) -> Result<Vec<Statement<'a>>, PtxError> {
        self.expect('{')?;
        let mut statements = Vec::new();
        let mut depth = 0;
        loop {
            let line = self.line();
            match self.peek() {
                Some(Token::Mark('{')) => {
                    self.at += 1;
                    depth += 1;
                    statements.push(Statement::Open);
                }
                Some(Token::Mark('}')) => {
                    self.at += 1;
                    if depth == 0 {
                        return Ok(statements);
                    }
                    depth -= 1;
                    statements.push(Statement::Close);
                }
                Some(Token::Mark(';')) => self.at += 1,
                Some(Token::Word(".loc")) => self.skip_line(),
                Some(Token::Word(".pragma")) => while self.next()? != Token::Mark(';') {},
                Some(Token::Word(directive)) if directive.starts_with('.') => {
                    self.variables(false, &mut |variable| statements.push(Statement::Variable(variable)))?;
                }
                Some(Token::Word(word)) => {
                    self.at += 1;
                    if self.accept(':') {
                        statements.push(self.label(word)?);
                    } else {
                        statements.push(Statement::Instruction(self.instruction(line, None, word)?));
                    }
                }
                Some(Token::Mark('@')) => {
                    self.at += 1;
                    let negated = self.accept('!');
                    let predicate = self.word()?;
                    let word = self.word()?;
                    let instruction = self.instruction(line, Some((predicate, negated)), word)?;
                    statements.push(Statement::Instruction(instruction));
                }
                _ => return Err(self.unexpected("a statement")),
            }
        }
    }

    fn label(&mut self, name: &'a str) -> Result<Statement<'a>, PtxError> {
        if !self.accept_word(".branchtargets") {
            if let Some(Token::Word(what @ (".callprototype" | ".calltargets"))) = self.peek() {
                return Err(PtxError::Unsupported { line: self.line(), what: what.to_owned() });
            }
            return Ok(Statement::Label(name));
        }
        let mut labels = vec![self.word()?];
        while self.accept(',') {
            labels.push(self.word()?);
        }
        self.expect(';')?;
        Ok(Statement::Targets(name, labels))
    }

    fn instruction(
        &mut self,
        line: u32,
        guard: Option<(&'a str, bool)>,
        text: &'a str,
    ) -> Result<InstructionSyntax<'a>, PtxError> {
        let mut operands = Vec::new();
        if !self.accept(';') {
            operands.push(self.operand()?);
            while self.accept(',') {
                operands.push(self.operand()?);
            }
            self.expect(';')?;
        }
        Ok(InstructionSyntax { line, guard, text, operands })
    }

    fn operand(&mut self) -> Result<Operand<'a>, PtxError> {
        if self.accept('{') {
            return Ok(Operand::Vector(self.operands_until('}')?));
        }
        if self.accept('(') {
            return Ok(Operand::List(self.operands_until(')')?));
        }
        if self.accept('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.accept('[') {
            let operand = if let Some(Number::Integer(address)) = self.number()? {
                Operand::Absolute(address)
            } else {
                let base = self.word()?;
                Operand::Address(base, self.offset()?)
            };
            if self.accept(',') {
                let at = if self.accept('{') { self.operands_until('}')? } else { Vec::new() };
                while self.next()? != Token::Mark(']') {}
                let name = if let Operand::Address(name, _) = operand { name } else { "" };
                return Ok(Operand::Coordinates(name, at));
            }
            self.expect(']')?;
            return Ok(operand);
        }
        if let Some(number) = self.number()? {
            return Ok(Operand::Number(number));
        }
        let name = self.word()?;
        if self.accept('|') {
            return Ok(Operand::Pair(name, self.word()?));
        }
        match self.peek() {
            Some(Token::Mark('+' | '-')) => Ok(Operand::Sum(name, self.offset()?)),
            _ => Ok(Operand::Name(name)),
        }
    }

    fn operands_until(&mut self, end: char) -> Result<Vec<Operand<'a>>, PtxError> {
        let mut operands = Vec::new();
        while !self.accept(end) {
            operands.push(self.operand()?);
            if !self.accept(',') {
                self.expect(end)?;
                break;
            }
        }
        Ok(operands)
    }

    fn formal_parameters(&mut self) -> Result<Vec<Variable<'a>>, PtxError> {
        let mut parameters = Vec::new();
        while !self.accept(')') {
            let parameter = self.declaration(false)?;
            if !matches!(parameter.space, VariableSpace::Parameter | VariableSpace::Register) {
                return Err(self.error("a parameter must be in .param or .reg space"));
            }
            parameters.push(parameter);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(parameters)
    }
}
