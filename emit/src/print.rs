//! The tree to text.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::quote;

use crate::tree::{Block, File, Function, Item, Stmt};
use crate::{MAX_WIDTH, tokens_to_string};

/// Prints a file. The text is a fixed point of rustfmt and ends with a newline.
pub fn print(file: &File) -> String {
    let mut p = Printer::default();
    for line in &file.docs {
        p.comment("//!", line);
    }
    if !file.docs.is_empty() {
        p.text.push('\n');
    }
    p.items(&file.items);
    p.text
}

#[derive(Default)]
struct Printer {
    text: String,
    depth: usize,
}

impl Printer {
    fn line(&mut self, line: &str) {
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n("    ", self.depth));
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    /// A comment paragraph, wrapped to the width.
    fn comment(&mut self, mark: &str, text: &str) {
        if text.is_empty() {
            return self.line(mark);
        }
        let room = MAX_WIDTH - 4 * self.depth - mark.len() - 1;
        // Indented text (code, lists) keeps its shape.
        if text.starts_with(' ') || text.len() <= room {
            return self.line(&format!("{mark} {text}"));
        }
        let mut row = String::new();
        for word in text.split(' ') {
            if !row.is_empty() && row.len() + 1 + word.len() > room {
                self.line(&format!("{mark} {row}"));
                row.clear();
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        self.line(&format!("{mark} {row}"));
    }

    fn docs(&mut self, docs: &[String]) {
        for line in docs {
            self.comment("///", line);
        }
    }

    fn items(&mut self, items: &[Item]) {
        for (i, item) in items.iter().enumerate() {
            if i > 0 && !(one_liner(&items[i - 1]) && one_liner(item)) && !matches!(items[i - 1], Item::Comment(_)) {
                self.text.push('\n');
            }
            self.item(item);
        }
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Comment(text) => self.comment("//", text),
            Item::Line { docs, attrs, tokens } => {
                self.head(docs, attrs);
                self.statement(tokens);
            }
            Item::Table { docs, attrs, head, rows, delimiters } => {
                self.head(docs, attrs);
                // rustfmt joins a list of one that fits the line.
                if let ([(docs, row)], "[" | "&[") = (rows.as_slice(), delimiters.0) {
                    let line =
                        format!("{} {}{}{}", tokens_to_string(head), delimiters.0, tokens_to_string(row), delimiters.1);
                    if docs.is_empty() && line.len() + 4 * self.depth <= MAX_WIDTH {
                        self.line(&line);
                        return;
                    }
                }
                self.line(&format!("{} {}", tokens_to_string(head), delimiters.0));
                self.depth += 1;
                for (docs, row) in rows {
                    self.docs(docs);
                    self.element(row);
                }
                self.depth -= 1;
                self.line(delimiters.1);
            }
            Item::Function(function) => self.function(function),
            Item::Scope { docs, head, items } => {
                self.docs(docs);
                self.line(&format!("{} {{", tokens_to_string(head)));
                self.depth += 1;
                self.items(items);
                self.depth -= 1;
                self.line("}");
            }
        }
    }

    fn head(&mut self, docs: &[String], attrs: &[TokenStream]) {
        self.docs(docs);
        for attr in attrs {
            self.line(&format!("#[{}]", tokens_to_string(attr)));
        }
    }

    fn function(&mut self, f: &Function) {
        self.head(&f.docs, &f.attrs);
        let head = tokens_to_string(&f.head);
        let returns = f.returns.as_ref().map(|r| format!(" -> {}", tokens_to_string(r))).unwrap_or_default();
        let params: Vec<String> = f.params.iter().map(tokens_to_string).collect();
        let whole = format!("{head}({}){returns} {{", params.join(", "));
        if whole.len() + 4 * self.depth <= MAX_WIDTH {
            self.line(&whole);
        } else {
            self.line(&format!("{head}("));
            self.depth += 1;
            for param in &params {
                self.line(&format!("{param},"));
            }
            self.depth -= 1;
            self.line(&format!("){returns} {{"));
        }
        self.block(&f.body);
        self.line("}");
    }

    fn block(&mut self, block: &Block) {
        self.depth += 1;
        for stmt in block {
            self.stmt(stmt);
        }
        self.depth -= 1;
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Comment(text) => self.comment("//", text),
            Stmt::Blank => self.line(""),
            Stmt::Line(tokens) => self.statement(tokens),
            Stmt::Scope { head, body } => {
                self.line(&format!("{} {{", tokens_to_string(head)));
                self.block(body);
                self.line("}");
            }
            Stmt::Branch { head, body, otherwise } => {
                self.line(&format!("if {} {{", tokens_to_string(head)));
                self.block(body);
                if !otherwise.is_empty() {
                    self.line("} else {");
                    self.block(otherwise);
                }
                self.line("}");
            }
        }
    }

