//! Tokens to text with the spaces rustfmt would put.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// Prints an expression, a type or a one-line statement.
///
/// Handles what this project emits: paths, calls, method chains, arithmetic, ranges, references,
/// raw pointers, casts, turbofish and simple generics. Not a formatter of arbitrary Rust.
pub fn tokens_to_string(tokens: &TokenStream) -> String {
    let mut out = Spacer::default();
    out.stream(tokens.clone());
    out.text
}

/// What the last printed token was, as far as spacing cares.
#[derive(Clone, Copy, PartialEq, Default)]
enum Last {
    /// Nothing yet, or an opening delimiter: no space follows.
    #[default]
    Open,
    /// An identifier or keyword that ends an operand.
    Operand,
    /// A keyword after which an operand starts (`as`, `in`, `mut`, `return`...).
    Keyword,
    /// A binary operator or `=`, `=>`, `->`, `,`, `;`, `:`: one space follows.
    Spaced,
    /// A unary operator, `.`, `::`, `..`, `#`, a generic `<`: nothing follows.
    Tight,
}

#[derive(Default)]
struct Spacer {
    text: String,
    last: Last,
    generics: usize,
}

const KEYWORDS: &[&str] = &[
    "as", "const", "else", "fn", "for", "if", "impl", "in", "let", "match", "mod", "move", "mut", "pub", "return",
    "static", "type", "unsafe", "use", "while", "struct", "enum", "where", "dyn",
];

impl Spacer {
    fn stream(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut i = 0;
        while i < tokens.len() {
            match &tokens[i] {
                TokenTree::Group(g) => self.group(g),
                TokenTree::Ident(ident) => self.word(&ident.to_string()),
                TokenTree::Literal(lit) => self.word(&lit.to_string()),
                TokenTree::Punct(p) if p.as_char() == '\'' => {
                    // A lifetime: the quote and the name are one word.
                    if let Some(TokenTree::Ident(name)) = tokens.get(i + 1) {
                        self.word(&format!("'{name}"));
                        i += 1;
                    }
                }
                TokenTree::Punct(_) => {
                    let mut op = String::new();
                    while let Some(TokenTree::Punct(p)) = tokens.get(i) {
                        op.push(p.as_char());
                        let more = p.spacing() == Spacing::Joint && joins(&op, tokens.get(i + 1));
                        if !more {
                            break;
                        }
                        i += 1;
                    }
                    self.punct(&op, tokens.get(i + 1));
                }
            }
            i += 1;
        }
    }

    fn word(&mut self, word: &str) {
        if matches!(self.last, Last::Operand | Last::Keyword | Last::Spaced) {
            self.text.push(' ');
        }
        self.text.push_str(word);
        self.last = if KEYWORDS.contains(&word) { Last::Keyword } else { Last::Operand };
    }

