//! Tokens to syntax tree: directives, functions and statements.

use super::cursor::Parser;
use super::error::PtxError;
use super::lexer::{Token, tokens};
use super::syntax::{
    Function, InstructionSyntax, Linkage, ModuleSyntax, Number, Operand, Statement, Variable, VariableSpace,
};

/// Parses a module's text.
pub(super) fn parse(text: &str) -> Result<ModuleSyntax<'_>, PtxError> {
    let mut parser = Parser::of(tokens(text)?);
    let mut module = ModuleSyntax::default();
    while parser.peek().is_some() {
        parser.module_item(&mut module)?;
    }
    Ok(module)
}

impl<'a> Parser<'a> {
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
                let mut linkage = Linkage::Own;
                loop {
                    match self.peek() {
                        Some(Token::Word(".extern")) => linkage = Linkage::External,
                        Some(Token::Word(".weak" | ".common")) => linkage = Linkage::Weak,
                        Some(Token::Word(".visible")) => {}
                        _ => break,
                    }
                    self.at += 1;
                }
                if self.accept_word(".entry") {
                    let function = self.function(line, true, linkage)?;
                    module.functions.push(function);
                } else if self.accept_word(".func") {
                    let function = self.function(line, false, linkage)?;
                    module.functions.push(function);
                } else {
                    self.variables(linkage, &mut |variable| module.variables.push(variable))?;
                }
            }
        }
        Ok(())
    }

    fn function(&mut self, line: u32, entry: bool, linkage: Linkage) -> Result<Function<'a>, PtxError> {
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
        Ok(Function { line, name, entry, linkage, returns, parameters, max_threads, body })
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
                    self.variables(Linkage::Own, &mut |variable| {
                        statements.push(Statement::Variable(variable))
                    })?;
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
            let parameter = self.declaration(Linkage::Own)?;
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