    /// A row of a table: like a statement, with a comma at its end.
    fn element(&mut self, tokens: &TokenStream) {
        self.statement(&quote!(#tokens,));
    }

    /// One statement; too long, what follows `=` (or a field's `:`) goes to the next line if it
    /// fits there, else the last group at its top level opens and holds one part a line.
    fn statement(&mut self, tokens: &TokenStream) {
        let whole = tokens_to_string(tokens);
        if whole.len() + 4 * self.depth <= MAX_WIDTH {
            return self.line(&whole);
        }
        let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let is = |t: &TokenTree, c: char| matches!(t, TokenTree::Punct(p) if p.as_char() == c && p.spacing() == Spacing::Alone);
        let field = match &trees[0] {
            TokenTree::Ident(word) => word == "pub" || trees.get(1).is_some_and(|t| is(t, ':')),
            _ => false,
        };
        let sign = trees.iter().position(|t| is(t, '=')).or(trees.iter().position(|t| field && is(t, ':')));
        if let Some(at) = sign {
            let before: TokenStream = trees[..=at].iter().cloned().collect();
            let after = tokens_to_string(&trees[at + 1..].iter().cloned().collect());
            if after.len() + 4 * (self.depth + 1) <= MAX_WIDTH {
                self.line(&tokens_to_string(&before));
                self.depth += 1;
                self.line(&after);
                self.depth -= 1;
                return;
            }
        }
        let last = trees.iter().rposition(|t| matches!(t, TokenTree::Group(g) if !g.stream().is_empty()));
        let Some(at) = last else { return self.line(&whole) };
        let TokenTree::Group(group) = &trees[at] else { return };
        let (open, close) = match group.delimiter() {
            Delimiter::Brace => (" {", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::Parenthesis | Delimiter::None => ("(", ")"),
        };
        let before: TokenStream = trees[..at].iter().cloned().collect();
        let after: TokenStream = trees[at + 1..].iter().cloned().collect();
        self.line(&format!("{}{open}", tokens_to_string(&before)));
        self.depth += 1;
        for part in split_at_commas(group.stream()) {
            self.element(&part);
        }
        self.depth -= 1;
        self.line(&format!("{close}{}", tokens_to_string(&after)));
    }
}

fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut parts = vec![Vec::new()];
    // Inside of `::<...>`, whose commas part nothing.
    let (mut colons, mut generics) = (0, false);
    for tree in tokens {
        let sign = if let TokenTree::Punct(p) = &tree { p.as_char() } else { ' ' };
        match sign {
            ',' if !generics => {
                parts.push(Vec::new());
                continue;
            }
            '<' if colons == 2 => generics = true,
            '>' => generics = false,
            _ => {}
        }
        colons = if sign == ':' { colons + 1 } else { 0 };
        parts.last_mut().expect("never empty").push(tree);
    }
    parts.into_iter().filter(|p| !p.is_empty()).map(|p| p.into_iter().collect()).collect()
}

fn one_liner(item: &Item) -> bool {
    matches!(item, Item::Line { docs, attrs, .. } if docs.is_empty() && attrs.is_empty())
}
