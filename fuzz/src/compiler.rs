//! Targets of the compiler.

use crate::bytes::Bytes;
use emit::{File, Item};
use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use std::collections::BTreeSet;
use std::str::FromStr;
use tvlmc::frontend::safetensors::{MAX_DIMS, MAX_NAME, parse_header};
use tvlmc::package::check_name;

/// The JSON part of a checkpoint's header: what is accepted tiles the data exactly.
///
/// Bytes: how many bytes of data follow the header, as a u64; the JSON.
pub fn st_header(data: &[u8]) {
    let mut data = Bytes(data);
    let data_bytes = data.long();
    let Ok(tensors) = parse_header("fuzzed.safetensors", data.0, data_bytes) else { return };
    let mut names = BTreeSet::new();
    let mut end = 8 + data.0.len() as u64;
    for (name, tensor) in &tensors {
        assert!(name.len() <= MAX_NAME && names.insert(name), "{name:?}");
        assert!(tensor.shape.len() <= MAX_DIMS);
        let values = tensor.shape.iter().map(|&n| n as u64).product::<u64>();
        assert_eq!((tensor.values(), tensor.bytes), (values, values * tensor.dtype.bytes()), "{name:?}");
        assert_eq!(tensor.offset, end, "{name:?}");
        end += tensor.bytes;
    }
    assert_eq!(end, 8 + data.0.len() as u64 + data_bytes);
}

/// Strings where the printer takes any: they never change the tokens around them. And names of crates.
///
/// Bytes: flags; a string. A line of documentation is one line, so line breaks and other control characters, and those that
/// reorder text, which the compiler of the emitted code refuses, are the caller's to leave out.
pub fn emit_strings(data: &[u8]) {
    let (flags, text) = data.split_first().map_or((0, data), |(flags, text)| (*flags, text));
    let text = String::from_utf8_lossy(text);
    if check_name(&text).is_ok() {
        let head = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        assert!(head && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        let tokens = TokenStream::from_str(&text.replace('-', "_")).expect("a name is a token");
        assert!(matches!(&tokens.into_iter().collect::<Vec<_>>()[..], [TokenTree::Ident(_)]), "{text:?}");
    }
    let reorders = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line: String = text.chars().filter(|&c| !c.is_control() && !reorders(c)).collect();
    let harmless = "a line ".repeat(1 + line.len() / 7);
    assert_eq!(shape(&print(flags, &line)), shape(&print(flags, harmless.trim_end())), "{line:?}");
}

fn print(flags: u8, text: &str) -> String {
    let docs = |bit: u8| if flags >> bit & 1 == 1 { vec![text.to_string()] } else { vec![] };
    let row = (docs(3), quote!(1, 2));
    emit::print(&File {
        docs: docs(0),
        items: vec![
            Item::Comment(text.to_string()),
            Item::Line { docs: docs(1), attrs: vec![], tokens: quote!(const A: &str = #text;) },
            Item::Table {
                docs: docs(2),
                attrs: vec![],
                head: quote!(static B: [u8; 2] =),
                rows: vec![row],
                delimiters: ("[", "];"),
            },
            Item::Scope { docs: docs(4), head: quote!(mod c), items: vec![Item::Comment(text.to_string())] },
        ],
    })
}

/// Kinds of all tokens; documentation and literals without what they say. Documentation that needs several lines counts
/// once.
fn shape(source: &str) -> Vec<String> {
    fn walk(tokens: TokenStream, into: &mut Vec<String>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => {
                    into.push(format!("{:?}", group.delimiter()));
                    walk(group.stream(), into);
                    into.push("end".into());
                }
                TokenTree::Ident(ident) => into.push(ident.to_string()),
                TokenTree::Punct(punct) => into.push(punct.as_char().into()),
                TokenTree::Literal(_) => into.push("literal".into()),
            }
        }
    }
    let mut all = Vec::new();
    walk(TokenStream::from_str(source).unwrap_or_else(|e| panic!("{e}: {source}")), &mut all);
    for doc in
        [&["#", "!", "Bracket", "doc", "=", "literal", "end"][..], &["#", "Bracket", "doc", "=", "literal", "end"]]
    {
        let doc: Vec<String> = doc.iter().map(|&token| token.into()).collect();
        while let Some(at) =
            (0..all.len()).find(|&at| all[at..].starts_with(&doc) && all[at + doc.len()..].starts_with(&doc))
        {
            all.drain(at..at + doc.len());
        }
    }
    all
}
