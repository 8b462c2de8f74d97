//! Texts that are linked: what one declares is what another defines.

use super::error::PtxError;
use super::syntax::{Function, Linkage, ModuleSyntax, Variable};

/// Of two with one name the stronger one counts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Declared,
    Weak,
    Defined,
}

trait Symbol {
    fn name(&self) -> &str;
    fn line(&self) -> u32;
    fn strength(&self) -> Strength;
}

impl Symbol for Function<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn line(&self) -> u32 {
        self.line
    }

    fn strength(&self) -> Strength {
        match (&self.body, self.linkage) {
            (None, _) => Strength::Declared,
            (_, Linkage::Weak) => Strength::Weak,
            _ => Strength::Defined,
        }
    }
}

impl Symbol for Variable<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn line(&self) -> u32 {
        self.line
    }

    fn strength(&self) -> Strength {
        match self.linkage {
            Linkage::External => Strength::Declared,
            Linkage::Weak => Strength::Weak,
            Linkage::Own => Strength::Defined,
        }
    }
}

impl<'a> ModuleSyntax<'a> {
    /// Takes in what another text has. A name that two of them define, if only for themselves, is refused.
    pub(super) fn join(&mut self, other: Self) -> Result<(), PtxError> {
        join_all(&mut self.variables, other.variables)?;
        join_all(&mut self.functions, other.functions)
    }
}

fn join_all<T: Symbol>(known: &mut Vec<T>, new: Vec<T>) -> Result<(), PtxError> {
    let others = known.len();
    for symbol in new {
        match known[..others].iter_mut().find(|known| known.name() == symbol.name()) {
            None => known.push(symbol),
            Some(known)
                if known.strength() == Strength::Defined && symbol.strength() == Strength::Defined =>
            {
                return Err(PtxError::Duplicate { line: symbol.line(), name: symbol.name().to_owned() });
            }
            Some(known) if symbol.strength() > known.strength() => *known = symbol,
            Some(_) => {}
        }
    }
    Ok(())
}
