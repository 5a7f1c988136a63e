//! Words of an instruction: quotes, escapes and variables.
//!
//! [`Expander`] is what an instruction's words are expanded with: it knows the file's escape, asks for the values of
//! variables and remembers which it was asked for. [`Lexer`] is the machine below it, which other parts of the grammar use
//! in modes of their own (a heredoc's delimiter, its text).
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/shell/lex.go`.

mod lexer;
mod pattern;
mod split;

use std::collections::BTreeSet;

pub use lexer::{LONGEST, LexError, Lexed, Lexer};
pub use split::split;

/// What one expander may spend: several times what a kernel takes as arguments.
const MOST_COST: usize = 1 << 26;

/// Expands words with the variables of one place in a Dockerfile, and keeps account of those that were named.
pub struct Expander<'a> {
    lexer: Lexer,
    value: &'a dyn Fn(&str) -> Option<String>,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
    cost: usize,
}

impl<'a> Expander<'a> {
    /// `value` answers a variable's value, or `None` where it is not set.
    pub fn new(escape: char, value: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lexer: Lexer::new(escape), value, used: BTreeSet::new(), unset: BTreeSet::new(), cost: 0 }
    }

    /// One word in, one word out: white space in a value stays.
    ///
    /// # Errors
    /// A sentence in BuildKit's words: a quote or brace without its partner, a modifier that is not known, `${x:?y}` with
    /// nothing in `x`, a word that grows beyond [`LONGEST`], words that come to very much together.
    pub fn word(&mut self, word: &str) -> Result<String, String> {
        self.run(self.lexer, word).map(|lexed| lexed.text)
    }

    /// One word in, any number out: it is divided at white space outside quotes once the values are put in.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub fn words(&mut self, word: &str) -> Result<Vec<String>, String> {
        self.run(self.lexer, word).map(|lexed| lexed.words)
    }

    /// The text of a heredoc whose delimiter is not quoted. Quotes mean nothing in it, and its escape is the backslash.
    ///
    /// # Errors
    /// As [`Self::word`].
    pub fn heredoc(&mut self, text: &str) -> Result<String, String> {
        self.run(Lexer { quotes: false, ..Lexer::new('\\') }, text).map(|lexed| lexed.text)
    }

    fn run(&mut self, lexer: Lexer, word: &str) -> Result<Lexed, String> {
        if self.cost > MOST_COST {
            return Err(format!("its words come to more than {MOST_COST} bytes together: divide the instruction"));
        }
        let (named, cost, failed) = match lexer.lex(word, self.value) {
            Ok(mut lexed) => (std::mem::take(&mut lexed.named), lexed.cost, Ok(lexed)),
            Err(error) => (error.named, error.cost, Err(error.message)),
        };
        self.cost += cost;
        for (name, set) in named {
            if set { &mut self.used } else { &mut self.unset }.insert(name);
        }
        failed
    }

    /// What it has spent.
    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Variables that were named and are set.
    pub fn used(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// Variables that were named and are not set.
    pub fn unset(&self) -> &BTreeSet<String> {
        &self.unset
    }
}
