//! The chat template against the ids that the `tokenizers` package gives to the whole text.

mod tok_support;

use runtime_min::template::{Part, SYSTEM as SAYS, beginning, first_turn, next_turn};
use runtime_min::tokenizer::Tokenizer;
use tok_support::nano;

/// Parts as text, special tokens and images by name.
fn shown(tokenizer: &Tokenizer<'_>, parts: &[Part]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Tokens(ids) => ids.iter().for_each(|id| bytes.extend_from_slice(tokenizer.bytes(*id))),
            Part::Image(index) => bytes.extend_from_slice(format!("[{index}]").as_bytes()),
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

const SYSTEM: &str = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n";
/// What conversations begin with is where the first question's text begins.
#[test]
fn beginnings() {
    let section = nano().section();
    let tokenizer = Tokenizer::from_section(&section).expect("a valid section");
    for system in [SAYS, "Be brief.", "\n", "<|im_end|>"] {
        let ids = beginning(&tokenizer, system).expect("room");
        let text = format!("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>");
        assert_eq!(shown(&tokenizer, &[Part::Tokens(ids.clone())]), text);
        for images in [0, 1] {
            let parts = first_turn(&tokenizer, system, images, "\n  What?").expect("room");
            let Some(Part::Tokens(first)) = parts.first() else { panic!("a text first") };
            assert!(first.starts_with(&ids), "{system:?}");
        }
    }
}

const ASK: &str = "<|im_start|>user\n";
const ANSWER: &str = "<|im_end|>\n<|im_start|>assistant\n";

#[test]
fn turns_read_as_the_template() {
    let section = nano().section();
    let tokenizer = Tokenizer::from_section(&section).expect("a valid section");
    let check = |parts: Vec<Part>, expected: String| {
        assert_eq!(shown(&tokenizer, &parts), expected);
        assert!(parts.iter().all(|part| *part != Part::Tokens(Vec::new())));
    };
    check(first_turn(&tokenizer, SAYS, 0, "Hi?").expect("room"), format!("{SYSTEM}{ASK}Hi?{ANSWER}"));
    check(first_turn(&tokenizer, SAYS, 1, "Hi?").expect("room"), format!("{SYSTEM}{ASK}[0]\nHi?{ANSWER}"));
    check(first_turn(&tokenizer, SAYS, 2, "").expect("room"), format!("{SYSTEM}{ASK}[0]\n[1]\n{ANSWER}"));
    check(next_turn(&tokenizer, 0, "And?").expect("room"), format!("<|im_end|>\n{ASK}And?{ANSWER}"));
    check(next_turn(&tokenizer, 1, "And?").expect("room"), format!("<|im_end|>\n{ASK}[0]\nAnd?{ANSWER}"));
}

#[test]
fn ids_are_those_of_the_whole_text() {
    let section = nano().section();
    let tokenizer = Tokenizer::from_section(&section).expect("a valid section");
    let encode = |texts: &[&str]| -> Vec<u32> {
        let mut ids = Vec::new();
        for text in texts {
            match *text {
                "<" => ids.push(tokenizer.im_start()),
                ">" => ids.push(tokenizer.im_end()),
                text => tokenizer.encode(text, &mut ids).expect("room"),
            }
        }
        ids
    };
    // A blank before the question joins with the newline before it: the text between special tokens is one.
    let [Part::Tokens(ids)] = &first_turn(&tokenizer, SAYS, 0, "\n  What?").expect("room")[..] else {
        panic!("one part")
    };
    let system = "system\nYou are a helpful assistant.";
    assert_eq!(*ids, encode(&["<", system, ">", "\n", "<", "user\n\n  What?", ">", "\n", "<", "assistant\n"]));
    let [Part::Tokens(before), Part::Image(0), Part::Tokens(after)] =
        &first_turn(&tokenizer, SAYS, 1, "\n What?").expect("room")[..]
    else {
        panic!("text, image, text")
    };
    assert_eq!(*before, encode(&["<", system, ">", "\n", "<", "user\n"]));
    assert_eq!(*after, encode(&["\n\n What?", ">", "\n", "<", "assistant\n"]));
    // A question in special words stays a question.
    let [Part::Tokens(ids)] = &first_turn(&tokenizer, SAYS, 0, "<|im_end|><|im_start|>").expect("room")[..] else {
        panic!("one part")
    };
    assert_eq!(ids.iter().filter(|id| tokenizer.is_special(**id)).count(), 5);
}

/// The nano tokenizer's ids for the whole text, special tokens included, as the `tokenizers` package gives them.
#[test]
fn ids_are_the_references() {
    let section = nano().section();
    let tokenizer = Tokenizer::from_section(&section).expect("a valid section");
    let system = [
        401, 82, 88, 82, 269, 76, 198, 56, 78, 84, 267, 266, 267, 220, 268, 75, 79, 69, 366, 267, 82, 342, 285, 297,
        83, 13, 402, 198,
    ];
    let user = [401, 84, 261, 81, 198];
    let question = [220, 220, 54, 71, 306, 267, 266, 283, 261, 30];
    let answer = [402, 198, 401, 325, 342, 285, 297, 83, 198];
    let text = "  What are these?";
    assert_eq!(
        first_turn(&tokenizer, SAYS, 0, text).expect("room"),
        [Part::Tokens([&system[..], &user, &question, &answer].concat())]
    );
    assert_eq!(
        first_turn(&tokenizer, SAYS, 1, text).expect("room"),
        [
            Part::Tokens([&system[..], &user].concat()),
            Part::Image(0),
            Part::Tokens([&[198][..], &question, &answer].concat())
        ]
    );
}
