//! The nodes of a source file.

use proc_macro2::TokenStream;

/// A source file: inner documentation, then items.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// `//!` lines, without the slashes.
    pub docs: Vec<String>,
    /// Items, in order; the printer puts one blank line between items unless both are one-liners.
    pub items: Vec<Item>,
}

/// One item of a file.
#[derive(Clone, Debug)]
pub enum Item {
    /// `// text`.
    Comment(String),
    /// A one-line item such as `use a::b;`, with its `///` lines.
    Line {
        /// `///` lines, without the slashes.
        docs: Vec<String>,
        /// Attributes, without `#[]`.
        attrs: Vec<TokenStream>,
        /// The item, with its semicolon.
        tokens: TokenStream,
    },
    /// A delimited list: `head { row, row, }` or `head [ row, row, ];`, a row per line.
    Table {
        /// `///` lines, without the slashes.
        docs: Vec<String>,
        /// Attributes, without `#[]`.
        attrs: Vec<TokenStream>,
        /// What stands before the opening delimiter.
        head: TokenStream,
        /// The rows, each with its own documentation lines and tokens (the comma is added).
        rows: Vec<(Vec<String>, TokenStream)>,
        /// Opening and closing text, for example `("{", "}")` or `("&[", "];")`.
        delimiters: (&'static str, &'static str),
    },
    /// A function.
    Function(Function),
    /// `head { items }`, for example an `impl` block.
    Scope {
        /// `///` lines, without the slashes.
        docs: Vec<String>,
        /// What stands before the brace.
        head: TokenStream,
        /// The items inside.
        items: Vec<Item>,
    },
}

/// A function with its documentation, attributes, signature and body.
#[derive(Clone, Debug)]
pub struct Function {
    /// `///` lines, without the slashes.
    pub docs: Vec<String>,
    /// Attributes, without `#[]`.
    pub attrs: Vec<TokenStream>,
    /// `pub unsafe fn name`.
    pub head: TokenStream,
    /// Parameters, `name: Type` each.
    pub params: Vec<TokenStream>,
    /// The return type, if any.
    pub returns: Option<TokenStream>,
    /// The statements.
    pub body: Block,
}

/// Statements in order.
pub type Block = Vec<Stmt>;

/// One statement or a line between statements.
#[derive(Clone, Debug)]
pub enum Stmt {
    /// `// text`, wrapped to the line width.
    Comment(String),
    /// An empty line.
    Blank,
    /// A statement or tail expression on one line, with its semicolon if it has one. When it does
    /// not fit, the arguments of its last parenthesis go one per line.
    Line(TokenStream),
    /// `head { body }`, for example `for i in 0..n`.
    Scope {
        /// What stands before the brace.
        head: TokenStream,
        /// The statements inside.
        body: Block,
    },
    /// `if head { body } else { otherwise }`.
    Branch {
        /// The condition, without `if`.
        head: TokenStream,
        /// The statements if it holds.
        body: Block,
        /// The statements if it does not; nothing is printed when empty.
        otherwise: Block,
    },
}