    fn group(&mut self, group: &proc_macro2::Group) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Bracket => ("[", "]"),
            // The list of a `use`.
            Delimiter::Brace if self.text.ends_with("::") => ("{", "}"),
            Delimiter::Brace => ("{ ", " }"),
            Delimiter::None => ("", ""),
        };
        let spaced = match self.last {
            Last::Operand => group.delimiter() == Delimiter::Brace || self.after_lifetime(),
            // `pub(crate)` and `fn(A)` are tight; every other keyword takes a space.
            Last::Keyword => {
                let tight = self.text.ends_with("pub") || self.text.ends_with("fn");
                !(tight && group.delimiter() == Delimiter::Parenthesis)
            }
            Last::Spaced => true,
            Last::Open | Last::Tight => false,
        };
        if spaced {
            self.text.push(' ');
        }
        if group.stream().is_empty() {
            self.text.push_str(open.trim());
            self.text.push_str(close.trim());
        } else {
            self.text.push_str(open);
            self.last = Last::Open;
            let outer = std::mem::take(&mut self.generics);
            self.stream(group.stream());
            self.generics = outer;
            self.text.push_str(close);
        }
        self.last = Last::Operand;
    }

    fn punct(&mut self, op: &str, next: Option<&TokenTree>) {
        let after_operand = self.last == Last::Operand;
        match op {
            "," | ";" => self.tight_then(op, Last::Spaced),
            ":" => self.tight_then(op, Last::Spaced),
            "." | "?" | "::" => {
                if self.last == Last::Spaced || self.last == Last::Keyword {
                    self.text.push(' ');
                }
                self.text.push_str(op);
                self.last = if op == "?" { Last::Operand } else { Last::Tight };
            }
            ".." | "..=" => self.tight_then(op, Last::Tight),
            "#" => self.tight_then(op, Last::Tight),
            "!" if after_operand && matches!(next, Some(TokenTree::Group(_))) => self.tight_then(op, Last::Tight),
            "<" if self.opens_generics() => {
                self.generics += 1;
                self.tight_then(op, Last::Tight);
            }
            ">" if self.generics > 0 => {
                self.generics -= 1;
                self.tight_then(op, Last::Operand);
            }
            "&" | "*" | "-" | "!" | "|" if !after_operand => {
                if matches!(self.last, Last::Spaced | Last::Keyword) {
                    self.text.push(' ');
                }
                self.text.push_str(op);
                self.last = Last::Tight;
            }
            _ => {
                self.text.push(' ');
                self.text.push_str(op);
                self.last = Last::Spaced;
            }
        }
    }

    fn tight_then(&mut self, op: &str, last: Last) {
        if (op == ".." || op == "#") && matches!(self.last, Last::Spaced | Last::Keyword) {
            self.text.push(' ');
        }
        self.text.push_str(op);
        self.last = last;
    }

    fn after_lifetime(&self) -> bool {
        self.text.rsplit([' ', '&', '<', '(']).next().is_some_and(|word| word.starts_with('\''))
    }

    /// A `<` after `::`, or after a name that starts with a capital letter, opens generics.
    fn opens_generics(&self) -> bool {
        if self.text.ends_with("::") || self.text.ends_with("impl") || self.text.ends_with("fn") {
            return true;
        }
        let word = self.text.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        word.starts_with(char::is_uppercase) && word.chars().any(char::is_lowercase)
    }
}

/// Whether the punctuation read so far and the next token are one operator.
fn joins(op: &str, next: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Punct(p)) = next else { return false };
    let joined = format!("{op}{}", p.as_char());
    const OPERATORS: &[&str] = &[
        "::", "..", "..=", "->", "=>", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=", "<<", ">>", "&&", "||", "|=",
        "&=", "^=", "%=",
    ];
    OPERATORS.contains(&joined.as_str())
}

#[cfg(test)]
mod tests {
    use super::tokens_to_string;
    use quote::quote;

    #[test]
    fn spaces_as_rustfmt_does() {
        let cases = [
            (quote!(let a_0 = _mm512_set1_ps(*a.add(i * 96 + 16));), "let a_0 = _mm512_set1_ps(*a.add(i * 96 + 16));"),
            (quote!(for i in 0..n / 3), "for i in 0..n / 3"),
            (
                quote!(
                    pub const STEPS: &[Step] = &[];
                ),
                "pub const STEPS: &[Step] = &[];",
            ),
            (quote!(a: *const f32), "a: *const f32"),
            (quote!(x.cast::<f32>().add(4)), "x.cast::<f32>().add(4)"),
            (quote!(cx: &Cx<'_>), "cx: &Cx<'_>"),
            (quote!(a < b && !c), "a < b && !c"),
            (
                quote!(
                    pub(crate) use self::level as v3;
                ),
                "pub(crate) use self::level as v3;",
            ),
            (quote!(#[target_feature(enable = "avx2,fma")]), "#[target_feature(enable = \"avx2,fma\")]"),
            (quote!(Kernels { a: v3::a, b }), "Kernels { a: v3::a, b }"),
            (quote!(_mm256_permute2f128_ps::<1>(x, x)), "_mm256_permute2f128_ps::<1>(x, x)"),
            (quote!(x = -1.5f32;), "x = -1.5f32;"),
            (quote!(const A: &'static [Level] =), "const A: &'static [Level] ="),
            (
                quote!(
                    use super::{slots, weights};
                ),
                "use super::{slots, weights};",
            ),
        ];
        for (tokens, expected) in cases {
            assert_eq!(tokens_to_string(&tokens), expected);
        }
    }
}
